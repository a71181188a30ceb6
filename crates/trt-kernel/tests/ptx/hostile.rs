//! Kernels with sizes that no compiler makes, as a damaged file may have them: they are refused,
//! or made ready like any other.

use crate::corpus;
use std::panic::{AssertUnwindSafe, catch_unwind};
use trt_kernel::ptx::{Target, emit};
use trt_kernel::{Dim, Kernel, Left, Matmul, Operand, View, host};

/// Sizes at the edges of what numbers hold.
const SIZES: [usize; 9] = [
    0,
    1,
    7,
    1 << 16,
    (1 << 31) - 1,
    1 << 32,
    (1 << 33) + 1,
    1 << 47,
    usize::MAX,
];

/// Every place of a kernel that a size may be put into.
fn places(kernel: &mut Kernel) -> Vec<Place<'_>> {
    fn of_view(view: &mut View) -> impl Iterator<Item = Place<'_>> {
        let View { offset, strides } = view;
        strides.iter_mut().chain([offset]).map(Place::Dim)
    }
    fn of(operand: &mut Operand) -> impl Iterator<Item = Place<'_>> {
        of_view(&mut operand.view)
    }
    fn of_product(k: &mut Matmul) -> Vec<Place<'_>> {
        let sizes = [&mut k.batch, &mut k.m, &mut k.n, &mut k.k];
        let left = match &mut k.a {
            Left::Stored(a) => of(a).collect(),
            Left::Computed { .. } => Vec::new(),
        };
        let all = sizes.map(Place::Dim).into_iter().chain(left);
        all.chain(of(&mut k.b)).collect()
    }
    match kernel {
        Kernel::Row(k) => k.space.iter_mut().map(Place::Dim).collect(),
        Kernel::Matmul(k) => of_product(k),
        Kernel::Routed(k) => {
            let first = [Place::Size(&mut k.first)].into_iter();
            let product = of_product(&mut k.product);
            first.chain(product).chain(of(&mut k.ids)).collect()
        }
        Kernel::Attention(k) => {
            let sizes = [&mut k.batch, &mut k.queries, &mut k.keys].map(Place::Dim);
            let heads = [&mut k.heads, &mut k.kv_heads];
            let widths = [&mut k.head_dim, &mut k.value_dim];
            let plain = heads.into_iter().chain(widths).map(Place::Size);
            let window = k.causal.iter_mut().filter_map(|c| c.window.as_mut());
            let all = sizes.into_iter().chain(plain);
            let all = all.chain(window.map(Place::Size));
            all.chain(of(&mut k.q)).chain(of(&mut k.v)).collect()
        }
        Kernel::Gather(k) => {
            let plain = [&mut k.cols, &mut k.entries].map(Place::Size);
            let rows = [Place::Dim(&mut k.rows)];
            plain
                .into_iter()
                .chain(rows)
                .chain(of(&mut k.ids))
                .collect()
        }
        Kernel::Move(k) => {
            let space = k.space.iter_mut().map(Place::Dim);
            let views = of_view(&mut k.src).chain(of_view(&mut k.dst));
            space.chain(views).collect()
        }
        Kernel::Group(k) => k.parts.iter_mut().flat_map(places).collect(),
    }
}

enum Place<'a> {
    Dim(&'a mut Dim),
    Size(&'a mut usize),
}

impl Place<'_> {
    fn put(self, size: usize) {
        match self {
            Place::Dim(dim) => *dim = Dim::from(size),
            Place::Size(to) => *to = size,
        }
    }
}

/// Makes a kernel ready for everything that runs kernels; whether its check lets it pass.
fn ready(kernel: &Kernel) -> bool {
    let passes = kernel.check().is_ok();
    for target in Target::ALL {
        let emitted = emit(kernel, target);
        assert!(passes || emitted.is_err(), "text for what was refused");
    }
    let prepared = host::Prepared::new(kernel);
    assert!(passes || prepared.is_err(), "prepared what was refused");
    passes
}

#[test]
fn every_size_of_every_kernel_is_refused_or_made_ready() {
    let (mut passed, mut refused) = (0, 0);
    // Neighbours in the corpus are of one kind.
    for (name, kernel) in corpus::kernels().into_iter().step_by(11) {
        let count = places(&mut kernel.clone()).len();
        for (at, size) in (0..count).flat_map(|at| SIZES.map(|size| (at, size))) {
            let mut other = kernel.clone();
            places(&mut other).remove(at).put(size);
            let run = catch_unwind(AssertUnwindSafe(|| ready(&other)));
            match run.unwrap_or_else(|_| panic!("{name}: place {at}, size {size}")) {
                true => passed += 1,
                false => refused += 1,
            }
        }
    }
    assert!(passed > 100 && refused > 100, "{passed}, {refused}");
}

#[test]
fn attention_without_heads_or_columns_is_refused_by_name() {
    let (_, kernel) = (corpus::attention::kernels().into_iter())
        .next()
        .expect("the corpus has attentions");
    let Kernel::Attention(whole) = kernel else {
        panic!("not an attention: {kernel}")
    };
    let wrong = |change: fn(&mut trt_kernel::Attention)| {
        let mut k = whole.clone();
        change(&mut k);
        Kernel::Attention(k).check().unwrap_err().to_string()
    };
    assert_eq!(
        wrong(|k| k.value_dim = 0),
        "attention kernel: value_dim is 0"
    );
    assert_eq!(wrong(|k| k.head_dim = 0), "attention kernel: head_dim is 0");
    assert_eq!(wrong(|k| k.heads = 0), "attention kernel: heads is 0");
    assert_eq!(wrong(|k| k.kv_heads = 0), "attention kernel: kv_heads is 0");
}
