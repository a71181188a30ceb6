//! The definition of every op on whole tensors; functions on elements are defined where they are
//! declared, in `trt-kernel`.

use super::Array;
use crate::graph::AttentionOp;
use trt_kernel::{DType, Env, Reduce};

/// Floats saturate, which rounding does; integers wrap.
pub(super) fn cast(x: &Array, from: DType, to: DType) -> Array {
    let wrapped = |v: &f64| match to {
        DType::U8 if !from.is_float() => f64::from(*v as i64 as u8),
        DType::U32 if !from.is_float() => f64::from(*v as i64 as u32),
        _ => *v,
    };
    Array {
        shape: x.shape.clone(),
        data: x.data.iter().map(wrapped).collect(),
    }
}

/// Whether key `j` is hidden from query `i`.
pub fn hidden(i: usize, j: usize, offset: i64, window: Option<usize>) -> bool {
    let last = i as i64 + offset;
    let j = j as i64;
    j > last || window.is_some_and(|w| j <= last - w as i64)
}

pub(super) fn reduce(f: Reduce, axis: usize, x: &Array, shape: &[usize]) -> Array {
    Array::from_fn(shape, |i| {
        let mut source = i.to_vec();
        let values = (0..x.shape[axis]).map(|j| {
            source[axis] = j;
            x.at(&source)
        });
        f.defined(values)
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
    [q, k, v]: [&Array; 3],
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
