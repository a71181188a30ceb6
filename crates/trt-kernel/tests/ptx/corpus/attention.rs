//! Attentions of the models in use, and one of each odd kind.

use super::{dims, past, seq};
use trt_kernel::*;

const FLOATS: [DType; 3] = [DType::BF16, DType::F16, DType::F32];

/// Positions that a cache has room for.
const ROOM: i64 = 8192;

#[derive(Clone)]
struct Shape {
    batch: i64,
    heads: usize,
    kv_heads: usize,
    size: usize,
    queries: Dim,
    dtype: DType,
    /// Over a cache of keys and values, else over those of the call.
    cached: bool,
    window: Option<usize>,
}

fn decoder(heads: usize, kv_heads: usize, size: usize, queries: Dim, dtype: DType) -> Shape {
    Shape {
        batch: 1,
        heads,
        kv_heads,
        size,
        queries,
        dtype,
        cached: true,
        window: None,
    }
}

fn encoder(batch: i64, heads: usize, size: usize, dtype: DType) -> Shape {
    Shape {
        batch,
        cached: false,
        ..decoder(heads, heads, size, seq(), dtype)
    }
}

/// A score from what is done to the product.
fn score(apply: impl FnOnce(&mut BodyBuilder, Reg) -> Reg) -> Body {
    let mut b = BodyBuilder::new();
    let x = b.push(Inst::Input);
    let y = apply(&mut b, x);
    b.push(Inst::Yield(y));
    b.finish()
}

fn scaled(b: &mut BodyBuilder, x: Reg, size: usize) -> Reg {
    let c = b.push(Inst::F32(1.0 / (size as f32).sqrt()));
    b.binary(Binary::Mul, x, c)
}

impl Shape {
    /// Queries and results lie as `[batch, queries, heads, size]`.
    fn kernel(&self, score: Body) -> Kernel {
        let keys = match self.cached {
            true => &past() + &self.queries,
            false => self.queries.clone(),
        };
        let rows = match self.cached {
            true => Dim::from(ROOM),
            false => keys.clone(),
        };
        let [h, g, d] = [self.heads, self.kv_heads, self.size].map(Dim::from);
        let turned = |arg: u16| {
            let row = &h * &d;
            let strides = vec![&self.queries * &row, d.clone(), row, Dim::from(1)];
            let (arg, offset) = (Arg(arg), Dim::from(0));
            let view = View { offset, strides };
            Operand { arg, view }
        };
        let stored = |arg: u16| {
            let space = [Dim::from(self.batch), g.clone(), rows.clone(), d.clone()];
            let (arg, view) = (Arg(arg), View::contiguous(&space));
            Operand { arg, view }
        };
        let causal = self.cached.then(|| Causal {
            offset: past(),
            window: self.window,
        });
        Kernel::Attention(Attention {
            batch: Dim::from(self.batch),
            heads: self.heads,
            kv_heads: self.kv_heads,
            queries: self.queries.clone(),
            keys,
            head_dim: self.size,
            value_dim: self.size,
            before: Vec::new(),
            args: [&[self.dtype; 4][..], &[DType::F32]].concat(),
            q: turned(0),
            k: stored(1),
            v: stored(2),
            out: turned(3),
            causal,
            score,
        })
    }

    fn scaled(&self) -> Kernel {
        self.kernel(score(|b, x| scaled(b, x, self.size)))
    }

    /// A mask over `[batch, keys]` is added.
    fn masked(&self) -> Kernel {
        let mut strides = dims([0, 0, 0, 1]);
        strides[0] = self.queries.clone();
        let (offset, size) = (Dim::from(0), self.size);
        self.kernel(score(|b, x| {
            let y = scaled(b, x, size);
            let m = b.load(Arg(4), View { offset, strides });
            b.binary(Binary::Add, y, m)
        }))
    }

    /// A soft cap.
    fn capped(&self) -> Kernel {
        self.kernel(score(|b, x| {
            let y = scaled(b, x, self.size);
            let cap = b.push(Inst::F32(50.0));
            let y = b.binary(Binary::Div, y, cap);
            let y = b.unary(Unary::Tanh, y);
            b.binary(Binary::Mul, y, cap)
        }))
    }
}

pub fn kernels() -> Vec<(String, Kernel)> {
    let mut all: Vec<(String, Kernel)> = Vec::new();
    for (name, queries) in [("1", Dim::from(1)), ("seq", seq())] {
        let mut add = |what: &str, kernel| all.push((format!("attention_{what}_{name}"), kernel));
        for d in FLOATS {
            let smollm2 = decoder(9, 3, 64, queries.clone(), d);
            add(&format!("9_3x64_{d}"), smollm2.scaled());
        }
        let of =
            |heads, kv_heads, size| decoder(heads, kv_heads, size, queries.clone(), DType::BF16);
        add("32_8x128_bf16", of(32, 8, 128).scaled());
        add("32_8x96_bf16", of(32, 8, 96).scaled());
        add("28_4x128_bf16", of(28, 4, 128).scaled());
        let gemma = of(8, 4, 256);
        add("capped_8_4x256_bf16", gemma.capped());
        let window = Some(4096);
        add("window_8_4x256_bf16", Shape { window, ..gemma }.capped());
        add(
            "window_32_8x128_bf16",
            Shape {
                window,
                ..of(32, 8, 128)
            }
            .scaled(),
        );
    }
    for d in FLOATS {
        let bert = encoder(8, 12, 64, d);
        all.push((format!("attention_masked_12x64_{d}"), bert.masked()));
        let odd = encoder(1, 3, 7, d);
        all.push((format!("attention_3x7_{d}"), odd.masked()));
    }
    for (heads, size) in [(8, 40), (8, 80), (8, 160), (1, 512)] {
        let image = encoder(2, heads, size, DType::F16);
        all.push((format!("attention_{heads}x{size}_f16"), image.scaled()));
    }
    all
}
