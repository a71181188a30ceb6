//! `softmax(mask(scale(q k^T))) v` becomes one op.
//!
//! Keys and values may be broadcast over query heads (`repeat_kv`), casts that lose nothing are
//! dropped since attention computes in f32, and masks are recognised as causal where they come
//! from [`Op::Causal`]; any other additive term becomes the bias. What does not fit stays
//! spelled out, and runs as matmuls and a softmax.

use super::matching::{behind_leading_axes, behind_widening, pair, splat};
use super::rewrite::rebuild;
use crate::graph::{AttentionOp, Graph, Node, NodeId, Op};
use trt_kernel::{Binary, DType, Dim, Unary};

/// Scores at or below this are hidden keys.
const HIDDEN: f64 = -1e9;

pub(super) fn run(graph: Graph) -> Graph {
    rebuild(&graph, |out, _, node| {
        // The result's own cast is taken in: attention stores in any float dtype.
        if node.op == Op::Cast
            && node.dtype.is_float()
            && matches!(out.node(node.inputs[0]).op, Op::Attention(_))
        {
            let inner = out.node(node.inputs[0]).clone();
            return out.push(Node {
                dtype: node.dtype,
                ..inner
            });
        }
        match spelled(out, &node) {
            Some((op, inputs)) => out.push(Node {
                op: Op::Attention(op),
                inputs,
                ..node
            }),
            None => out.push(node),
        }
    })
}

fn spelled(g: &Graph, node: &Node) -> Option<(AttentionOp, Vec<NodeId>)> {
    if node.op != Op::Matmul || node.shape.len() != 4 {
        return None;
    }
    let softmax = g.node(behind_casts(g, node.inputs[0]));
    let mut at = *softmax
        .inputs
        .first()
        .filter(|_| softmax.op == Op::Softmax)?;
    let mut op = AttentionOp {
        scale: 1.0,
        soft_cap: None,
        causal: None,
        bias: false,
    };
    let mut bias = None;
    // Outermost first: masks and biases, then a soft cap, then scales, then the product.
    loop {
        at = behind_casts(g, at);
        let n = g.node(at);
        if let Some((inner, mask)) = masked(g, n).filter(|_| op.causal.is_none() && unscaled(&op)) {
            (at, op.causal) = (inner, Some(mask));
        } else if let Some((inner, cap)) = capped(g, n).filter(|_| unscaled(&op)) {
            (at, op.soft_cap) = (inner, Some(cap as f32));
        } else if let Some((inner, factor)) = scaled(g, n) {
            (at, op.scale) = (inner, (f64::from(op.scale) * factor) as f32);
        } else if let Some((inner, term)) = added(n).filter(|_| bias.is_none() && unscaled(&op)) {
            (at, bias) = (inner, Some(term));
        } else {
            break;
        }
    }
    let product = g.node(at);
    let (q, kt) = pair(product).filter(|_| product.op == Op::Matmul)?;
    let kt = g.node(behind_casts(g, kt));
    let k = *kt
        .inputs
        .first()
        .filter(|_| kt.op == Op::Permute(vec![0, 1, 3, 2]))?;
    let (q, k, v) = (
        behind_widening(g, q),
        grouped(g, k),
        grouped(g, node.inputs[1]),
    );
    if g.node(k).shape[1] != g.node(v).shape[1] || !fixed(g, &[q, k, v]) {
        return None;
    }
    op.bias = bias.is_some();
    Some((op, [q, k, v].into_iter().chain(bias).collect()))
}

fn unscaled(op: &AttentionOp) -> bool {
    op.scale == 1.0 && op.soft_cap.is_none()
}

/// Heads and head sizes must be constants for the kernel.
fn fixed(g: &Graph, qkv: &[NodeId]) -> bool {
    qkv.iter().all(|i| {
        let s = &g.node(*i).shape;
        s.len() == 4 && s[1].constant().is_some() && s[3].constant().is_some()
    })
}

/// Casts between floats change precision only; attention keeps f32 throughout.
fn behind_casts(g: &Graph, mut id: NodeId) -> NodeId {
    loop {
        let node = g.node(id);
        match node.op {
            Op::Cast if node.dtype.is_float() && g.node(node.inputs[0]).dtype.is_float() => {
                id = node.inputs[0]
            }
            _ => return id,
        }
    }
}

/// Scores hidden by a causal mask: `where(mask, -inf, scores)` or `scores + where(mask, -inf, 0)`.
fn masked(g: &Graph, n: &Node) -> Option<(NodeId, (Dim, Option<usize>))> {
    match (&n.op, n.inputs.as_slice()) {
        (Op::Where, [mask, hidden, scores]) => {
            let mask = causal(g, *mask)?;
            (splat(g, *hidden)? <= HIDDEN).then_some((*scores, mask))
        }
        (Op::Binary(Binary::Add), [a, b]) => {
            let additive = |id: NodeId| {
                let term = g.node(behind_casts(g, behind_leading_axes(g, behind_casts(g, id))));
                let [mask, hidden, visible] = term.inputs[..] else {
                    return None;
                };
                let mask = causal(g, mask).filter(|_| term.op == Op::Where)?;
                (splat(g, hidden)? <= HIDDEN && splat(g, visible)? == 0.0).then_some(mask)
            };
            additive(*b)
                .map(|m| (*a, m))
                .or_else(|| additive(*a).map(|m| (*b, m)))
        }
        _ => None,
    }
}

fn causal(g: &Graph, id: NodeId) -> Option<(Dim, Option<usize>)> {
    match &g.node(behind_leading_axes(g, id)).op {
        Op::Causal { offset, window } => Some((offset.clone(), *window)),
        _ => None,
    }
}

/// `x * c` or `x / c`.
fn scaled(g: &Graph, n: &Node) -> Option<(NodeId, f64)> {
    let (a, b) = pair(n)?;
    match n.op {
        Op::Binary(Binary::Mul) => splat(g, b)
            .map(|c| (a, c))
            .or_else(|| splat(g, a).map(|c| (b, c))),
        Op::Binary(Binary::Div) => splat(g, b).map(|c| (a, 1.0 / c)),
        _ => None,
    }
}

/// `tanh(x / c) * c`.
fn capped(g: &Graph, n: &Node) -> Option<(NodeId, f64)> {
    let (tanh, cap) = scaled(g, n)?;
    let tanh = g.node(tanh);
    let inner = *tanh
        .inputs
        .first()
        .filter(|_| tanh.op == Op::Unary(Unary::Tanh))?;
    let (x, inverse) = scaled(g, g.node(inner))?;
    ((inverse * cap - 1.0).abs() < 1e-5).then_some((x, cap))
}

/// Any other term that is added to the scores.
fn added(n: &Node) -> Option<(NodeId, NodeId)> {
    pair(n).filter(|_| n.op == Op::Binary(Binary::Add))
}

/// Keys or values before they were repeated for each query head of a group:
/// `reshape([b, g*r, t, d], broadcast([b, g, r, t, d], reshape([b, g, 1, t, d], x)))`, or with the
/// copies joined along `t` as `cat` leaves them: `[b, g, r*t, d]` reshaped from `[b, g, r, t, d]`.
fn grouped(g: &Graph, id: NodeId) -> NodeId {
    let id = behind_casts_exact(g, id);
    let found = || {
        let joined = g.node(id);
        let wide = g.node(*joined.inputs.first().filter(|_| joined.op == Op::Reshape)?);
        let point = g.node(*wide.inputs.first().filter(|_| wide.op == Op::Broadcast)?);
        let x = *point.inputs.first().filter(|_| point.op == Op::Reshape)?;
        let s = &g.node(x).shape;
        let fits = s.len() == 4
            && wide.shape.len() == 5
            && point.shape
                == [
                    s[0].clone(),
                    s[1].clone(),
                    Dim::from(1),
                    s[2].clone(),
                    s[3].clone(),
                ]
            && joined.shape
                == [
                    s[0].clone(),
                    &s[1] * &wide.shape[2],
                    s[2].clone(),
                    s[3].clone(),
                ];
        fits.then_some(x)
    };
    found().map_or(id, |x| behind_casts_exact(g, x))
}

fn behind_casts_exact(g: &Graph, id: NodeId) -> NodeId {
    match g.node(id).dtype {
        DType::F32 => behind_widening(g, id),
        _ => id,
    }
}
