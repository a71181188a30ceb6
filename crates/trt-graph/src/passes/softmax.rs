//! Softmax spelled by hand, `e / sum(e)` with `e = exp(x - max(x))`, becomes one op.

use super::matching::pair;
use super::rewrite::rebuild;
use crate::graph::{Graph, Node, NodeId, Op};
use trt_kernel::{Binary, Reduce, Unary};

pub(super) fn run(graph: Graph) -> Graph {
    rebuild(&graph, |out, _, node| match spelled(out, &node) {
        Some(x) => out.push(Node {
            op: Op::Softmax,
            inputs: vec![x],
            ..node
        }),
        None => out.push(node),
    })
}

fn spelled(g: &Graph, node: &Node) -> Option<NodeId> {
    let last = node.shape.len().checked_sub(1)?;
    let (e, sum) = pair(node).filter(|_| node.op == Op::Binary(Binary::Div))?;
    let sum = g.node(repeated(g, sum));
    if sum.op != Op::Reduce(Reduce::Sum, last) || sum.inputs[0] != e {
        return None;
    }
    let exp = g.node(e);
    let shifted = g.node(
        *exp.inputs
            .first()
            .filter(|_| exp.op == Op::Unary(Unary::Exp))?,
    );
    let (x, max) = pair(shifted).filter(|_| shifted.op == Op::Binary(Binary::Sub))?;
    let max = g.node(repeated(g, max));
    (max.op == Op::Reduce(Reduce::Max, last) && max.inputs[0] == x).then_some(x)
}

/// What a broadcast repeats along rows. A reshape in between would turn the row values into
/// something else, so none is looked through.
fn repeated(g: &Graph, id: NodeId) -> NodeId {
    let node = g.node(id);
    match node.op {
        Op::Broadcast => node.inputs[0],
        _ => id,
    }
}
