//! A convolution is a product whose result is seen with channels in front,
//! `permute(reshape(product))`. What follows is computed before that view instead of after it:
//! then it is the product's epilogue, and the next convolution reads rows of channels.
//!
//! Only operands that are the same view of another such result, the same at all places of a
//! channel, or (for a single image) any tensor at all are taken along; else the op stays.

use super::rewrite::{push, rebuild};
use crate::graph::{Graph, Node, NodeId, Op};
use std::collections::HashSet;
use trt_kernel::Dim;

pub(super) fn run(graph: Graph) -> Graph {
    let mut rows = HashSet::new();
    rebuild(&graph, |g, _, node| {
        if node.op == Op::Matmul && node.shape.len() == 2 {
            let id = g.push(node);
            rows.insert(id);
            return id;
        }
        match before_view(g, &rows, &node) {
            Some((op, view)) => {
                let id = g.push(op);
                rows.insert(id);
                view.of(g, id)
            }
            None => g.push(node),
        }
    })
}

/// `[m, n]` seen as `[batch, n, places..]`, where `m` is batch and places joined.
struct View {
    /// `[batch, places.., n]`.
    split: Vec<Dim>,
    rows: Vec<Dim>,
}

/// The matrix behind a view with channels in front, and the view.
fn seen(g: &Graph, id: NodeId) -> Option<(NodeId, View)> {
    let front = g.node(id);
    let split = g.node(*front.inputs.first()?);
    let rank = front.shape.len();
    let perm: Vec<usize> = [0, rank.checked_sub(1)?]
        .into_iter()
        .chain(1..rank - 1)
        .collect();
    if rank < 3 || front.op != Op::Permute(perm) || split.op != Op::Reshape {
        return None;
    }
    let matrix = g.node(split.inputs[0]);
    let fits = matrix.shape.len() == 2 && matrix.shape[1] == split.shape[rank - 1];
    fits.then(|| {
        let view = View {
            split: split.shape.clone(),
            rows: matrix.shape.clone(),
        };
        (split.inputs[0], view)
    })
}

impl View {
    fn of(&self, g: &mut Graph, matrix: NodeId) -> NodeId {
        let dtype = g.node(matrix).dtype;
        let rank = self.split.len();
        let split = push(g, Op::Reshape, &[matrix], &self.split, dtype);
        let perm: Vec<usize> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
        let shape: Vec<Dim> = perm.iter().map(|p| self.split[*p].clone()).collect();
        push(g, Op::Permute(perm), &[split], &shape, dtype)
    }

    /// The matrix that this view would show as the tensor, if that costs no pass over memory.
    fn undone(&self, g: &mut Graph, id: NodeId) -> Option<NodeId> {
        if let Some((matrix, view)) = seen(g, id)
            && view.split == self.split
        {
            return Some(matrix);
        }
        let node = g.node(id).clone();
        if node.op == Op::Broadcast {
            let point = g.node(node.inputs[0]).clone();
            let per_channel = point
                .shape
                .iter()
                .enumerate()
                .all(|(a, d)| a == 1 || d.is(1));
            if !per_channel {
                return None;
            }
            let row = [Dim::from(1), point.shape[1].clone()];
            let row = push(g, Op::Reshape, &node.inputs, &row, node.dtype);
            return Some(push(g, Op::Broadcast, &[row], &self.rows, node.dtype));
        }
        if !self.split[0].is(1) {
            return None;
        }
        let rank = self.split.len();
        let perm: Vec<usize> = [0].into_iter().chain(2..rank).chain([1]).collect();
        let last = push(g, Op::Permute(perm), &[id], &self.split, node.dtype);
        Some(push(g, Op::Reshape, &[last], &self.rows, node.dtype))
    }
}

/// A scalar op on matrices in place of one on views of them.
fn before_view(g: &mut Graph, rows: &HashSet<NodeId>, node: &Node) -> Option<(Node, View)> {
    if !node.op.is_scalar() {
        return None;
    }
    let ours = |id: &NodeId| seen(g, *id).filter(|(matrix, _)| rows.contains(matrix));
    let view = node.inputs.iter().find_map(ours)?.1;
    let inputs: Option<Vec<NodeId>> = node.inputs.iter().map(|i| view.undone(g, *i)).collect();
    let op = Node {
        op: node.op.clone(),
        inputs: inputs?,
        shape: view.rows.clone(),
        dtype: node.dtype,
    };
    Some((op, view))
}
