//! What holds of each op: its operands, shape and dtype.

use super::site::{Checked, Site, ensure, list, rank};
use super::{layouts, leaves, picks};
use crate::graph::{AttentionOp, Graph, Node, Op};
use trt_kernel::{DType, Dim};

/// Checks a node whose operands come before it.
pub(super) fn check(graph: &Graph, node: &Node) -> Checked {
    let site = &Site::new(graph, node);
    match &node.op {
        Op::Input(i) => site.arity(0).and_then(|()| leaves::input(site, *i)),
        Op::State(i) => site.arity(0).and_then(|()| leaves::state(site, *i)),
        Op::Weight(_, e) => site.arity(0).and_then(|()| leaves::weight(site, *e)),
        Op::Const(l) => site.arity(0).and_then(|()| leaves::constant(site, l)),
        Op::Float(_) => (site.arity(0)).and_then(|()| leaves::generated(site, 0, DType::is_float)),
        Op::Int(_) => (site.arity(0)).and_then(|()| leaves::generated(site, 0, |d| !d.is_float())),
        Op::Arange { .. } => site.arity(0).and(rank(node, 1)),
        Op::Causal { .. } => {
            (site.arity(0)).and_then(|()| leaves::generated(site, 2, |d| d == DType::U8))
        }
        Op::Unary(_) | Op::Softmax => {
            let x = site.operand()?;
            site.same_shape(x).and(site.same_dtype(x))
        }
        Op::Binary(_) => {
            site.arity(2)?;
            let mut inputs = site.inputs.iter();
            inputs.try_for_each(|i| site.same_shape(i).and(site.same_dtype(i)))
        }
        Op::Compare(_) => compare(site),
        Op::Where => choose(site),
        Op::Cast => site.same_shape(site.operand()?),
        Op::Reduce(_, axis) => reduce(site, *axis),
        Op::Matmul => matmul(site),
        Op::IndexSelect => picks::index_select(site),
        Op::Gather(axis) => picks::gather(site, *axis),
        Op::Within(_) => picks::within(site),
        Op::Experts => picks::experts(site),
        Op::ArgSort { .. } => picks::arg_sort(site),
        Op::Reshape => layouts::reshape(site),
        Op::Permute(perm) => layouts::permute(site, perm),
        Op::Broadcast => layouts::broadcast(site),
        Op::Narrow { axis, .. } => layouts::narrow(site, *axis),
        Op::Unfold {
            axis,
            step,
            dilation,
        } => layouts::unfold(site, *axis, *step, *dilation),
        Op::Pad(margins) => layouts::pad(site, margins),
        Op::Cat(axis) => layouts::cat(site, *axis),
        Op::Append(axis) => layouts::append(site, *axis),
        Op::Rope => rope(site),
        Op::Attention(op) => attention(site, op),
    }
}

fn compare(site: &Site) -> Checked {
    site.arity(2)?;
    site.inputs.iter().try_for_each(|i| site.same_shape(i))?;
    let [a, b] = [site.inputs[0].dtype, site.inputs[1].dtype];
    ensure(site.node.dtype == DType::U8 && a == b, || {
        format!("compares {a} with {b}")
    })
}

fn choose(site: &Site) -> Checked {
    site.arity(3)?;
    site.inputs.iter().try_for_each(|i| site.same_shape(i))?;
    let condition = site.inputs[0].dtype;
    ensure(!condition.is_float(), || {
        format!("condition of {condition}")
    })?;
    site.inputs[1..].iter().try_for_each(|i| site.same_dtype(i))
}

fn reduce(site: &Site, axis: usize) -> Checked {
    let x = site.operand()?;
    site.axis(axis)?;
    let mut kept = x.shape.clone();
    ensure(kept.len() > axis, || {
        format!("axis {axis} of {}", list(&kept))
    })?;
    kept[axis] = Dim::from(1);
    ensure(kept == site.node.shape, || {
        let (from, to) = (list(&x.shape), list(&site.node.shape));
        format!("result {to} of {from}")
    })?;
    site.same_dtype(x)
}

fn matmul(site: &Site) -> Checked {
    site.arity(2)?;
    let (a, b, out) = (site.inputs[0], site.inputs[1], site.node);
    let r = a.shape.len();
    let fits = r >= 2
        && out.shape.len() == r
        && (b.shape.len() == 2 || (b.shape.len() == r && a.shape[..r - 2] == b.shape[..r - 2]))
        && a.shape[r - 1] == b.shape[b.shape.len() - 2]
        && out.shape[..r - 1] == a.shape[..r - 1]
        && out.shape[r - 1] == b.shape[b.shape.len() - 1];
    ensure(fits, || {
        let [a, b, out] = [a, b, out].map(|n| list(&n.shape));
        format!("{a} x {b} gives {out}")
    })?;
    let dtypes = a.dtype.is_float() && b.dtype.is_float() && out.dtype.is_float();
    ensure(dtypes, || {
        format!("{} x {} gives {}", a.dtype, b.dtype, out.dtype)
    })
}

fn rope(site: &Site) -> Checked {
    site.arity(3)?;
    let (x, node) = (site.inputs[0], site.node);
    rank(node, 4)
        .and(site.same_shape(x))
        .and(site.same_dtype(x))?;
    site.inputs[1..].iter().try_for_each(|t| {
        rank(t, 2)?;
        let fits = t.shape[0] == node.shape[2] && &t.shape[1] * &Dim::from(2) == node.shape[3];
        ensure(fits, || {
            format!("table {} for {}", list(&t.shape), list(&node.shape))
        })
    })
}

fn attention(site: &Site, op: &AttentionOp) -> Checked {
    site.arity(3 + usize::from(op.bias))?;
    site.inputs.iter().try_for_each(|i| rank(i, 4))?;
    let [q, k, v] = [0, 1, 2].map(|i: usize| &site.inputs[i].shape);
    let out = &site.node.shape;
    let fits = q[0] == k[0]
        && k[..3] == v[..3]
        && q[3] == k[3]
        && q[1].divide(&k[1]).is_some()
        && *out == [q[0].clone(), q[1].clone(), q[2].clone(), v[3].clone()];
    ensure(fits, || {
        let [q, k, v, out] = [q, k, v, out].map(|s| list(s));
        format!("q {q} k {k} v {v} give {out}")
    })
}
