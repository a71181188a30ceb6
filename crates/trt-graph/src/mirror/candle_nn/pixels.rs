//! Channels that become places and the other way round, and edges of images.

use crate::mirror::tensor::Tensor;
use candle_core::{Result, bail};

/// `[b, c, h, w]` as `[b, c / f^2, h f, w f]`: each place becomes a square of `f` by `f`.
///
/// # Errors
///
/// If there are not 4 axes, or the channels are no multiple of `f^2`.
#[track_caller]
pub fn pixel_shuffle(xs: &Tensor, upscale_factor: usize) -> Result<Tensor> {
    let (b, c, h, w) = xs.dims4()?;
    let f = upscale_factor;
    let Some(out) = c.checked_div(f).and_then(|c| c.checked_div(f)) else {
        bail!("pixel_shuffle: a factor of 0 for {xs:?}");
    };
    xs.reshape((b, out, f, f, h, w))?
        .permute((0, 1, 4, 2, 5, 3))?
        .reshape((b, out, h.saturating_mul(f), w.saturating_mul(f)))
}

/// `[b, c, h, w]` as `[b, c f^2, h / f, w / f]`: each square of `f` by `f` becomes a place.
///
/// # Errors
///
/// If there are not 4 axes, or height or width are no multiples of `f`.
#[track_caller]
pub fn pixel_unshuffle(xs: &Tensor, downscale_factor: usize) -> Result<Tensor> {
    let (b, c, h, w) = xs.dims4()?;
    let f = downscale_factor;
    let (Some(rows), Some(columns)) = (h.checked_div(f), w.checked_div(f)) else {
        bail!("pixel_unshuffle: a factor of 0 for {xs:?}");
    };
    let out = c.saturating_mul(f).saturating_mul(f);
    xs.reshape((b, c, rows, f, columns, f))?
        .permute((0, 1, 3, 5, 2, 4))?
        .reshape((b, out, rows, columns))
}

/// `[b, c, h, w]` with its edges repeated once around it, if `pad` is 1.
///
/// # Errors
///
/// If there are not 4 axes or no elements, or `pad` is more than 1.
#[track_caller]
pub fn replication_pad2d(xs: &Tensor, pad: usize) -> Result<Tensor> {
    match pad {
        0 => Ok(xs.clone()),
        1 => {
            xs.dims4()?;
            xs.pad_with_same(3, 1, 1)?.pad_with_same(2, 1, 1)
        }
        n => bail!("replication-pad with a size of {n} is not supported"),
    }
}
