//! `cat(state, new)` that becomes the state's next value is an append in place.

use super::rewrite::rebuild;
use crate::graph::{Graph, Op};

pub(super) fn run(graph: Graph) -> Graph {
    rebuild(&graph, |out, id, mut node| {
        if let (Op::Cat(axis), [first, _]) = (&node.op, node.inputs.as_slice())
            && let Op::State(state) = out.node(*first).op
            && graph.states[state as usize].update == id
        {
            node.op = Op::Append(*axis);
        }
        out.push(node)
    })
}
