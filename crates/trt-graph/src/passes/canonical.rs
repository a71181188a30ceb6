//! One spelling for each meaning: layout chains are shortened, no-ops go.
//!
//! The rules are local; each looks at a node whose inputs are already canonical.

use super::matching::{splat, widens};
use super::rewrite::{push, rebuild};
use super::weight_rows;
use crate::graph::{Graph, Node, NodeId, Op};
use trt_kernel::{Dim, Unary};

pub(super) fn run(graph: Graph) -> Graph {
    rebuild(&graph, |out, _, node| simplify(out, node))
}

fn simplify(g: &mut Graph, mut node: Node) -> NodeId {
    if let Op::Cat(axis) = node.op {
        filled(g, &mut node.inputs, axis);
    }
    let Some(&x) = node.inputs.first() else {
        return match hides_nothing(&node) {
            true => zeros(g, node),
            false => g.push(node),
        };
    };
    let input = g.node(x).clone();
    let no_op = match &node.op {
        Op::Reshape | Op::Broadcast | Op::Narrow { .. } | Op::Pad(_) => input.shape == node.shape,
        Op::Cast => input.dtype == node.dtype,
        Op::Permute(perm) => perm.iter().copied().eq(0..perm.len()),
        Op::Cat(_) => node.inputs.len() == 1,
        _ => false,
    };
    if no_op {
        return x;
    }
    match (&node.op, &input.op) {
        (Op::Reshape, Op::Reshape) | (Op::Broadcast, Op::Broadcast) => simplify(
            g,
            Node {
                inputs: input.inputs,
                ..node
            },
        ),
        (Op::Permute(p), Op::Permute(q)) => {
            let op = Op::Permute(p.iter().map(|i| q[*i]).collect());
            simplify(
                g,
                Node {
                    op,
                    inputs: input.inputs,
                    ..node
                },
            )
        }
        (
            Op::Narrow { axis, start },
            Op::Narrow {
                axis: inner,
                start: first,
            },
        ) if axis == inner => {
            let op = Op::Narrow {
                axis: *axis,
                start: start + first,
            };
            simplify(
                g,
                Node {
                    op,
                    inputs: input.inputs,
                    ..node
                },
            )
        }
        (Op::Cast, Op::Cast) if widens(g.node(input.inputs[0]).dtype, input.dtype) => simplify(
            g,
            Node {
                inputs: input.inputs,
                ..node
            },
        ),
        (Op::Cat(axis), _) if node.inputs.iter().all(|i| *i == x) => {
            repeat(g, &node, &input, *axis)
        }
        (Op::Matmul, _) => matmul(g, node),
        (Op::Where, _) if splat(g, x) == Some(0.0) => node.inputs[2],
        (Op::Cast, Op::Int(d)) if node.dtype.is_float() => match d.constant() {
            Some(c) => float(g, c as f32, node),
            None => g.push(node),
        },
        (Op::Cast, Op::Float(v)) if node.dtype.is_float() => float(g, *v, node),
        (Op::Unary(Unary::Recip), Op::Float(v)) => float(g, 1.0 / v, node),
        _ => g.push(node),
    }
}

/// Parts of a join without elements go, all but one.
fn filled(g: &Graph, parts: &mut Vec<NodeId>, axis: usize) {
    let empty = |i: &NodeId| g.node(*i).shape[axis].is(0);
    match parts.iter().all(empty) {
        true => parts.truncate(1),
        false => parts.retain(|i| !empty(i)),
    }
}

/// Whether it is a mask by which the last key is visible to the first query, and so all to all.
fn hides_nothing(node: &Node) -> bool {
    let Op::Causal {
        offset,
        window: None,
    } = &node.op
    else {
        return false;
    };
    let after = &(&node.shape[1] - &Dim::from(1)) - offset;
    after.constant().is_some_and(|after| after <= 0)
}

/// Zeros of a node's shape and dtype.
fn zeros(g: &mut Graph, node: Node) -> NodeId {
    let ones = vec![Dim::from(1); node.shape.len()];
    let zero = push(g, Op::Int(Dim::from(0)), &[], &[], node.dtype);
    let point = push(g, Op::Reshape, &[zero], &ones, node.dtype);
    push(g, Op::Broadcast, &[point], &node.shape, node.dtype)
}

/// A number in place of what computes it.
fn float(g: &mut Graph, value: f32, node: Node) -> NodeId {
    push(g, Op::Float(value), &[], &node.shape, node.dtype)
}

/// Copies of one tensor joined along an axis are a broadcast.
fn repeat(g: &mut Graph, node: &Node, input: &Node, axis: usize) -> NodeId {
    let x = node.inputs[0];
    let mut point = input.shape.clone();
    point.insert(axis, Dim::from(1));
    let mut wide = point.clone();
    wide[axis] = Dim::from(node.inputs.len());
    let point = push(g, Op::Reshape, &[x], &point, node.dtype);
    let wide = push(g, Op::Broadcast, &[point], &wide, node.dtype);
    push(g, Op::Reshape, &[wide], &node.shape, node.dtype)
}

/// A second operand that is one matrix for all leading axes is taken as that matrix, and a weight
/// is read as it is stored.
fn matmul(g: &mut Graph, mut node: Node) -> NodeId {
    if let Some(matrix) = shared_matrix(g, node.inputs[1]) {
        node.inputs[1] = matrix;
    }
    let stored = weight_rows::stored(g, node.inputs[1]);
    if let Some(stored) = &stored {
        node.inputs[1] = stored.operand;
    }
    let (shape, dtype) = (node.shape.clone(), node.dtype);
    let product = match g.node(node.inputs[1]).shape.len() {
        2 => rows(g, node),
        _ => g.push(node),
    };
    let views = stored.map_or_else(Vec::new, |s| s.views(&shape));
    views.into_iter().fold(product, |x, (op, shape)| {
        let inputs = vec![x];
        simplify(
            g,
            Node {
                op,
                inputs,
                shape,
                dtype,
            },
        )
    })
}

/// `permute(broadcast(reshape(w)))` or `broadcast(..)` of a rank 2 `w`, with leading axes added.
fn shared_matrix(g: &mut Graph, id: NodeId) -> Option<NodeId> {
    let node = g.node(id).clone();
    let rank = node.shape.len();
    if rank <= 2 {
        return None;
    }
    let (broadcast, swapped) = match &node.op {
        Op::Permute(p) => {
            let mut expected: Vec<usize> = (0..rank).collect();
            expected.swap(rank - 2, rank - 1);
            (*p == expected).then(|| (g.node(node.inputs[0]).clone(), true))?
        }
        _ => (node.clone(), false),
    };
    let source = match &broadcast.op {
        Op::Broadcast => g.node(broadcast.inputs[0]).clone(),
        _ => broadcast,
    };
    let lead = &source.shape[..rank - 2];
    if !lead.iter().all(|d| d.is(1)) || source.op != Op::Reshape {
        return None;
    }
    let matrix = source.inputs[0];
    if g.node(matrix).shape != source.shape[rank - 2..] {
        return None;
    }
    let shape = node.shape[rank - 2..].to_vec();
    Some(match swapped {
        true => push(g, Op::Permute(vec![1, 0]), &[matrix], &shape, node.dtype),
        false => matrix,
    })
}

/// The leading axes of a product with one matrix, joined into rows if several are not 1.
fn rows(g: &mut Graph, node: Node) -> NodeId {
    let rank = node.shape.len();
    let lead = &node.shape[..rank - 1];
    if rank <= 2 || lead.iter().filter(|d| !d.is(1)).count() <= 1 {
        return g.push(node);
    }
    let m = Dim::product(lead);
    let x = g.node(node.inputs[0]);
    let (k, x_dtype) = (x.shape[rank - 1].clone(), x.dtype);
    let flat = push(g, Op::Reshape, &[node.inputs[0]], &[m.clone(), k], x_dtype);
    let n = node.shape[rank - 1].clone();
    let product = push(g, Op::Matmul, &[flat, node.inputs[1]], &[m, n], node.dtype);
    push(g, Op::Reshape, &[product], &node.shape, node.dtype)
}
