//! Convolution layers.

use super::batch_norm::BatchNorm;
use super::var_builder::VarBuilder;
use crate::mirror::tensor::{Module, Tensor};
use candle_core::Result;
use candle_core::conv::CudnnFwdAlgo;

/// A bias of one number a channel, added to `[b, c, places..]`.
#[track_caller]
pub(super) fn with_bias(x: Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let Some(bias) = bias else {
        return Ok(x);
    };
    let mut shape = vec![1; x.rank()];
    shape[1] = bias.dims1()?;
    x.broadcast_add(&bias.reshape(shape)?)
}

/// A layer and its configuration; the two of candle differ in the rank of their input only.
macro_rules! layer {
    ($layer:ident $config:ident $method:ident, $axes:literal) => {
        #[doc = concat!("How a [`", stringify!($layer), "`] behaves.")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $config {
            /// Zeros at both ends of each axis.
            pub padding: usize,
            /// Distance of neighbouring windows.
            pub stride: usize,
            /// Distance of neighbours in a window.
            pub dilation: usize,
            /// Parts of the channels that do not see each other.
            pub groups: usize,
            /// Not used: the compiler chooses.
            pub cudnn_fwd_algo: Option<CudnnFwdAlgo>,
        }

        impl Default for $config {
            fn default() -> Self {
                Self {
                    padding: 0,
                    stride: 1,
                    dilation: 1,
                    groups: 1,
                    cudnn_fwd_algo: None,
                }
            }
        }

        #[doc = concat!("A convolution over ", $axes, ".")]
        #[derive(Clone, Debug)]
        pub struct $layer {
            weight: Tensor,
            bias: Option<Tensor>,
            config: $config,
        }

        impl $layer {
            /// From a weight and an optional bias of one number for each output channel.
            pub fn new(weight: Tensor, bias: Option<Tensor>, config: $config) -> Self {
                Self {
                    weight,
                    bias,
                    config,
                }
            }

            /// How it behaves.
            pub fn config(&self) -> &$config {
                &self.config
            }

            /// The weight.
            pub fn weight(&self) -> &Tensor {
                &self.weight
            }

            /// The bias.
            pub fn bias(&self) -> Option<&Tensor> {
                self.bias.as_ref()
            }
        }

        impl Module for $layer {
            #[track_caller]
            fn forward(&self, x: &Tensor) -> Result<Tensor> {
                let c = &self.config;
                let x = x.$method(&self.weight, c.padding, c.stride, c.dilation, c.groups)?;
                with_bias(x, self.bias.as_ref())
            }
        }
    };
}
layer!(Conv1d Conv1dConfig conv1d, "`[b, c, l]`");
layer!(Conv2d Conv2dConfig conv2d, "`[b, c, h, w]`");

impl Conv2d {
    /// The convolution and the norm behind it as one convolution.
    ///
    /// # Errors
    ///
    /// If the norm has no weight and bias, or not as many channels as the convolution has outputs.
    #[track_caller]
    pub fn absorb_bn(&self, bn: &BatchNorm) -> Result<Self> {
        let Some((weight, bias)) = bn.weight_and_bias() else {
            candle_core::bail!("absorb_bn: the batch norm has no weight and bias");
        };
        let factor = weight.div(&(bn.running_var() + bn.eps())?.sqrt()?)?;
        let outputs = self.weight.dims4()?.0;
        let wide = factor.reshape((outputs, 1, 1, 1))?;
        let before = match &self.bias {
            Some(bias) => bias.sub(bn.running_mean())?,
            None => bn.running_mean().neg()?,
        };
        Ok(Self {
            weight: self.weight.broadcast_mul(&wide)?,
            bias: Some(bias.add(&factor.mul(&before)?)?),
            config: self.config,
        })
    }
}

#[track_caller]
fn weight(sizes: [usize; 2], groups: usize, window: &[usize], vb: &VarBuilder) -> Result<Tensor> {
    let [c_in, c_out] = sizes;
    let Some(of_group) = c_in.checked_div(groups) else {
        candle_core::bail!("a convolution of {c_in} in-channels with 0 groups");
    };
    vb.get([&[c_out, of_group], window].concat(), "weight")
}

/// A layer with the tensors `weight` and `bias`.
///
/// # Errors
///
/// If a weight is missing or has another shape, or there are 0 groups.
#[track_caller]
pub fn conv1d(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    cfg: Conv1dConfig,
    vb: VarBuilder,
) -> Result<Conv1d> {
    let ws = weight([in_channels, out_channels], cfg.groups, &[kernel_size], &vb)?;
    Ok(Conv1d::new(ws, Some(vb.get(out_channels, "bias")?), cfg))
}

/// A layer with the tensor `weight`.
///
/// # Errors
///
/// If a weight is missing or has another shape, or there are 0 groups.
#[track_caller]
pub fn conv1d_no_bias(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    cfg: Conv1dConfig,
    vb: VarBuilder,
) -> Result<Conv1d> {
    let ws = weight([in_channels, out_channels], cfg.groups, &[kernel_size], &vb)?;
    Ok(Conv1d::new(ws, None, cfg))
}

/// A layer with the tensors `weight` and `bias`.
///
/// # Errors
///
/// If a weight is missing or has another shape, or there are 0 groups.
#[track_caller]
pub fn conv2d(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    cfg: Conv2dConfig,
    vb: VarBuilder,
) -> Result<Conv2d> {
    let ws = weight(
        [in_channels, out_channels],
        cfg.groups,
        &[kernel_size; 2],
        &vb,
    )?;
    Ok(Conv2d::new(ws, Some(vb.get(out_channels, "bias")?), cfg))
}

/// A layer with the tensor `weight`.
///
/// # Errors
///
/// If a weight is missing or has another shape, or there are 0 groups.
#[track_caller]
pub fn conv2d_no_bias(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    cfg: Conv2dConfig,
    vb: VarBuilder,
) -> Result<Conv2d> {
    let ws = weight(
        [in_channels, out_channels],
        cfg.groups,
        &[kernel_size; 2],
        &vb,
    )?;
    Ok(Conv2d::new(ws, None, cfg))
}
