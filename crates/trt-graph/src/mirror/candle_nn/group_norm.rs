//! Group norms.

use super::var_builder::VarBuilder;
use crate::mirror::tensor::{Module, Tensor};
use candle_core::{DType, Result};

/// Normalisation over groups of channels and all places, then a factor and a bias a channel.
#[derive(Clone, Debug)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
    num_channels: usize,
    num_groups: usize,
}

impl GroupNorm {
    /// From a weight and a bias of one number for each channel.
    ///
    /// # Errors
    ///
    /// If the groups do not divide the channels.
    #[track_caller]
    pub fn new(
        weight: Tensor,
        bias: Tensor,
        num_channels: usize,
        num_groups: usize,
        eps: f64,
    ) -> Result<Self> {
        if num_groups == 0 || !num_channels.is_multiple_of(num_groups) {
            candle_core::bail!(
                "GroupNorm: num_groups ({num_groups}) must divide num_channels ({num_channels})"
            )
        }
        Ok(Self {
            weight,
            bias,
            eps,
            num_channels,
            num_groups,
        })
    }
}

impl Module for GroupNorm {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if x.rank() <= 2 {
            candle_core::bail!("input rank for GroupNorm should be at least 3");
        }
        let (b, channels) = (x.dims()[0], x.dims()[1]);
        if channels != self.num_channels {
            candle_core::bail!(
                "unexpected num-channels in GroupNorm ({channels} <> {})",
                self.num_channels
            )
        }
        let (dtype, dims) = (x.dtype(), x.dims().to_vec());
        let places: usize = dims[2..].iter().product();
        let (groups, each) = (self.num_groups, channels / self.num_groups);
        let wide = x
            .reshape((b, groups, each * places))?
            .to_dtype(DType::F32)?;
        let mean = wide.mean_keepdim(2)?;
        let variance = wide.broadcast_sub(&mean)?.sqr()?.mean_keepdim(2)?;
        let deviation = (variance + self.eps)?.sqrt()?;
        // A channel is an axis of its own here, so that all of it is one pass.
        let per_group = |t: Tensor| t.reshape((b, groups, 1, 1));
        let per_channel = |t: &Tensor| t.reshape((1, groups, each, 1));
        let x = x.reshape((b, groups, each, places))?.to_dtype(DType::F32)?;
        let x = x.broadcast_sub(&per_group(mean)?)?;
        let x = x.broadcast_div(&per_group(deviation)?)?.to_dtype(dtype)?;
        let x = x.broadcast_mul(&per_channel(&self.weight)?)?;
        x.broadcast_add(&per_channel(&self.bias)?)?.reshape(dims)
    }
}

/// A norm with the tensors `weight` and `bias`.
///
/// # Errors
///
/// If a weight is missing or has another shape, or the groups do not divide the channels.
#[track_caller]
pub fn group_norm(
    num_groups: usize,
    num_channels: usize,
    eps: f64,
    vb: VarBuilder,
) -> Result<GroupNorm> {
    let weight = vb.get(num_channels, "weight")?;
    let bias = vb.get(num_channels, "bias")?;
    GroupNorm::new(weight, bias, num_channels, num_groups, eps)
}
