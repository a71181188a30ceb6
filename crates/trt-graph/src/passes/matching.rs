//! Small questions that several passes ask of a graph.

use crate::graph::{Graph, Node, NodeId, Op};
use trt_kernel::DType;

/// Whether every value of `from` is exact in `to`.
pub(super) fn widens(from: DType, to: DType) -> bool {
    from == to || (to == DType::F32 && from.is_float()) || (to == DType::I64 && !from.is_float())
}

/// The node behind casts that lose nothing.
pub(super) fn behind_widening(g: &Graph, mut id: NodeId) -> NodeId {
    loop {
        let node = g.node(id);
        match node.op {
            Op::Cast if widens(g.node(node.inputs[0]).dtype, node.dtype) => id = node.inputs[0],
            _ => return id,
        }
    }
}

/// The matrix behind broadcasts and reshapes that leave the last two axes as they are.
pub(super) fn behind_leading_axes(g: &Graph, mut id: NodeId) -> NodeId {
    let matrix = |id: NodeId| {
        let s = &g.node(id).shape;
        s.len().checked_sub(2).map(|at| s[at..].to_vec())
    };
    loop {
        let node = g.node(id);
        match node.op {
            Op::Reshape | Op::Broadcast if matrix(id) == matrix(node.inputs[0]) => {
                id = node.inputs[0]
            }
            _ => return id,
        }
    }
}

/// The node behind reshapes and broadcasts: what it repeats, in any arrangement.
pub(super) fn behind_broadcast(g: &Graph, mut id: NodeId) -> NodeId {
    loop {
        let node = g.node(id);
        match node.op {
            Op::Reshape | Op::Broadcast => id = node.inputs[0],
            _ => return id,
        }
    }
}

/// The number that a tensor repeats, if it is a repeated number.
pub(super) fn splat(g: &Graph, id: NodeId) -> Option<f64> {
    let node = g.node(behind_broadcast(g, id));
    match &node.op {
        Op::Float(v) => Some(f64::from(*v)),
        Op::Int(d) => d.constant().map(|c| c as f64),
        Op::Const(l) => {
            let values = crate::reference::decode(&l.bytes, node.dtype);
            let first = *values.first()?;
            values.iter().all(|v| *v == first).then_some(first)
        }
        Op::Cast => splat(g, node.inputs[0]),
        _ => None,
    }
}

/// The two inputs of a node with two.
pub(super) fn pair(node: &Node) -> Option<(NodeId, NodeId)> {
    match node.inputs.as_slice() {
        [a, b] => Some((*a, *b)),
        _ => None,
    }
}
