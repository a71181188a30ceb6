//! Attention as PTX.

mod splits;

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
