//! What of a graph depends on weights alone, and what a call does to have it.

use crate::graph::{Graph, NodeId, Op};
use trt_kernel::Dim;

/// What it takes to have a value that follows from weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Work {
    /// It is read where the weight is: a weight, a cast of one, rows of a table, or a view of these.
    Read,
    /// Each element is computed of a few, wherever it is used.
    Elements,
    /// Passes over memory: joins, sums, products.
    Passes,
}

/// For each node of a graph.
pub(super) struct Costs {
    /// Whether it is the same in all calls.
    fixed: Vec<bool>,
    /// Whether it is that, and depends on a weight.
    of_weights: Vec<bool>,
    work: Vec<Work>,
}

impl Costs {
    pub fn new(graph: &Graph) -> Costs {
        let count = graph.nodes.len();
        let mut costs = Costs {
            fixed: Vec::with_capacity(count),
            of_weights: Vec::with_capacity(count),
            work: Vec::with_capacity(count),
        };
        for id in graph.ids() {
            let node = graph.node(id);
            let known = |d: &Dim| d.constant_size().is_some();
            let op = match &node.op {
                Op::Input(_) | Op::State(_) => false,
                Op::Int(d) | Op::Arange { start: d, .. } | Op::Narrow { start: d, .. } => {
                    d.constant().is_some()
                }
                Op::Causal { offset, .. } => offset.constant().is_some(),
                Op::Within(size) => known(size),
                Op::Attention(a) => {
                    let offset = a.causal.as_ref().map(|(offset, _)| offset);
                    offset.is_none_or(|d| d.constant().is_some())
                }
                _ => true,
            };
            let inputs = || node.inputs.iter().map(|i| i.index());
            let fixed = op && node.shape.iter().all(known) && inputs().all(|i| costs.fixed[i]);
            let weights =
                matches!(node.op, Op::Weight(..)) || inputs().any(|i| costs.of_weights[i]);
            let before = inputs().map(|i| costs.work[i]).max().unwrap_or(Work::Read);
            costs.work.push(before.max(costs.own(graph, id)));
            costs.fixed.push(fixed);
            costs.of_weights.push(fixed && weights);
        }
        costs
    }

    /// What a node itself takes.
    fn own(&self, graph: &Graph, id: NodeId) -> Work {
        let node = graph.node(id);
        let made = |i: &NodeId| self.of_weights[i.index()];
        let leaf = matches!(
            node.op,
            Op::Input(_) | Op::Weight(..) | Op::State(_) | Op::Const(_)
        );
        match &node.op {
            op if leaf || op.is_view() || op.is_generated() => Work::Read,
            Op::Cast if self.work[node.inputs[0].index()] == Work::Read => Work::Read,
            Op::IndexSelect if made(&node.inputs[0]) && !made(&node.inputs[1]) => {
                match graph.node(node.inputs[0]).op {
                    Op::Weight(..) | Op::Cast => Work::Read,
                    _ => Work::Passes,
                }
            }
            op if op.is_inlined() => Work::Elements,
            _ => Work::Passes,
        }
    }

    pub fn fixed(&self, id: NodeId) -> bool {
        self.fixed[id.index()]
    }

    pub fn of_weights(&self, id: NodeId) -> bool {
        self.of_weights[id.index()]
    }

    pub fn work(&self, id: NodeId) -> Work {
        self.work[id.index()]
    }
}
