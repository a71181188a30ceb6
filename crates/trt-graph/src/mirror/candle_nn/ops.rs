//! Functions of `candle_nn::ops`.

use super::attention;
use crate::graph::Op;
use crate::mirror::tensor::Tensor;
use candle_core::shape::Dim as AsDim;
use candle_core::{D, DType, Result, bail};
use trt_kernel::Unary;

pub use super::dropout::{Dropout, Identity, dropout};
pub use super::pixels::{pixel_shuffle, pixel_unshuffle, replication_pad2d};

/// `x * sigmoid(x)`.
///
/// # Errors
///
/// If the dtype is not a float.
#[track_caller]
pub fn silu(xs: &Tensor) -> Result<Tensor> {
    xs.silu()
}

/// `silu(a) * b` where `a` and `b` are the halves of the last axis.
///
/// # Errors
///
/// If the last axis has no halves, or the dtype is not a float.
#[track_caller]
pub fn swiglu(xs: &Tensor) -> Result<Tensor> {
    let halves = xs.chunk(2, D::Minus1)?;
    match halves.as_slice() {
        [a, b] => &a.silu()? * b,
        _ => bail!("swiglu: the last axis of {:?} has no halves", xs.shape()),
    }
}

/// `1 / (1 + e^-x)`.
///
/// # Errors
///
/// If the dtype is not a float.
#[track_caller]
pub fn sigmoid(xs: &Tensor) -> Result<Tensor> {
    xs.unary(Unary::Sigmoid)
}

/// `clamp((x + 3) / 6, 0, 1)`.
///
/// # Errors
///
/// What the methods of [`Tensor`] return that it is spelled in.
#[track_caller]
pub fn hard_sigmoid(xs: &Tensor) -> Result<Tensor> {
    ((xs + 3.0)? / 6.0)?.clamp(0f32, 1f32)
}

/// `x >= 0 ? x : slope * x`.
///
/// # Errors
///
/// What the methods of [`Tensor`] return that it is spelled in.
#[track_caller]
pub fn leaky_relu(xs: &Tensor, negative_slope: f64) -> Result<Tensor> {
    xs.relu()?.add(&(xs.minimum(0f64)? * negative_slope)?)
}

/// `x * tanh(log(1 + e^x))`.
///
/// # Errors
///
/// If the dtype is not a float.
#[track_caller]
pub fn mish(xs: &Tensor) -> Result<Tensor> {
    xs * (1.0 + xs.exp()?)?.log()?.tanh()
}

/// `gamma * (x > 0 ? x : alpha * (e^x - 1))`.
///
/// # Errors
///
/// If the dtype is not a float.
#[track_caller]
pub fn selu(xs: &Tensor, alpha: f32, gamma: f32) -> Result<Tensor> {
    let sign = xs.gt(0.0)?;
    let negative = (xs.exp()? - 1.0)? * f64::from(alpha);
    sign.where_cond(xs, &negative?)? * f64::from(gamma)
}

/// Softmax along an axis.
///
/// # Errors
///
/// If there is no such axis, or the dtype is not a float.
#[track_caller]
pub fn softmax<A: AsDim>(xs: &Tensor, dim: A) -> Result<Tensor> {
    let axis = dim.to_index(xs.shape(), "softmax")?;
    if axis + 1 == xs.rank() {
        return softmax_last_dim(xs);
    }
    softmax_last_dim(&xs.transpose(axis, D::Minus1)?)?.transpose(axis, D::Minus1)
}

/// Softmax along the last axis.
///
/// # Errors
///
/// If there is no axis, or the dtype is not a float.
#[track_caller]
pub fn softmax_last_dim(xs: &Tensor) -> Result<Tensor> {
    if xs.rank() == 0 || !xs.kernel_dtype().is_float() {
        bail!("softmax of {xs:?}");
    }
    Tensor::make(
        Op::Softmax,
        vec![xs.clone()],
        xs.shape().clone(),
        xs.kernel_dtype(),
    )
}

/// `softmax(cap(q k^T scale) + mask) v` of `q (b, h, s, d)` by `k` and `v` `(b, g, t, d)`; a cap of 1 is none. With
/// `do_causal` the last query is at the place of the last key.
///
/// # Errors
///
/// If the operands do not fit.
#[expect(clippy::too_many_arguments, reason = "candle's signature")]
#[track_caller]
pub fn sdpa(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
    do_causal: bool,
    scale: f32,
    softcapping: f32,
) -> Result<Tensor> {
    let cap = if softcapping == 1.0 { 0.0 } else { softcapping };
    let scores = attention::scores(q, k, scale, cap)?;
    let scores = match mask {
        Some(mask) => scores.broadcast_add(mask)?,
        None => scores,
    };
    let (_, _, queries, keys) = scores.dims4()?;
    let scores = match (do_causal, keys.checked_sub(queries)) {
        (false, _) => scores,
        (true, Some(offset)) => attention::causal(&scores, offset)?,
        (true, None) => bail!("sdpa: {queries} causal queries for {keys} keys"),
    };
    attention::weighted(&scores, v)
}

/// `x - log(sum(e^x))` along an axis.
///
/// # Errors
///
/// What the methods of [`Tensor`] return that it is spelled in.
#[track_caller]
pub fn log_softmax<A: AsDim>(xs: &Tensor, dim: A) -> Result<Tensor> {
    let axis = dim.to_index(xs.shape(), "log-softmax")?;
    let shifted = xs.broadcast_sub(&xs.max_keepdim(axis)?)?;
    let log = shifted.exp()?.sum_keepdim(axis)?.log()?;
    shifted.broadcast_sub(&log)
}

/// RMS norm over the last axis, computed in f32: `x / sqrt(mean(x^2) + eps) * alpha`.
///
/// # Errors
///
/// If the weight does not fit the last axis.
#[track_caller]
pub fn rms_norm(xs: &Tensor, alpha: &Tensor, eps: f32) -> Result<Tensor> {
    one_row(xs, alpha)?;
    normalise(xs, alpha, None, f64::from(eps), false)
}

/// Layer norm over the last axis, computed in f32.
///
/// # Errors
///
/// If weight or bias do not fit the last axis.
#[track_caller]
pub fn layer_norm(xs: &Tensor, alpha: &Tensor, beta: &Tensor, eps: f32) -> Result<Tensor> {
    one_row(xs, alpha)?;
    one_row(xs, beta)?;
    normalise(xs, alpha, Some(beta), f64::from(eps), true)
}

/// Checks that a weight of a norm has one element for each of the last axis.
#[track_caller]
pub(super) fn one_row(x: &Tensor, weight: &Tensor) -> Result<()> {
    let size = x.dim(D::Minus1)?;
    if weight.dims() != [size] {
        bail!(
            "norm: weight {:?} for an input of shape {:?}",
            weight.shape(),
            x.shape()
        );
    }
    Ok(())
}

/// A norm over the last axis, whose weight and bias are broadcast to what was normalised.
#[track_caller]
pub(super) fn normalise(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    eps: f64,
    remove_mean: bool,
) -> Result<Tensor> {
    let dtype = x.dtype();
    let x = x.to_dtype(DType::F32)?;
    let x = match remove_mean {
        true => x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?,
        false => x,
    };
    let scale = (x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    let y = x
        .broadcast_div(&scale)?
        .broadcast_mul(&weight.to_dtype(DType::F32)?)?;
    let y = match bias {
        Some(b) => y.broadcast_add(&b.to_dtype(DType::F32)?)?,
        None => y,
    };
    y.to_dtype(dtype)
}
