//! Attention as PTX.

use super::*;
use proptest::prelude::*;

/// An attention; sizes that a call may change are runtime integers.
#[derive(Clone, Debug)]
struct Case {
    batch: usize,
    heads: usize,
    kv_heads: usize,
    queries: usize,
    keys: usize,
    dim: usize,
    value: usize,
    /// The causal offset is `keys - queries`.
    causal: bool,
    window: Option<usize>,
    dtype: DType,
    /// Rows that a cache of keys and values has room for.
    capacity: usize,
}

impl Default for Case {
    fn default() -> Case {
        Case {
            batch: 1,
            heads: 6,
            kv_heads: 2,
            queries: 1,
            keys: 40,
            dim: 64,
            value: 64,
            causal: false,
            window: None,
            dtype: DType::F32,
            capacity: 0,
        }
    }
}

impl Case {
    /// Queries and keys of the kernel: known, or the first two runtime integers.
    fn kernel(&self, runtime: bool, score: Body) -> Kernel {
        let (b, h, g) = (self.batch, self.heads, self.kv_heads);
        let [queries, keys] = match runtime {
            true => [0, 1].map(|v| Dim::var(Var(v))),
            false => [self.queries, self.keys].map(Dim::from),
        };
        let operand = |arg: u16, heads: usize, rows: &Dim, dim: usize| {
            let sizes = [Dim::from(b), Dim::from(heads), rows.clone(), Dim::from(dim)];
            let (arg, view) = (Arg(arg), View::contiguous(&sizes));
            Operand { arg, view }
        };
        let cached = match self.capacity {
            0 => keys.clone(),
            n => Dim::from(n),
        };
        let causal = self.causal.then(|| Causal {
            offset: &keys - &queries,
            window: self.window,
        });
        let d = self.dtype;
        Kernel::Attention(Attention {
            batch: Dim::from(b),
            heads: h,
            kv_heads: g,
            head_dim: self.dim,
            value_dim: self.value,
            before: Vec::new(),
            args: vec![d, d, d, d, DType::F32],
            q: operand(0, h, &queries, self.dim),
            k: operand(1, g, &cached, self.dim),
            v: operand(2, g, &cached, self.value),
            out: operand(3, h, &queries, self.value),
            queries,
            keys,
            causal,
            score,
        })
    }

    fn scaled(&self) -> Body {
        let mut b = BodyBuilder::new();
        let x = b.push(Inst::Input);
        let c = b.push(Inst::F32(1.7 / (self.dim as f32).sqrt()));
        let y = b.binary(Binary::Mul, x, c);
        b.push(Inst::Yield(y));
        b.finish()
    }

    fn args(&self) -> Vec<Buffer> {
        let (b, h, g, d) = (self.batch, self.heads, self.kv_heads, self.dtype);
        let cached = self.capacity.max(self.keys);
        vec![
            Buffer::random(d, b * h * self.queries * self.dim, 1),
            Buffer::random(d, b * g * cached * self.dim, 2),
            Buffer::random(d, b * g * cached * self.value, 3),
            Buffer::zeros(d, b * h * self.queries * self.value),
            Buffer::random(DType::F32, b * self.queries * self.keys, 4),
        ]
    }

    /// The worse distance of the kernel with known sizes and with runtime ones.
    fn distance(&self) -> f64 {
        let env = Env::new(&[self.queries as i64, self.keys as i64]);
        let run = |runtime| distance(&self.kernel(runtime, self.scaled()), &env, &self.args());
        let (a, b) = (run(false), run(true));
        if a.is_nan() { a } else { a.max(b) }
    }
}

#[test]
fn decode_equals_the_reference_at_any_length() {
    for keys in [1, 2, 63, 64, 65, 300, 700] {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let case = Case {
                keys,
                dtype,
                capacity: 704,
                ..Case::default()
            };
            let d = case.distance();
            assert!(d <= 3.0, "{keys} {dtype}: {d}");
        }
    }
}

#[test]
fn prefill_equals_the_reference_with_and_without_a_past() {
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        for (queries, past) in [(2, 0), (5, 0), (8, 8), (9, 0), (64, 0), (65, 3), (130, 70)] {
            let case = Case {
                queries,
                keys: queries + past,
                causal: true,
                heads: 2,
                kv_heads: 1,
                dtype,
                ..Case::default()
            };
            let d = case.distance();
            assert!(d <= 3.0, "{queries} {past} {dtype}: {d}");
        }
    }
}

#[test]
fn windows_hide_old_keys() {
    for dtype in [DType::F32, DType::BF16] {
        for (queries, past, window) in [(1, 700, 100), (70, 10, 16), (3, 0, 1), (1, 5, 1000)] {
            let case = Case {
                queries,
                keys: queries + past,
                causal: true,
                window: Some(window),
                dtype,
                ..Case::default()
            };
            let d = case.distance();
            assert!(d <= 3.0, "{queries} {past} {window} {dtype}: {d}");
        }
    }
}

#[test]
fn head_sizes_need_not_fit_a_vector() {
    for (dim, value) in [
        (1, 1),
        (7, 5),
        (40, 40),
        (80, 96),
        (130, 65),
        (128, 128),
        (136, 8),
        (256, 256),
    ] {
        for queries in [1, 9] {
            for dtype in [DType::F32, DType::BF16] {
                let case = Case {
                    dim,
                    value,
                    queries,
                    batch: 2,
                    dtype,
                    ..Case::default()
                };
                let d = case.distance();
                assert!(d <= 3.0, "{dim} {value} {queries} {dtype}: {d}");
            }
        }
    }
}

#[test]
fn a_score_body_may_cap_and_add_a_mask() {
    for queries in [1, 5, 20] {
        for (dtype, keys) in [(DType::F32, 70), (DType::BF16, 70), (DType::BF16, 71)] {
            let case = Case {
                queries,
                keys,
                dtype,
                ..Case::default()
            };
            let mut b = BodyBuilder::new();
            let x = b.push(Inst::Input);
            let cap = b.push(Inst::F32(2.0));
            let y = b.binary(Binary::Div, x, cap);
            let y = b.unary(Unary::Tanh, y);
            let y = b.binary(Binary::Mul, y, cap);
            let mask = View {
                offset: Dim::from(0),
                strides: dims(&[keys * queries, 0, keys, 1]),
            };
            let m = b.load(Arg(4), mask);
            let y = b.binary(Binary::Add, y, m);
            b.push(Inst::Yield(y));
            let mut args = case.args();
            args[4].set(3, f64::NEG_INFINITY);
            let body = b.finish();
            for runtime in [false, true] {
                let env = Env::new(&[queries as i64, keys as i64]);
                let d = distance(&case.kernel(runtime, body.clone()), &env, &args);
                assert!(d <= 3.0, "{queries} {keys} {dtype}: {d}");
            }
        }
    }
}

#[test]
fn a_query_that_sees_no_key_gives_zeros() {
    for dtype in [DType::F32, DType::F16] {
        for queries in [2, 10, 70] {
            // Fewer keys than queries: the first queries see none.
            let case = Case {
                queries,
                keys: queries / 2,
                causal: true,
                dtype,
                ..Case::default()
            };
            assert!(case.distance() <= 3.0, "{queries}");
            let case = Case { keys: 0, ..case };
            assert_eq!(case.distance(), 0.0, "{queries}");
        }
    }
}

#[test]
fn queries_and_results_may_lie_by_position() {
    for dtype in [DType::F32, DType::BF16] {
        for queries in [1, 6, 70] {
            let case = Case {
                batch: 2,
                queries,
                keys: queries + 5,
                causal: true,
                dtype,
                ..Case::default()
            };
            let Kernel::Attention(mut k) = case.kernel(false, case.scaled()) else {
                unreachable!("the case makes an attention");
            };
            let row = case.heads * case.dim;
            k.q.view.strides = dims(&[queries * row, case.dim, row, 1]);
            k.out.view = k.q.view.clone();
            let d = distance(&Kernel::Attention(k), &Env::default(), &case.args());
            assert!(d <= 3.0, "{queries} {dtype}: {d}");
        }
    }
}

/// Runs the kernel of a case with runtime sizes; the bytes of the result, and atomics.
fn ran(case: &Case, target: Target, seed: u64) -> (Vec<u8>, u64) {
    let kernel = case.kernel(true, case.scaled());
    let emitted = ptx::emit(&kernel, target).unwrap();
    let env = Env::new(&[case.queries as i64, case.keys as i64]);
    let mut args = case.args();
    poison(&kernel, &mut args);
    let done = launch(&kernel, &emitted, &env, &[], seed, &mut args);
    (args[3].bytes.clone(), done.atomics)
}

#[test]
fn decode_is_one_launch() {
    for dtype in [DType::F32, DType::BF16] {
        let case = Case {
            dtype,
            ..Case::default()
        };
        for target in Target::ALL {
            let kernel = case.kernel(false, case.scaled());
            let launches = ptx::emit(&kernel, target).unwrap().launches;
            assert_eq!(launches.len(), 1, "{launches:?}");
        }
    }
}

#[test]
fn which_block_is_the_last_changes_no_bit() {
    for (dtype, target) in [(DType::F32, Target::Sm75), (DType::BF16, Target::Sm90)] {
        let case = Case {
            keys: 1000,
            capacity: 1024,
            dtype,
            ..Case::default()
        };
        let first = ran(&case, target, 0);
        // Each of two key heads has sixteen splits with keys.
        assert_eq!(first.1, 2 * 16, "{dtype}");
        for seed in 1..6 {
            assert!(ran(&case, target, seed) == first, "{dtype} {seed}");
        }
    }
}

#[test]
fn few_keys_are_one_block_s_and_nothing_is_counted() {
    for (dtype, target, few) in [
        (DType::F32, Target::Sm80, 64),
        (DType::BF16, Target::Sm80, 128),
    ] {
        let case = |keys| Case {
            keys,
            capacity: 256,
            dtype,
            ..Case::default()
        };
        assert_eq!(ran(&case(few), target, 1).1, 0, "{dtype}");
        let tiles = (few as u64 + 1).div_ceil(64);
        assert_eq!(ran(&case(few + 1), target, 1).1, 2 * tiles, "{dtype}");
    }
}

#[test]
fn many_heads_need_no_splits() {
    for dtype in [DType::F32, DType::BF16] {
        let case = Case {
            heads: 150,
            kv_heads: 150,
            dim: 16,
            value: 16,
            dtype,
            ..Case::default()
        };
        let kernel = case.kernel(false, case.scaled());
        let emitted = ptx::emit(&kernel, Target::Sm80).unwrap();
        assert!(emitted.scratch.is(0), "{}", emitted.scratch);
        assert!(!emitted.params.contains(&launch::Param::Counters));
        assert!(case.distance() <= 3.0, "{dtype}");
    }
}

#[test]
fn more_batches_than_counters_go_without_splits() {
    for (dtype, keys) in [(DType::F32, 65), (DType::BF16, 130)] {
        // Four batches of 64 heads are as many as there are counters.
        for (batch, counted) in [(4, true), (5, false)] {
            let case = Case {
                batch,
                heads: 64,
                kv_heads: 64,
                keys,
                dim: 8,
                value: 8,
                dtype,
                ..Case::default()
            };
            let Kernel::Attention(mut k) = case.kernel(false, case.scaled()) else {
                unreachable!("the case makes an attention");
            };
            k.batch = Dim::var(Var(2));
            let kernel = Kernel::Attention(k);
            let env = Env::new(&[0, 0, batch as i64]);
            let (emitted, mut args) = (emitted(&kernel), case.args());
            let done = launch(&kernel, &emitted[0], &env, &[], 3, &mut args);
            assert_eq!(done.atomics > 0, counted, "{batch} {dtype}");
            let d = distance_of(&kernel, &emitted[..2], &env, &case.args());
            assert!(d <= 3.0, "{batch} {dtype}");
        }
    }
}

#[test]
fn the_number_of_keys_changes_no_launch() {
    let case = Case::default();
    let kernel = case.kernel(true, case.scaled());
    for target in Target::ALL {
        let emitted = ptx::emit(&kernel, target).unwrap();
        // The first runtime integer is the number of queries.
        assert_eq!(emitted.grid_vars(), [Var(0)], "{target}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_shape_equals_the_reference(
        queries in 1usize..50,
        past in 0usize..90,
        group in 1usize..4,
        dim in 1usize..40,
        octets in any::<bool>(),
        window in prop::option::of(1usize..50),
        dtype in prop::sample::select(vec![DType::F32, DType::BF16, DType::F16]),
    ) {
        let dim = if octets { dim.next_multiple_of(8) } else { dim };
        let case = Case {
            queries,
            keys: queries + past,
            heads: 2 * group,
            dim,
            value: dim,
            causal: true,
            window,
            dtype,
            ..Case::default()
        };
        let d = case.distance();
        prop_assert!(d <= 3.0, "{}", d);
    }
}
