//! A product's result is often seen as another tensor before anything is done to it: rows split into batch and
//! places, `reshape(product)`, or a convolution's with channels in front of those, `permute(reshape(product))`. What
//! follows is computed before that view instead of after it: then it is the product's epilogue, and the next
//! product reads rows.
//!
//! Only operands that are the same view of another such result, the same at all places of a
//! channel, or a tensor that is rows of channels itself are taken along (with channels in front: any tensor at all
//! for a single image); else the op stays.

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

/// `[m, n]` seen as `[batch, places.., n]`, where `m` is batch and places joined, or as
/// `[batch, n, places..]`.
struct View {
    /// `[batch, places.., n]`.
    split: Vec<Dim>,
    rows: Vec<Dim>,
    /// Whether channels are in front of places.
    front: bool,
}

/// The matrix behind a view, and the view.
fn seen(g: &Graph, id: NodeId) -> Option<(NodeId, View)> {
    let front = g.node(id);
    let rank = front.shape.len();
    let (split, moved) = match &front.op {
        Op::Reshape => (front, false),
        Op::Permute(perm) if *perm == View::perm(rank) => (g.node(front.inputs[0]), true),
        _ => return None,
    };
    if rank < 3 || split.op != Op::Reshape {
        return None;
    }
    let matrix = g.node(split.inputs[0]);
    let fits = matrix.shape.len() == 2 && matrix.shape[1] == split.shape[rank - 1];
    fits.then(|| {
        let view = View {
            split: split.shape.clone(),
            rows: matrix.shape.clone(),
            front: moved,
        };
        (split.inputs[0], view)
    })
}

impl View {
    /// Brings the last of so many axes to the front of places.
    fn perm(rank: usize) -> Vec<usize> {
        let last = rank.saturating_sub(1);
        [0, last].into_iter().chain(1..last).collect()
    }

    fn of(&self, g: &mut Graph, matrix: NodeId) -> NodeId {
        let dtype = g.node(matrix).dtype;
        let split = push(g, Op::Reshape, &[matrix], &self.split, dtype);
        if !self.front {
            return split;
        }
        let perm = View::perm(self.split.len());
        let shape: Vec<Dim> = perm.iter().map(|p| self.split[*p].clone()).collect();
        push(g, Op::Permute(perm), &[split], &shape, dtype)
    }

    /// The matrix that this view would show as the tensor, if that costs no pass over memory.
    fn undone(&self, g: &mut Graph, id: NodeId) -> Option<NodeId> {
        if let Some((matrix, view)) = seen(g, id)
            && view.split == self.split
            && view.front == self.front
        {
            return Some(matrix);
        }
        let node = g.node(id).clone();
        if node.op == Op::Broadcast {
            return self.repeated(g, &node);
        }
        if !self.front {
            // Elements of any other view may be anywhere.
            let whole = !node.op.is_view() && !node.op.is_generated();
            return whole.then(|| push(g, Op::Reshape, &[id], &self.rows, node.dtype));
        }
        if !self.split[0].is(1) {
            return None;
        }
        let rank = self.split.len();
        let perm: Vec<usize> = [0].into_iter().chain(2..rank).chain([1]).collect();
        let last = push(g, Op::Permute(perm), &[id], &self.split, node.dtype);
        Some(push(g, Op::Reshape, &[last], &self.rows, node.dtype))
    }

    /// The matrix of something that is the same at all places of a channel.
    fn repeated(&self, g: &mut Graph, broadcast: &Node) -> Option<NodeId> {
        let point = g.node(broadcast.inputs[0]).clone();
        let channel = if self.front { 1 } else { point.shape.len() - 1 };
        let mut places = point.shape.iter().enumerate();
        if !places.all(|(a, d)| a == channel || d.is(1)) {
            return None;
        }
        let row = [Dim::from(1), point.shape[channel].clone()];
        let row = push(g, Op::Reshape, &broadcast.inputs, &row, broadcast.dtype);
        Some(push(g, Op::Broadcast, &[row], &self.rows, broadcast.dtype))
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
