//! Products by the experts that integers choose.

use super::{dims, seq, view};
use trt_kernel::*;

pub fn kernels() -> Vec<(String, Kernel)> {
    let bf16 = DType::BF16;
    let q4 = Encoding::Blocks(BlockType::Q4K);
    let mut all = Vec::new();
    for (name, left, right) in [
        ("bf16", bf16, bf16.into()),
        ("f32", DType::F32, DType::F32.into()),
        ("f32_q4_k", DType::F32, q4),
    ] {
        let kernel = one(Dim::from(8), 768, 2048, (left, right));
        all.push((format!("expert_8x768x2048_{name}"), kernel));
    }
    let prompt = one(&seq() * &Dim::from(2), 2048, 768, (bf16, bf16.into()));
    all.push(("expert_2seqx2048x768_bf16".into(), prompt));
    let odd = one(Dim::from(3), 5, 67, (bf16, bf16.into()));
    all.push(("expert_3x5x67_bf16".into(), odd));
    all.push(("experts_4_of_3x96x64_bf16".into(), together(4, 3, 96, 64)));
    all
}

fn store(n: i64, out: Arg) -> Body {
    let mut b = BodyBuilder::new();
    let sum = b.push(Inst::Input);
    b.store(out, view(0, &[0, n, 1]), sum);
    b.finish()
}

/// The rows of expert 3, whose weight is streamed.
fn one(m: Dim, n: i64, k: i64, (left, right): (DType, Encoding)) -> Kernel {
    routed((Dim::from(1), m), (n, k), (left, right), true)
}

/// The rows of experts 3 and on, whose weights lie one after another.
fn together(experts: i64, m: i64, n: i64, k: i64) -> Kernel {
    let bf16 = DType::BF16;
    let rows = (Dim::from(experts), Dim::from(m));
    routed(rows, (n, k), (bf16, bf16.into()), false)
}

fn routed(
    (batch, m): (Dim, Dim),
    (n, k): (i64, i64),
    (left, right): (DType, Encoding),
    ranged: bool,
) -> Kernel {
    let expert = if ranged { 0 } else { n * k };
    let operand = |arg, strides: &[i64]| Operand {
        arg: Arg(arg),
        view: view(0, strides),
    };
    let [n_dim, k_dim] = dims([n, k]).try_into().expect("two sizes");
    let plain = Encoding::from;
    Kernel::Routed(Routed {
        product: Matmul {
            batch,
            m,
            n: n_dim,
            k: k_dim,
            args: vec![plain(DType::U32), plain(left), right, plain(left)],
            a: operand(1, &[0, k, 1]).into(),
            b: operand(2, &[expert, k, 1]),
            ranged,
            epilogue: store(n, Arg(3)),
        },
        ids: operand(0, &[1]),
        first: 3,
    })
}
