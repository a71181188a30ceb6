//! Row kernels on the host.

mod reference;

use proptest::prelude::*;
use reference::{Buffer, compare, host};
use trt_kernel::host::HostError;
use trt_kernel::*;

fn dims(sizes: &[usize]) -> Vec<Dim> {
    sizes.iter().map(|s| Dim::from(*s)).collect()
}

fn view(offset: usize, strides: &[i64]) -> View {
    View {
        offset: Dim::from(offset),
        strides: strides.iter().map(|s| Dim::from(*s)).collect(),
    }
}

fn row(space: &[usize], args: &[DType], body: BodyBuilder) -> Kernel {
    Kernel::Row(Row {
        space: dims(space),
        args: args.to_vec(),
        body: body.finish(),
    })
}

fn softmax(space: &[usize], dtype: DType) -> Kernel {
    let whole = View::contiguous(&dims(space));
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
    row(&[rows, cols], &[dtype; 3], b)
}

#[test]
fn softmax_equals_the_reference_for_short_and_long_rows() {
    for cols in [1, 5, 64, 65, 577, 513, 50_000] {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let rows = if cols > 1000 { 2 } else { 7 };
            let args = [
                Buffer::random(dtype, rows * cols, 1),
                Buffer::zeros(dtype, rows * cols),
            ];
            let d = compare(&softmax(&[rows, cols], dtype), &Env::default(), &args);
            assert!(d <= 2.0, "{cols} {dtype}: {d}");
        }
    }
}

#[test]
fn rms_norm_equals_the_reference() {
    for (rows, cols) in [(1, 576), (3, 64), (40, 576), (2, 100)] {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let args = [
                Buffer::random(dtype, rows * cols, 1),
                Buffer::random(dtype, cols, 2),
                Buffer::zeros(dtype, rows * cols),
            ];
            let d = compare(&rms_norm(rows, cols, dtype), &Env::default(), &args);
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
        let d = compare(&row(&[1000], &[DType::F32; 2], b), &Env::default(), &args);
        assert!(d <= 2.0, "{f:?}: {d}");
    }
}

#[test]
fn of_a_nan_maxima_and_minima_take_the_first_and_relu_makes_zero() {
    let nan = f64::NAN;
    let args = [
        Buffer::new(DType::F32, [nan, 2.0, nan]),
        Buffer::new(DType::F32, [1.0, nan, nan]),
        Buffer::zeros(DType::F32, 9),
    ];
    let mut b = BodyBuilder::new();
    let [x, y] = [0, 1].map(|a| b.load(Arg(a), view(0, &[1])));
    let results = [
        b.binary(Binary::Maximum, x, y),
        b.binary(Binary::Minimum, x, y),
        b.unary(Unary::Relu, x),
    ];
    for (i, r) in results.into_iter().enumerate() {
        b.store(Arg(2), view(3 * i, &[1]), r);
    }
    let kernel = row(&[3], &[DType::F32; 3], b);
    assert_eq!(compare(&kernel, &Env::default(), &args), 0.0);
    let mut ours = args.to_vec();
    host(&kernel, &Env::default(), None, &mut ours).unwrap();
    let found: Vec<String> = ours[2].values().iter().map(f64::to_string).collect();
    assert_eq!(found, ["NaN", "2", "NaN", "NaN", "2", "NaN", "0", "2", "0"]);
}

#[test]
fn views_may_broadcast_transpose_and_start_anywhere() {
    // out[i, j, k] = a^T + b[j] over [3, 5, 7], a stored as [7, 5, 3] after 4 elements.
    let mut b = BodyBuilder::new();
    let x = b.load(Arg(0), view(4, &[1, 3, 15]));
    let y = b.load(Arg(1), view(0, &[0, 1, 0]));
    let s = b.binary(Binary::Add, x, y);
    b.store(Arg(2), View::contiguous(&dims(&[3, 5, 7])), s);
    let kernel = row(&[3, 5, 7], &[DType::F16, DType::F32, DType::BF16], b);
    let args = [
        Buffer::random(DType::F16, 109, 1),
        Buffer::random(DType::F32, 5, 2),
        Buffer::zeros(DType::BF16, 105),
    ];
    assert!(compare(&kernel, &Env::default(), &args) <= 0.5);
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
    let kernel = Kernel::Row(Row {
        space: vec![seq, Dim::from(8)],
        args: vec![DType::F32; 2],
        body: b.finish(),
    });
    for (past, seq) in [(0, 1), (3, 2), (5, 5), (2, 0)] {
        let args = [
            Buffer::random(DType::F32, 80, 1),
            Buffer::zeros(DType::F32, 40),
        ];
        assert_eq!(compare(&kernel, &Env::new(&[past, seq]), &args), 0.0);
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
    let kernel = row(&space, &dtypes, b);
    assert_eq!(compare(&kernel, &Env::new(&[3]), &args), 0.0);
}

#[test]
fn a_row_kernel_works_in_place() {
    let kernel = softmax(&[3, 100], DType::F32);
    let args = [
        Buffer::random(DType::F32, 300, 1),
        Buffer::zeros(DType::F32, 300),
    ];
    let mut apart = args.to_vec();
    host(&kernel, &Env::default(), None, &mut apart).unwrap();
    let mut shared: Vec<u8> = args[0].bytes.clone();
    let (start, len) = (shared.as_mut_ptr(), shared.len());
    // SAFETY: the bytes outlive the launch, which is the only one to use them.
    let span = |writable| unsafe { host::Span::from_raw(start, len, writable) };
    let mut spans = [span(false), span(true)];
    // SAFETY: a row is read before it is written, by the thread that writes it.
    unsafe {
        host::run_with(
            &kernel,
            &Env::default(),
            None,
            &mut spans,
            &host::Team::new(2),
        )
        .unwrap()
    };
    assert_eq!(shared, apart[1].bytes);
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
    ];
    for dtype in [DType::BF16, DType::F16] {
        let whole = View::contiguous(&dims(&[values.len()]));
        let mut b = BodyBuilder::new();
        let x = b.load(Arg(0), whole.clone());
        b.store(Arg(1), whole, x);
        let kernel = row(&[values.len()], &[DType::F32, dtype], b);
        let args = [
            Buffer::new(DType::F32, values.iter().map(|v| f64::from(*v))),
            Buffer::zeros(dtype, values.len()),
        ];
        assert_eq!(compare(&kernel, &Env::default(), &args), 0.0, "{dtype}");
    }
}

#[test]
fn a_view_outside_its_argument_is_an_error_with_numbers() {
    let kernel = softmax(&[4, 10], DType::F32);
    let mut args = [Buffer::zeros(DType::F32, 40), Buffer::zeros(DType::F32, 39)];
    let error = host(&kernel, &Env::default(), None, &mut args).unwrap_err();
    assert!(
        matches!(
            error,
            HostError::OutOfBounds {
                arg: 1,
                bytes: 156,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_view_with_absurd_numbers_is_an_error() {
    for (offset, stride) in [
        (i64::MAX, 1),
        (0, i64::MAX),
        (0, i64::MIN / 3),
        (i64::MIN, -1),
    ] {
        let wild = View {
            offset: Dim::from(offset),
            strides: vec![Dim::from(stride)],
        };
        let mut b = BodyBuilder::new();
        let x = b.load(Arg(0), wild);
        b.store(Arg(1), view(0, &[1]), x);
        let mut args = [Buffer::zeros(DType::F32, 9), Buffer::zeros(DType::F32, 9)];
        let kernel = row(&[9], &[DType::F32; 2], b);
        assert!(host(&kernel, &Env::default(), None, &mut args).is_err());
    }
}

#[test]
fn wrong_arguments_and_read_only_memory_are_errors() {
    let kernel = softmax(&[4, 10], DType::F32);
    let mut args = [Buffer::zeros(DType::F32, 40)];
    let error = host(&kernel, &Env::default(), None, &mut args).unwrap_err();
    assert_eq!(
        error,
        HostError::Arguments {
            expected: 2,
            found: 1
        }
    );
    let (a, b) = ([0f32; 40], [0f32; 40]);
    let mut spans = [host::Span::from_slice(&a), host::Span::from_slice(&b)];
    let error = host::run_on_slices(&kernel, &Env::default(), None, &mut spans).unwrap_err();
    assert_eq!(error, HostError::ReadOnly { arg: 1 });
    let rows = host(
        &kernel,
        &Env::default(),
        Some(0..64),
        &mut [Buffer::zeros(DType::F32, 40), Buffer::zeros(DType::F32, 40)],
    );
    assert!(matches!(rows, Err(HostError::Rows { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_space_and_axis_order_equals_the_reference(
        sizes in prop::collection::vec(1usize..9, 1..5),
        order in any::<u64>(),
        dtype in prop::sample::select(vec![DType::F32, DType::BF16, DType::F16]),
    ) {
        // `a` is stored with its axes in another order, `b` broadcasts some of them.
        let rank = sizes.len();
        let mut axes: Vec<usize> = (0..rank).collect();
        (0..rank).for_each(|i| axes.swap(i, (order >> (8 * i)) as usize % rank));
        let mut strides = vec![0i64; rank];
        let mut step = 1i64;
        for &a in axes.iter().rev() {
            strides[a] = step;
            step *= sizes[a] as i64;
        }
        let n: usize = sizes.iter().product();
        let broadcast: Vec<i64> = (0..rank)
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
        let kernel = row(&sizes, &[dtype, DType::F32, dtype], b);
        prop_assert!(compare(&kernel, &Env::default(), &args) <= 1.0);
    }
}
