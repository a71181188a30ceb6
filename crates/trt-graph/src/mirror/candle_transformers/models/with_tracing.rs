//! Layers as model files name them that log how long each takes: here they log nothing.

use crate::mirror::candle_nn;
use crate::mirror::candle_transformers::quantized_var_builder;
use crate::mirror::quantized::{self, QTensor};
use crate::mirror::tensor::{Module, Tensor};
use candle_core::Result;
use candle_nn::VarBuilder;
use std::fmt;
use std::sync::Arc;

/// Rows of a table picked by ids.
#[derive(Clone, Debug)]
pub struct Embedding(candle_nn::Embedding);

impl Embedding {
    /// A table of `d1` rows of `d2` elements: the tensor `weight`.
    ///
    /// # Errors
    ///
    /// If the weight is missing or has another shape.
    #[track_caller]
    pub fn new(d1: usize, d2: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Embedding(candle_nn::embedding(d1, d2, vb)?))
    }

    /// From a table.
    ///
    /// # Errors
    ///
    /// If it has not 2 axes.
    #[track_caller]
    pub fn from_weights(weights: Tensor) -> Result<Self> {
        let (_, size) = weights.dims2()?;
        Ok(Embedding(candle_nn::Embedding::new(weights, size)))
    }

    /// The table.
    pub fn embeddings(&self) -> &Tensor {
        self.0.embeddings()
    }
}

/// `x W^T + b`.
#[derive(Clone, Debug)]
pub struct Linear(candle_nn::Linear);

impl Linear {
    /// From a weight and an optional bias.
    pub fn from_weights(weights: Tensor, bias: Option<Tensor>) -> Self {
        Linear(candle_nn::Linear::new(weights, bias))
    }
}

/// A layer with or without the tensor `bias`.
///
/// # Errors
///
/// If a weight is missing or has another shape.
#[track_caller]
pub fn linear_b(d1: usize, d2: usize, b: bool, vb: VarBuilder) -> Result<Linear> {
    Ok(Linear(candle_nn::linear_b(d1, d2, b, vb)?))
}

/// A layer with the tensors `weight` and `bias`.
///
/// # Errors
///
/// If a weight is missing or has another shape.
#[track_caller]
pub fn linear(d1: usize, d2: usize, vb: VarBuilder) -> Result<Linear> {
    linear_b(d1, d2, true, vb)
}

/// A layer with the tensor `weight`.
///
/// # Errors
///
/// If the weight is missing or has another shape.
#[track_caller]
pub fn linear_no_bias(d1: usize, d2: usize, vb: VarBuilder) -> Result<Linear> {
    linear_b(d1, d2, false, vb)
}

/// A convolution of images.
#[derive(Clone, Debug)]
pub struct Conv2d(candle_nn::Conv2d);

/// A convolution with the tensors `weight` and `bias`.
///
/// # Errors
///
/// If a weight is missing or has another shape.
#[track_caller]
pub fn conv2d(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    cfg: candle_nn::Conv2dConfig,
    vs: VarBuilder,
) -> Result<Conv2d> {
    let conv = candle_nn::conv2d(in_channels, out_channels, kernel_size, cfg, vs)?;
    Ok(Conv2d(conv))
}

/// A product by the rows of a weight in blocks.
#[derive(Clone)]
pub struct QMatMul(quantized::QMatMul);

impl QMatMul {
    /// A product by the tensor `weight`, which takes `out_dim` elements and gives `in_dim`: the names
    /// are candle's.
    ///
    /// # Errors
    ///
    /// If the weight is missing or has another shape.
    #[track_caller]
    pub fn new(
        out_dim: usize,
        in_dim: usize,
        vb: quantized_var_builder::VarBuilder,
    ) -> Result<Self> {
        QMatMul::from_weights(vb.get((in_dim, out_dim), "weight")?)
    }

    /// A product by a weight.
    ///
    /// # Errors
    ///
    /// If the weight cannot be used.
    #[track_caller]
    pub fn from_weights(ws: Arc<QTensor>) -> Result<Self> {
        Ok(QMatMul(quantized::QMatMul::from_arc(ws)?))
    }
}

impl fmt::Debug for QMatMul {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A norm of the last axis.
#[derive(Clone, Debug)]
pub struct LayerNorm(candle_nn::LayerNorm);

impl LayerNorm {
    /// From a weight and a bias.
    pub fn new(weight: Tensor, bias: Tensor, eps: f64) -> Self {
        LayerNorm(candle_nn::LayerNorm::new(weight, bias, eps))
    }
}

/// A norm with the tensors that its configuration asks for.
///
/// # Errors
///
/// If a weight is missing or has another shape.
#[track_caller]
pub fn layer_norm<C: Into<candle_nn::LayerNormConfig>>(
    size: usize,
    c: C,
    vb: VarBuilder,
) -> Result<LayerNorm> {
    Ok(LayerNorm(candle_nn::layer_norm(size, c, vb)?))
}

/// A norm by the root of the mean square.
#[derive(Clone, Debug)]
pub struct RmsNorm(candle_nn::RmsNorm);

impl RmsNorm {
    /// A norm with the tensor `weight`.
    ///
    /// # Errors
    ///
    /// If the weight is missing or has another shape.
    #[track_caller]
    pub fn new(size: usize, eps: f64, vb: VarBuilder) -> Result<Self> {
        Ok(RmsNorm(candle_nn::rms_norm(size, eps, vb)?))
    }

    /// The same: there are no gradients.
    ///
    /// # Errors
    ///
    /// If the input does not fit the weight.
    #[track_caller]
    pub fn forward_diff(&self, x: &Tensor) -> Result<Tensor> {
        self.forward(x)
    }
}

macro_rules! as_inner {
    ($($layer:ty),*) => {$(
        impl Module for $layer {
            #[track_caller]
            fn forward(&self, xs: &Tensor) -> Result<Tensor> {
                self.0.forward(xs)
            }
        }
    )*};
}
as_inner!(Embedding, Linear, Conv2d, QMatMul, LayerNorm, RmsNorm);
