//! Attention of one token with what comes before it in its launch: rope of queries and keys, and
//! appends.

use super::{dims, past, view};
use trt_kernel::*;

/// A decode step behind `past` cached positions.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub batch: i64,
    /// Key heads, and query heads of each.
    pub heads: [i64; 2],
    pub dim: i64,
    /// Positions that a cache has room for.
    pub room: i64,
    pub dtype: DType,
    /// The dtype of the tables of cosines and sines.
    pub angles: DType,
    pub window: Option<usize>,
    /// Whether scores have a soft cap.
    pub capped: bool,
    /// Whether values are appended before the launch.
    pub values_there: bool,
}

/// SmolLM2's.
pub const STEP: Step = Step {
    batch: 1,
    heads: [3, 3],
    dim: 64,
    room: 8192,
    dtype: DType::BF16,
    angles: DType::BF16,
    window: None,
    capped: false,
    values_there: false,
};

/// The projections, the tables of cosines and sines, the caches, the result, and the queries.
pub const Q: Arg = Arg(0);
pub const K: Arg = Arg(1);
pub const V: Arg = Arg(2);
pub const COS: Arg = Arg(3);
pub const SIN: Arg = Arg(4);
pub const KEYS: Arg = Arg(5);
pub const VALUES: Arg = Arg(6);
pub const OUT: Arg = Arg(7);
pub const OWN: Arg = Arg(8);

impl Step {
    /// Dtypes of the arguments, and of the queries.
    pub fn args(&self) -> Vec<DType> {
        let (d, a) = (self.dtype, self.angles);
        vec![d, d, d, a, a, d, d, d, d]
    }

    /// Rope of rows that lie as `[batch, heads * dim]`.
    fn rope(&self, heads: i64, [from, to]: [Arg; 2], stored: impl Fn(i64) -> View) -> Row {
        let half = self.dim / 2;
        let read = |at: i64| view(at, &[heads * self.dim, self.dim, 0, 1]);
        let mut b = BodyBuilder::new();
        let (x, y) = (b.load(from, read(0)), b.load(from, read(half)));
        let angle = view(&past() * &Dim::from(half), &[0, 0, half, 1]);
        let [cos, sin] = [COS, SIN].map(|table| b.load(table, angle.clone()));
        let factors = [(x, cos), (y, sin), (y, cos), (x, sin)];
        let [xc, ys, yc, xs] = factors.map(|(a, f)| b.binary(Binary::Mul, a, f));
        let low = b.binary(Binary::Sub, xc, ys);
        let high = b.binary(Binary::Add, yc, xs);
        b.store(to, stored(0), low);
        b.store(to, stored(half), high);
        Row {
            space: dims([self.batch, heads, 1, half]),
            args: self.args(),
            body: b.finish(),
        }
    }

    /// A view of the cached row of this call.
    fn cached(&self, at: i64) -> View {
        let (head, [kv_heads, _]) = (self.room * self.dim, self.heads);
        let row = &past() * &Dim::from(self.dim);
        view(&row + &Dim::from(at), &[kv_heads * head, head, self.dim, 1])
    }

    fn append(&self) -> Row {
        let kv_heads = self.heads[0];
        let mut b = BodyBuilder::new();
        let x = b.load(V, view(0, &[kv_heads * self.dim, self.dim, 0, 1]));
        b.store(VALUES, self.cached(0), x);
        Row {
            space: dims([self.batch, kv_heads, 1, self.dim]),
            args: self.args(),
            body: b.finish(),
        }
    }

    pub fn attention(&self) -> Attention {
        let (d, [kv_heads, group]) = (self.dim, self.heads);
        let heads = kv_heads * group;
        let operand = |arg, strides: [i64; 4]| {
            let view = view(0, &strides);
            Operand { arg, view }
        };
        let cache = [kv_heads * self.room * d, self.room * d, d, 1];
        let turned = [heads * d, d, heads * d, 1];
        let mut b = BodyBuilder::new();
        let x = b.push(Inst::Input);
        let c = b.push(Inst::F32(1.0 / (d as f32).sqrt()));
        let mut y = b.binary(Binary::Mul, x, c);
        if self.capped {
            let cap = b.push(Inst::F32(50.0));
            let part = b.binary(Binary::Div, y, cap);
            let part = b.unary(Unary::Tanh, part);
            y = b.binary(Binary::Mul, part, cap);
        }
        b.push(Inst::Yield(y));
        let mut before = vec![
            self.rope(heads, [Q, OWN], |at| view(at, &turned)),
            self.rope(kv_heads, [K, KEYS], |at| self.cached(at)),
        ];
        before.extend((!self.values_there).then(|| self.append()));
        let mut args = self.args();
        args.pop();
        let [heads, kv_heads, dim] = [heads, kv_heads, d].map(|n| n as usize);
        Attention {
            batch: Dim::from(self.batch),
            heads,
            kv_heads,
            queries: Dim::from(1),
            keys: &past() + &Dim::from(1),
            head_dim: dim,
            value_dim: dim,
            args,
            q: operand(OWN, turned),
            k: operand(KEYS, cache),
            v: operand(VALUES, cache),
            out: operand(OUT, turned),
            causal: self.window.map(|window| Causal {
                offset: past(),
                window: Some(window),
            }),
            score: b.finish(),
            before,
        }
    }
}

pub fn kernels() -> Vec<(String, Kernel)> {
    let of = |kv_heads, group, dim| Step {
        heads: [kv_heads, group],
        dim,
        ..STEP
    };
    let half = DType::F16;
    let all = [
        ("9_3x64_bf16", STEP),
        (
            "9_3x64_f16",
            Step {
                dtype: half,
                ..STEP
            },
        ),
        (
            "9_3x64_f16_f32",
            Step {
                dtype: half,
                angles: DType::F32,
                ..STEP
            },
        ),
        ("12_12x64_bf16", of(12, 1, 64)),
        ("32_8x128_bf16", of(8, 4, 128)),
        ("32_8x96_bf16", of(8, 4, 96)),
        ("28_4x128_bf16", of(4, 7, 128)),
        ("64_8x128_bf16", of(8, 8, 128)),
        ("48_4x128_bf16", of(4, 12, 128)),
        ("8_4x256_bf16", of(4, 2, 256)),
        (
            "window_32_8x128_bf16",
            Step {
                window: Some(4096),
                ..of(8, 4, 128)
            },
        ),
        (
            "capped_window_8_4x256_bf16",
            Step {
                window: Some(4096),
                capped: true,
                ..of(4, 2, 256)
            },
        ),
        (
            "values_there_9_3x64_bf16",
            Step {
                values_there: true,
                ..STEP
            },
        ),
    ];
    all.into_iter()
        .map(|(name, step)| (format!("step_{name}"), Kernel::Attention(step.attention())))
        .collect()
}
