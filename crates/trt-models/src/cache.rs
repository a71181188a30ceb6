//! What a decoder keeps between calls: the keys and values of every position so far, per layer; and the
//! masks that say which of them a query may see.

use super::backend::candle;
use candle::{Device, Result, Tensor, bail};

/// One layer's keys and values, each `(batch, kv_heads, positions, head_dim)`; empty before the first call.
#[derive(Debug, Clone, Default)]
pub struct KvCache(Option<(Tensor, Tensor)>);

impl KvCache {
    /// Appends the new positions' keys and values and returns those of all positions.
    ///
    /// # Errors
    ///
    /// Shapes that differ in another axis than that of positions.
    pub fn append(&mut self, k: Tensor, v: Tensor) -> Result<(Tensor, Tensor)> {
        let (k, v) = match &self.0 {
            None => (k, v),
            Some((old_k, old_v)) => (Tensor::cat(&[old_k, &k], 2)?, Tensor::cat(&[old_v, &v], 2)?),
        };
        self.0 = Some((k.clone(), v.clone()));
        Ok((k, v))
    }

    /// Forgets every position.
    pub fn clear(&mut self) {
        self.0 = None;
    }
}

/// A `(seq, index_pos + seq)` mask, 1 where query `i` must not see key `j`: keys after the query, and with a
/// window also keys `window` or more positions before it. `None` where nothing would be masked whatever
/// the position: one query without a window.
///
/// # Errors
///
/// A mask that is larger than memory.
pub fn attention_mask(
    seq_len: usize,
    index_pos: usize,
    window: Option<usize>,
    device: &Device,
) -> Result<Option<Tensor>> {
    if seq_len == 1 && window.is_none() {
        return Ok(None);
    }
    let sizes = index_pos
        .checked_add(seq_len)
        .and_then(|kv| Some((kv, seq_len.checked_mul(kv)?)));
    let Some((kv_len, elements)) = sizes else {
        bail!("a mask of {seq_len} queries from position {index_pos} on is too large");
    };
    let mut mask: Vec<u8> = Vec::new();
    if mask.try_reserve_exact(elements).is_err() {
        bail!("there is no memory for a mask of {seq_len} queries and {kv_len} keys");
    }
    let hidden = |query: usize, key: usize| key > query || window.is_some_and(|w| query - key >= w);
    for query in index_pos..kv_len {
        mask.extend((0..kv_len).map(|key| u8::from(hidden(query, key))));
    }
    Tensor::from_vec(mask, (seq_len, kv_len), device).map(Some)
}
