//! Attention as `candle_nn` has it for a CPU, spelled in tensors.

use super::ops::softmax_last_dim;
use crate::graph::Op;
use crate::mirror::tensor::Tensor;
use candle_core::{Result, WithDType, bail};
use trt_kernel::DType as Kernel;

/// Which keys a query does not see.
#[derive(Clone, Debug, Default)]
pub enum AttnMask {
    /// It sees all.
    #[default]
    None,
    /// Those after its own place, which is behind so many others.
    Causal {
        /// Keys before the first query's own.
        kv_offset: usize,
    },
    /// A tensor that is added to the scores.
    Mask(Tensor),
}

impl AttnMask {
    /// Queries that begin with the keys.
    pub fn causal() -> Self {
        AttnMask::Causal { kv_offset: 0 }
    }

    /// Queries behind so many keys.
    pub fn causal_with_offset(kv_offset: usize) -> Self {
        AttnMask::Causal { kv_offset }
    }

    /// Whether keys are hidden by their place.
    pub fn is_causal(&self) -> bool {
        matches!(self, AttnMask::Causal { .. })
    }

    /// Keys before the first query's own.
    pub fn kv_offset(&self) -> usize {
        match self {
            AttnMask::Causal { kv_offset } => *kv_offset,
            AttnMask::None | AttnMask::Mask(_) => 0,
        }
    }
}

/// `softmax(cap(q k^T scale) + mask) v` of `q (b, s, h, d)` by `k` and `v` `(b, t, g, d)`, as `(b, h, s, d)`.
///
/// # Errors
///
/// If the operands do not fit. By a tensor as mask and by biases of places (`max_bias`): always, they are not in
/// this version.
#[expect(clippy::too_many_arguments, reason = "candle's signature")]
#[track_caller]
pub fn flash_attn<T: WithDType>(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    softmax_scale: f32,
    attn_mask: AttnMask,
    max_bias: Option<f32>,
    softcap: Option<f32>,
) -> Result<Tensor> {
    if q.dtype() != T::DTYPE {
        bail!("flash_attn of {:?}: {q:?} is of another dtype", T::DTYPE);
    }
    if max_bias.is_some_and(|bias| bias != 0.0) {
        bail!("flash_attn: biases of places are not in this version of candle-trt");
    }
    let heads = |t: &Tensor| t.transpose(1, 2);
    let (q, k, v) = (heads(q)?, heads(k)?, heads(v)?);
    let scores = scores(&q, &k, softmax_scale, softcap.unwrap_or(0.0))?;
    let scores = match attn_mask {
        AttnMask::None => scores,
        AttnMask::Causal { kv_offset } => causal(&scores, kv_offset)?,
        AttnMask::Mask(_) => {
            bail!("flash_attn: a tensor as mask is not in this version of candle-trt")
        }
    };
    weighted(&scores, &v)
}

/// `cap(q k^T scale)`, where 0 is no cap. Heads of keys serve several of queries each.
#[track_caller]
pub(super) fn scores(q: &Tensor, k: &Tensor, scale: f32, cap: f32) -> Result<Tensor> {
    let k = for_heads(k, q.dim(1)?)?;
    let scores = (q.matmul(&k.t()?)? * f64::from(scale))?;
    match cap == 0.0 {
        true => Ok(scores),
        false => (scores / f64::from(cap))?.tanh()? * f64::from(cap),
    }
}

/// `softmax(scores) v`.
#[track_caller]
pub(super) fn weighted(scores: &Tensor, v: &Tensor) -> Result<Tensor> {
    softmax_last_dim(scores)?.matmul(&for_heads(v, scores.dim(1)?)?)
}

/// Scores `(b, h, s, t)` with keys hidden that come after the query, which is behind so many others.
#[track_caller]
pub(super) fn causal(scores: &Tensor, offset: usize) -> Result<Tensor> {
    let (_, _, queries, keys) = scores.dims4()?;
    let op = Op::Causal {
        offset: offset.into(),
        window: None,
    };
    let hides = Tensor::make(op, vec![], (queries, keys), Kernel::U8)?;
    let hides = hides.broadcast_as(scores.shape())?;
    hides.where_cond(&scores.like(f64::NEG_INFINITY)?, scores)
}

/// `x (b, g, t, d)` with each head so often that there are `heads`.
#[track_caller]
fn for_heads(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (b, groups, t, d) = x.dims4()?;
    if groups == 0 || !heads.is_multiple_of(groups) {
        bail!("attention: {heads} heads of queries for {groups} of keys and values");
    }
    match heads / groups {
        1 => Ok(x.clone()),
        n => Tensor::cat(&vec![x; n], 2)?.reshape((b, heads, t, d)),
    }
}

/// Attention over plain memory, which no symbolic tensor has.
pub mod cpu_flash {
    pub use super::flash_attn;

    /// Attention of a single query.
    pub mod causal {
        use crate::mirror::tensor::Tensor;
        use candle_core::{Result, bail};

        /// Not of symbolic tensors: it reads memory.
        ///
        /// # Errors
        ///
        /// Always.
        #[expect(clippy::too_many_arguments, reason = "candle's signature")]
        #[track_caller]
        pub fn causal_decode_f32_interleaved(
            _q: &[f32],
            _kv: &[f32],
            _heads: usize,
            _kv_heads: usize,
            _dim: usize,
            _len: usize,
            _scale: f32,
        ) -> Result<Tensor> {
            bail!("causal_decode_f32_interleaved reads memory, which a symbolic tensor has not")
        }
    }
}
