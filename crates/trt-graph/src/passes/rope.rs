//! Rotary embedding spelled by hand becomes one op.
//!
//! The spelling is candle's `rope_slow`: `x * cos2 + rotate_half(x) * sin2` with
//! `rotate_half(x) = cat(-x[d/2..], x[..d/2])` and tables whose halves repeat, which is
//! recognised from `cat(t, t)` (after canonicalisation a broadcast of `t`).

use super::matching::pair;
use super::rewrite::{push, rebuild};
use crate::graph::{Graph, Node, NodeId, Op};
use trt_kernel::{Binary, Dim, Unary};

pub(super) fn run(graph: Graph) -> Graph {
    rebuild(&graph, |out, _, node| match spelled(out, &node) {
        Some((x, cos, sin)) => push(out, Op::Rope, &[x, cos, sin], &node.shape, node.dtype),
        None => out.push(node),
    })
}

fn spelled(g: &mut Graph, node: &Node) -> Option<(NodeId, NodeId, NodeId)> {
    if node.op != Op::Binary(Binary::Add) || node.shape.len() != 4 {
        return None;
    }
    let (a, b) = pair(node)?;
    let product =
        |id: NodeId| pair(g.node(id)).filter(|_| g.node(id).op == Op::Binary(Binary::Mul));
    let ((x, cos), (rotated, sin)) = (product(a)?, product(b)?);
    (rotated_from(g, rotated)? == x).then_some(())?;
    let (cos, sin) = (half_table(g, cos)?, half_table(g, sin)?);
    let fits = |t: &Table| t.start.is_some() || g.node(t.half).shape[0] == node.shape[2];
    if !fits(&cos) || !fits(&sin) {
        return None;
    }
    Some((
        x,
        narrow_rows(g, cos, &node.shape),
        narrow_rows(g, sin, &node.shape),
    ))
}

/// `x` of `cat(-x[d/2..], x[..d/2])`.
fn rotated_from(g: &Graph, id: NodeId) -> Option<NodeId> {
    let node = g.node(id);
    let (neg, low) = pair(node).filter(|_| node.op == Op::Cat(3))?;
    let neg = g.node(neg);
    let high = *neg
        .inputs
        .first()
        .filter(|_| neg.op == Op::Unary(Unary::Neg))?;
    let half = node.shape[3].divide(&Dim::from(2))?;
    let part = |id: NodeId, start: &Dim| {
        let n = g.node(id);
        let fits =
            n.op == Op::Narrow {
                axis: 3,
                start: start.clone(),
            } && n.shape[3] == half;
        fits.then(|| n.inputs[0])
    };
    let x = part(high, &half)?;
    (part(low, &Dim::from(0))? == x).then_some(x)
}

/// A table, the rows it is narrowed to, and where they start.
struct Table {
    half: NodeId,
    start: Option<Dim>,
}

/// The half table `[n, d/2]` behind a full one that is broadcast to `[b, h, s, d]`.
fn half_table(g: &Graph, id: NodeId) -> Option<Table> {
    let mut id = id;
    let mut start: Option<Dim> = None;
    loop {
        let node = g.node(id);
        match &node.op {
            Op::Broadcast => id = node.inputs[0],
            Op::Reshape if adds_ones(&node.shape, &g.node(node.inputs[0]).shape) => {
                id = node.inputs[0]
            }
            Op::Narrow { axis: 0, start: s } if node.shape.len() == 2 => {
                start = Some(start.map_or(s.clone(), |t| &t + s));
                id = node.inputs[0];
            }
            _ => break,
        }
    }
    // reshape(broadcast(reshape(t, [n, 1, d/2]), [n, 2, d/2]), [n, d])
    let joined = g.node(id);
    let wide = g.node(*joined.inputs.first().filter(|_| joined.op == Op::Reshape)?);
    let point = g.node(*wide.inputs.first().filter(|_| wide.op == Op::Broadcast)?);
    let half = *point.inputs.first().filter(|_| point.op == Op::Reshape)?;
    let rows = &g.node(half).shape;
    let twice = rows.len() == 2
        && point.shape == [rows[0].clone(), Dim::from(1), rows[1].clone()]
        && wide.shape == [rows[0].clone(), Dim::from(2), rows[1].clone()]
        && adds_ones(&joined.shape, &[rows[0].clone(), &rows[1] * &Dim::from(2)]);
    twice.then_some(Table { half, start })
}

fn adds_ones(long: &[Dim], short: &[Dim]) -> bool {
    long.strip_suffix(short)
        .is_some_and(|lead| lead.iter().all(|d| d.is(1)))
}

fn narrow_rows(g: &mut Graph, table: Table, shape: &[Dim]) -> NodeId {
    let node = g.node(table.half).clone();
    match table.start {
        None => table.half,
        Some(start) => {
            let rows = [shape[2].clone(), node.shape[1].clone()];
            push(
                g,
                Op::Narrow { axis: 0, start },
                &[table.half],
                &rows,
                node.dtype,
            )
        }
    }
}
