//! Caches of the last keys and values only: new ones take the places of the oldest.
//!
//! candle keeps a buffer of a fixed length and writes into it. Here the part of it that is filled is a tensor, and
//! an append makes the next one of parts of it: a plain `cat` until the buffer is full. So a profile that stays
//! within the window compiles as any cache does; beyond it places depend on a remainder, which tracing refuses.

use crate::mirror::device::Device;
use crate::mirror::size;
use crate::mirror::tensor::Tensor;
use candle_core::{Result, bail};

/// The last `max_seq_len` indices of an axis, in the order of a buffer that is written round and round.
#[derive(Clone, Debug)]
pub struct RotatingCache {
    /// The filled part: all of it from when it is full on.
    filled: Option<Tensor>,
    dim: usize,
    offset: usize,
    current_seq_len: usize,
    max_seq_len: usize,
}

impl RotatingCache {
    /// An empty cache along `dim`.
    pub fn new(dim: usize, max_seq_len: usize) -> Self {
        Self {
            filled: None,
            dim,
            offset: 0,
            current_seq_len: 0,
            max_seq_len,
        }
    }

    /// Where in the buffer the next index is written.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The axis along which it grows.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// How many indices were appended.
    pub fn current_seq_len(&self) -> usize {
        self.current_seq_len
    }

    /// The length of the buffer.
    pub fn max_seq_len(&self) -> usize {
        self.max_seq_len
    }

    /// What is cached, in the order of the buffer.
    ///
    /// # Errors
    ///
    /// None; the signature is candle's.
    #[track_caller]
    pub fn current_data(&self) -> Result<Option<Tensor>> {
        Ok(self.filled.clone())
    }

    /// Empties the cache.
    pub fn reset(&mut self) {
        self.filled = None;
        self.offset = 0;
        self.current_seq_len = 0;
    }

    /// Appends along the axis. Returns the buffer, or what is new where that is longer.
    ///
    /// # Errors
    ///
    /// If the shape of what is new does not fit, or the buffer has no place.
    #[track_caller]
    pub fn append(&mut self, src: &Tensor) -> Result<Tensor> {
        let (axis, most) = (self.dim, self.max_seq_len);
        let new = src.dim(axis)?;
        if most == 0 {
            bail!("rotating kv-cache: a buffer without places for {src:?}");
        }
        if new >= most {
            self.filled = Some(src.narrow(axis, new - most, most)?);
            self.current_seq_len += new;
            self.offset = 0;
            return Ok(src.clone());
        }
        let next = match &self.filled {
            None => src.clone(),
            Some(old) => {
                let len = old.dim(axis)?;
                let wrapped = (self.offset + new).saturating_sub(most);
                let ahead = new - wrapped;
                let end = (self.offset + ahead).min(len).max(self.offset);
                let mut parts = Vec::new();
                // Once around, what is new is at both ends of the buffer.
                if wrapped > 0 {
                    parts.push(src.narrow(axis, ahead, wrapped)?);
                }
                match (wrapped, self.offset) {
                    (0, at) if at == len => parts.push(old.clone()),
                    (w, at) => parts.push(old.narrow(axis, w, at - w)?),
                }
                match wrapped {
                    0 => parts.push(src.clone()),
                    _ => parts.push(src.narrow(axis, 0, ahead)?),
                }
                if end < len {
                    parts.push(old.narrow(axis, end, len - end)?);
                }
                Tensor::cat(&parts, axis)?
            }
        };
        self.current_seq_len += new;
        self.offset = (self.offset + new) % most;
        Ok(self.filled.insert(next).clone())
    }

    /// The positions of what an append of `seq_len` indices will return.
    pub fn positions(&self, seq_len: usize) -> Vec<usize> {
        let all = self.current_seq_len + seq_len;
        if seq_len > self.max_seq_len {
            return (self.current_seq_len..all).collect();
        }
        let next = (self.offset + seq_len).checked_rem(self.max_seq_len);
        let next = next.unwrap_or(0);
        let position = |i: usize| match i < next {
            true => all + i - next,
            false => (all + i).saturating_sub(next + self.max_seq_len),
        };
        (0..all.min(self.max_seq_len)).map(position).collect()
    }

    /// For an append of `seq_len` indices: u8, 1 where the query `i` of it must not see the key `j` of what it
    /// returns. None for a single query, which sees all.
    ///
    /// # Errors
    ///
    /// If the mask is more than [`CONSTANT`](size::CONSTANT) bytes.
    #[track_caller]
    pub fn attn_mask(&self, seq_len: usize, device: &Device) -> Result<Option<Tensor>> {
        if seq_len == 1 {
            return Ok(None);
        }
        let keys = match seq_len < self.max_seq_len {
            true => self.positions(seq_len),
            false => (0..seq_len).collect(),
        };
        let first = match seq_len < self.max_seq_len {
            true => self.current_seq_len,
            false => 0,
        };
        let count = size::checked(&[seq_len, keys.len()])?;
        let mut mask: Vec<u8> = size::room(count, "a mask")?;
        for query in first..first + seq_len {
            let hidden = |key: &usize| *key > query || key + self.max_seq_len < query;
            mask.extend(keys.iter().map(|key| u8::from(hidden(key))));
        }
        Tensor::from_vec(mask, (seq_len, keys.len()), device).map(Some)
    }
}

/// A cache of the last keys and one of the last values.
#[derive(Clone, Debug)]
pub struct RotatingKvCache {
    k: RotatingCache,
    v: RotatingCache,
}

impl RotatingKvCache {
    /// Empty caches along `dim`.
    pub fn new(dim: usize, max_seq_len: usize) -> Self {
        let (k, v) = (
            RotatingCache::new(dim, max_seq_len),
            RotatingCache::new(dim, max_seq_len),
        );
        Self { k, v }
    }

    /// The cache of keys.
    pub fn k_cache(&self) -> &RotatingCache {
        &self.k
    }

    /// The cache of values.
    pub fn v_cache(&self) -> &RotatingCache {
        &self.v
    }

    /// The cache of keys.
    pub fn k_cache_mut(&mut self) -> &mut RotatingCache {
        &mut self.k
    }

    /// The cache of values.
    pub fn v_cache_mut(&mut self) -> &mut RotatingCache {
        &mut self.v
    }

    /// The cached keys.
    ///
    /// # Errors
    ///
    /// As [`RotatingCache::current_data`].
    #[track_caller]
    pub fn k(&self) -> Result<Option<Tensor>> {
        self.k.current_data()
    }

    /// The cached values.
    ///
    /// # Errors
    ///
    /// As [`RotatingCache::current_data`].
    #[track_caller]
    pub fn v(&self) -> Result<Option<Tensor>> {
        self.v.current_data()
    }

    /// Appends and returns what is to be looked at.
    ///
    /// # Errors
    ///
    /// As [`RotatingCache::append`].
    #[track_caller]
    pub fn append(&mut self, k: &Tensor, v: &Tensor) -> Result<(Tensor, Tensor)> {
        Ok((self.k.append(k)?, self.v.append(v)?))
    }

    /// As [`RotatingCache::offset`].
    pub fn offset(&self) -> usize {
        self.k.offset()
    }

    /// As [`RotatingCache::current_seq_len`].
    pub fn current_seq_len(&self) -> usize {
        self.k.current_seq_len()
    }

    /// As [`RotatingCache::attn_mask`].
    ///
    /// # Errors
    ///
    /// As [`RotatingCache::attn_mask`].
    #[track_caller]
    pub fn attn_mask(&self, seq_len: usize, device: &Device) -> Result<Option<Tensor>> {
        self.k.attn_mask(seq_len, device)
    }

    /// As [`RotatingCache::positions`].
    pub fn positions(&self, seq_len: usize) -> Vec<usize> {
        self.k.positions(seq_len)
    }

    /// Empties both caches.
    pub fn reset(&mut self) {
        self.k.reset();
        self.v.reset();
    }
}
