//! Transposed convolution layers.

use super::conv::with_bias;
use super::var_builder::VarBuilder;
use crate::mirror::tensor::{Module, Tensor};
use candle_core::{Result, bail};

/// How a [`ConvTranspose1d`] behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvTranspose1dConfig {
    /// Elements taken away at both ends.
    pub padding: usize,
    /// Elements added at the end.
    pub output_padding: usize,
    /// Distance of what neighbouring inputs add to.
    pub stride: usize,
    /// Distance of neighbours in a window.
    pub dilation: usize,
    /// Parts of the channels that do not see each other.
    pub groups: usize,
}

impl Default for ConvTranspose1dConfig {
    fn default() -> Self {
        Self {
            padding: 0,
            output_padding: 0,
            stride: 1,
            dilation: 1,
            groups: 1,
        }
    }
}

/// How a [`ConvTranspose2d`] behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvTranspose2dConfig {
    /// Elements taken away at both ends of each axis.
    pub padding: usize,
    /// Elements added at the end of each axis.
    pub output_padding: usize,
    /// Distance of what neighbouring inputs add to.
    pub stride: usize,
    /// Distance of neighbours in a window.
    pub dilation: usize,
}

impl Default for ConvTranspose2dConfig {
    fn default() -> Self {
        Self {
            padding: 0,
            output_padding: 0,
            stride: 1,
            dilation: 1,
        }
    }
}

/// A layer over its tensors and configuration.
macro_rules! layer {
    ($layer:ident $config:ident, $doc:literal, |$x:ident, $w:ident, $c:ident| $run:expr) => {
        #[doc = $doc]
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
            fn forward(&self, $x: &Tensor) -> Result<Tensor> {
                let ($w, $c) = (&self.weight, &self.config);
                with_bias($run?, self.bias.as_ref())
            }
        }
    };
}
layer!(ConvTranspose1d ConvTranspose1dConfig, "The transpose of a convolution over `[b, c, l]`.",
    |x, w, c| x.conv_transpose1d(w, c.padding, c.output_padding, c.stride, c.dilation, c.groups));
layer!(ConvTranspose2d ConvTranspose2dConfig, "The transpose of a convolution over `[b, c, h, w]`.",
    |x, w, c| x.conv_transpose2d(w, c.padding, c.output_padding, c.stride, c.dilation));

/// A layer with the tensors `weight` and `bias`.
///
/// # Errors
///
/// If a weight is missing or has another shape, or there are 0 groups.
#[track_caller]
pub fn conv_transpose1d(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    cfg: ConvTranspose1dConfig,
    vb: VarBuilder,
) -> Result<ConvTranspose1d> {
    let bias = vb.get(out_channels, "bias")?;
    let layer = conv_transpose1d_no_bias(in_channels, out_channels, kernel_size, cfg, vb)?;
    Ok(ConvTranspose1d::new(layer.weight, Some(bias), cfg))
}

/// A layer with the tensor `weight`.
///
/// # Errors
///
/// If a weight is missing or has another shape, or there are 0 groups.
#[track_caller]
pub fn conv_transpose1d_no_bias(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    cfg: ConvTranspose1dConfig,
    vb: VarBuilder,
) -> Result<ConvTranspose1d> {
    let Some(of_group) = out_channels.checked_div(cfg.groups) else {
        bail!("a transposed convolution of {out_channels} out-channels with 0 groups");
    };
    let weight = vb.get((in_channels, of_group, kernel_size), "weight")?;
    Ok(ConvTranspose1d::new(weight, None, cfg))
}

/// A layer with the tensors `weight` and `bias`.
///
/// # Errors
///
/// If a weight is missing or has another shape.
#[track_caller]
pub fn conv_transpose2d(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    cfg: ConvTranspose2dConfig,
    vb: VarBuilder,
) -> Result<ConvTranspose2d> {
    let bias = vb.get(out_channels, "bias")?;
    let layer = conv_transpose2d_no_bias(in_channels, out_channels, kernel_size, cfg, vb)?;
    Ok(ConvTranspose2d::new(layer.weight, Some(bias), cfg))
}

/// A layer with the tensor `weight`.
///
/// # Errors
///
/// If a weight is missing or has another shape.
#[track_caller]
pub fn conv_transpose2d_no_bias(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    cfg: ConvTranspose2dConfig,
    vb: VarBuilder,
) -> Result<ConvTranspose2d> {
    let shape = (in_channels, out_channels, kernel_size, kernel_size);
    Ok(ConvTranspose2d::new(vb.get(shape, "weight")?, None, cfg))
}
