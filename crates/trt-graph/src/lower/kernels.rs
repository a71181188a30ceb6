//! The template kernels of single ops: product, gather, rope, attention.

use super::access::{Access, Index};
use super::emit::{Args, Stop};
use super::place::Place;
use super::writer::{Fault, Writer};
use crate::Error;
use crate::graph::{AttentionOp, Graph, NodeId, Op};
use trt_kernel::{
    Arg, Attention, Binary, BodyBuilder, Causal, Dim, Encoding, Gather, Inst, Kernel, Matmul,
    Operand, Row, Unary, View,
};

fn operand(arg: Arg, offset: &Dim, strides: Vec<Dim>) -> Operand {
    Operand {
        arg,
        view: View {
            offset: offset.clone(),
            strides,
        },
    }
}

fn zero() -> Dim {
    Dim::from(0)
}

/// Which axis of a product's leading axes is not 1, if at most one is.
fn lead_axis(graph: &Graph, id: NodeId, lead: &[Dim]) -> Result<Option<usize>, Fault> {
    let mut wide = lead.iter().enumerate().filter(|(_, d)| !d.is(1));
    let found = wide.next().map(|(i, _)| i);
    match wide.next() {
        None => Ok(found),
        Some(_) => {
            let what = format!(
                "{} leading axes of a product are not 1",
                lead.iter().filter(|d| !d.is(1)).count()
            );
            Err(Error::Lower {
                node: id,
                op: graph.node(id).op.name(),
                what,
            }
            .into())
        }
    }
}

/// A product with its epilogue, from the product node to the kernel's root.
pub(super) fn matmul(
    w: &mut Writer<'_>,
    root: NodeId,
    product: NodeId,
    target: &Place,
) -> Result<(Kernel, Args, Vec<String>), Fault> {
    let graph = w.graph;
    let node = graph.node(product);
    let (lhs, rhs) = (node.inputs[0], node.inputs[1]);
    let rank = node.shape.len();
    let shared = graph.node(rhs).shape.len() == 2;
    // With one matrix for all, the leading axes are rows; otherwise they are independent.
    let rows_lead = if shared { rank - 1 } else { rank - 2 };
    let lead = lead_axis(graph, product, &node.shape[..rows_lead])?;
    let m_axis = if shared { lead } else { Some(rank - 2) };
    let batch_axis = if shared { None } else { lead };
    let size = |axis: Option<usize>| axis.map_or(Dim::from(1), |a| node.shape[a].clone());
    let (batch, m, n) = (size(batch_axis), size(m_axis), node.shape[rank - 1].clone());
    let k = graph.node(lhs).shape[rank - 1].clone();

    let a = w.places.of(lhs)?;
    let weight = ranged_weight(w, rhs);
    let (b, right) = match &weight {
        Some((place, encoding)) => (place.clone(), *encoding),
        None => {
            let place = w.places.of(rhs)?;
            let plain = place.dtype.into();
            (place, plain)
        }
    };
    let stride = |p: &Place, axis: Option<usize>| axis.map_or_else(zero, |a| p.strides[a].clone());
    let mut e = w.emitter(root, vec![batch.clone(), m.clone(), n.clone()]);
    let a_arg = e.args.of(a.source, a.dtype);
    let a_op = operand(
        a_arg,
        &a.offset,
        vec![
            stride(&a, batch_axis),
            stride(&a, m_axis),
            a.strides[rank - 1].clone(),
        ],
    );
    let b_arg = e.args.fresh(b.source, b.dtype);
    let b_op = match &weight {
        Some(_) => operand(b_arg, &zero(), vec![zero(), k.clone(), Dim::from(1)]),
        None => {
            let r = b.strides.len();
            let batch = if shared {
                zero()
            } else {
                stride(&b, batch_axis)
            };
            operand(
                b_arg,
                &b.offset,
                vec![batch, b.strides[r - 1].clone(), b.strides[r - 2].clone()],
            )
        }
    };
    let access: Access = (0..rank)
        .map(|axis| match axis {
            x if x == rank - 1 => Index::axis(2),
            x if Some(x) == m_axis => Index::axis(1),
            x if Some(x) == batch_axis => Index::axis(0),
            _ => Index::default(),
        })
        .collect();
    e.anchor = Some((product, access.clone()));
    let value = e.emit(root, &access)?;
    e.store(target, &access, value);
    let (args, ops) = (e.args, e.ops);
    let kernel = Kernel::Matmul(Matmul {
        batch,
        m,
        n,
        k,
        args: args.encodings(b_arg, right),
        a: a_op.into(),
        b: b_op,
        ranged: weight.is_some(),
        epilogue: e.body.finish(),
    });
    Ok((kernel, args, ops))
}

/// The stored place of `w` in `permute(w)` and how it is written down there, if `w` is a weight of shape
/// `[n, k]`, or one whose rows have several axes of `k` elements (a convolution's).
fn ranged_weight(w: &Writer<'_>, rhs: NodeId) -> Option<(Place, Encoding)> {
    let node = w.graph.node(rhs);
    let rows = *node
        .inputs
        .first()
        .filter(|_| node.op == Op::Permute(vec![1, 0]))?;
    let joined = w.graph.node(rows);
    let input = match joined.op {
        Op::Reshape if w.graph.node(joined.inputs[0]).shape.first() == joined.shape.first() => {
            joined.inputs[0]
        }
        _ => rows,
    };
    w.stored_weight(input)
}

/// Rows of a table.
pub(super) fn gather(w: &mut Writer<'_>, id: NodeId) -> Result<(), Fault> {
    let graph = w.graph;
    let node = graph.node(id);
    let mut table = node.inputs[0];
    // Elements are converted on the way out, so a cast of the table is none.
    while graph.node(table).op == Op::Cast
        && graph.node(graph.node(table).inputs[0]).dtype.is_float()
    {
        table = graph.node(table).inputs[0];
    }
    let size = |axis: usize| graph.node(table).shape[axis].constant_size();
    let (Some(entries), Some(cols)) = (size(0), size(1)) else {
        let what = "the table's shape is not constant".into();
        return Err(Error::Lower {
            node: id,
            op: node.op.name(),
            what,
        }
        .into());
    };
    if !graph.node(table).dtype.is_float() {
        let what = format!(
            "a table of {}; gathers read floats",
            graph.node(table).dtype
        );
        return Err(Error::Lower {
            node: id,
            op: node.op.name(),
            what,
        }
        .into());
    }
    let (place, encoding) = match w.stored_weight(table) {
        Some(stored) => stored,
        None => {
            let place = w.places.of(table)?;
            let plain = place.dtype.into();
            (place, plain)
        }
    };
    let ids = w.places.of(node.inputs[1])?;
    let plain =
        place.offset.is(0) && place.strides == super::place::row_major(&graph.node(table).shape);
    if !plain {
        return Err(Stop(table, "a gather reads a row-major table").into());
    }
    let target = w.destination(id)?;
    let rows = node.shape[0].clone();
    let mut e = w.emitter(id, vec![rows.clone(), Dim::from(cols)]);
    let table_arg = e.args.fresh(place.source, place.dtype);
    let ids_arg = e.args.of(ids.source, ids.dtype);
    let value = (e.body.push(Inst::Input), trt_kernel::Ty::F32);
    e.store(&target, &vec![Index::axis(0), Index::axis(1)], value);
    let args = e.args;
    let kernel = Kernel::Gather(Gather {
        rows,
        cols,
        entries,
        args: args.encodings(table_arg, encoding),
        ids: operand(ids_arg, &ids.offset, ids.strides),
        table: table_arg,
        body: e.body.finish(),
    });
    w.places.stored[id.index()] = Some(target);
    w.launch(kernel, args, vec!["index_select".into()]);
    Ok(())
}

/// Both halves of a rotary embedding in one row kernel over half the columns.
pub(super) fn rope(w: &mut Writer<'_>, id: NodeId) -> Result<(), Fault> {
    let node = w.graph.node(id);
    let halves = w.places.halves(node.inputs[0])?;
    let tables = [w.places.of(node.inputs[1])?, w.places.of(node.inputs[2])?];
    let target = w.destination(id)?;
    let mut space = node.shape.clone();
    let Some(half) = space[3].divide(&Dim::from(2)) else {
        let what = format!("an odd head size {}", space[3]);
        return Err(Error::Lower {
            node: id,
            op: node.op.name(),
            what,
        }
        .into());
    };
    space[3] = half.clone();
    let low: Access = (0..4).map(Index::axis).collect();
    let mut high = low.clone();
    high[3].offset = half;
    let table: Access = vec![Index::axis(2), Index::axis(3)];
    let mut e = w.emitter(id, space.clone());
    let [(x1, _), (x2, _)] = [0, 1].map(|half| {
        let mut access: Access = (0..4).map(Index::axis).collect();
        access.insert(3, Index::at(half));
        e.load(&halves, &access)
    });
    let (cos, ty) = e.load(&tables[0], &table);
    let (sin, _) = e.load(&tables[1], &table);
    let mul = |b: &mut BodyBuilder, x, y| b.binary(Binary::Mul, x, y);
    let (x1c, x2s) = (mul(&mut e.body, x1, cos), mul(&mut e.body, x2, sin));
    let (x2c, x1s) = (mul(&mut e.body, x2, cos), mul(&mut e.body, x1, sin));
    let first = e.body.binary(Binary::Sub, x1c, x2s);
    let second = e.body.binary(Binary::Add, x2c, x1s);
    e.store(&target, &low, (first, ty));
    e.store(&target, &high, (second, ty));
    let args = e.args;
    let kernel = Kernel::Row(Row {
        space,
        args: args.dtypes.clone(),
        body: e.body.finish(),
    });
    w.places.stored[id.index()] = Some(target);
    w.launch(kernel, args, vec!["rope".into()]);
    Ok(())
}

/// Attention with its score function.
pub(super) fn attention(w: &mut Writer<'_>, id: NodeId, op: &AttentionOp) -> Result<(), Fault> {
    let graph = w.graph;
    let node = graph.node(id);
    let places: Vec<Place> = node.inputs[..3]
        .iter()
        .map(|i| w.places.of(*i))
        .collect::<Result<_, _>>()?;
    let target = w.destination(id)?;
    let shape = |i: usize| &graph.node(node.inputs[i]).shape;
    let (q, k, v) = (shape(0), shape(1), shape(2));
    let fixed = |d: &Dim| {
        d.constant_size().ok_or_else(|| Error::Lower {
            node: id,
            op: node.op.name(),
            what: format!("{d} heads or elements is not constant"),
        })
    };
    let (heads, kv_heads) = (fixed(&q[1])?, fixed(&k[1])?);
    let (head_dim, value_dim) = (fixed(&q[3])?, fixed(&v[3])?);
    let (batch, queries, keys) = (q[0].clone(), q[2].clone(), k[2].clone());

    let mut e = w.emitter(
        id,
        vec![batch.clone(), q[1].clone(), queries.clone(), keys.clone()],
    );
    let arg = |args: &mut Args, p: &Place| {
        let arg = args.of(p.source, p.dtype);
        operand(arg, &p.offset, p.strides.clone())
    };
    let [q_op, k_op, v_op, out] =
        [&places[0], &places[1], &places[2], &target].map(|p| arg(&mut e.args, p));
    let mut score = e.body.push(Inst::Input);
    if op.scale != 1.0 {
        let scale = e.body.push(Inst::F32(op.scale));
        score = e.body.binary(Binary::Mul, score, scale);
    }
    if let Some(cap) = op.soft_cap {
        let inverse = e.body.push(Inst::F32(1.0 / cap));
        let small = e.body.binary(Binary::Mul, score, inverse);
        let tanh = e.body.unary(Unary::Tanh, small);
        let cap = e.body.push(Inst::F32(cap));
        score = e.body.binary(Binary::Mul, tanh, cap);
    }
    if op.bias {
        let access = (0..4).map(Index::axis).collect();
        let (bias, _) = e.emit(node.inputs[3], &access)?;
        score = e.body.binary(Binary::Add, score, bias);
    }
    e.body.push(Inst::Yield(score));
    let args = e.args;
    let kernel = Kernel::Attention(Attention {
        batch,
        heads,
        kv_heads,
        queries,
        keys,
        head_dim,
        value_dim,
        before: Vec::new(),
        args: args.dtypes.clone(),
        q: q_op,
        k: k_op,
        v: v_op,
        out,
        causal: op
            .causal
            .clone()
            .map(|(offset, window)| Causal { offset, window }),
        score: e.body.finish(),
    });
    w.places.stored[id.index()] = Some(target);
    w.launch(kernel, args, vec!["attention".into()]);
    Ok(())
}
