//! The definition of every op on whole tensors and of every function on elements.

use super::Array;
use crate::graph::{AttentionOp, Margin};
use trt_kernel::{Binary, Compare, DType, Env, Reduce, Unary};

pub(super) fn cat_at(parts: &[&Array], axis: usize, index: &[usize]) -> f64 {
    let mut source = index.to_vec();
    for part in parts {
        if source[axis] < part.shape[axis] {
            return part.at(&source);
        }
        source[axis] -= part.shape[axis];
    }
    f64::NAN
}

/// An element of a padded tensor: one of `x`, or a zero.
pub(super) fn padded_at(x: &Array, margins: &[Margin], index: &[usize]) -> f64 {
    let source = |((i, m), n): ((&usize, &Margin), &usize)| {
        let at = i.checked_sub(m.before)?;
        let pitch = m.between + 1;
        (at % pitch == 0 && at / pitch < *n).then_some(at / pitch)
    };
    let each = index.iter().zip(margins).zip(&x.shape).map(source);
    each.collect::<Option<Vec<usize>>>()
        .map_or(0.0, |source| x.at(&source))
}

/// Whether key `j` is hidden from query `i`.
pub fn hidden(i: usize, j: usize, offset: i64, window: Option<usize>) -> bool {
    let last = i as i64 + offset;
    let j = j as i64;
    j > last || window.is_some_and(|w| j <= last - w as i64)
}

/// The definition of every one-operand function.
pub fn unary(f: Unary, x: f64) -> f64 {
    match f {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Tanh => x.tanh(),
        Unary::Sqr => x * x,
        Unary::Sqrt => x.sqrt(),
        Unary::Recip => 1.0 / x,
        Unary::Erf => erf(x),
        Unary::Relu => x.max(0.0),
        Unary::Silu => x / (1.0 + (-x).exp()),
        Unary::Gelu => {
            0.5 * x
                * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
        }
        Unary::GeluErf => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Unary::Floor => x.floor(),
        Unary::Ceil => x.ceil(),
        Unary::Round => x.round(),
        Unary::Sign => f64::from(u8::from(x > 0.0)) - f64::from(u8::from(x < 0.0)),
    }
}

/// The error function by its Maclaurin series (|x| < 3) or a continued fraction.
fn erf(x: f64) -> f64 {
    let a = x.abs();
    let value = if a < 3.0 {
        let (mut term, mut sum) = (a, a);
        for n in 1..80 {
            term *= -a * a / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    } else {
        let tail = (1..60)
            .rev()
            .fold(0.0, |acc, n| f64::from(n) / 2.0 / (a + acc));
        1.0 - (-a * a).exp() / std::f64::consts::PI.sqrt() / (a + tail)
    };
    value.copysign(x)
}

/// The definition of every two-operand function; integers divide towards zero.
pub fn binary(f: Binary, a: f64, b: f64, dtype: DType) -> f64 {
    match f {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div if dtype.is_float() => a / b,
        Binary::Div => (a / b).trunc(),
        Binary::Maximum => a.max(b),
        Binary::Minimum => a.min(b),
        Binary::Pow => a.powf(b),
    }
}

/// The definition of every comparison.
pub fn compare(f: Compare, a: f64, b: f64) -> bool {
    match f {
        Compare::Eq => a == b,
        Compare::Ne => a != b,
        Compare::Lt => a < b,
        Compare::Le => a <= b,
        Compare::Gt => a > b,
        Compare::Ge => a >= b,
    }
}

pub(super) fn reduce(f: Reduce, axis: usize, x: &Array, shape: &[usize]) -> Array {
    Array::from_fn(shape, |i| {
        let mut source = i.to_vec();
        let values = (0..x.shape[axis]).map(|j| {
            source[axis] = j;
            x.at(&source)
        });
        match f {
            Reduce::Sum => values.sum(),
            Reduce::Max => values.fold(f64::NEG_INFINITY, f64::max),
            Reduce::Min => values.fold(f64::INFINITY, f64::min),
        }
    })
}

fn softmax_row(row: &mut [f64]) {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    row.iter_mut().for_each(|v| *v = (*v - max).exp());
    let sum: f64 = row.iter().sum();
    row.iter_mut().for_each(|v| *v /= sum);
}

pub(super) fn softmax(x: &Array) -> Array {
    let mut out = x.clone();
    let cols = x.shape.last().copied().unwrap_or(1).max(1);
    out.data.chunks_mut(cols).for_each(softmax_row);
    out
}

pub(super) fn matmul(a: &Array, b: &Array, shape: &[usize]) -> Array {
    let rank = shape.len();
    let k = a.shape[rank - 1];
    Array::from_fn(shape, |i| {
        let (mut ia, mut ib) = (i.to_vec(), i[rank - b.shape.len()..].to_vec());
        let rb = ib.len();
        (0..k)
            .map(|x| {
                ia[rank - 1] = x;
                ib[rb - 2] = x;
                a.at(&ia) * b.at(&ib)
            })
            .sum()
    })
}

pub(super) fn rope(x: &Array, cos: &Array, sin: &Array) -> Array {
    let half = x.shape[3] / 2;
    Array::from_fn(&x.shape, |i| {
        let (b, h, s, j) = (i[0], i[1], i[2], i[3]);
        let (c, n) = (cos.at(&[s, j % half]), sin.at(&[s, j % half]));
        match j < half {
            true => x.at(i) * c - x.at(&[b, h, s, j + half]) * n,
            false => x.at(i) * c + x.at(&[b, h, s, j - half]) * n,
        }
    })
}

pub(super) fn attention(
    op: &AttentionOp,
    q: &Array,
    k: &Array,
    v: &Array,
    bias: Option<&Array>,
    env: &Env,
) -> Array {
    let (heads, groups, keys) = (q.shape[1], k.shape[1], k.shape[2]);
    let shape = [q.shape[0], heads, q.shape[2], v.shape[3]];
    let mut row = vec![0.0; keys];
    let mut current = None;
    Array::from_fn(&shape, |i| {
        let (b, h, s) = (i[0], i[1], i[2]);
        let g = h * groups / heads;
        if current != Some((b, h, s)) {
            current = Some((b, h, s));
            for (j, score) in row.iter_mut().enumerate() {
                let dot: f64 = (0..q.shape[3])
                    .map(|d| q.at(&[b, h, s, d]) * k.at(&[b, g, j, d]))
                    .sum();
                *score = dot * f64::from(op.scale);
                if let Some(cap) = op.soft_cap {
                    *score = f64::from(cap) * (*score / f64::from(cap)).tanh();
                }
                *score += bias.map_or(0.0, |m| m.at(&[b, h, s, j]));
                if let Some((offset, window)) = &op.causal
                    && hidden(s, j, offset.eval(env), *window)
                {
                    *score = f64::NEG_INFINITY;
                }
            }
            match row.iter().all(|v| *v == f64::NEG_INFINITY) {
                true => row.fill(0.0),
                false => softmax_row(&mut row),
            }
        }
        row.iter()
            .enumerate()
            .map(|(j, p)| p * v.at(&[b, g, j, i[3]]))
            .sum()
    })
}
