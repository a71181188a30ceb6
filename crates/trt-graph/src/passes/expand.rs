//! What no template took is spelled in what row kernels fuse: softmax in reductions, reductions
//! over the last axis, products with one leading axis, sorting in picks, and rows of a table that no
//! gather reads in picks as well.

use super::rewrite::{push, rebuild};
use super::sort;
use crate::graph::{Graph, Node, NodeId, Op};
use trt_kernel::{Binary, DType, Dim, Reduce, Unary};

pub(super) fn run(graph: Graph) -> Graph {
    rebuild(&graph, |g, _, node| {
        if let Op::Reduce(f, axis) = node.op
            && axis + 1 < node.shape.len()
        {
            return reduce_last(g, node, f, axis);
        }
        if node.op == Op::Matmul {
            return batches(g, node);
        }
        if let Op::ArgSort { asc } = node.op {
            return sort::expanded(g, &node, asc);
        }
        if node.op == Op::IndexSelect {
            return rows_of(g, node);
        }
        if node.op != Op::Softmax {
            return g.push(node);
        }
        let (shape, last) = (node.shape.clone(), node.shape.len() - 1);
        let mut row = shape.clone();
        row[last] = Dim::from(1);
        let f = DType::F32;
        let x = match node.dtype == f {
            true => node.inputs[0],
            false => push(g, Op::Cast, &node.inputs, &shape, f),
        };
        let max = push(g, Op::Reduce(Reduce::Max, last), &[x], &row, f);
        let max = push(g, Op::Broadcast, &[max], &shape, f);
        let shifted = push(g, Op::Binary(Binary::Sub), &[x, max], &shape, f);
        let e = push(g, Op::Unary(Unary::Exp), &[shifted], &shape, f);
        let sum = push(g, Op::Reduce(Reduce::Sum, last), &[e], &row, f);
        let sum = push(g, Op::Broadcast, &[sum], &shape, f);
        let out = push(g, Op::Binary(Binary::Div), &[e, sum], &shape, f);
        match node.dtype == f {
            true => out,
            false => push(g, Op::Cast, &[out], &shape, node.dtype),
        }
    })
}

/// A reduction over another axis: that axis is moved last and back.
fn reduce_last(g: &mut Graph, node: Node, f: Reduce, axis: usize) -> NodeId {
    let last = node.shape.len() - 1;
    let mut perm: Vec<usize> = (0..=last).collect();
    perm.swap(axis, last);
    let swapped = |shape: &[Dim]| perm.iter().map(|p| shape[*p].clone()).collect::<Vec<_>>();
    let from = swapped(&g.node(node.inputs[0]).shape.clone());
    let x = push(
        g,
        Op::Permute(perm.clone()),
        &node.inputs,
        &from,
        node.dtype,
    );
    let r = push(
        g,
        Op::Reduce(f, last),
        &[x],
        &swapped(&node.shape),
        node.dtype,
    );
    push(g, Op::Permute(perm), &[r], &node.shape, node.dtype)
}

/// Several leading axes of a product of activations, joined into one.
fn batches(g: &mut Graph, node: Node) -> NodeId {
    let rank = node.shape.len();
    let (a, b) = (
        g.node(node.inputs[0]).clone(),
        g.node(node.inputs[1]).clone(),
    );
    let lead = node.shape.len().saturating_sub(2);
    if b.shape.len() != rank || node.shape[..lead].iter().filter(|d| !d.is(1)).count() <= 1 {
        return g.push(node);
    }
    let joined = Dim::product(&node.shape[..lead]);
    let flat = |s: &[Dim]| [std::slice::from_ref(&joined), &s[lead..]].concat();
    let x = push(g, Op::Reshape, &[node.inputs[0]], &flat(&a.shape), a.dtype);
    let y = push(g, Op::Reshape, &[node.inputs[1]], &flat(&b.shape), b.dtype);
    let product = push(g, Op::Matmul, &[x, y], &flat(&node.shape), node.dtype);
    push(g, Op::Reshape, &[product], &node.shape, node.dtype)
}

/// Rows of a table, which are picked element by element unless they are floats of a table of known size.
fn rows_of(g: &mut Graph, node: Node) -> NodeId {
    let table = g.node(node.inputs[0]);
    let known = table.shape.iter().all(|d| d.constant_size().is_some());
    if known && table.dtype.is_float() {
        return g.push(node);
    }
    let dtype = g.node(node.inputs[1]).dtype;
    let point = [node.shape[0].clone(), Dim::from(1)];
    let ids = push(g, Op::Reshape, &node.inputs[1..], &point, dtype);
    let ids = push(g, Op::Broadcast, &[ids], &node.shape, dtype);
    push(
        g,
        Op::Gather(0),
        &[node.inputs[0], ids],
        &node.shape,
        node.dtype,
    )
}
