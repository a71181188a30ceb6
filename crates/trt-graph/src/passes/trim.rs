//! Constant tables keep only what the profile can reach.
//!
//! Rotary tables are made for the model's longest context; a profile that ends earlier narrows
//! them only within its own bound.

use super::rewrite::{push, rebuild};
use crate::graph::{Graph, Literal, Node, Op};
use trt_kernel::Dim;

pub(super) fn run(graph: Graph) -> Graph {
    let users = graph.users();
    let kept: Vec<_> = graph.roots().collect();
    // For each constant of which only leading rows are read: how many.
    let reach: Vec<Option<i64>> = graph
        .ids()
        .map(|id| {
            let node = graph.node(id);
            let rows = (matches!(node.op, Op::Const(_)) && !kept.contains(&id))
                .then(|| node.shape.first()?.constant())
                .flatten()?;
            let ends: Option<Vec<i64>> = users[id.index()]
                .iter()
                .map(|u| match &graph.node(*u).op {
                    Op::Narrow { axis: 0, start } => {
                        Some(graph.bound(&(start + &graph.node(*u).shape[0])))
                    }
                    _ => None,
                })
                .collect();
            ends?
                .into_iter()
                .max()
                .filter(|end| *end < rows && *end > 0)
        })
        .collect();
    rebuild(&graph, |out, id, node| {
        match (&node.op, reach[id.index()]) {
            (Op::Const(literal), Some(rows)) => {
                let mut shape = node.shape.clone();
                let row: usize = node.shape[1..]
                    .iter()
                    .filter_map(Dim::constant_size)
                    .product();
                shape[0] = Dim::from(rows);
                let bytes = literal.bytes[..rows as usize * row * node.dtype.size()].to_vec();
                push(out, Op::Const(Literal::new(bytes)), &[], &shape, node.dtype)
            }
            _ => out.push(Node { ..node }),
        }
    })
}
