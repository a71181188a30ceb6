//! Row kernels.

use super::{dims, past, rows, seq, view};
use trt_kernel::*;

const FLOATS: [DType; 3] = [DType::BF16, DType::F16, DType::F32];

pub fn kernels() -> Vec<(String, Kernel)> {
    let mut all = pointwise();
    all.extend(functions());
    all.extend(integers());
    all.extend(norms());
    all.extend(softmaxes());
    all.extend(folds());
    all
}

fn silu_mul(space: Vec<Dim>, dtype: DType) -> Kernel {
    let whole = View::contiguous(&space);
    rows(space, &[dtype; 3], |b| {
        let a = b.load(Arg(0), whole.clone());
        let c = b.load(Arg(1), whole.clone());
        let s = b.unary(Unary::Silu, a);
        let y = b.binary(Binary::Mul, s, c);
        b.store(Arg(2), whole, y);
    })
}

/// Both halves of a rotary embedding; queries lie as `[seq, heads, size]`.
fn rope(heads: i64, size: i64, dtype: DType) -> Kernel {
    let half = size / 2;
    let space = vec![Dim::from(1), Dim::from(heads), seq(), Dim::from(half)];
    let strides = [0, size, heads * size, 1];
    let table = View {
        offset: &past() * &Dim::from(half),
        strides: dims([0, 0, half, 1]),
    };
    rows(space, &[dtype, DType::F32, DType::F32, dtype], |b| {
        let low = b.load(Arg(0), view(0, &strides));
        let high = b.load(Arg(0), view(half, &strides));
        let cos = b.load(Arg(1), table.clone());
        let sin = b.load(Arg(2), table);
        let mut mul = |x, y| b.binary(Binary::Mul, x, y);
        let (lc, hs, hc, ls) = (mul(low, cos), mul(high, sin), mul(high, cos), mul(low, sin));
        let first = b.binary(Binary::Sub, lc, hs);
        let second = b.binary(Binary::Add, hc, ls);
        b.store(Arg(3), view(0, &strides), first);
        b.store(Arg(3), view(half, &strides), second);
    })
}

fn pointwise() -> Vec<(String, Kernel)> {
    let mut all = Vec::new();
    for d in FLOATS {
        all.push((
            format!("silu_mul_1x14336_{d}"),
            silu_mul(dims([1, 14336]), d),
        ));
        let space = vec![Dim::from(1), seq(), Dim::from(1536)];
        all.push((format!("silu_mul_seqx1536_{d}"), silu_mul(space, d)));
        all.push((format!("rope_9x64_{d}"), rope(9, 64, d)));
    }
    all.push((
        "silu_mul_512x14336_bf16".into(),
        silu_mul(dims([512, 14336]), DType::BF16),
    ));
    all.push((
        "silu_mul_3x33_bf16".into(),
        silu_mul(dims([3, 33]), DType::BF16),
    ));
    all.push((
        "silu_mul_keys_f16".into(),
        silu_mul(vec![seq(), &past() + &seq()], DType::F16),
    ));
    all.push(("rope_32x128_bf16".into(), rope(32, 128, DType::BF16)));
    let transposed = rows(
        dims([3, 5, 7]),
        &[DType::F16, DType::F32, DType::BF16],
        |b| {
            let x = b.load(Arg(0), view(4, &[1, 3, 15]));
            let y = b.load(Arg(1), view(0, &[0, 1, 0]));
            let s = b.binary(Binary::Add, x, y);
            b.store(Arg(2), View::contiguous(&dims([3, 5, 7])), s);
        },
    );
    all.push(("transposed_3x5x7".into(), transposed));
    let mixed = rows(
        dims([40, 96]),
        &[DType::BF16, DType::F32, DType::F16],
        |b| {
            let x = b.load(Arg(0), view(0, &[96, 1]));
            let y = b.load(Arg(1), view(8, &[0, 1]));
            let s = b.binary(Binary::Add, x, y);
            b.store(Arg(2), view(2, &[100, 1]), s);
        },
    );
    all.push(("mixed_40x96".into(), mixed));
    let filled = rows(vec![seq(), Dim::from(64)], &[DType::BF16], |b| {
        let c = b.push(Inst::F32(0.5));
        b.store(Arg(0), view(0, &[64, 1]), c);
    });
    all.push(("fill_seqx64_bf16".into(), filled));
    all
}

fn functions() -> Vec<(String, Kernel)> {
    use Unary::*;
    let unary = [
        Neg, Abs, Exp, Log, Sin, Cos, Tanh, Sqr, Sqrt, Recip, Erf, Relu, Silu, Gelu, GeluErf,
        Sigmoid, Floor, Ceil, Round, Sign,
    ];
    let mut all = Vec::new();
    for f in unary {
        let kernel = rows(dims([1000]), &[DType::F32; 2], |b| {
            let x = b.load(Arg(0), view(0, &[1]));
            let y = b.unary(f, x);
            b.store(Arg(1), view(0, &[1]), y);
        });
        all.push((format!("{f:?}_1000_f32").to_lowercase(), kernel));
    }
    use Binary::*;
    for f in [Add, Sub, Mul, Div, Maximum, Minimum, Pow] {
        for d in [DType::F32, DType::I64] {
            if (f, d) == (Pow, DType::I64) {
                continue;
            }
            let kernel = rows(dims([1000]), &[d; 3], |b| {
                let x = b.load(Arg(0), view(0, &[1]));
                let y = b.load(Arg(1), view(0, &[1]));
                let z = b.binary(f, x, y);
                b.store(Arg(2), view(0, &[1]), z);
            });
            all.push((format!("{f:?}_1000_{d}").to_lowercase(), kernel));
        }
    }
    all
}

fn integers() -> Vec<(String, Kernel)> {
    let space = dims([4, 3, 33]);
    let whole = View::contiguous(&space);
    let dtypes = [DType::F32, DType::U8, DType::I64, DType::F32, DType::U32];
    let band = rows(space, &dtypes, |b| {
        let i = b.push(Inst::Iota(0));
        let j = b.push(Inst::Iota(2));
        let offset = b.push(Inst::I64(&past() + &Dim::from(2)));
        let limit = b.binary(Binary::Add, i, offset);
        let seen = b.push(Inst::Compare(Compare::Le, j, limit));
        let product = b.binary(Binary::Mul, j, limit);
        let x = b.load(Arg(0), whole.clone());
        let k = b.load(Arg(4), whole.clone());
        let k = b.push(Inst::Cast(k, Ty::F32));
        let x = b.binary(Binary::Add, x, k);
        let minus = b.push(Inst::F32(f32::NEG_INFINITY));
        let masked = b.push(Inst::Select(seen, x, minus));
        b.store(Arg(1), whole.clone(), seen);
        b.store(Arg(2), whole.clone(), product);
        b.store(Arg(3), whole.clone(), masked);
    });
    let mut all = vec![("band_4x3x33".to_string(), band)];
    for from in [DType::U8, DType::U32, DType::I64] {
        for to in DType::ALL {
            let kernel = rows(dims([8, 64]), &[from, to], |b| {
                let x = b.load(Arg(0), view(0, &[64, 1]));
                let x = match to.is_float() {
                    true => b.push(Inst::Cast(x, Ty::F32)),
                    false => x,
                };
                b.store(Arg(1), view(0, &[64, 1]), x);
            });
            all.push((format!("cast_{from}_{to}"), kernel));
        }
    }
    for from in FLOATS {
        for to in DType::ALL {
            let kernel = rows(dims([8, 64]), &[from, to], |b| {
                let x = b.load(Arg(0), view(0, &[64, 1]));
                let x = match to.is_float() {
                    true => x,
                    false => b.push(Inst::Cast(x, Ty::I64)),
                };
                b.store(Arg(1), view(0, &[64, 1]), x);
            });
            all.push((format!("cast_{from}_{to}"), kernel));
        }
    }
    let truths = rows(dims([1024]), &[DType::F32, DType::U8, DType::U8], |b| {
        let x = b.load(Arg(0), view(0, &[1]));
        let zero = b.push(Inst::F32(0.0));
        let below = b.push(Inst::Compare(Compare::Lt, x, zero));
        let nonzero = b.push(Inst::Cast(x, Ty::Bool));
        let y = b.load(Arg(1), view(0, &[1]));
        let y = b.push(Inst::Cast(y, Ty::Bool));
        let chosen = b.push(Inst::Select(below, nonzero, y));
        b.store(Arg(2), view(0, &[1]), chosen);
    });
    all.push(("truths_1024".into(), truths));
    all
}

pub fn rms_norm(rows_: impl Into<Dim>, cols: usize, dtype: DType) -> Kernel {
    let space = vec![rows_.into(), Dim::from(cols)];
    let whole = View::contiguous(&space);
    rows(space, &[dtype; 3], |b| {
        let x = b.load(Arg(0), whole.clone());
        let w = b.load(Arg(1), view(0, &[0, 1]));
        let sq = b.unary(Unary::Sqr, x);
        let sum = b.push(Inst::Reduce(Reduce::Sum, sq));
        let n = b.push(Inst::F32(cols as f32));
        let mean = b.binary(Binary::Div, sum, n);
        let eps = b.push(Inst::F32(1e-5));
        let mean = b.binary(Binary::Add, mean, eps);
        let root = b.unary(Unary::Sqrt, mean);
        let y = b.binary(Binary::Div, x, root);
        let y = b.binary(Binary::Mul, y, w);
        b.store(Arg(2), whole, y);
    })
}

fn layer_norm(rows_: impl Into<Dim>, cols: usize, dtype: DType) -> Kernel {
    let space = vec![rows_.into(), Dim::from(cols)];
    let whole = View::contiguous(&space);
    rows(space, &[dtype; 4], |b| {
        let x = b.load(Arg(0), whole.clone());
        let n = b.push(Inst::F32(cols as f32));
        let sum = b.push(Inst::Reduce(Reduce::Sum, x));
        let mean = b.binary(Binary::Div, sum, n);
        let d = b.binary(Binary::Sub, x, mean);
        let sq = b.unary(Unary::Sqr, d);
        let sum = b.push(Inst::Reduce(Reduce::Sum, sq));
        let variance = b.binary(Binary::Div, sum, n);
        let eps = b.push(Inst::F32(1e-12));
        let variance = b.binary(Binary::Add, variance, eps);
        let root = b.unary(Unary::Sqrt, variance);
        let y = b.binary(Binary::Div, d, root);
        let w = b.load(Arg(1), view(0, &[0, 1]));
        let bias = b.load(Arg(2), view(0, &[0, 1]));
        let y = b.binary(Binary::Mul, y, w);
        let y = b.binary(Binary::Add, y, bias);
        b.store(Arg(3), whole, y);
    })
}

fn norms() -> Vec<(String, Kernel)> {
    let mut all = Vec::new();
    for d in FLOATS {
        all.push((format!("rms_norm_1x4096_{d}"), rms_norm(1, 4096, d)));
        all.push((format!("rms_norm_seqx4096_{d}"), rms_norm(seq(), 4096, d)));
        all.push((format!("rms_norm_1x576_{d}"), rms_norm(1, 576, d)));
        all.push((format!("rms_norm_40x100_{d}"), rms_norm(40, 100, d)));
        all.push((format!("layer_norm_seqx768_{d}"), layer_norm(seq(), 768, d)));
    }
    all.push((
        "rms_norm_16384x64_bf16".into(),
        rms_norm(16384, 64, DType::BF16),
    ));
    all.push((
        "layer_norm_3x1280_f16".into(),
        layer_norm(3, 1280, DType::F16),
    ));
    all.push((
        "layer_norm_2x14336_bf16".into(),
        layer_norm(2, 14336, DType::BF16),
    ));
    all
}

fn softmax(space: Vec<Dim>, dtype: DType) -> Kernel {
    let whole = View::contiguous(&space);
    rows(space, &[dtype; 2], |b| {
        let x = b.load(Arg(0), whole.clone());
        let max = b.push(Inst::Reduce(Reduce::Max, x));
        let d = b.binary(Binary::Sub, x, max);
        let e = b.unary(Unary::Exp, d);
        let sum = b.push(Inst::Reduce(Reduce::Sum, e));
        let y = b.binary(Binary::Div, e, sum);
        b.store(Arg(1), whole, y);
    })
}

fn softmaxes() -> Vec<(String, Kernel)> {
    let mut all = Vec::new();
    for d in FLOATS {
        for (rows, cols) in [(7, 1), (7, 5), (7, 64), (7, 577), (2, 50_000), (1, 128_256)] {
            all.push((
                format!("softmax_{rows}x{cols}_{d}"),
                softmax(dims([rows, cols]), d),
            ));
        }
        let space = vec![Dim::from(9), seq(), &past() + &seq()];
        all.push((format!("softmax_keys_{d}"), softmax(space, d)));
        all.push((format!("softmax_none_{d}"), softmax(dims([3, 0]), d)));
    }
    all
}

fn folds() -> Vec<(String, Kernel)> {
    let mut all = Vec::new();
    let shapes = [(1, 100_000), (1000, 3), (16384, 64), (33, 20), (5, 4096)];
    for kind in [Reduce::Sum, Reduce::Max, Reduce::Min] {
        for (rows_, cols) in shapes {
            let kernel = rows(dims([rows_, cols]), &[DType::BF16, DType::F32], |b| {
                let x = b.load(Arg(0), view(0, &[cols, 1]));
                let y = b.push(Inst::Reduce(kind, x));
                b.store(Arg(1), view(0, &[1, 0]), y);
            });
            let name = format!("{kind:?}_{rows_}x{cols}_bf16").to_lowercase();
            all.push((name, kernel));
        }
    }
    // The mean over positions, which lie apart: [1, seq, 384] to [1, 384].
    let space = vec![Dim::from(384), seq()];
    let pooled = rows(space, &[DType::F32; 2], |b| {
        let x = b.load(Arg(0), view(0, &[1, 384]));
        let sum = b.push(Inst::Reduce(Reduce::Sum, x));
        let n = b.push(Inst::I64(seq()));
        let n = b.push(Inst::Cast(n, Ty::F32));
        let mean = b.binary(Binary::Div, sum, n);
        b.store(Arg(1), view(0, &[1, 0]), mean);
    });
    all.push(("mean_over_seq_384_f32".into(), pooled));
    // Two folds in one pass, a value for the row, and one for each column.
    let both = rows(
        vec![seq(), Dim::from(300)],
        &[DType::F32, DType::F32, DType::F16],
        |b| {
            let x = b.load(Arg(0), view(0, &[300, 1]));
            let high = b.push(Inst::Reduce(Reduce::Max, x));
            let low = b.push(Inst::Reduce(Reduce::Min, x));
            let range = b.binary(Binary::Sub, high, low);
            let scale = b.load(Arg(1), view(0, &[1, 0]));
            let range = b.binary(Binary::Mul, range, scale);
            let y = b.binary(Binary::Div, x, range);
            let column = b.push(Inst::Iota(1));
            let column = b.push(Inst::Cast(column, Ty::F32));
            let y = b.binary(Binary::Add, y, column);
            b.store(Arg(2), view(0, &[300, 1]), y);
            b.store(Arg(1), view(0, &[1, 0]), range);
        },
    );
    all.push(("range_seqx300".into(), both));
    all
}
