//! Matrix products as PTX, and the row-range law.

use super::*;
use proptest::prelude::*;

fn strided(arg: u16, strides: [usize; 3]) -> Operand {
    Operand {
        arg: Arg(arg),
        view: View {
            offset: Dim::from(0),
            strides: dims(&strides),
        },
    }
}

/// `out = silu(a w^T + bias[n]) + n / 64`, weight in `dtype`, `a` and the output in `other`.
fn linear(m: Dim, n: usize, k: usize, dtype: DType, other: DType) -> Kernel {
    let out = View {
        offset: Dim::from(0),
        strides: dims(&[0, n, 1]),
    };
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
        m,
        n: Dim::from(n),
        k: Dim::from(k),
        args: Encoding::plain([other, dtype, DType::F32, other]),
        a: strided(0, [0, k, 1]).into(),
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

#[test]
fn linear_equals_the_reference_at_ragged_sizes() {
    for m in [1, 2, 3, 5, 8, 9, 70] {
        for (n, k) in [(1, 1), (65, 17), (64, 64), (130, 96), (40, 520)] {
            let args = linear_args(m, n, k, DType::F32, DType::F32);
            let kernel = linear(Dim::from(m), n, k, DType::F32, DType::F32);
            let d = distance(&kernel, &Env::default(), &args);
            assert!(d <= 10.0, "{m} {n} {k}: {d}");
        }
    }
}

#[test]
fn linear_equals_the_reference_in_every_dtype() {
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        for other in [DType::F32, DType::BF16, DType::F16] {
            for m in [1, 4, 20] {
                let args = linear_args(m, 100, 96, dtype, other);
                let kernel = linear(Dim::from(m), 100, 96, dtype, other);
                let d = distance(&kernel, &Env::default(), &args);
                assert!(d <= 4.0, "{m} {dtype} {other}: {d}");
            }
        }
    }
}

#[test]
fn every_variant_is_chosen_by_a_runtime_m() {
    for dtype in [DType::BF16, DType::F16] {
        let kernel = linear(Dim::var(Var(0)), 200, 136, dtype, dtype);
        for m in [0, 1, 2, 3, 4, 6, 8, 9, 64, 65, 129, 300] {
            let args = linear_args(m, 200, 136, dtype, dtype);
            let d = distance(&kernel, &Env::new(&[m as i64]), &args);
            assert!(d <= 2.0, "{m} {dtype}: {d}");
        }
    }
}

/// Large blocks are for results that fill a device; here each runs on a few rows, whole and cut.
#[test]
fn variants_for_many_rows_are_right_for_few_and_keep_the_law() {
    let mut entries = std::collections::BTreeSet::new();
    for (m, n, k, dtype) in [
        (130, 200, 136, DType::BF16),
        (5, 264, 328, DType::F16),
        (70, 70, 64, DType::BF16),
        (130, 320, 192, DType::F16),
    ] {
        let kernel = linear(Dim::var(Var(0)), n, k, dtype, dtype);
        let (env, args) = (Env::new(&[m as i64]), linear_args(m, n, k, dtype, dtype));
        let mut alone = Vec::new();
        for e in emitted(&kernel) {
            for l in e.launches.iter().filter(|l| !l.entry.starts_with("few")) {
                let (l, when) = (l.clone(), vec![]);
                entries.insert(l.entry.clone());
                let launches = vec![launch::EntryLaunch { when, ..l }];
                alone.push(Emitted {
                    launches,
                    ..e.clone()
                });
            }
        }
        let d = distance_of(&kernel, &alone, &env, &args);
        assert!(d <= 2.0, "m={m} n={n} k={k} {dtype}: {d}");
        for e in &alone {
            let whole = by_ranges(&kernel, e, &env, &args, &[(n, n)]);
            let glued = by_ranges(&kernel, e, &env, &args, &[(64, 64), (n, 64)]);
            assert!(glued == whole, "{} m={m} n={n} k={k}", e.launches[0].entry);
        }
    }
    let kinds = |kind: &str| entries.iter().filter(|e| e.starts_with(kind)).count();
    assert!(
        kinds("mma") > 1 && kinds("wgmma") > 1 && kinds("tma") > 1 && kinds("tile") == 1,
        "{entries:?}"
    );
}

#[test]
fn batches_broadcasts_and_transposes_equal_the_reference() {
    let (batch, n, k) = (3, 72, 40);
    for m in [1, 5, 12] {
        let cases = [
            ("row-major b", [m * k, k, 1], [n * k, k, 1]),
            ("k-major b", [m * k, k, 1], [n * k, 1, n]),
            ("one b", [m * k, k, 1], [0, k, 1]),
            ("one a, transposed", [0, 1, m], [n * k, k, 1]),
            ("heads side by side", [k, batch * k, 1], [k, batch * k, 1]),
        ];
        for (name, a, b) in cases {
            for dtype in [DType::F32, DType::BF16] {
                let mut e = BodyBuilder::new();
                let sum = e.push(Inst::Input);
                e.store(Arg(2), View::contiguous(&dims(&[batch, m, n])), sum);
                let kernel = Kernel::Matmul(Matmul {
                    batch: Dim::from(batch),
                    m: Dim::var(Var(0)),
                    n: Dim::from(n),
                    k: Dim::from(k),
                    args: Encoding::plain([dtype, DType::BF16, DType::F32]),
                    a: strided(0, a).into(),
                    b: strided(1, b),
                    ranged: false,
                    epilogue: e.finish(),
                });
                let args = [
                    Buffer::random(dtype, batch * m * k, 1),
                    Buffer::random(DType::BF16, batch * n * k, 2),
                    Buffer::zeros(DType::F32, batch * m * n),
                ];
                let d = distance(&kernel, &Env::new(&[m as i64]), &args);
                assert!(d <= 10.0, "{name} m={m} {dtype}: {d}");
            }
        }
    }
}

#[test]
fn sizes_may_all_be_runtime_integers() {
    // Scores of heads: batch, queries, keys and a stride of the cache come with the call.
    let [batch, m, n] = [0, 1, 2].map(|v| Dim::var(Var(v)));
    let k = 24;
    let capacity = 96usize;
    let operand = |arg: u16, rows: &Dim| Operand {
        arg: Arg(arg),
        view: View {
            offset: Dim::from(0),
            strides: vec![rows * &Dim::from(k), Dim::from(k), Dim::from(1)],
        },
    };
    let mut e = BodyBuilder::new();
    let sum = e.push(Inst::Input);
    e.store(
        Arg(2),
        View::contiguous(&[batch.clone(), m.clone(), n.clone()]),
        sum,
    );
    let kernel = Kernel::Matmul(Matmul {
        batch,
        a: operand(0, &m).into(),
        b: operand(1, &Dim::from(capacity)),
        m,
        n,
        k: Dim::from(k),
        args: Encoding::plain([DType::F16, DType::F16, DType::F32]),
        ranged: false,
        epilogue: e.finish(),
    });
    for (batch, m, n) in [(2, 1, 33), (2, 3, 96), (1, 20, 7), (3, 70, 65), (1, 5, 0)] {
        let args = [
            Buffer::random(DType::F16, batch * m * k, 1),
            Buffer::random(DType::F16, batch * capacity * k, 2),
            Buffer::zeros(DType::F32, batch * m * n),
        ];
        let env = Env::new(&[batch as i64, m as i64, n as i64]);
        let d = distance(&kernel, &env, &args);
        assert!(d <= 10.0, "{batch} {m} {n}: {d}");
    }
}

#[test]
fn a_sum_over_nothing_is_zero() {
    for m in [2, 20] {
        let args = linear_args(m, 70, 0, DType::F32, DType::F32);
        let kernel = linear(Dim::from(m), 70, 0, DType::F32, DType::F32);
        assert!(distance(&kernel, &Env::default(), &args) <= 2.0, "{m}");
    }
}

/// Runs a kernel over ranges with the given ends, each in tiles of `step` rows.
fn by_ranges(
    kernel: &Kernel,
    e: &Emitted,
    env: &Env,
    args: &[Buffer],
    cuts: &[(usize, usize)],
) -> Vec<u8> {
    let mut given = args.to_vec();
    poison(kernel, &mut given);
    let mut start = 0;
    for &(end, step) in cuts {
        let rows = [(start..end, step)];
        launch(kernel, e, env, &rows, start as u64, &mut given);
        start = end;
    }
    given[3].bytes.clone()
}

#[test]
fn row_ranges_and_tiles_glue_to_the_whole_launch_bit_for_bit() {
    let (n, k) = (64 * 5 + 13, 200);
    for (dtype, other) in [
        (DType::F32, DType::F32),
        (DType::BF16, DType::BF16),
        (DType::F16, DType::F32),
    ] {
        let kernel = linear(Dim::var(Var(0)), n, k, dtype, other);
        for m in [1, 3, 8, 9, 66] {
            let (env, args) = (Env::new(&[m as i64]), linear_args(m, n, k, dtype, other));
            for e in emitted(&kernel) {
                let whole = by_ranges(&kernel, &e, &env, &args, &[(n, n)]);
                for cuts in [
                    &[(64, 64), (128, 64), (320, 64), (n, 64)][..],
                    &[(n, 64)],
                    &[(n, 128)],
                    &[(192, 192), (n, 64)],
                ] {
                    let glued = by_ranges(&kernel, &e, &env, &args, cuts);
                    assert!(glued == whole, "{dtype} m={m} {cuts:?} {}", e.target);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_cut_into_panels_gives_the_same_bits(
        n in 1usize..500,
        k in 1usize..12,
        m in prop::sample::select(vec![1usize, 3, 8, 9, 40]),
        dtype in prop::sample::select(vec![DType::F32, DType::BF16, DType::F16]),
        cuts in prop::collection::btree_set(1usize..8, 0..4),
        step in 1usize..4,
        ragged in any::<bool>(),
    ) {
        let k = if ragged { 8 * k - 3 } else { 8 * k };
        let (env, args) = (Env::default(), linear_args(m, n, k, dtype, DType::BF16));
        let kernel = linear(Dim::from(m), n, k, dtype, DType::BF16);
        let ends = cuts.iter().map(|c| c * ROW_PANEL).filter(|e| *e < n).chain([n]);
        let cuts: Vec<(usize, usize)> = ends.map(|e| (e, step * ROW_PANEL)).collect();
        for e in emitted(&kernel) {
            let whole = by_ranges(&kernel, &e, &env, &args, &[(n, n)]);
            let glued = by_ranges(&kernel, &e, &env, &args, &cuts);
            prop_assert!(glued == whole, "{:?} {}", cuts, e.target);
        }
    }
}
