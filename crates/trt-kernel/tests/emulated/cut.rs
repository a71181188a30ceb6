//! Kernels of the corpus with fewer rows, for an emulator: each computes what it did at fewer points.

use super::*;

/// What is left of the sizes of a product: more rows than one block has, two panels of a weight, and
/// several steps along the inner size.
const SIZES: [i64; 3] = [130, 128, 576];
/// What is left of the entries of a table.
const ENTRIES: usize = 1000;
/// What is left of each axis of a space but the last.
const AXIS: i64 = 24;

pub fn cut(kernel: &Kernel) -> Kernel {
    match kernel {
        Kernel::Matmul(k) => Kernel::Matmul(product(k)),
        Kernel::Routed(k) => Kernel::Routed(Routed {
            product: product(&k.product),
            ..k.clone()
        }),
        Kernel::Gather(k) => Kernel::Gather(Gather {
            entries: k.entries.min(ENTRIES),
            ..k.clone()
        }),
        Kernel::Row(k) => Kernel::Row(Row {
            space: outer(&k.space),
            ..k.clone()
        }),
        Kernel::Move(k) => Kernel::Move(Move {
            space: outer(&k.space),
            ..k.clone()
        }),
        Kernel::Group(k) => Kernel::Group(Group {
            parts: k.parts.iter().map(cut).collect(),
            order: k.order,
        }),
        Kernel::Attention(_) => kernel.clone(),
    }
}

fn least(dim: &Dim, most: i64) -> Dim {
    match dim.constant() {
        Some(n) if n > most => Dim::from(most),
        _ => dim.clone(),
    }
}

fn outer(space: &[Dim]) -> Vec<Dim> {
    let mut all: Vec<Dim> = space.iter().map(|d| least(d, AXIS)).collect();
    if let (Some(to), Some(from)) = (all.last_mut(), space.last()) {
        *to = from.clone();
    }
    all
}

fn product(k: &Matmul) -> Matmul {
    let mut cut = k.clone();
    let [m, n, inner] = SIZES;
    cut.m = least(&k.m, m);
    cut.n = least(&k.n, n);
    let block = k.right().values() as i64;
    cut.k = least(&k.k, inner / block * block);
    // Rows lie close on both sides and in the result: strides from one to the next are sizes.
    restride(&mut cut.b.view, &k.k, &cut.k);
    match &mut cut.a {
        Left::Stored(a) => restride(&mut a.view, &k.k, &cut.k),
        Left::Computed { body, .. } => restride_all(body, &k.k, &cut.k),
    }
    restride_all(&mut cut.epilogue, &k.n, &cut.n);
    cut
}

fn restride_all(body: &mut Body, from: &Dim, to: &Dim) {
    for inst in &mut body.insts {
        if let Inst::Load(_, view) | Inst::Store(_, view, _) = inst {
            restride(view, from, to);
        }
    }
}

fn restride(view: &mut View, from: &Dim, to: &Dim) {
    let strides = view.strides.iter_mut().filter(|s| *s == from);
    strides.for_each(|s| *s = to.clone());
}
