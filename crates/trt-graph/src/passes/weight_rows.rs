//! A product by rows of a weight reads the weight as it is stored: in its own dtype, and in the order in
//! which its rows lie.
//!
//! Model code may see a weight cast to another dtype, or with its rows in another order than the
//! file's (`reshape(permute(reshape(w)))`, as of queries and keys whose halves lie interleaved). The cast
//! goes; the order becomes a view of the product's result, so no weight is ever copied for it.

use super::rewrite::push;
use crate::graph::{Graph, NodeId, Op};
use trt_kernel::Dim;

/// The right operand of a product by rows of a weight.
pub(super) struct StoredRows {
    /// `permute(w)`, or `permute(reshape(w))` of a weight with more axes.
    pub operand: NodeId,
    /// The order in which model code has the rows, if it is another.
    order: Option<Order>,
}

/// Rows seen under several axes, and those in another order.
struct Order {
    split: Vec<Dim>,
    axes: Vec<usize>,
}

/// What a product reads whose right operand is `id`, if that is `permute(..)` of a weight.
pub(super) fn stored(g: &mut Graph, id: NodeId) -> Option<StoredRows> {
    let node = g.node(id).clone();
    if node.op != Op::Permute(vec![1, 0]) {
        return None;
    }
    let rows = node.inputs[0];
    if let Some((weight, order)) = reordered(g, rows) {
        let swap = Op::Permute(vec![1, 0]);
        let dtype = g.node(weight).dtype;
        return Some(StoredRows {
            operand: push(g, swap, &[weight], &node.shape, dtype),
            order: Some(order),
        });
    }
    let (inner, flat) = match g.node(rows).op {
        Op::Reshape => (g.node(rows).inputs[0], true),
        _ => (rows, false),
    };
    let weight = uncast(g, inner)?;
    let mut operand = id;
    if weight != inner {
        let (shape, dtype) = (g.node(rows).shape.clone(), g.node(weight).dtype);
        let rows = match flat {
            true => push(g, Op::Reshape, &[weight], &shape, dtype),
            false => weight,
        };
        operand = push(g, Op::Permute(vec![1, 0]), &[rows], &node.shape, dtype);
    }
    Some(StoredRows {
        operand,
        order: None,
    })
}

/// The weight that this is, perhaps cast.
fn uncast(g: &Graph, id: NodeId) -> Option<NodeId> {
    let weight = match g.node(id).op {
        Op::Cast => g.node(id).inputs[0],
        _ => id,
    };
    matches!(g.node(weight).op, Op::Weight(..)).then_some(weight)
}

/// The weight `[n, k]` behind `reshape(permute(reshape(w)))` where that moves whole rows.
fn reordered(g: &Graph, id: NodeId) -> Option<(NodeId, Order)> {
    let joined = g.node(id);
    let moved = g.node(*joined.inputs.first()?);
    let Op::Permute(axes) = &moved.op else {
        return None;
    };
    let split = g.node(moved.inputs[0]);
    if joined.op != Op::Reshape || split.op != Op::Reshape {
        return None;
    }
    let weight = uncast(g, split.inputs[0])?;
    let (shape, last) = (&g.node(weight).shape, axes.len().checked_sub(1)?);
    let whole = shape.len() == 2
        && joined.shape == *shape
        && axes[last] == last
        && split.shape[last] == shape[1];
    whole.then(|| {
        let order = Order {
            split: split.shape[..last].to_vec(),
            axes: axes[..last].to_vec(),
        };
        (weight, order)
    })
}

impl StoredRows {
    /// The layout ops that show a result `[.., n]` of the stored rows in the order in which model code has
    /// them, each with its shape.
    pub fn views(&self, shape: &[Dim]) -> Vec<(Op, Vec<Dim>)> {
        let Some(Order { split, axes }) = &self.order else {
            return Vec::new();
        };
        let lead = &shape[..shape.len() - 1];
        let under = |rows: Vec<Dim>| lead.iter().cloned().chain(rows).collect::<Vec<Dim>>();
        let moved = axes.iter().map(|a| split[*a].clone()).collect();
        let permuted = (0..lead.len()).chain(axes.iter().map(|a| lead.len() + a));
        vec![
            (Op::Reshape, under(split.clone())),
            (Op::Permute(permuted.collect()), under(moved)),
            (Op::Reshape, shape.to_vec()),
        ]
    }
}
