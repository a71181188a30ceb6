//! `softmax(mask(scale(q k^T))) v` becomes one op.
//!
//! Keys and values may be broadcast over query heads (`repeat_kv`), casts that lose nothing are
//! dropped since attention computes in f32, and masks are recognised as causal where they come
//! from [`Op::Causal`]; any other additive term becomes the bias. Heads may have an axis of their own or be joined
//! with the batch. What does not fit stays spelled out, and runs as matmuls and a softmax.

use super::matching::{behind_leading_axes, behind_widening, pair, splat};
use super::rewrite::{push, rebuild};
use crate::graph::{AttentionOp, Graph, Node, NodeId, Op};
use trt_kernel::{Binary, DType, Dim, Unary};

/// Scores at or below this are hidden keys.
const HIDDEN: f64 = -1e9;
/// What is at or below this is the same with a score added to it.
const SWALLOWS: f64 = -1e30;

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
        // Also where heads are joined with the batch again ahead of it.
        if node.op == Op::Cast
            && node.dtype.is_float()
            && let joined = out.node(node.inputs[0]).clone()
            && joined.op == Op::Reshape
            && let attention = out.node(joined.inputs[0]).clone()
            && matches!(attention.op, Op::Attention(_))
        {
            let dtype = node.dtype;
            let attention = out.push(Node { dtype, ..attention });
            return push(out, Op::Reshape, &[attention], &joined.shape, dtype);
        }
        let Some(found) = spelled(out, &node) else {
            return out.push(node);
        };
        let Some((op, inputs, shape)) = found.with_heads(out) else {
            return out.push(node);
        };
        let attention = push(out, Op::Attention(op), &inputs, &shape, node.dtype);
        match shape == node.shape {
            true => attention,
            false => push(out, Op::Reshape, &[attention], &node.shape, node.dtype),
        }
    })
}

/// What was found: the op, queries, keys as `[.., d, t]` and as `[.., t, d]` before they were transposed,
/// values, and what is added to scores.
struct Spelled {
    op: AttentionOp,
    q: NodeId,
    k: Keys,
    v: NodeId,
    bias: Option<Term>,
}

/// What becomes the bias.
enum Term {
    /// What is added to scores.
    Added(NodeId),
    /// Scores that are hidden where a mask says so, and as they are elsewhere.
    Hides(Node),
}

/// Keys `[.., t, d]`: a tensor, or a tensor with its axes reordered.
struct Keys {
    of: NodeId,
    perm: Vec<usize>,
}

fn spelled(g: &Graph, node: &Node) -> Option<Spelled> {
    if node.op != Op::Matmul || !matches!(node.shape.len(), 3 | 4) {
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
            (at, bias) = (inner, Some(Term::Added(term)));
        } else if let Some(inner) = hidden(g, n).filter(|_| bias.is_none() && unscaled(&op)) {
            (at, bias) = (inner, Some(Term::Hides(n.clone())));
        } else {
            break;
        }
    }
    let product = g.node(at);
    let (q, kt) = pair(product).filter(|_| product.op == Op::Matmul)?;
    // Both sides may be scaled before they meet (whisper): that is a scale of their product.
    let (q, of_q) = factored(g, q, behind_widening);
    let (kt, of_k) = factored(g, kt, behind_casts);
    let k = keys(g, kt)?;
    op.scale = (f64::from(op.scale) * of_q * of_k) as f32;
    op.bias = bias.is_some();
    Some(Spelled {
        op,
        q,
        k,
        v: behind_casts_exact(g, node.inputs[1]),
        bias,
    })
}

/// An operand of the product of scores behind casts and factors, and the product of these factors.
fn factored(g: &Graph, mut id: NodeId, behind: fn(&Graph, NodeId) -> NodeId) -> (NodeId, f64) {
    let mut factor = 1.0;
    loop {
        id = behind(g, id);
        match scaled(g, g.node(id)).filter(|(_, by)| by.is_normal()) {
            Some((inner, by)) => (id, factor) = (inner, factor * by),
            None => return (id, factor),
        }
    }
}

/// What `[.., d, t]` is the transpose of, if elements of a key are neighbours there.
fn keys(g: &Graph, kt: NodeId) -> Option<Keys> {
    let kt = g.node(kt);
    let Op::Permute(perm) = &kt.op else {
        return None;
    };
    let (mut perm, rank) = (perm.clone(), kt.shape.len());
    perm.swap(rank - 2, rank - 1);
    (perm[rank - 1] == rank - 1).then(|| Keys {
        of: behind_casts_exact(g, kt.inputs[0]),
        perm,
    })
}

impl Spelled {
    /// The op with an axis for heads, its inputs, and the shape of its result.
    fn with_heads(self, g: &mut Graph) -> Option<(AttentionOp, Vec<NodeId>, Vec<Dim>)> {
        let k = self.k.node(g);
        let rank = g.node(self.q).shape.len();
        let (q, k, v) = match rank {
            4 => (self.q, grouped(g, k), grouped(g, self.v)),
            _ => split(g, [self.q, k, self.v])?,
        };
        let [qs, ks, vs] = [q, k, v].map(|i| g.node(i).shape.clone());
        if ks[1] != vs[1] || !fixed(g, &[q, k, v]) {
            return None;
        }
        let scores = [qs[0].clone(), qs[1].clone(), qs[2].clone(), ks[2].clone()];
        let bias = self.bias.map(|term| match (rank, term.node(g)) {
            (4, b) => b,
            (_, b) => scores_split(g, b, &scores),
        });
        let out = vec![qs[0].clone(), qs[1].clone(), qs[2].clone(), vs[3].clone()];
        Some((self.op, [q, k, v].into_iter().chain(bias).collect(), out))
    }
}

impl Term {
    fn node(self, g: &mut Graph) -> NodeId {
        match self {
            Term::Added(term) => term,
            Term::Hides(mut node) => {
                let zero = push(g, Op::Float(0.0), &[], &[], node.dtype);
                let ones = vec![Dim::from(1); node.shape.len()];
                let point = push(g, Op::Reshape, &[zero], &ones, node.dtype);
                node.inputs[2] = push(g, Op::Broadcast, &[point], &node.shape, node.dtype);
                g.push(node)
            }
        }
    }
}

impl Keys {
    fn node(&self, g: &mut Graph) -> NodeId {
        if self.perm.iter().copied().eq(0..self.perm.len()) {
            return self.of;
        }
        let of = g.node(self.of).clone();
        let shape: Vec<Dim> = self.perm.iter().map(|a| of.shape[*a].clone()).collect();
        push(
            g,
            Op::Permute(self.perm.clone()),
            &[self.of],
            &shape,
            of.dtype,
        )
    }
}

/// Queries, keys and values `[batch * heads, s, d]` with an axis for heads: as they had it before it was joined, or one
/// head.
fn split(g: &mut Graph, all: [NodeId; 3]) -> Option<(NodeId, NodeId, NodeId)> {
    let before = |id: NodeId| {
        let node = g.node(id);
        let x = *node.inputs.first().filter(|_| node.op == Op::Reshape)?;
        let (from, to) = (&g.node(x).shape, &node.shape);
        let joined = from.len() == 4 && &from[0] * &from[1] == to[0] && from[2..] == to[1..];
        joined.then_some(x)
    };
    if let [Some(q), Some(k), Some(v)] = all.map(before) {
        let lead = |id: NodeId| g.node(id).shape[..2].to_vec();
        if lead(q) == lead(k) && lead(q) == lead(v) {
            return Some((q, k, v));
        }
    }
    let one = |g: &mut Graph, id: NodeId| {
        let node = g.node(id).clone();
        let [batch, s, d] = node.shape.try_into().ok()?;
        let shape = [batch, Dim::from(1), s, d];
        Some(push(g, Op::Reshape, &[id], &shape, node.dtype))
    };
    Some((one(g, all[0])?, one(g, all[1])?, one(g, all[2])?))
}

/// What is added to scores `[batch * heads, s, t]`, with an axis for heads.
fn scores_split(g: &mut Graph, id: NodeId, scores: &[Dim; 4]) -> NodeId {
    let node = g.node(id).clone();
    if node.op == Op::Broadcast {
        let from = g.node(node.inputs[0]).shape.clone();
        if let [one, s, t] = from.as_slice()
            && one.is(1)
        {
            let point = [one.clone(), one.clone(), s.clone(), t.clone()];
            let point = push(g, Op::Reshape, &node.inputs, &point, node.dtype);
            return push(g, Op::Broadcast, &[point], scores, node.dtype);
        }
    }
    push(g, Op::Reshape, &[id], scores, node.dtype)
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

/// Scores of which some are hidden by any mask, with the rest left as they are.
fn hidden(g: &Graph, n: &Node) -> Option<NodeId> {
    match (&n.op, n.inputs.as_slice()) {
        (Op::Where, [_, hides, scores]) => (splat(g, *hides)? <= SWALLOWS).then_some(*scores),
        _ => None,
    }
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
