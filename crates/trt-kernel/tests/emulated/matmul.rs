//! Matrix products as PTX, and the row-range law.

use super::*;
use proptest::prelude::*;

fn strided(arg: u16, strides: [usize; 3]) -> Operand {
    Operand {
        arg: Arg(arg),
        view: View {
            offset: Dim::from(0),
            strides: dims(&strides),
        },
    }
}

/// `out = silu(a w^T + bias[n]) + n / 64`, weight in `dtype`, `a` and the output in `other`.
fn linear(m: Dim, n: usize, k: usize, dtype: DType, other: DType) -> Kernel {
    let out = View {
        offset: Dim::from(0),
        strides: dims(&[0, n, 1]),
    };
    let mut e = BodyBuilder::new();
    let sum = e.push(Inst::Input);
    let bias = View {
        offset: Dim::from(0),
        strides: dims(&[0, 0, 1]),
    };
    let bias = e.load(Arg(2), bias);
    let y = e.binary(Binary::Add, sum, bias);
    let y = e.unary(Unary::Silu, y);
    let at = e.push(Inst::Iota(2));
    let at = e.push(Inst::Cast(at, Ty::F32));
    let scale = e.push(Inst::F32(1.0 / 64.0));
    let at = e.binary(Binary::Mul, at, scale);
    let y = e.binary(Binary::Add, y, at);
    e.store(Arg(3), out, y);
    Kernel::Matmul(Matmul {
        batch: Dim::from(1),
        m,
        n: Dim::from(n),
        k: Dim::from(k),
        args: vec![other, dtype, DType::F32, other],
        a: strided(0, [0, k, 1]),
        b: strided(1, [0, k, 1]),
        ranged: true,
        epilogue: e.finish(),
    })
}

fn linear_args(m: usize, n: usize, k: usize, dtype: DType, other: DType) -> Vec<Buffer> {
    vec![
        Buffer::random(other, m * k, 1),
        Buffer::random(dtype, n * k, 2),
        Buffer::random(DType::F32, n, 3),
        Buffer::zeros(other, m * n),
    ]
}

#[test]
fn linear_equals_the_reference_at_ragged_sizes() {
    for m in [1, 2, 3, 5, 8, 9, 70] {
        for (n, k) in [(1, 1), (65, 17), (64, 64), (130, 96), (40, 520)] {
            let args = linear_args(m, n, k, DType::F32, DType::F32);
            let kernel = linear(Dim::from(m), n, k, DType::F32, DType::F32);
            let d = distance(&kernel, &Env::default(), &args);
            assert!(d <= 10.0, "{m} {n} {k}: {d}");
        }
    }
}

#[test]
fn linear_equals_the_reference_in_every_dtype() {
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        for other in [DType::F32, DType::BF16, DType::F16] {
            for m in [1, 4, 20] {
                let args = linear_args(m, 100, 96, dtype, other);
                let kernel = linear(Dim::from(m), 100, 96, dtype, other);
                let d = distance(&kernel, &Env::default(), &args);
                assert!(d <= 4.0, "{m} {dtype} {other}: {d}");
            }
        }
    }
}

#[test]
fn every_variant_is_chosen_by_a_runtime_m() {
    for dtype in [DType::BF16, DType::F16] {
        let kernel = linear(Dim::var(Var(0)), 200, 136, dtype, dtype);
        for m in [0, 1, 2, 3, 4, 6, 8, 9, 64, 65, 129, 300] {
            let args = linear_args(m, 200, 136, dtype, dtype);
            let d = distance(&kernel, &Env::new(&[m as i64]), &args);
            assert!(d <= 2.0, "{m} {dtype}: {d}");
        }
    }
}
