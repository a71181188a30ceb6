//! Kernels of the host over blocks of every type, against the reference.

mod reference;

use half::bf16;
use reference::{Buffer, host};
use trt_kernel::host::{HostError, Prepared, Span, Team};
use trt_kernel::*;

fn view(strides: &[usize]) -> View {
    View {
        offset: Dim::from(0),
        strides: strides.iter().map(|s| Dim::from(*s)).collect(),
    }
}

/// `out = a w^T`, a ranged product.
fn product(m: usize, n: usize, k: usize, weight: impl Into<Encoding>, other: DType) -> Kernel {
    let mut e = BodyBuilder::new();
    let sum = e.push(Inst::Input);
    e.store(Arg(2), view(&[0, n, 1]), sum);
    let operand = |arg| Operand {
        arg: Arg(arg),
        view: view(&[0, k, 1]),
    };
    Kernel::Matmul(Matmul {
        batch: Dim::from(1),
        m: Dim::from(m),
        n: Dim::from(n),
        k: Dim::from(k),
        args: vec![other.into(), weight.into(), DType::F32.into()],
        a: operand(0).into(),
        b: operand(1),
        ranged: true,
        epilogue: e.finish(),
    })
}

fn arguments(m: usize, n: usize, k: usize, weight: impl Into<Encoding>, x: DType) -> Vec<Buffer> {
    vec![
        Buffer::random(x, m * k, 1),
        Buffer::random(weight, n * k, 2),
        Buffer::zeros(DType::F32, m * n),
    ]
}

/// For each output, `Σ w x` and `Σ |w x|` in f64, of weights that went through `read`.
fn exact(
    args: &[Buffer],
    (m, n, k): (usize, usize, usize),
    read: fn(f64) -> f64,
) -> Vec<(f64, f64)> {
    let (x, w) = (args[0].values(), args[1].plain().values());
    let each = (0..m * n).map(|at| {
        let (x, w) = (&x[at / n * k..][..k], &w[at % n * k..][..k]);
        let terms = x.iter().zip(w).map(|(x, w)| x * read(*w));
        terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()))
    });
    each.collect()
}

/// The largest distance of what the host computes from the sums, in units of `Σ |w x|`.
fn distance(kernel: &Kernel, args: &[Buffer], sums: &[(f64, f64)]) -> f64 {
    let mut args = args.to_vec();
    host(kernel, &Env::default(), None, &mut args).unwrap();
    let each = args[2].values().into_iter().zip(sums);
    each.map(|(y, (sum, size))| (y - sum).abs() / size.max(1e-30))
        .fold(
            0.0,
            |worst, d| if d.is_nan() || d > worst { d } else { worst },
        )
}

#[test]
fn products_of_few_rows_are_sums_over_the_decoded_values() {
    for block in BlockType::ALL {
        for x in [DType::F32, DType::BF16] {
            for m in [1, 2, 3, 8] {
                for blocks in [1, 3] {
                    let (n, k) = (70, blocks * block.values());
                    let args = arguments(m, n, k, block, x);
                    let sums = exact(&args, (m, n, k), |w| w);
                    let d = distance(&product(m, n, k, block, x), &args, &sums);
                    assert!(d <= 1e-6, "{} {x} {m}x{n}x{k}: {d:e}", block.name());
                }
            }
        }
    }
}

#[test]
fn products_of_many_rows_round_weights_only_where_activations_are_bf16() {
    for block in BlockType::ALL {
        for m in [9, 33] {
            let (n, k) = (70, 3 * block.values());
            let args = arguments(m, n, k, block, DType::F32);
            let sums = exact(&args, (m, n, k), |w| w);
            let d = distance(&product(m, n, k, block, DType::F32), &args, &sums);
            assert!(d <= 1e-6, "{} f32 {m}x{n}x{k}: {d:e}", block.name());

            let args = arguments(m, n, k, block, DType::BF16);
            let kernel = product(m, n, k, block, DType::BF16);
            let unrounded = distance(&kernel, &args, &exact(&args, (m, n, k), |w| w));
            assert!(unrounded <= 1.0 / 256.0, "{}: {unrounded:e}", block.name());
            // Nothing else is rounded: either all weights are, or none is.
            let rounded = exact(&args, (m, n, k), |w| bf16::from_f32(w as f32).to_f64());
            let d = distance(&kernel, &args, &rounded).min(unrounded);
            assert!(d <= 1e-6, "{} bf16 {m}x{n}x{k}: {d:e}", block.name());
        }
    }
}

#[test]
fn a_row_alone_gives_what_it_gives_among_others() {
    for block in BlockType::ALL {
        let (n, k) = (67, 3 * block.values());
        let args = arguments(8, n, k, block, DType::F32);
        let mut all = args.clone();
        host(
            &product(8, n, k, block, DType::F32),
            &Env::default(),
            None,
            &mut all,
        )
        .unwrap();
        for m in 1..8 {
            for first in [0, 8 - m] {
                let mut some = args.clone();
                some[0].bytes.drain(..first * k * 4);
                let kernel = product(m, n, k, block, DType::F32);
                host(&kernel, &Env::default(), None, &mut some).unwrap();
                let expected = &all[2].bytes[first * n * 4..][..m * n * 4];
                let found = &some[2].bytes[..m * n * 4];
                assert!(found == expected, "{} {m} rows from {first}", block.name());
            }
        }
    }
}

#[test]
fn row_ranges_and_threads_change_no_bit() {
    for block in BlockType::ALL {
        for (m, x) in [
            (1, DType::F32),
            (5, DType::F32),
            (20, DType::F32),
            (20, DType::BF16),
        ] {
            let (n, k) = (64 * 5 + 13, 2 * block.values());
            let row = Encoding::Blocks(block).row_bytes(k).unwrap();
            let args = arguments(m, n, k, block, x);
            let kernel = product(m, n, k, block, x);
            let mut whole = args.clone();
            host(&kernel, &Env::default(), None, &mut whole).unwrap();
            let prepared = Prepared::new(&kernel).unwrap();
            for threads in [1, 3] {
                let (team, mut start) = (Team::new(threads), 0);
                let mut out = args[2].bytes.clone();
                for end in [64, 192, n] {
                    let mut spans = [
                        Span::from_slice(&args[0].bytes),
                        Span::from_slice(&args[1].bytes[start * row..end * row]),
                        Span::from_mut(&mut out),
                    ];
                    let rows = Some(start..end);
                    // SAFETY: each element of a product is written once, and nowhere read.
                    unsafe { prepared.run(&Env::default(), rows, &mut spans, &team) }.unwrap();
                    start = end;
                }
                assert!(
                    out == whole[2].bytes,
                    "{} {m} rows, {threads}",
                    block.name()
                );
            }
        }
    }
}

#[test]
fn gathered_rows_have_the_decoded_values() {
    for block in BlockType::ALL {
        let (entries, cols) = (11, 3 * block.values());
        let mut b = BodyBuilder::new();
        let x = b.push(Inst::Input);
        b.store(Arg(2), view(&[cols, 1]), x);
        let kernel = Kernel::Gather(Gather {
            rows: Dim::from(4),
            cols,
            entries,
            args: vec![DType::U32.into(), block.into(), DType::F32.into()],
            ids: Operand {
                arg: Arg(0),
                view: view(&[1]),
            },
            table: Arg(1),
            body: b.finish(),
        });
        let table = Buffer::random(block, entries * cols, 3);
        let mut args = [
            Buffer::new(DType::U32, [10.0, 0.0, 3.0, 3.0]),
            table.clone(),
            Buffer::zeros(DType::F32, 4 * cols),
        ];
        host(&kernel, &Env::default(), None, &mut args).unwrap();
        let values = table.plain();
        for (r, id) in [10, 0, 3, 3].into_iter().enumerate() {
            for c in 0..cols {
                let (found, expected) =
                    (args[2].get((r * cols + c) as i64), (id * cols + c) as i64);
                assert_eq!(found, values.get(expected), "{} {r} {c}", block.name());
            }
        }
    }
}

#[test]
fn a_weight_that_lacks_a_byte_is_an_error() {
    for block in BlockType::ALL {
        for m in [1, 4, 20] {
            let (n, k) = (70, 2 * block.values());
            let mut args = arguments(m, n, k, block, DType::BF16);
            args[1].bytes.pop();
            let kernel = product(m, n, k, block, DType::BF16);
            let error = host(&kernel, &Env::default(), None, &mut args);
            let outside = matches!(error, Err(HostError::OutOfBounds { arg: 1, .. }));
            assert!(outside, "{} {m}: {error:?}", block.name());
        }
    }
}
