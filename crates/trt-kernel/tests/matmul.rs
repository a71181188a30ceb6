//! Matrix products on the host, and the row-range law.

#[path = "matmul/packed.rs"]
mod packed;
mod reference;

use proptest::prelude::*;
use reference::{Buffer, compare, host};
use trt_kernel::host::{HostError, Prepared, Span, Team};
use trt_kernel::*;

fn dims(sizes: &[usize]) -> Vec<Dim> {
    sizes.iter().map(|s| Dim::from(*s)).collect()
}

fn strided(arg: u16, strides: [usize; 3]) -> Operand {
    Operand {
        arg: Arg(arg),
        view: View {
            offset: Dim::from(0),
            strides: dims(&strides),
        },
    }
}

/// `out = silu(a w^T + bias[n]) + n`, weight in `dtype`, everything else in `other`.
fn linear(m: usize, n: usize, k: usize, dtype: DType, other: DType) -> Kernel {
    let out = View::contiguous(&dims(&[1, m, n]));
    let mut e = BodyBuilder::new();
    let sum = e.push(Inst::Input);
    let bias = View {
        offset: Dim::from(0),
        strides: dims(&[0, 0, 1]),
    };
    let bias = e.load(Arg(2), bias);
    let y = e.binary(Binary::Add, sum, bias);
    let y = e.unary(Unary::Silu, y);
    let at = e.push(Inst::Iota(2));
    let at = e.push(Inst::Cast(at, Ty::F32));
    let scale = e.push(Inst::F32(1.0 / 64.0));
    let at = e.binary(Binary::Mul, at, scale);
    let y = e.binary(Binary::Add, y, at);
    e.store(Arg(3), out, y);
    Kernel::Matmul(Matmul {
        batch: Dim::from(1),
        m: Dim::from(m),
        n: Dim::from(n),
        k: Dim::from(k),
        args: Encoding::plain([other, dtype, DType::F32, other]),
        a: strided(0, [m * k, k, 1]).into(),
        b: strided(1, [0, k, 1]),
        ranged: true,
        epilogue: e.finish(),
    })
}

fn linear_args(m: usize, n: usize, k: usize, dtype: DType, other: DType) -> Vec<Buffer> {
    vec![
        Buffer::random(other, m * k, 1),
        Buffer::random(dtype, n * k, 2),
        Buffer::random(DType::F32, n, 3),
        Buffer::zeros(other, m * n),
    ]
}

/// Runs a ranged kernel over ranges with the given ends, each with only its rows of the weight.
fn by_ranges(kernel: &Kernel, args: &[Buffer], n: usize, row: usize, ends: &[usize]) -> Vec<u8> {
    let team = Team::new(3);
    let prepared = Prepared::new(kernel).unwrap();
    let mut out = args[3].bytes.clone();
    let mut start = 0;
    for &end in ends.iter().chain(&[n]) {
        let mut spans = [
            Span::from_slice(&args[0].bytes),
            Span::from_slice(&args[1].bytes[start * row..end * row]),
            Span::from_slice(&args[2].bytes),
            Span::from_mut(&mut out),
        ];
        // SAFETY: each element of a product or an attention is written once, and nowhere read.
        unsafe {
            prepared
                .run(&Env::default(), Some(start..end), &mut spans, &team)
                .unwrap()
        };
        start = end;
    }
    out
}

#[test]
fn linear_equals_the_reference_at_ragged_sizes() {
    for m in [1, 2, 3, 4, 5, 7, 8, 9, 13, 70] {
        for (n, k) in [(1, 1), (65, 17), (64, 64), (130, 577), (40, 1030)] {
            let args = linear_args(m, n, k, DType::F32, DType::F32);
            let kernel = linear(m, n, k, DType::F32, DType::F32);
            let d = compare(&kernel, &Env::default(), &args);
            assert!(d <= 10.0, "{m} {n} {k}: {d}");
        }
    }
}

#[test]
fn linear_equals_the_reference_in_every_dtype() {
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        for other in [DType::F32, DType::BF16, DType::F16] {
            for m in [1, 6, 20] {
                let args = linear_args(m, 100, 96, dtype, other);
                let kernel = linear(m, 100, 96, dtype, other);
                let d = compare(&kernel, &Env::default(), &args);
                assert!(d <= 4.0, "{m} {dtype} {other}: {d}");
            }
        }
    }
}

#[test]
fn batches_broadcasts_and_transposes_equal_the_reference() {
    let (batch, m, n, k) = (3, 5, 66, 30);
    let cases = [
        ("row-major b", [m * k, k, 1], [n * k, k, 1]),
        ("k-major b", [m * k, k, 1], [n * k, 1, n]),
        ("one b", [m * k, k, 1], [0, k, 1]),
        ("one a, transposed", [0, 1, m], [n * k, k, 1]),
    ];
    for (name, a, b) in cases {
        for m in [m, 1, 12] {
            let a = if a == [0, 1, 5] {
                [0, 1, m]
            } else {
                [m * k, k, 1]
            };
            let mut e = BodyBuilder::new();
            let sum = e.push(Inst::Input);
            e.store(Arg(2), View::contiguous(&dims(&[batch, m, n])), sum);
            let kernel = Kernel::Matmul(Matmul {
                batch: Dim::from(batch),
                m: Dim::var(Var(0)),
                n: Dim::from(n),
                k: Dim::from(k),
                args: Encoding::plain([DType::F32, DType::BF16, DType::F32]),
                a: strided(0, a).into(),
                b: strided(1, b),
                ranged: false,
                epilogue: e.finish(),
            });
            let args = [
                Buffer::random(DType::F32, batch * m * k, 1),
                Buffer::random(DType::BF16, batch * n * k, 2),
                Buffer::zeros(DType::F32, batch * m * n),
            ];
            let d = compare(&kernel, &Env::new(&[m as i64]), &args);
            assert!(d <= 10.0, "{name} m={m}: {d}");
        }
    }
}

#[test]
fn a_sum_over_nothing_is_zero() {
    for m in [2, 20] {
        let args = linear_args(m, 70, 0, DType::F32, DType::F32);
        let d = compare(
            &linear(m, 70, 0, DType::F32, DType::F32),
            &Env::default(),
            &args,
        );
        assert!(d <= 2.0);
    }
}

#[test]
fn row_ranges_glue_to_the_whole_launch_bit_for_bit() {
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        for m in [1, 3, 64] {
            let (n, k) = (64 * 9 + 13, 579);
            let args = linear_args(m, n, k, dtype, DType::F32);
            let kernel = linear(m, n, k, dtype, DType::F32);
            let mut whole = args.clone();
            host(&kernel, &Env::default(), None, &mut whole).unwrap();
            for ends in [&[64, 128, 320][..], &[576], &[448, 512]] {
                let glued = by_ranges(&kernel, &args, n, k * dtype.size(), ends);
                assert_eq!(glued, whole[3].bytes, "{dtype} m={m} {ends:?}");
            }
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for m in [1, 7, 100] {
        let args = linear_args(m, 1000, 333, DType::BF16, DType::F32);
        let prepared = Prepared::new(&linear(m, 1000, 333, DType::BF16, DType::F32)).unwrap();
        let run = |threads: usize| {
            let mut out = args[3].bytes.clone();
            let mut spans = [
                Span::from_slice(&args[0].bytes),
                Span::from_slice(&args[1].bytes),
                Span::from_slice(&args[2].bytes),
                Span::from_mut(&mut out),
            ];
            // SAFETY: each element of a product or an attention is written once, and nowhere read.
            unsafe {
                prepared
                    .run(&Env::default(), None, &mut spans, &Team::new(threads))
                    .unwrap()
            };
            out
        };
        let one = run(1);
        assert!(run(2) == one && run(5) == one, "m={m}");
    }
}

#[test]
fn ranges_that_break_the_law_are_errors() {
    let kernel = linear(2, 200, 8, DType::F32, DType::F32);
    let reversed = std::ops::Range {
        start: 128,
        end: 64,
    };
    for range in [10..64, 0..65, 64..264, reversed] {
        let mut args = linear_args(2, 200, 8, DType::F32, DType::F32);
        let error = host(&kernel, &Env::default(), Some(range.clone()), &mut args).unwrap_err();
        assert!(
            matches!(error, HostError::Rows { start, n: 200, .. } if start == range.start),
            "{error}"
        );
    }
}

#[test]
fn a_short_weight_is_an_error() {
    for m in [1, 20] {
        let mut args = linear_args(m, 200, 8, DType::BF16, DType::F32);
        args[1].bytes.truncate(200 * 8 * 2 - 2);
        let error = host(
            &linear(m, 200, 8, DType::BF16, DType::F32),
            &Env::default(),
            None,
            &mut args,
        );
        assert!(
            matches!(error, Err(HostError::OutOfBounds { arg: 1, .. })),
            "{error:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_cut_into_panels_gives_the_same_bits(
        n in 1usize..700,
        k in 1usize..80,
        m in prop::sample::select(vec![1usize, 3, 8, 9, 64]),
        dtype in prop::sample::select(vec![DType::F32, DType::BF16, DType::F16]),
        cuts in prop::collection::btree_set(1usize..10, 0..5),
    ) {
        let args = linear_args(m, n, k, dtype, DType::BF16);
        let kernel = linear(m, n, k, dtype, DType::BF16);
        let mut whole = args.clone();
        host(&kernel, &Env::default(), None, &mut whole).unwrap();
        let ends: Vec<usize> = cuts.iter().map(|c| c * ROW_PANEL).filter(|e| *e < n).collect();
        let glued = by_ranges(&kernel, &args, n, k * dtype.size(), &ends);
        prop_assert!(glued == whole[3].bytes);
    }
}
