//! Matrix products: linear layers of the models in use, and products of activations.

use super::{dims, past, seq, view};
use trt_kernel::*;

const FLOATS: [DType; 3] = [DType::BF16, DType::F16, DType::F32];

/// Weights (`n x k`) of a Llama of 8B and of SmolLM2.
const LLAMA: [[i64; 2]; 5] = [
    [4096, 4096],
    [1024, 4096],
    [14336, 4096],
    [4096, 14336],
    [128_256, 4096],
];
const SMOLLM2: [[i64; 2]; 5] = [
    [576, 576],
    [192, 576],
    [1536, 576],
    [576, 1536],
    [49_152, 576],
];

pub fn kernels() -> Vec<(String, Kernel)> {
    let mut all = Vec::new();
    let one = || Dim::from(1);
    let name = |m: &str, [n, k]: [i64; 2]| format!("linear_{m}x{n}x{k}_bf16");
    for shape @ [n, k] in LLAMA.into_iter().chain(SMOLLM2) {
        all.push((name("1", shape), linear(one(), n, k, DType::BF16)));
    }
    for shape @ [n, k] in [[4096, 14336], [128_256, 4096], [576, 576]] {
        all.push((name("seq", shape), linear(seq(), n, k, DType::BF16)));
    }
    for d in FLOATS {
        all.push((format!("residual_1_{d}"), residual(one(), d)));
        all.push((format!("residual_seq_{d}"), residual(seq(), d)));
        all.push((format!("gated_1_{d}"), gated(one(), d)));
        all.push((format!("gated_seq_{d}"), gated(seq(), d)));
        all.push((format!("biased_seq_{d}"), biased(d)));
        all.push((format!("scores_{d}"), scores(d)));
        all.push((format!("weighted_{d}"), weighted(d)));
        for m in [2, 3, 5, 8, 64, 512] {
            let kernel = linear(Dim::from(m), 4096, 4096, d);
            all.push((format!("linear_{m}x4096x4096_{d}"), kernel));
        }
        for (m, n, k) in [
            (1, 576, 576),
            (3, 576, 576),
            (8, 1536, 576),
            (1, 14336, 4096),
        ] {
            let kernel = normed(m, n, k, d);
            all.push((format!("normed_{m}x{n}x{k}_{d}"), kernel));
        }
        all.push((
            format!("normed_qkv_1x576_{d}"),
            normed_heads(1, 576, 192, d),
        ));
        all.push((
            format!("normed_qkv_1x4096_{d}"),
            normed_heads(1, 4096, 1024, d),
        ));
        for (m, n, k) in [
            (1, 1536, 576),
            (3, 1536, 576),
            (8, 1536, 576),
            (1, 14336, 4096),
        ] {
            let kernel = normed_gate_up(m, n, k, d);
            all.push((format!("normed_gate_up_{m}x{n}x{k}_{d}"), kernel));
        }
        // So few outputs that blocks share them; the last parts of k are shorter, or empty.
        for (m, n, k) in [(100, 192, 1544), (70, 1024, 776)] {
            let kernel = linear(Dim::from(m), n, k, d);
            all.push((format!("linear_{m}x{n}x{k}_{d}"), kernel));
        }
        all.push((
            format!("linear_seqx576x1544_{d}"),
            linear(seq(), 576, 1544, d),
        ));
        // Rows that no wide access can read, and a number of them that no pair divides.
        all.push((format!("odd_seq_{d}"), linear(seq(), 51, 33, d)));
    }
    all
}

/// `norm(x) w^T` with the norm's weight `g`, over arguments `x`, `g`, `w`, `out`.
pub fn normed(m: i64, n: i64, k: i64, d: DType) -> Kernel {
    let mut b = BodyBuilder::new();
    let x = b.load(Arg(0), view(0, &[m * k, k, 1]));
    let square = b.unary(Unary::Sqr, x);
    let sum = b.push(Inst::Reduce(Reduce::Sum, square));
    let scale = b.push(Inst::F32(1.0 / k as f32));
    let mean = b.binary(Binary::Mul, sum, scale);
    let epsilon = b.push(Inst::F32(1e-5));
    let mean = b.binary(Binary::Add, mean, epsilon);
    let root = b.unary(Unary::Sqrt, mean);
    let y = b.binary(Binary::Div, x, root);
    let g = b.load(Arg(1), view(0, &[0, 0, 1]));
    let y = b.binary(Binary::Mul, y, g);
    b.push(Inst::Yield(y));
    let left = Left::Computed {
        dtype: d,
        body: b.finish(),
    };
    let mut e = BodyBuilder::new();
    let sum = e.push(Inst::Input);
    e.store(Arg(3), view(0, &[m * n, n, 1]), sum);
    Kernel::Matmul(Matmul {
        batch: Dim::from(1),
        m: Dim::from(m),
        n: Dim::from(n),
        k: Dim::from(k),
        args: Encoding::plain([d; 4]),
        a: left,
        b: Operand {
            arg: Arg(2),
            view: view(0, &[0, k, 1]),
        },
        ranged: true,
        epilogue: e.finish(),
    })
}

/// `silu(norm(x) gate^T) * (norm(x) up^T)` as a chain: over arguments `x`, `g`, `gate`, `out` and
/// `x`, `g`, `up`, `out`, and the first `out` again.
pub fn normed_gate_up(m: i64, n: i64, k: i64, d: DType) -> Kernel {
    let (gate, up) = (normed(m, n, k, d), normed(m, n, k, d));
    let Kernel::Matmul(mut up) = up else {
        unreachable!()
    };
    let out = view(0, &[m * n, n, 1]);
    let mut e = BodyBuilder::new();
    let sum = e.push(Inst::Input);
    let other = e.load(Arg(4), out.clone());
    let other = e.unary(Unary::Silu, other);
    let y = e.binary(Binary::Mul, other, sum);
    e.store(Arg(3), out, y);
    up.epilogue = e.finish();
    up.args.push(d.into());
    Kernel::Group(Group {
        parts: vec![gate, Kernel::Matmul(up)],
        order: Order::Chain,
    })
}

/// Queries, keys and values of a layer from the norm of its input.
pub fn normed_heads(m: i64, hidden: i64, kv: i64, d: DType) -> Kernel {
    let parts = [hidden, kv, kv].map(|n| normed(m, n, hidden, d));
    Kernel::Group(Group {
        parts: parts.to_vec(),
        order: Order::Side,
    })
}

/// `[batch, m, n]` row-major.
fn whole(m: &Dim, n: i64) -> View {
    View::contiguous(&[Dim::from(1), m.clone(), Dim::from(n)])
}

/// A weight `[n, k]` and activations `[m, k]`, with what is done to each sum.
fn weighty(
    m: Dim,
    [n, k]: [i64; 2],
    args: &[DType],
    body: impl FnOnce(&mut BodyBuilder, Reg),
) -> Kernel {
    let mut b = BodyBuilder::new();
    let sum = b.push(Inst::Input);
    body(&mut b, sum);
    Kernel::Matmul(Matmul {
        batch: Dim::from(1),
        a: Operand {
            arg: Arg(0),
            view: whole(&m, k),
        }
        .into(),
        b: Operand {
            arg: Arg(1),
            view: view(0, &[0, k, 1]),
        },
        m,
        n: Dim::from(n),
        k: Dim::from(k),
        args: Encoding::plain(args.to_vec()),
        ranged: true,
        epilogue: b.finish(),
    })
}

pub fn linear(m: Dim, n: i64, k: i64, d: DType) -> Kernel {
    let out = whole(&m, n);
    weighty(m, [n, k], &[d; 3], |b, sum| b.store(Arg(2), out, sum))
}

/// `x += a w^T`, in place.
fn residual(m: Dim, d: DType) -> Kernel {
    let out = whole(&m, 576);
    weighty(m, [576, 1536], &[d; 3], |b, sum| {
        let x = b.load(Arg(2), out.clone());
        let y = b.binary(Binary::Add, x, sum);
        b.store(Arg(2), out, y);
    })
}

/// `silu(gate) * (a w^T)`.
fn gated(m: Dim, d: DType) -> Kernel {
    let out = whole(&m, 1536);
    weighty(m, [1536, 576], &[d; 4], |b, sum| {
        let gate = b.load(Arg(2), out.clone());
        let gate = b.unary(Unary::Silu, gate);
        let y = b.binary(Binary::Mul, gate, sum);
        b.store(Arg(3), out, y);
    })
}

/// `gelu(a w^T + bias)`.
fn biased(d: DType) -> Kernel {
    let out = whole(&seq(), 3072);
    weighty(seq(), [3072, 768], &[d; 4], |b, sum| {
        let bias = b.load(Arg(2), view(0, &[0, 0, 1]));
        let y = b.binary(Binary::Add, sum, bias);
        let y = b.unary(Unary::GeluErf, y);
        b.store(Arg(3), out, y);
    })
}

/// `q k^T / 8` of 12 heads of 64, side by side in `[seq, heads, 64]`.
fn scores(d: DType) -> Kernel {
    let keys = &past() + &seq();
    let space = [Dim::from(12), seq(), keys.clone()];
    let heads = view(0, &[64, 12 * 64, 1]);
    let mut b = BodyBuilder::new();
    let sum = b.push(Inst::Input);
    let scale = b.push(Inst::F32(0.125));
    let y = b.binary(Binary::Mul, sum, scale);
    b.store(Arg(2), View::contiguous(&space), y);
    let [batch, m, n] = space;
    Kernel::Matmul(Matmul {
        batch,
        m,
        n,
        k: Dim::from(64),
        args: Encoding::plain([d; 3]),
        a: Operand {
            arg: Arg(0),
            view: heads.clone(),
        }
        .into(),
        b: Operand {
            arg: Arg(1),
            view: heads,
        },
        ranged: false,
        epilogue: b.finish(),
    })
}

/// `p v` of the same: values are strided along the keys.
fn weighted(d: DType) -> Kernel {
    let keys = &past() + &seq();
    let space = [Dim::from(12), seq(), Dim::from(64)];
    let mut b = BodyBuilder::new();
    let sum = b.push(Inst::Input);
    b.store(Arg(2), view(0, &[64, 12 * 64, 1]), sum);
    let [batch, m, n] = space;
    Kernel::Matmul(Matmul {
        a: Operand {
            arg: Arg(0),
            view: View::contiguous(&dims([batch.clone(), m.clone(), keys.clone()])),
        }
        .into(),
        b: Operand {
            arg: Arg(1),
            view: view(0, &[64, 1, 12 * 64]),
        },
        batch,
        m,
        n,
        k: keys,
        args: Encoding::plain([d; 3]),
        ranged: false,
        epilogue: b.finish(),
    })
}
