//! Attention that rows come before, in one launch: rope of queries and keys, appends.

use super::*;
use proptest::prelude::*;
use trt_kernel::ptx::runs_before;

/// A decode step behind `past` cached positions.
#[derive(Clone, Debug)]
struct Step {
    batch: usize,
    kv_heads: usize,
    group: usize,
    dim: usize,
    past: usize,
    dtype: DType,
    /// The dtype of the table of angles.
    angles: DType,
    window: Option<usize>,
    /// Whether values are appended before the launch.
    values_there: bool,
}

impl Default for Step {
    fn default() -> Step {
        Step {
            batch: 1,
            kv_heads: 2,
            group: 3,
            dim: 64,
            past: 5,
            dtype: DType::BF16,
            angles: DType::BF16,
            window: None,
            values_there: false,
        }
    }
}

/// Positions that the caches have room for.
const ROOM: usize = 1024;

/// Arguments: the projections, the table of cosines and of sines, the caches, the result.
const Q: Arg = Arg(0);
const K: Arg = Arg(1);
const V: Arg = Arg(2);
const COS: Arg = Arg(3);
const SIN: Arg = Arg(4);
const KEYS: Arg = Arg(5);
const VALUES: Arg = Arg(6);
const OUT: Arg = Arg(7);
const OWN: Arg = Arg(8);

impl Step {
    fn view(offset: Dim, strides: &[usize]) -> View {
        let strides = dims(strides);
        View { offset, strides }
    }

    fn args(&self) -> Vec<DType> {
        let (d, a) = (self.dtype, self.angles);
        vec![d, d, d, a, a, d, d, d, d]
    }

    /// Rope over `[batch, heads, 1, half]` of rows that lie as `[batch, heads * dim]`.
    fn rope(&self, heads: usize, from: Arg, to: Arg, stored: impl Fn(usize) -> View) -> Row {
        let half = self.dim / 2;
        let mut b = BodyBuilder::new();
        let whole = heads * self.dim;
        let read = |at: usize| Step::view(Dim::from(at), &[whole, self.dim, 0, 1]);
        let (x, y) = (b.load(from, read(0)), b.load(from, read(half)));
        let past = &Dim::var(Var(0)) * &Dim::from(half);
        let [cos, sin] = [COS, SIN].map(|t| b.load(t, Step::view(past.clone(), &[0, 0, half, 1])));
        let products = [(x, cos), (y, sin), (y, cos), (x, sin)];
        let [xc, ys, yc, xs] = products.map(|(a, f)| b.binary(Binary::Mul, a, f));
        let low = b.binary(Binary::Sub, xc, ys);
        let high = b.binary(Binary::Add, yc, xs);
        b.store(to, stored(0), low);
        b.store(to, stored(half), high);
        Row {
            space: dims(&[self.batch, heads, 1, half]),
            args: self.args(),
            body: b.finish(),
        }
    }

    /// A view of the cached row of this call.
    fn cached(&self, at: usize) -> View {
        let (head, whole) = (ROOM * self.dim, self.kv_heads * ROOM * self.dim);
        let past = &Dim::var(Var(0)) * &Dim::from(self.dim);
        Step::view(&past + &Dim::from(at), &[whole, head, self.dim, 1])
    }

    fn append(&self) -> Row {
        let mut b = BodyBuilder::new();
        let whole = self.kv_heads * self.dim;
        let x = b.load(V, Step::view(Dim::from(0), &[whole, self.dim, 0, 1]));
        b.store(VALUES, self.cached(0), x);
        Row {
            space: dims(&[self.batch, self.kv_heads, 1, self.dim]),
            args: self.args(),
            body: b.finish(),
        }
    }

    fn attention(&self) -> Attention {
        let (d, g) = (self.dim, self.kv_heads);
        let heads = g * self.group;
        let operand = |arg, strides: [usize; 4]| {
            let view = Step::view(Dim::from(0), &strides);
            Operand { arg, view }
        };
        let cache = [g * ROOM * d, ROOM * d, d, 1];
        let turned = [heads * d, d, heads * d, 1];
        let mut b = BodyBuilder::new();
        let x = b.push(Inst::Input);
        let c = b.push(Inst::F32(1.7 / (d as f32).sqrt()));
        let y = b.binary(Binary::Mul, x, c);
        b.push(Inst::Yield(y));
        let mut args = self.args();
        args.pop();
        let mut before = vec![
            self.rope(heads, Q, OWN, |at| Step::view(Dim::from(at), &turned)),
            self.rope(g, K, KEYS, |at| self.cached(at)),
        ];
        if !self.values_there {
            before.push(self.append());
        }
        Attention {
            batch: Dim::from(self.batch),
            heads,
            kv_heads: g,
            queries: Dim::from(1),
            keys: &Dim::var(Var(0)) + &Dim::from(1),
            head_dim: d,
            value_dim: d,
            before,
            args,
            q: operand(OWN, turned),
            k: operand(KEYS, cache),
            v: operand(VALUES, cache),
            out: operand(OUT, turned),
            causal: self.window.map(|w| Causal {
                offset: Dim::var(Var(0)),
                window: Some(w),
            }),
            score: b.finish(),
        }
    }

    fn buffers(&self) -> Vec<Buffer> {
        let row = self.batch * self.kv_heads * self.dim;
        let table = (self.past + 1) * self.dim / 2;
        let sizes = [
            row * self.group,
            row,
            row,
            table,
            table,
            row * ROOM,
            row * ROOM,
            row * self.group,
        ];
        let each = self.args().into_iter().zip(sizes).enumerate();
        let mut all: Vec<Buffer> = each
            .map(|(i, (dtype, n))| Buffer::random(dtype, n, i as u64 + 1))
            .collect();
        // What no call has stored yet is no number.
        let end = self.past + usize::from(self.values_there);
        for (cache, end) in [(KEYS, self.past), (VALUES, end)] {
            let bytes = &mut all[cache.0 as usize].bytes;
            for head in bytes.chunks_mut(ROOM * self.dim * 2) {
                head[end * self.dim * 2..].fill(0xff);
            }
        }
        all
    }

    fn env(&self) -> Env {
        Env::new(&[self.past as i64])
    }

    fn distance(&self) -> f64 {
        let k = self.attention();
        assert!(runs_before(&k), "{self:?}");
        let kernel = Kernel::Attention(k);
        distance(&kernel, &self.env(), &self.buffers())
    }
}

#[test]
fn a_step_equals_the_reference_at_any_length() {
    for past in [0, 1, 15, 16, 63, 64, 127, 128, 129, 191, 192, 1000] {
        for dtype in [DType::BF16, DType::F16] {
            let step = Step {
                past,
                dtype,
                ..Step::default()
            };
            let d = step.distance();
            assert!(d <= 3.0, "{past} {dtype}: {d}");
        }
    }
}

#[test]
fn heads_and_groups_may_have_any_size() {
    for (dim, kv_heads, group) in [
        (64, 1, 1),
        (64, 3, 3),
        (128, 2, 4),
        (128, 1, 8),
        (96, 2, 4),
        (128, 1, 12),
        (8, 2, 2),
        (256, 1, 2),
        (64, 2, 20),
        (256, 1, 11),
    ] {
        for past in [0, 40, 200] {
            let step = Step {
                dim,
                kv_heads,
                group,
                past,
                ..Step::default()
            };
            let d = step.distance();
            assert!(d <= 3.0, "{dim} {kv_heads} {group} {past}: {d}");
        }
    }
}

/// What the kernel makes of a step, and what its parts make as launches of their own.
fn both(step: &Step, target: Target, seed: u64) -> [Vec<Buffer>; 2] {
    let k = step.attention();
    let (rows, inner) = k.split().unwrap();
    let mut fused = step.buffers();
    let mut apart = fused.clone();
    apart.push(Buffer::zeros(step.dtype, k.own_elements().unwrap()));
    let parts = rows.iter().map(|row| Kernel::Row(row.clone()));
    for part in parts.chain([Kernel::Attention(inner)]) {
        let emitted = ptx::emit(&part, target).unwrap();
        launch(&part, &emitted, &step.env(), &[], seed, &mut apart);
    }
    apart.pop();
    let kernel = Kernel::Attention(k);
    let emitted = ptx::emit(&kernel, target).unwrap();
    launch(&kernel, &emitted, &step.env(), &[], seed, &mut fused);
    [fused, apart]
}

#[test]
fn one_launch_gives_the_bits_of_its_parts() {
    for past in [0, 100, 500] {
        for target in Target::ALL {
            let step = Step {
                past,
                ..Step::default()
            };
            let [fused, apart] = both(&step, target, past as u64);
            assert!(fused == apart, "{past} {target}");
        }
    }
}

#[test]
fn with_tensor_cores_it_is_one_launch_else_one_for_each_part() {
    let kernel = Kernel::Attention(Step::default().attention());
    for target in Target::ALL {
        let launches = ptx::emit(&kernel, target).unwrap().launches;
        let expected = if target < Target::Sm80 { 4 } else { 1 };
        assert_eq!(launches.len(), expected, "{target}: {launches:?}");
    }
}

#[test]
fn rows_of_f32_are_launches_of_their_own() {
    let step = Step {
        dtype: DType::F32,
        ..Step::default()
    };
    let k = step.attention();
    assert!(!runs_before(&k));
    let mut args = step.buffers();
    for (cache, dim) in [(KEYS, step.dim), (VALUES, step.dim)] {
        // Buffers are filled by halves above.
        args[cache.0 as usize] = Buffer::random(DType::F32, step.kv_heads * ROOM * dim, 9);
    }
    let d = distance(&Kernel::Attention(k), &step.env(), &args);
    assert!(d <= 3.0, "{d}");
}

#[test]
fn values_may_be_there_already() {
    for past in [0, 64, 130] {
        let step = Step {
            past,
            values_there: true,
            angles: DType::F32,
            ..Step::default()
        };
        let d = step.distance();
        assert!(d <= 3.0, "{past}: {d}");
    }
}

#[test]
fn windows_and_batches_have_last_keys_too() {
    for (past, window) in [(0, 1), (300, 1), (700, 100), (64, 64)] {
        let step = Step {
            batch: 2,
            past,
            window: Some(window),
            ..Step::default()
        };
        let d = step.distance();
        assert!(d <= 3.0, "{past} {window}: {d}");
    }
}

#[test]
fn what_blocks_cannot_run_for_themselves_is_refused() {
    let refused = |change: &dyn Fn(&mut Attention)| {
        let mut k = Step::default().attention();
        change(&mut k);
        Kernel::Attention(k.clone()).check().unwrap();
        assert!(!runs_before(&k), "{}", Kernel::Attention(k));
    };
    // The key of this call is not the last one.
    refused(&|k| k.keys = &k.keys + &Dim::from(1));
    // Not all heads, or not all columns, are stored.
    refused(&|k| k.before[1].space[1] = Dim::from(1));
    refused(&|k| {
        k.before[1].body.insts.pop();
    });
    // Nobody computes the queries.
    refused(&|k| {
        k.before.remove(0);
    });
    // A row reads what another one stores.
    refused(&|k| {
        for inst in &mut k.before[1].body.insts {
            if let Inst::Load(arg, _) = inst
                && *arg == K
            {
                *arg = VALUES;
            }
        }
    });
    // The last key is not seen.
    refused(&|k| {
        k.causal = Some(Causal {
            offset: &Dim::var(Var(0)) - &Dim::from(1),
            window: None,
        });
    });
}

#[test]
fn queries_outside_of_the_launch_s_memory_break_the_kernel() {
    let check = |change: &dyn Fn(&mut Attention)| {
        let mut k = Step::default().attention();
        change(&mut k);
        Kernel::Attention(k).check()
    };
    check(&|_| {}).unwrap();
    check(&|k| k.q.view.offset = Dim::from(1)).unwrap_err();
    check(&|k| k.q.view.offset = Dim::var(Var(0))).unwrap_err();
    check(&|k| k.before[0].space[1] = Dim::from(7)).unwrap_err();
    check(&|k| k.q.arg = K).unwrap_err();
    check(&|k| k.v.arg = OWN).unwrap_err();
    check(&|k| k.before[1].args[0] = DType::F32).unwrap_err();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_step_equals_the_reference(
        past in 0usize..400,
        kv_heads in 1usize..4,
        group in 1usize..10,
        octets in 1usize..17,
        window in prop::option::of(1usize..300),
        dtype in prop::sample::select(vec![DType::BF16, DType::F16]),
        angles in prop::sample::select(vec![DType::BF16, DType::F32]),
    ) {
        let step = Step {
            past,
            kv_heads,
            group,
            dim: 8 * octets,
            window,
            dtype,
            angles,
            ..Step::default()
        };
        let d = step.distance();
        prop_assert!(d <= 3.0, "{}", d);
    }
}
