//! What depends on constants only is computed now, by the reference evaluator.
//!
//! Fills, ranges and masks stay symbolic, since kernels generate them for free; a result is
//! stored only where something that is not constant uses it, and only up to a size.

use super::rewrite::rebuild;
use crate::graph::{Graph, Literal, Node, Op};
use crate::reference::{self, Array, Leaves};
use trt_kernel::{Dim, Env};

/// Elements of the largest constant that folding makes.
const LARGEST: usize = 64 << 20;

pub(super) fn run(graph: Graph) -> Graph {
    let constant = constant_nodes(&graph);
    let mut wanted = vec![false; graph.nodes.len()];
    for id in graph.ids() {
        if !constant[id.index()] {
            graph
                .node(id)
                .inputs
                .iter()
                .for_each(|i| wanted[i.index()] = true);
        }
    }
    graph.roots().for_each(|r| wanted[r.index()] = true);
    let computed = evaluate(&graph, &constant, &wanted);
    rebuild(&graph, |out, id, node| match &computed[id.index()] {
        Some(array) => {
            let bytes = reference::encode(&array.data, node.dtype);
            out.push(Node {
                op: Op::Const(Literal::new(bytes)),
                inputs: vec![],
                ..node
            })
        }
        None => out.push(node),
    })
}

/// Nodes of constant shape below which there are only constants.
fn constant_nodes(graph: &Graph) -> Vec<bool> {
    let mut constant: Vec<bool> = Vec::with_capacity(graph.nodes.len());
    for id in graph.ids() {
        let node = graph.node(id);
        let fixed = |d: &Dim| d.constant().is_some();
        let op = match &node.op {
            Op::Input(_) | Op::Weight(..) | Op::State(_) => false,
            Op::Int(d) | Op::Arange { start: d, .. } | Op::Narrow { start: d, .. } => fixed(d),
            Op::Causal { offset, .. } => fixed(offset),
            _ => true,
        };
        let small = Dim::product(&node.shape)
            .constant_size()
            .is_some_and(|n| n <= LARGEST);
        constant.push(op && small && node.inputs.iter().all(|i| constant[i.index()]));
    }
    constant
}

/// Whether a constant node is worth storing: a layout op is as good as what it rearranges, and a
/// number that repeats costs nothing to convert in place.
fn stores(graph: &Graph, node: &Node) -> bool {
    match &node.op {
        Op::Const(_) | Op::Float(_) | Op::Int(_) | Op::Arange { .. } | Op::Causal { .. } => false,
        Op::Reshape | Op::Broadcast | Op::Permute(_) | Op::Narrow { .. } | Op::Unfold { .. } => {
            stores(graph, graph.node(node.inputs[0]))
        }
        Op::Cast => !generated(graph, node),
        _ => true,
    }
}

/// Whether a node is a generated value, perhaps rearranged or converted.
fn generated(graph: &Graph, node: &Node) -> bool {
    match &node.op {
        Op::Reshape
        | Op::Broadcast
        | Op::Permute(_)
        | Op::Narrow { .. }
        | Op::Unfold { .. }
        | Op::Cast => generated(graph, graph.node(node.inputs[0])),
        op => matches!(
            op,
            Op::Float(_) | Op::Int(_) | Op::Arange { .. } | Op::Causal { .. }
        ),
    }
}

fn evaluate(graph: &Graph, constant: &[bool], wanted: &[bool]) -> Vec<Option<Array>> {
    let targets: Vec<bool> = graph
        .ids()
        .map(|id| constant[id.index()] && wanted[id.index()] && stores(graph, graph.node(id)))
        .collect();
    let mut needed = targets.clone();
    for id in graph.ids().collect::<Vec<_>>().into_iter().rev() {
        if needed[id.index()] {
            graph
                .node(id)
                .inputs
                .iter()
                .for_each(|i| needed[i.index()] = true);
        }
    }
    let leaves = Leaves {
        env: Env::default(),
        inputs: &[],
        states: &[],
        weight: &|_| None,
    };
    let mut last_use: Vec<usize> = (0..graph.nodes.len()).collect();
    for id in graph.ids().filter(|id| needed[id.index()]) {
        let inputs = graph.node(id).inputs.iter();
        inputs.for_each(|i| last_use[i.index()] = id.index());
    }
    let mut values: Vec<Array> = vec![Array::default(); graph.nodes.len()];
    let mut computed = vec![None; graph.nodes.len()];
    for id in graph.ids().filter(|id| needed[id.index()]) {
        // What the reference refuses stays as it is and is reported when it is lowered.
        let Ok(value) = reference::evaluate(graph, id, &values, &leaves) else {
            return vec![None; graph.nodes.len()];
        };
        values[id.index()] = value;
        // Tables may be large: nothing is held that no later node reads.
        let read = graph.node(id).inputs.iter().chain([&id]);
        for i in read
            .map(|i| i.index())
            .filter(|i| last_use[*i] == id.index())
        {
            let value = std::mem::take(&mut values[i]);
            if targets[i] && computed[i].is_none() {
                computed[i] = Some(value);
            }
        }
    }
    computed
}
