//! Layer and RMS norms.

use super::ops;
use super::var_builder::VarBuilder;
use crate::mirror::tensor::{Module, Tensor};
use candle_core::{Result, Shape};

/// How a [`LayerNorm`] behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerNormConfig {
    /// Added to the variance.
    pub eps: f64,
    /// Whether the mean is removed; `false` is an RMS norm.
    pub remove_mean: bool,
    /// Whether there is a bias.
    pub affine: bool,
}

impl Default for LayerNormConfig {
    fn default() -> Self {
        Self {
            eps: 1e-5,
            remove_mean: true,
            affine: true,
        }
    }
}

impl From<f64> for LayerNormConfig {
    fn from(eps: f64) -> Self {
        Self {
            eps,
            ..Self::default()
        }
    }
}

/// Normalisation over the last axis.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Option<Tensor>,
    remove_mean: bool,
    eps: f64,
}

impl LayerNorm {
    /// With weight and bias.
    pub fn new(weight: Tensor, bias: Tensor, eps: f64) -> Self {
        Self {
            weight,
            bias: Some(bias),
            remove_mean: true,
            eps,
        }
    }

    /// Without bias.
    pub fn new_no_bias(weight: Tensor, eps: f64) -> Self {
        Self {
            weight,
            bias: None,
            remove_mean: true,
            eps,
        }
    }

    /// Without bias and without removing the mean.
    pub fn rms_norm(weight: Tensor, eps: f64) -> Self {
        Self {
            weight,
            bias: None,
            remove_mean: false,
            eps,
        }
    }

    /// The weight.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The bias.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// What is added to the variance.
    pub fn eps(&self) -> f64 {
        self.eps
    }
}

impl Module for LayerNorm {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        // candle has one kernel for what is most common, and broadcasts in all other cases.
        if let (true, Some(bias)) = (self.remove_mean, &self.bias) {
            ops::one_row(x, &self.weight)?;
            ops::one_row(x, bias)?;
        }
        let bias = self.bias.as_ref();
        ops::normalise(x, &self.weight, bias, self.eps, self.remove_mean)
    }
}

/// A layer norm with the tensors `weight` and, if affine, `bias`.
///
/// # Errors
///
/// If a weight is missing or has another shape.
#[track_caller]
pub fn layer_norm<C: Into<LayerNormConfig>>(
    size: impl Into<Shape>,
    config: C,
    vb: VarBuilder,
) -> Result<LayerNorm> {
    let config = config.into();
    let shape = size.into();
    let weight = vb.get(shape.clone(), "weight")?;
    let bias = match config.affine {
        true => Some(vb.get(shape, "bias")?),
        false => None,
    };
    Ok(LayerNorm {
        weight,
        bias,
        remove_mean: config.remove_mean,
        eps: config.eps,
    })
}

/// A layer norm with the tensor `weight` only.
///
/// # Errors
///
/// If a weight is missing or has another shape.
#[track_caller]
pub fn layer_norm_no_bias(size: usize, eps: f64, vb: VarBuilder) -> Result<LayerNorm> {
    layer_norm(
        size,
        LayerNormConfig {
            eps,
            remove_mean: true,
            affine: false,
        },
        vb,
    )
}

/// RMS norm: `x / sqrt(mean(x^2) + eps) * weight`.
#[derive(Clone, Debug)]
pub struct RmsNorm(LayerNorm);

impl RmsNorm {
    /// From a weight.
    pub fn new(weight: Tensor, eps: f64) -> Self {
        Self(LayerNorm::rms_norm(weight, eps))
    }

    /// The underlying norm.
    pub fn into_inner(self) -> LayerNorm {
        self.0
    }

    /// The weight.
    pub fn weight(&self) -> &Tensor {
        self.0.weight()
    }

    /// What is added to the mean square.
    pub fn eps(&self) -> f64 {
        self.0.eps()
    }

    /// As forward, but the weight may have any shape that is broadcast to the input's.
    ///
    /// # Errors
    ///
    /// If the weight cannot be broadcast.
    #[track_caller]
    pub fn forward_diff(&self, xs: &Tensor) -> Result<Tensor> {
        self.0.forward(xs)
    }
}

impl Module for RmsNorm {
    #[track_caller]
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        ops::one_row(xs, self.weight())?;
        self.0.forward(xs)
    }
}

/// An RMS norm with the tensor `weight`.
///
/// # Errors
///
/// If a weight is missing or has another shape.
#[track_caller]
pub fn rms_norm(size: usize, eps: f64, vb: VarBuilder) -> Result<RmsNorm> {
    Ok(RmsNorm::new(vb.get(size, "weight")?, eps))
}
