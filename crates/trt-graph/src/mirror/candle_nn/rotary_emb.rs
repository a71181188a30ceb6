//! Rotary position embeddings.

use crate::graph::Op;
use crate::mirror::tensor::Tensor;
use candle_core::{D, Result, bail};

/// Rotates the halves of `xs (b, h, s, d)` by tables `cos`, `sin` of shape `(s, d/2)`.
///
/// # Errors
///
/// If the tables do not fit the input, which has 4 axes.
#[track_caller]
pub fn rope(xs: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let (_, _, s, d) = xs.dims4()?;
    let table = |t: &Tensor| match t.dims() {
        [n, half] if *n >= s && half * 2 == d && t.dtype() == xs.dtype() => t.narrow(0, 0, s),
        _ => bail!("rope: table {t:?} for an input {xs:?}",),
    };
    let operands = vec![xs.clone(), table(cos)?, table(sin)?];
    Tensor::make(Op::Rope, operands, xs.shape().clone(), xs.kernel_dtype())
}

/// Rotates neighbours, elements `2 i` and `2 i + 1` of `xs (b, h, s, d)`, by tables `cos`, `sin` of shape
/// `(s, d/2)`.
///
/// # Errors
///
/// If the tables do not fit the input, which has 4 axes.
#[track_caller]
pub fn rope_i(xs: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let (b, h, s, d) = xs.dims4()?;
    if !d.is_multiple_of(2) {
        bail!("rope_i: an input {xs:?} whose last axis has no pairs");
    }
    // Neighbours are halves in another order.
    let halves = xs
        .reshape((b, h, s, d / 2, 2))?
        .transpose(3, 4)?
        .reshape((b, h, s, d))?;
    rope(&halves, cos, sin)?
        .reshape((b, h, s, 2, d / 2))?
        .transpose(3, 4)?
        .reshape((b, h, s, d))
}

/// As [`rope_i`], which is one kernel here.
///
/// # Errors
///
/// As [`rope_i`].
#[track_caller]
pub fn rope_i_slow(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    rope_i(x, cos, sin)
}

/// [`rope`] of `xs (b, s, h, d)`.
///
/// # Errors
///
/// If the tables do not fit the input, which has 4 axes.
#[track_caller]
pub fn rope_thd(xs: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    rope(&xs.transpose(1, 2)?, cos, sin)?.transpose(1, 2)
}

/// [`rope`] spelled in tensor operations; tables may have their halves repeated.
///
/// # Errors
///
/// If the tables do not fit the input, which has 4 axes.
#[track_caller]
pub fn rope_slow(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let (_, _, s, d) = x.dims4()?;
    let full = |t: &Tensor| -> Result<Tensor> {
        Tensor::cat(&[t, t], D::Minus1)?
            .narrow(0, 0, s)?
            .unsqueeze(0)?
            .unsqueeze(0)
    };
    let (a, b) = (
        x.narrow(D::Minus1, 0, d / 2)?,
        x.narrow(D::Minus1, d / 2, d - d / 2)?,
    );
    let rotated = Tensor::cat(&[&b.neg()?, &a], D::Minus1)?;
    x.broadcast_mul(&full(cos)?)? + rotated.broadcast_mul(&full(sin)?)?
}
