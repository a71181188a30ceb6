//! Softmax that no attention took is spelled in reductions, which row kernels fuse.

use super::rewrite::{push, rebuild};
use crate::graph::{Graph, Op};
use trt_kernel::{Binary, DType, Dim, Reduce, Unary};

pub(super) fn run(graph: Graph) -> Graph {
    rebuild(&graph, |g, _, node| {
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
