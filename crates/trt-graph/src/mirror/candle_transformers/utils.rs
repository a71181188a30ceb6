//! Masks and heads, as model files share them.

use crate::mirror::device::Device;
use crate::mirror::size;
use crate::mirror::tensor::Tensor;
use candle_core::shape::ShapeWithOneHole;
use candle_core::{DType, Result, WithDType};

/// What each of so many queries has for each key, by the query's place among the keys and the key's.
#[track_caller]
fn mask<T: WithDType>(
    (queries, offset): (usize, usize),
    shape: impl ShapeWithOneHole,
    device: &Device,
    value: impl Fn(usize, usize) -> T,
) -> Result<Tensor> {
    let keys = offset.saturating_add(queries);
    let mut data = size::room(size::checked(&[queries, keys])?, "a mask")?;
    for i in 0..queries {
        data.extend((0..keys).map(|j| value(offset + i, j)));
    }
    Tensor::from_vec(data, shape, device)
}

/// `[seq_len, index_pos + seq_len]` of u8: 1 where a key comes after the query.
///
/// # Errors
///
/// If the mask is more than [`CONSTANT`](size::CONSTANT) bytes.
#[track_caller]
pub fn build_causal_mask(seq_len: usize, index_pos: usize, device: &Device) -> Result<Tensor> {
    let shape = (seq_len, index_pos.saturating_add(seq_len));
    mask((seq_len, index_pos), shape, device, |query, key| {
        u8::from(key > query)
    })
}

/// `[1, 1, tgt, offset + tgt]`: negative infinity where a key comes after the query, or more than `sw`
/// before it; 0 elsewhere.
///
/// # Errors
///
/// If the mask is more than [`CONSTANT`](size::CONSTANT) bytes, or the dtype is not supported.
#[track_caller]
pub fn build_additive_causal_mask(
    tgt: usize,
    offset: usize,
    sw: Option<usize>,
    device: &Device,
    dtype: DType,
) -> Result<Tensor> {
    let shape = (1, 1, tgt, offset.saturating_add(tgt));
    let seen = |query: usize, key: usize| {
        key <= query && sw.is_none_or(|w| key.saturating_add(w) >= query)
    };
    mask((tgt, offset), shape, device, |query, key| {
        match seen(query, key) {
            true => 0f32,
            false => f32::NEG_INFINITY,
        }
    })?
    .to_dtype(dtype)
}

/// Each head of `xs (b, heads, seq, dim)` so many times in a row.
///
/// # Errors
///
/// If there are not 4 axes.
#[track_caller]
pub fn repeat_kv(xs: Tensor, n_rep: usize) -> Result<Tensor> {
    let (b, heads, seq, dim) = xs.dims4()?;
    match n_rep {
        1 => Ok(xs),
        n => Tensor::cat(&vec![&xs; n], 2)?.reshape((b, heads * n, seq, dim)),
    }
}
