//! Attention on the host.

mod reference;

use proptest::prelude::*;
use reference::{Buffer, compare, host};
use trt_kernel::host::{Prepared, Span, Team};
use trt_kernel::*;

struct Case {
    batch: usize,
    heads: usize,
    kv_heads: usize,
    queries: usize,
    keys: usize,
    dim: usize,
    value: usize,
    causal: Option<Causal>,
    dtype: DType,
}

fn causal(offset: i64, window: Option<usize>) -> Option<Causal> {
    Some(Causal {
        offset: Dim::from(offset),
        window,
    })
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
            causal: None,
            dtype: DType::F32,
        }
    }
}

impl Case {
    fn operand(arg: u16, sizes: [usize; 4]) -> Operand {
        Operand {
            arg: Arg(arg),
            view: View::contiguous(&sizes.map(Dim::from)),
        }
    }

    fn kernel(&self, score: Body) -> Kernel {
        let (b, h, g) = (self.batch, self.heads, self.kv_heads);
        Kernel::Attention(Attention {
            batch: Dim::from(b),
            heads: h,
            kv_heads: g,
            queries: Dim::from(self.queries),
            keys: Dim::from(self.keys),
            head_dim: self.dim,
            value_dim: self.value,
            before: Vec::new(),
            args: vec![self.dtype, self.dtype, self.dtype, self.dtype, DType::F32],
            q: Case::operand(0, [b, h, self.queries, self.dim]),
            k: Case::operand(1, [b, g, self.keys, self.dim]),
            v: Case::operand(2, [b, g, self.keys, self.value]),
            out: Case::operand(3, [b, h, self.queries, self.value]),
            causal: self.causal.clone(),
            score,
        })
    }

    fn scaled(&self) -> Kernel {
        let mut b = BodyBuilder::new();
        let x = b.push(Inst::Input);
        let c = b.push(Inst::F32(1.7 / (self.dim as f32).sqrt()));
        let y = b.binary(Binary::Mul, x, c);
        b.push(Inst::Yield(y));
        self.kernel(b.finish())
    }

    fn args(&self) -> Vec<Buffer> {
        let (b, h, g) = (self.batch, self.heads, self.kv_heads);
        vec![
            Buffer::random(self.dtype, b * h * self.queries * self.dim, 1),
            Buffer::random(self.dtype, b * g * self.keys * self.dim, 2),
            Buffer::random(self.dtype, b * g * self.keys * self.value, 3),
            Buffer::zeros(self.dtype, b * h * self.queries * self.value),
            Buffer::random(DType::F32, b * self.queries * self.keys, 4),
        ]
    }

    fn distance(&self) -> f64 {
        compare(&self.scaled(), &Env::default(), &self.args())
    }
}

#[test]
fn decode_equals_the_reference_at_any_length() {
    for keys in [1, 2, 63, 64, 65, 500, 1100] {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let case = Case {
                keys,
                dtype,
                ..Case::default()
            };
            let d = case.distance();
            assert!(d <= 3.0, "{keys} {dtype}: {d}");
        }
    }
}

#[test]
fn prefill_equals_the_reference_with_and_without_a_past() {
    for (queries, past) in [(2, 0), (5, 0), (64, 0), (65, 3), (130, 70)] {
        let case = Case {
            queries,
            keys: queries + past,
            causal: causal(past as i64, None),
            ..Case::default()
        };
        let d = case.distance();
        assert!(d <= 3.0, "{queries} {past}: {d}");
    }
}

#[test]
fn windows_hide_old_keys() {
    for (queries, past, window) in [(1, 700, 100), (70, 10, 16), (3, 0, 1), (1, 5, 1000)] {
        let case = Case {
            queries,
            keys: queries + past,
            causal: causal(past as i64, Some(window)),
            ..Case::default()
        };
        let d = case.distance();
        assert!(d <= 3.0, "{queries} {past} {window}: {d}");
    }
}

#[test]
fn head_sizes_need_not_fit_a_vector() {
    for (dim, value) in [(1, 1), (7, 5), (80, 96), (130, 65)] {
        for queries in [1, 9] {
            let case = Case {
                dim,
                value,
                queries,
                batch: 2,
                ..Case::default()
            };
            let d = case.distance();
            assert!(d <= 3.0, "{dim} {value} {queries}: {d}");
        }
    }
}

#[test]
fn a_score_body_may_cap_and_add_a_mask() {
    for queries in [1, 20] {
        let case = Case {
            queries,
            keys: 70,
            ..Case::default()
        };
        let mask = View {
            offset: Dim::from(0),
            strides: [70 * queries, 0, 70, 1].map(Dim::from).to_vec(),
        };
        let mut b = BodyBuilder::new();
        let x = b.push(Inst::Input);
        let cap = b.push(Inst::F32(2.0));
        let y = b.binary(Binary::Div, x, cap);
        let y = b.unary(Unary::Tanh, y);
        let y = b.binary(Binary::Mul, y, cap);
        let m = b.load(Arg(4), mask);
        let y = b.binary(Binary::Add, y, m);
        b.push(Inst::Yield(y));
        let mut args = case.args();
        args[4].set(3, f64::NEG_INFINITY);
        let d = compare(&case.kernel(b.finish()), &Env::default(), &args);
        assert!(d <= 3.0, "{queries}: {d}");
    }
}

#[test]
fn a_query_that_sees_no_key_gives_zeros() {
    for queries in [2, 10] {
        let case = Case {
            queries,
            keys: 4,
            causal: causal(-1, None),
            ..Case::default()
        };
        let mut args = case.args();
        args[3] = Buffer::random(DType::F32, args[3].len(), 9);
        host(&case.scaled(), &Env::default(), None, &mut args).unwrap();
        assert!(args[3].values()[..64].iter().all(|x| *x == 0.0));
        assert!(case.distance() <= 3.0);
    }
}

#[test]
fn no_keys_at_all_give_zeros() {
    let case = Case {
        keys: 0,
        ..Case::default()
    };
    assert_eq!(case.distance(), 0.0);
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for (queries, keys) in [(1, 3000), (70, 80)] {
        let case = Case {
            queries,
            keys,
            ..Case::default()
        };
        let args = case.args();
        let prepared = Prepared::new(&case.scaled()).unwrap();
        let run = |threads: usize| {
            let mut out = args[3].bytes.clone();
            let mut spans = [
                Span::from_slice(&args[0].bytes),
                Span::from_slice(&args[1].bytes),
                Span::from_slice(&args[2].bytes),
                Span::from_mut(&mut out),
                Span::from_slice(&args[4].bytes),
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
        assert!(run(2) == one && run(4) == one);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_shape_equals_the_reference(
        queries in 1usize..80,
        past in 0usize..90,
        group in 1usize..4,
        dim in 1usize..40,
        window in prop::option::of(1usize..50),
    ) {
        let case = Case {
            queries,
            keys: queries + past,
            heads: 2 * group,
            dim,
            value: dim,
            causal: causal(past as i64, window),
            ..Case::default()
        };
        prop_assert!(case.distance() <= 3.0);
    }
}
