//! Tables and weights in blocks: a gather of each type, and products by few rows and by many.

use super::{seq, view};
use trt_kernel::*;

/// Types that are read in different ways: 16-byte loads, narrow ones, a list of values, single bytes.
const SOME: [BlockType; 4] = [
    BlockType::Q4K,
    BlockType::Q6K,
    BlockType::Q8_0,
    BlockType::Mxfp4,
];

pub fn kernels() -> Vec<(String, Kernel)> {
    let mut all = Vec::new();
    for block in BlockType::ALL {
        let name = format!("gather_2048_{}_bf16", block.name());
        all.push((name, gather(block, 2048, 49_152)));
    }
    for block in BlockType::ALL {
        let name = format!("linear_1x4096x4096_{}_bf16", block.name());
        all.push((name, linear(1, [4096, 4096], block, DType::BF16)));
    }
    for block in SOME {
        for (m, k) in [(2, 4096), (4, 14336), (8, 2560)] {
            let name = format!("linear_{m}x4096x{k}_{}_bf16", block.name());
            all.push((name, linear(m, [4096, k], block, DType::BF16)));
        }
    }
    for block in SOME {
        for (m, d) in [(64, DType::BF16), (512, DType::F16), (64, DType::F32)] {
            let name = format!("linear_{m}x4096x4096_{}_{d}", block.name());
            all.push((name, linear(m, [4096, 4096], block, d)));
        }
    }
    // Wide blocks, and several slabs in working memory.
    let wide = linear(130, [16_640, 4096], BlockType::Q4K, DType::BF16);
    all.push(("linear_130x16640x4096_q4_k_bf16".into(), wide));
    all
}

/// `out[row] = table[ids[row]]`, rounded.
fn gather(block: BlockType, cols: usize, entries: usize) -> Kernel {
    let mut body = BodyBuilder::new();
    let x = body.push(Inst::Input);
    body.store(Arg(2), view(0, &[cols as i64, 1]), x);
    Kernel::Gather(Gather {
        rows: seq(),
        cols,
        entries,
        args: vec![DType::U32.into(), block.into(), DType::BF16.into()],
        ids: Operand {
            arg: Arg(0),
            view: view(0, &[1]),
        },
        table: Arg(1),
        body: body.finish(),
    })
}

/// `out = a w^T`.
fn linear(m: i64, [n, k]: [i64; 2], block: BlockType, d: DType) -> Kernel {
    let operand = |arg| Operand {
        arg: Arg(arg),
        view: view(0, &[0, k, 1]),
    };
    let mut e = BodyBuilder::new();
    let sum = e.push(Inst::Input);
    e.store(Arg(2), view(0, &[m * n, n, 1]), sum);
    Kernel::Matmul(Matmul {
        batch: Dim::from(1),
        m: Dim::from(m),
        n: Dim::from(n),
        k: Dim::from(k),
        args: vec![d.into(), block.into(), d.into()],
        a: operand(0).into(),
        b: operand(1),
        ranged: true,
        epilogue: e.finish(),
    })
}
