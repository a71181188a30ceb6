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
            let args = arguments(m, n, k, block, DType::BF16);
            let kernel = product(m, n, k, block, DType::BF16);
            let unrounded = distance(&kernel, &args, &exact(&args, (m, n, k), |w| w));
            assert!(unrounded <= 1.0 / 256.0, "{}: {unrounded:e}", block.name());
            // Either all weights are rounded to bf16, or activations are to 16 bits.
            let rounded = exact(&args, (m, n, k), |w| bf16::from_f32(w as f32).to_f64());
            let d = distance(&kernel, &args, &rounded);
            let fits = d <= 1e-6 || unrounded <= 2e-5;
            assert!(
                fits,
                "{} bf16 {m}x{n}x{k}: {d:e} {unrounded:e}",
                block.name()
            );
        }
    }
}

/// Values that share a scale.
fn sub_block(block: BlockType) -> usize {
    match block {
        BlockType::Q2K | BlockType::Q3K | BlockType::Q6K => 16,
        _ => 32,
    }
}

/// How far a product by many rows of f32 may be from the sum: each activation is rounded by at most 2^-16 (and a hundredth
/// of that) of the largest one in its sub-block, unless it is the only one there, and f32 rounds what each gives with the largest
/// weight there.
fn allowed(x: &[f64], w: &[f64], sub: usize) -> f64 {
    let each = x.chunks(sub).zip(w.chunks(sub)).map(|(x, w)| {
        let alone = x.iter().filter(|x| **x != 0.0).count() < 2;
        let largest = x.iter().fold(0.0, |most, x| x.abs().max(most));
        let rounded: f64 = w.iter().map(|w| w.abs() * largest / 65536.0 * 1.01).sum();
        let heaviest = w.iter().fold(0.0, |most, w| w.abs().max(most));
        let summed: f64 = x.iter().map(|x| (x * heaviest).abs() * 1e-6).sum();
        summed + if alone { 0.0 } else { rounded }
    });
    each.sum()
}

/// Runs a product of f32 activations, and says where it is further from the sum than allowed.
fn check(block: BlockType, x: &[f64], w: &Buffer, (m, n, k): (usize, usize, usize)) -> Vec<f64> {
    let mut args = [
        Buffer::new(DType::F32, x.to_vec()),
        w.clone(),
        Buffer::zeros(DType::F32, m * n),
    ];
    let kernel = product(m, n, k, block, DType::F32);
    host(&kernel, &Env::default(), None, &mut args).unwrap();
    let (x, w, y) = (args[0].values(), w.plain().values(), args[2].values());
    for (at, y) in y.iter().enumerate() {
        let (x, w) = (&x[at / n * k..][..k], &w[at % n * k..][..k]);
        let sum: f64 = x.iter().zip(w).map(|(x, w)| x * w).sum();
        let same = match sum.is_finite() && sum.abs() < f64::from(f32::MAX) {
            true => (y - sum).abs() <= allowed(x, w, sub_block(block)) + 1e-43,
            false => y.is_nan() == sum.is_nan() && (y.is_nan() || *y == sum),
        };
        let (name, row, column) = (block.name(), at / n, at % n);
        assert!(
            same,
            "{name} row {row}, column {column}: {y:e}, not {sum:e}"
        );
    }
    y
}

#[test]
fn products_of_many_rows_round_activations_to_sixteen_bits_of_their_sub_block() {
    for block in BlockType::ALL {
        for (m, blocks) in [(9, 1), (34, 3)] {
            let (n, k) = (70, blocks * block.values());
            let w = Buffer::random(block, n * k, 2);
            let mut x = Buffer::random(DType::F32, m * k, 1).values();
            check(block, &x, &w, (m, n, k));
            // A value that is far larger than others makes only those of its own sub-block coarse.
            let (row, sub) = (&mut x[4 * k..5 * k], sub_block(block));
            row[..sub].fill(0.0);
            row[5] = 40_000.0;
            check(block, &x, &w, (m, n, k));
            // Numbers of 16 bits are not rounded at all.
            for (i, x) in x.iter_mut().enumerate() {
                let number = (i * 7919 % 65535) as f64 - 32767.0;
                *x = if i % sub == 3 { 32767.0 } else { number } / 1024.0;
            }
            let args = [
                Buffer::new(DType::F32, x),
                w.clone(),
                Buffer::zeros(DType::F32, m * n),
            ];
            let sums = exact(&args, (m, n, k), |w| w);
            let d = distance(&product(m, n, k, block, DType::F32), &args, &sums);
            assert!(d <= 2e-6, "{} {m}x{n}x{k}: {d:e}", block.name());
        }
    }
}

#[test]
fn what_sixteen_bits_cannot_stand_for_is_multiplied_in_f32() {
    for block in BlockType::ALL {
        let (m, n, k) = (20, 70, 2 * block.values());
        let w = Buffer::random(block, n * k, 2);
        let mut x = Buffer::random(DType::F32, m * k, 1).values();
        let plain = check(block, &x, &w, (m, n, k));
        let sub = sub_block(block);
        let mut row = |r: usize, from: usize, to: usize, value: f64| {
            x[r * k + from..r * k + to].fill(value);
        };
        row(3, 7, 8, f64::INFINITY);
        row(4, k - 1, k, f64::NAN);
        row(5, 1, 2, 1e30);
        row(6, 0, k, 1e-40);
        row(8, 0, k, 0.0);
        row(9, sub, 2 * sub, -1e-30);
        row(10, 0, 1, f64::NEG_INFINITY);
        row(19, 0, 1, f64::from(f32::MIN_POSITIVE));
        row(19, 1, sub, 0.0);
        let y = check(block, &x, &w, (m, n, k));
        assert!(
            y[8 * n..9 * n].iter().all(|y| *y == 0.0),
            "{}",
            block.name()
        );
        // Other rows keep their bits.
        for r in [0, 1, 2, 7, 11, 12, 18] {
            assert_eq!(y[r * n..][..n], plain[r * n..][..n], "{} {r}", block.name());
        }
    }
}

#[test]
fn scales_that_are_not_finite_or_very_large_are_multiplied_in_f32() {
    for (block, at, bytes) in [
        (BlockType::Q8_0, 0, [0x00, 0x7c].as_slice()), // infinite
        (BlockType::Q4_1, 2, &[0x00, 0xfc]),
        (BlockType::Q5_0, 0, &[0x01, 0x7c]), // no number
        (BlockType::Q4K, 2, &[0x00, 0x7c]),
        (BlockType::Q6K, 208, &[0xff, 0xff]),
        (BlockType::Mxfp4, 0, &[240]),
        (BlockType::Mxfp4, 0, &[255]),
        (BlockType::Mxfp4, 0, &[0]),
    ] {
        let (m, n, k) = (12, 130, 3 * block.values());
        let mut w = Buffer::random(block, n * k, 2);
        let x = Buffer::random(DType::F32, m * k, 1).values();
        let plain = check(block, &x, &w, (m, n, k));
        // The second block of column 67, which is in the second panel.
        let start = (67 * 3 + 1) * block.bytes() + at;
        w.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        let y = check(block, &x, &w, (m, n, k));
        for (at, (y, plain)) in y.iter().zip(plain).enumerate() {
            assert!(at % n >= 64 || *y == plain, "{} {at}", block.name());
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
