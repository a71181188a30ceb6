//! Key-value caches: `candle_nn::kv_cache` over symbolic tensors.
//!
//! candle preallocates the cache's memory; here appending is a `cat` with what the previous call
//! left, which the compiler turns into a state that is appended to in place.

use crate::mirror::tensor::Tensor;
use candle_core::{Result, bail};

pub use super::rotating::{RotatingCache, RotatingKvCache};
pub use candle_nn::kv_cache::{RawInterleavedKvCache, rope_i_inplace};

/// A tensor that grows along an axis.
#[derive(Clone, Debug)]
pub struct Cache {
    all_data: Option<Tensor>,
    dim: usize,
    grow_by: usize,
    max_seq_len: usize,
}

impl Cache {
    /// An empty cache that grows along `dim`, with room for `max_seq_len` at first and for as many more
    /// each time that it is full.
    pub fn new(dim: usize, max_seq_len: usize) -> Self {
        Self {
            all_data: None,
            dim,
            grow_by: max_seq_len,
            max_seq_len,
        }
    }

    /// The axis along which it grows.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The cached length.
    pub fn current_seq_len(&self) -> usize {
        self.all_data.as_ref().map_or(0, |t| t.dims()[self.dim])
    }

    /// The length that there is room for.
    pub fn max_seq_len(&self) -> usize {
        self.max_seq_len
    }

    /// What is cached.
    ///
    /// # Errors
    ///
    /// None; the signature is candle's.
    #[track_caller]
    pub fn current_data(&self) -> Result<Option<Tensor>> {
        Ok(self.all_data.clone())
    }

    /// Empties the cache.
    pub fn reset(&mut self) {
        self.all_data = None;
    }

    /// Appends along the axis.
    ///
    /// # Errors
    ///
    /// If the cache has no room and none to grow by, or the shape of what is new does not fit.
    #[track_caller]
    pub fn append(&mut self, src: &Tensor) -> Result<()> {
        let len = self.current_seq_len() + src.dim(self.dim)?;
        if len > self.max_seq_len {
            if self.grow_by == 0 {
                bail!("kv-cache: no room for {len} positions");
            }
            let more = (len - self.max_seq_len).div_ceil(self.grow_by);
            self.max_seq_len = self
                .max_seq_len
                .saturating_add(more.saturating_mul(self.grow_by));
        }
        self.all_data = Some(match &self.all_data {
            None => src.clone(),
            Some(old) => Tensor::cat(&[old, src], self.dim)?,
        });
        Ok(())
    }
}

/// A cache of keys and one of values.
#[derive(Clone, Debug)]
pub struct KvCache {
    k: Cache,
    v: Cache,
}

impl KvCache {
    /// Empty caches that grow along `dim`, as [`Cache::new`].
    pub fn new(dim: usize, max_seq_len: usize) -> Self {
        Self {
            k: Cache::new(dim, max_seq_len),
            v: Cache::new(dim, max_seq_len),
        }
    }

    /// The cache of keys.
    pub fn k_cache(&self) -> &Cache {
        &self.k
    }

    /// The cache of values.
    pub fn v_cache(&self) -> &Cache {
        &self.v
    }

    /// The cached keys.
    ///
    /// # Errors
    ///
    /// As [`Cache::current_data`].
    #[track_caller]
    pub fn k(&self) -> Result<Option<Tensor>> {
        self.k.current_data()
    }

    /// The cached values.
    ///
    /// # Errors
    ///
    /// As [`Cache::current_data`].
    #[track_caller]
    pub fn v(&self) -> Result<Option<Tensor>> {
        self.v.current_data()
    }

    /// Appends and returns everything cached.
    ///
    /// # Errors
    ///
    /// If there is no room for what is new, or its shape does not fit.
    #[track_caller]
    pub fn append(&mut self, k: &Tensor, v: &Tensor) -> Result<(Tensor, Tensor)> {
        self.k.append(k)?;
        self.v.append(v)?;
        match (self.k.current_data()?, self.v.current_data()?) {
            (Some(k), Some(v)) => Ok((k, v)),
            _ => bail!("kv-cache: empty after appending {k:?}"),
        }
    }

    /// The cached length.
    pub fn current_seq_len(&self) -> usize {
        self.k.current_seq_len()
    }

    /// Empties both caches.
    pub fn reset(&mut self) {
        self.k.reset();
        self.v.reset();
    }
}

/// Keys and values joined by `cat`, without a limit.
#[derive(Clone, Debug)]
pub struct ConcatKvCache {
    kv: Option<(Tensor, Tensor)>,
    dim: usize,
}

impl ConcatKvCache {
    /// An empty cache that grows along `dim`.
    pub fn new(dim: usize) -> Self {
        Self { kv: None, dim }
    }

    /// The cached length.
    pub fn current_seq_len(&self) -> usize {
        self.kv.as_ref().map_or(0, |(k, _)| k.dims()[self.dim])
    }

    /// Whether nothing is cached.
    pub fn is_empty(&self) -> bool {
        self.kv.is_none()
    }

    /// The axis along which it grows.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Appends and returns everything cached.
    ///
    /// # Errors
    ///
    /// If there is no room for what is new, or its shape does not fit.
    #[track_caller]
    pub fn append(&mut self, k: &Tensor, v: &Tensor) -> Result<(Tensor, Tensor)> {
        let joined = match &self.kv {
            None => (k.clone(), v.clone()),
            Some((pk, pv)) => (
                Tensor::cat(&[pk, k], self.dim)?,
                Tensor::cat(&[pv, v], self.dim)?,
            ),
        };
        Ok(self.kv.insert(joined).clone())
    }

    /// Empties the cache.
    pub fn reset(&mut self) {
        self.kv = None;
    }

    /// The cached keys.
    pub fn k(&self) -> Option<&Tensor> {
        self.kv.as_ref().map(|kv| &kv.0)
    }

    /// The cached values.
    pub fn v(&self) -> Option<&Tensor> {
        self.kv.as_ref().map(|kv| &kv.1)
    }
}

/// Keys and values of single heads beside each other, `[position, head, 2 * head_dim]`, for a batch of 1.
#[derive(Clone, Debug)]
pub struct InterleavedKvCache {
    kv: Option<Tensor>,
    head_dim: usize,
}

impl InterleavedKvCache {
    /// An empty cache.
    pub fn new(head_dim: usize) -> Self {
        Self { kv: None, head_dim }
    }

    /// The cached length.
    pub fn current_seq_len(&self) -> usize {
        let len = |kv: &Tensor| kv.dims().first().copied();
        self.kv.as_ref().and_then(len).unwrap_or(0)
    }

    /// Whether nothing is cached.
    pub fn is_empty(&self) -> bool {
        self.kv.is_none()
    }

    /// Appends keys and values `(1, heads, positions, head_dim)` and returns everything cached.
    ///
    /// # Errors
    ///
    /// If the shape of what is new does not fit.
    #[track_caller]
    pub fn append(&mut self, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let rows = |t: &Tensor| t.squeeze(0)?.transpose(0, 1);
        let new = Tensor::cat(&[rows(k)?, rows(v)?], 2)?;
        let all = match &self.kv {
            None => new,
            Some(old) => Tensor::cat(&[old, &new], 0)?,
        };
        Ok(self.kv.insert(all).clone())
    }

    /// Everything cached.
    pub fn kv(&self) -> Option<&Tensor> {
        self.kv.as_ref()
    }

    /// Elements of a head.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Empties the cache.
    pub fn reset(&mut self) {
        self.kv = None;
    }
}
