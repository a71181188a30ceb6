//! Row kernels as PTX.

use super::*;
use crate::emulator::{Call, run};
use proptest::prelude::*;

const FLOATS: [DType; 3] = [DType::F32, DType::BF16, DType::F16];

pub fn view(offset: usize, strides: &[i64]) -> View {
    View {
        offset: Dim::from(offset),
        strides: strides.iter().map(|s| Dim::from(*s)).collect(),
    }
}

pub fn row(space: Vec<Dim>, args: &[DType], body: BodyBuilder) -> Kernel {
    Kernel::Row(Row {
        space,
        args: args.to_vec(),
        body: body.finish(),
    })
}

fn softmax(rows: &Dim, cols: &Dim, dtype: DType) -> Kernel {
    let space = vec![rows.clone(), cols.clone()];
    let whole = View::contiguous(&space);
    let mut b = BodyBuilder::new();
    let x = b.load(Arg(0), whole.clone());
    let max = b.push(Inst::Reduce(Reduce::Max, x));
    let d = b.binary(Binary::Sub, x, max);
    let e = b.unary(Unary::Exp, d);
    let sum = b.push(Inst::Reduce(Reduce::Sum, e));
    let y = b.binary(Binary::Div, e, sum);
    b.store(Arg(1), whole, y);
    row(space, &[dtype; 2], b)
}

fn rms_norm(rows: usize, cols: usize, dtype: DType) -> Kernel {
    let whole = View::contiguous(&dims(&[rows, cols]));
    let mut b = BodyBuilder::new();
    let x = b.load(Arg(0), whole.clone());
    let w = b.load(Arg(1), view(0, &[0, 1]));
    let sq = b.unary(Unary::Sqr, x);
    let sum = b.push(Inst::Reduce(Reduce::Sum, sq));
    let n = b.push(Inst::F32(cols as f32));
    let mean = b.binary(Binary::Div, sum, n);
    let eps = b.push(Inst::F32(1e-5));
    let mean = b.binary(Binary::Add, mean, eps);
    let root = b.unary(Unary::Sqrt, mean);
    let y = b.binary(Binary::Div, x, root);
    let y = b.binary(Binary::Mul, y, w);
    b.store(Arg(2), whole, y);
    row(dims(&[rows, cols]), &[dtype; 3], b)
}

#[test]
fn softmax_equals_the_reference_for_short_and_long_rows() {
    for cols in [1, 5, 8, 64, 65, 577, 1024, 4100, 9000] {
        for dtype in FLOATS {
            let rows = if cols > 1000 { 2 } else { 7 };
            let args = [
                Buffer::random(dtype, rows * cols, 1),
                Buffer::zeros(dtype, rows * cols),
            ];
            let (r, c) = (Dim::from(rows), Dim::from(cols));
            let env = Env::new(&[rows as i64, cols as i64]);
            let d = distance(&softmax(&r, &c, dtype), &env, &args);
            assert!(d <= 2.0, "{cols} {dtype}: {d}");
            let runtime = softmax(&Dim::var(Var(0)), &Dim::var(Var(1)), dtype);
            let d = distance(&runtime, &env, &args);
            assert!(d <= 2.0, "{cols} {dtype} at run time: {d}");
        }
    }
}

#[test]
fn rms_norm_equals_the_reference() {
    for (rows, cols) in [(1, 576), (3, 64), (40, 576), (2, 100), (3, 4096)] {
        for dtype in FLOATS {
            let args = [
                Buffer::random(dtype, rows * cols, 1),
                Buffer::random(dtype, cols, 2),
                Buffer::zeros(dtype, rows * cols),
            ];
            let d = distance(&rms_norm(rows, cols, dtype), &Env::default(), &args);
            assert!(d <= 2.0, "{rows} {cols} {dtype}: {d}");
        }
    }
}

#[test]
fn every_unary_function_equals_the_reference() {
    use Unary::*;
    let all = [
        Neg, Abs, Exp, Log, Sin, Cos, Tanh, Sqr, Sqrt, Recip, Erf, Relu, Silu, Gelu, GeluErf,
        Sigmoid, Floor, Ceil, Round, Sign,
    ];
    for f in all {
        let whole = View::contiguous(&dims(&[1000]));
        let mut b = BodyBuilder::new();
        let x = b.load(Arg(0), whole.clone());
        let y = b.unary(f, x);
        b.store(Arg(1), whole, y);
        let positive = matches!(f, Log | Sqrt | Recip);
        let value = |i: usize| {
            if positive {
                0.1 + i as f64 * 0.01
            } else {
                i as f64 * 0.01 - 5.0
            }
        };
        let args = [
            Buffer::new(DType::F32, (0..1000).map(value)),
            Buffer::zeros(DType::F32, 1000),
        ];
        let kernel = row(dims(&[1000]), &[DType::F32; 2], b);
        let d = distance(&kernel, &Env::default(), &args);
        assert!(d <= 2.0, "{f:?}: {d}");
    }
}

#[test]
fn views_may_broadcast_transpose_and_start_anywhere() {
    // out[i, j, k] = a^T + b[j] over [3, 5, 7], a stored as [7, 5, 3] after 4 elements.
    let mut b = BodyBuilder::new();
    let x = b.load(Arg(0), view(4, &[1, 3, 15]));
    let y = b.load(Arg(1), view(0, &[0, 1, 0]));
    let s = b.binary(Binary::Add, x, y);
    b.store(Arg(2), View::contiguous(&dims(&[3, 5, 7])), s);
    let kernel = row(dims(&[3, 5, 7]), &[DType::F16, DType::F32, DType::BF16], b);
    let args = [
        Buffer::random(DType::F16, 109, 1),
        Buffer::random(DType::F32, 5, 2),
        Buffer::zeros(DType::BF16, 105),
    ];
    assert!(distance(&kernel, &Env::default(), &args) <= 0.5);
}

#[test]
fn sizes_and_strides_follow_the_runtime_integers() {
    // out[s, c] = a[past + s, c], rows of a cache.
    let (past, seq) = (Dim::var(Var(0)), Dim::var(Var(1)));
    let mut b = BodyBuilder::new();
    let from = View {
        offset: &past * &Dim::from(8),
        strides: dims(&[8, 1]),
    };
    let x = b.load(Arg(0), from);
    b.store(Arg(1), view(0, &[8, 1]), x);
    let kernel = row(vec![seq, Dim::from(8)], &[DType::F32; 2], b);
    for (past, seq) in [(0, 1), (3, 2), (5, 5), (2, 0)] {
        let args = [
            Buffer::random(DType::F32, 80, 1),
            Buffer::zeros(DType::F32, 40),
        ];
        assert_eq!(distance(&kernel, &Env::new(&[past, seq]), &args), 0.0);
    }
}

#[test]
fn integers_truths_and_indices_compute() {
    // A causal band by indices: stores the truth, the index sum and a selected float.
    let space = [4, 3, 33];
    let whole = View::contiguous(&dims(&space));
    let mut b = BodyBuilder::new();
    let i = b.push(Inst::Iota(0));
    let j = b.push(Inst::Iota(2));
    let offset = b.push(Inst::I64(&Dim::var(Var(0)) + &Dim::from(2)));
    let limit = b.binary(Binary::Add, i, offset);
    let seen = b.push(Inst::Compare(Compare::Le, j, limit));
    let product = b.binary(Binary::Mul, j, limit);
    let x = b.load(Arg(0), whole.clone());
    let k = b.load(Arg(4), whole.clone());
    let k = b.push(Inst::Cast(k, Ty::F32));
    let x = b.binary(Binary::Add, x, k);
    let minus = b.push(Inst::F32(f32::NEG_INFINITY));
    let masked = b.push(Inst::Select(seen, x, minus));
    b.store(Arg(1), whole.clone(), seen);
    b.store(Arg(2), whole.clone(), product);
    b.store(Arg(3), whole.clone(), masked);
    let dtypes = [DType::F32, DType::U8, DType::I64, DType::F32, DType::U32];
    let n = space.iter().product();
    let args: Vec<Buffer> = dtypes.iter().map(|d| Buffer::random(*d, n, 3)).collect();
    let kernel = row(dims(&space), &dtypes, b);
    assert_eq!(distance(&kernel, &Env::new(&[3]), &args), 0.0);
}

#[test]
fn a_row_kernel_works_in_place() {
    for (rows, cols) in [(3, 100), (5, 8), (2, 577), (3, 4100), (70, 64), (2, 9000)] {
        for (r, c) in [
            (Dim::from(rows), Dim::from(cols)),
            (Dim::var(Var(0)), Dim::var(Var(1))),
        ] {
            let kernel = softmax(&r, &c, DType::F32);
            let env = Env::new(&[rows, cols]);
            let n = (rows * cols) as usize;
            let args = [
                Buffer::random(DType::F32, n, 1),
                Buffer::zeros(DType::F32, n),
            ];
            for e in emitted(&kernel) {
                let mut apart = args.to_vec();
                launch(&kernel, &e, &env, &[], 0, &mut apart);
                for seed in [0, 5, 6] {
                    let mut within = args.to_vec();
                    let call = Call {
                        env,
                        written: kernel.written(),
                        shared: vec![(Arg(1), Arg(0))],
                        seed,
                        ..Call::default()
                    };
                    run(&e, &call, &mut within).unwrap_or_else(|e| panic!("{rows} {cols}: {e}"));
                    assert_eq!(within[1].bytes, apart[1].bytes, "{rows} {cols}");
                }
            }
        }
    }
}

#[test]
fn conversions_round_to_nearest_even_and_keep_nan() {
    let values = [
        1.0f32,
        1.0 + 1.0 / 256.0,
        1.0 + 3.0 / 256.0,
        -0.0,
        f32::INFINITY,
        f32::MAX,
        f32::NAN,
        1e-40,
        65519.9,
        65520.0,
    ];
    for dtype in [DType::BF16, DType::F16] {
        let n = values.len();
        let whole = View::contiguous(&dims(&[n]));
        let mut b = BodyBuilder::new();
        let x = b.load(Arg(0), whole.clone());
        b.store(Arg(1), whole, x);
        let kernel = row(dims(&[n]), &[DType::F32, dtype], b);
        let args = [
            Buffer::new(DType::F32, values.iter().map(|v| f64::from(*v))),
            Buffer::zeros(dtype, n),
        ];
        assert_eq!(distance(&kernel, &Env::default(), &args), 0.0, "{dtype}");
    }
}

/// Strides of a space whose axes are stored in another order.
fn permuted(sizes: &[usize], order: u64) -> Vec<i64> {
    let rank = sizes.len();
    let mut axes: Vec<usize> = (0..rank).collect();
    (0..rank).for_each(|i| axes.swap(i, (order >> (8 * i)) as usize % rank));
    let mut strides = vec![0i64; rank];
    let mut step = 1i64;
    for &a in axes.iter().rev() {
        strides[a] = step;
        step *= sizes[a] as i64;
    }
    strides
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_space_and_axis_order_equals_the_reference(
        sizes in prop::collection::vec(1usize..9, 1..5),
        order in any::<u64>(),
        dtype in prop::sample::select(FLOATS.to_vec()),
    ) {
        // `a` is stored with its axes in another order, `b` broadcasts some of them.
        let strides = permuted(&sizes, order);
        let n: usize = sizes.iter().product();
        let broadcast: Vec<i64> = (0..sizes.len())
            .map(|a| if order >> (40 + a) & 1 == 0 { 0 } else { strides[a] })
            .collect();
        let mut b = BodyBuilder::new();
        let x = b.load(Arg(0), view(0, &strides));
        let y = b.load(Arg(1), view(0, &broadcast));
        let p = b.binary(Binary::Mul, x, y);
        let s = b.unary(Unary::Silu, p);
        b.store(Arg(2), View::contiguous(&dims(&sizes)), s);
        let args = [
            Buffer::random(dtype, n, order),
            Buffer::random(DType::F32, n, order ^ 5),
            Buffer::zeros(dtype, n),
        ];
        let kernel = row(dims(&sizes), &[dtype, DType::F32, dtype], b);
        let d = distance(&kernel, &Env::default(), &args);
        prop_assert!(d <= 1.0, "{}", d);
    }

    #[test]
    fn any_body_with_reductions_equals_the_reference(
        sizes in prop::collection::vec(1usize..7, 0..3),
        cols in prop::sample::select(vec![1usize, 3, 8, 31, 64, 100, 260, 1030]),
        order in any::<u64>(),
        runtime in any::<bool>(),
        choices in prop::collection::vec(any::<u16>(), 4..14),
        dtype in prop::sample::select(FLOATS.to_vec()),
    ) {
        let sizes = [&sizes[..], &[cols]].concat();
        let (kernel, args) = random_body(&sizes, order, runtime, &choices, dtype);
        let d = distance(&kernel, &Env::new(&[cols as i64]), &args);
        // What a fold adds up rounds the more often the more columns there are.
        let most = 3.0 + cols as f64 / 256.0;
        prop_assert!(d <= most, "{} {}", d, kernel);
    }
}

/// A body of a few instructions, each picked by a number: loads, arithmetic that stays small,
/// comparisons, folds. All of its floats are stored at the end.
fn random_body(
    sizes: &[usize],
    order: u64,
    runtime: bool,
    choices: &[u16],
    dtype: DType,
) -> (Kernel, Vec<Buffer>) {
    let n: usize = sizes.iter().product();
    let cols = sizes[sizes.len() - 1];
    let mut space = dims(sizes);
    if runtime {
        space[sizes.len() - 1] = Dim::var(Var(0));
    }
    let whole = View::contiguous(&space);
    let mut b = BodyBuilder::new();
    let mut floats = vec![b.load(Arg(0), view(0, &permuted(sizes, order)))];
    let mut row_views = whole.clone();
    row_views.strides[sizes.len() - 1] = Dim::from(0);
    for c in choices {
        let pick = |shift: u16| floats[(c >> shift) as usize % floats.len()];
        let (x, y) = (pick(4), pick(9));
        let new = match c % 11 {
            0 => b.load(Arg(1), row_views.clone()),
            1 => b.binary(Binary::Add, x, y),
            2 => {
                let p = b.binary(Binary::Mul, x, y);
                b.unary(Unary::Tanh, p)
            }
            3 => b.unary(Unary::Sigmoid, x),
            4 => b.binary(Binary::Maximum, x, y),
            5 => {
                let sum = b.push(Inst::Reduce(Reduce::Sum, x));
                let count = b.push(Inst::F32(cols as f32));
                b.binary(Binary::Div, sum, count)
            }
            6 => b.push(Inst::Reduce(Reduce::Max, x)),
            7 => b.push(Inst::Reduce(Reduce::Min, x)),
            8 => {
                let i = b.push(Inst::Iota(sizes.len() as u8 - 1));
                let limit = b.push(Inst::I64(Dim::from(i64::from(c >> 8))));
                let less = b.push(Inst::Compare(Compare::Lt, i, limit));
                b.push(Inst::Select(less, x, y))
            }
            9 => b.binary(Binary::Sub, x, y),
            _ => {
                let i = b.push(Inst::Iota(0));
                let f = b.push(Inst::Cast(i, Ty::F32));
                let small = b.push(Inst::F32(0.125));
                b.binary(Binary::Mul, f, small)
            }
        };
        // Sums of sums stay where the distance means something.
        floats.push(b.unary(Unary::Tanh, new));
    }
    let last = floats[floats.len() - 1];
    b.store(Arg(2), whole.clone(), last);
    let other = floats[floats.len() / 2];
    b.store(Arg(3), whole.clone(), other);
    let fold = b.push(Inst::Reduce(Reduce::Max, other));
    let at_row = View {
        offset: Dim::from(0),
        strides: rows_of(&space),
    };
    b.store(Arg(4), at_row, fold);
    let args = vec![
        Buffer::random(dtype, n, order),
        Buffer::random(DType::F32, n, order ^ 3),
        Buffer::zeros(dtype, n),
        Buffer::zeros(DType::F32, n),
        Buffer::zeros(DType::F32, n),
    ];
    let dtypes: Vec<DType> = args.iter().map(Buffer::dtype).collect();
    (row(space, &dtypes, b), args)
}

/// Strides of one element for each row.
fn rows_of(space: &[Dim]) -> Vec<Dim> {
    let mut outer = space.to_vec();
    outer[space.len() - 1] = Dim::from(1);
    let mut strides = View::contiguous(&outer).strides;
    strides[space.len() - 1] = Dim::from(0);
    strides
}
