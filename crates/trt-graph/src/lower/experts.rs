//! Rows by the matrices that integers say: a launch for each matrix, or one for all of a tensor.

use super::access::Index;
use super::emit::Stop;
use super::place::Place;
use super::writer::{Fault, Writer};
use crate::graph::{NodeId, Op};
use trt_kernel::{Dim, Encoding, Inst, Kernel, Matmul, Operand, Routed, Ty, View};

/// What the launches of an op have in common.
struct Rows {
    x: Place,
    ids: Place,
    target: Place,
    m: Dim,
    n: Dim,
    k: Dim,
}

/// The matrices of a launch.
struct Matrices {
    place: Place,
    encoding: Encoding,
    /// How many they are.
    count: Dim,
    /// The number of the first.
    first: usize,
    /// Whether it is one that may be launched by row ranges.
    ranged: bool,
}

pub(super) fn write(w: &mut Writer<'_>, id: NodeId) -> Result<(), Fault> {
    let graph = w.graph;
    let node = graph.node(id);
    let (x, ids) = (w.places.of(node.inputs[0])?, w.places.of(node.inputs[1])?);
    let mut all = Vec::new();
    for (first, input) in node.inputs[2..].iter().enumerate() {
        all.push(matrices(w, *input, first)?);
    }
    let rows = Rows {
        x,
        ids,
        target: w.destination(id)?,
        m: node.shape[0].clone(),
        n: node.shape[1].clone(),
        k: graph.node(node.inputs[0]).shape[1].clone(),
    };
    for matrices in all {
        launch(w, id, &rows, matrices);
    }
    w.places.stored[id.index()] = Some(rows.target);
    Ok(())
}

fn matrices(w: &Writer<'_>, mut input: NodeId, first: usize) -> Result<Matrices, Stop> {
    // Elements are multiplied in f32, so a cast of a weight is none.
    while w.graph.node(input).op == Op::Cast {
        input = w.graph.node(input).inputs[0];
    }
    let shape = &w.graph.node(input).shape;
    if shape.len() == 2
        && let Some((place, encoding)) = w.stored_weight(input)
    {
        return Ok(Matrices {
            place,
            encoding,
            count: Dim::from(1),
            first,
            ranged: true,
        });
    }
    let mut place = w.places.of(input)?;
    let mut count = Dim::from(1);
    match shape.len() {
        3 => count = shape[0].clone(),
        _ => place.strides.insert(0, Dim::from(0)),
    }
    Ok(Matrices {
        encoding: place.dtype.into(),
        place,
        count,
        first,
        ranged: false,
    })
}

fn launch(w: &mut Writer<'_>, id: NodeId, rows: &Rows, matrices: Matrices) {
    let Rows { m, n, k, .. } = rows;
    let Matrices { place, .. } = &matrices;
    let mut e = w.emitter(id, vec![matrices.count.clone(), m.clone(), n.clone()]);
    let zero = || Dim::from(0);
    let view = |offset: &Dim, strides: Vec<Dim>| View {
        offset: offset.clone(),
        strides,
    };
    let along = |p: &Place| [&[zero()], &p.strides[..]].concat();
    let a = Operand {
        arg: e.args.of(rows.x.source, rows.x.dtype),
        view: view(&rows.x.offset, along(&rows.x)),
    };
    let ids = Operand {
        arg: e.args.of(rows.ids.source, rows.ids.dtype),
        view: view(&rows.ids.offset, rows.ids.strides.clone()),
    };
    let b = Operand {
        arg: e.args.fresh(place.source, place.dtype),
        view: match matrices.ranged {
            true => view(&zero(), vec![zero(), k.clone(), Dim::from(1)]),
            false => view(&place.offset, place.strides.clone()),
        },
    };
    let sum = e.body.push(Inst::Input);
    e.store(
        &rows.target,
        &vec![Index::axis(1), Index::axis(2)],
        (sum, Ty::F32),
    );
    let args = e.args;
    let kernel = Kernel::Routed(Routed {
        product: Matmul {
            batch: matrices.count,
            m: m.clone(),
            n: n.clone(),
            k: k.clone(),
            args: args.encodings(b.arg, matrices.encoding),
            a: a.into(),
            b,
            ranged: matrices.ranged,
            epilogue: e.body.finish(),
        },
        ids,
        first: matrices.first,
    });
    w.launch(kernel, args, vec!["experts".into()]);
}
