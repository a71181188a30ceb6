//! Layers whose weights may be in blocks.

use super::models::with_tracing::QMatMul;
use super::quantized_var_builder::VarBuilder;
use crate::mirror::candle_nn;
use crate::mirror::quantized::QTensor;
use crate::mirror::tensor::{Module, Tensor};
use candle_core::{Result, Shape};
use std::sync::Arc;

/// The values of a tensor, in f32.
#[track_caller]
fn values<S: Into<Shape>>(vb: &VarBuilder, shape: S, name: &str) -> Result<Tensor> {
    vb.get(shape, name)?.dequantize(vb.device())
}

/// Rows of a table, in f32, picked by ids.
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
        let table = values(&vb, (d1, d2), "weight")?;
        Ok(Embedding(candle_nn::Embedding::new(table, d2)))
    }

    /// The table.
    pub fn embeddings(&self) -> &Tensor {
        self.0.embeddings()
    }
}

impl Module for Embedding {
    #[track_caller]
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        self.0.forward(xs)
    }
}

/// `x W^T + b`, with `W` of shape `(out_dim, in_dim)` in blocks and `b` in f32.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: QMatMul,
    bias: Option<Tensor>,
}

impl Linear {
    /// From a weight and an optional bias.
    ///
    /// # Errors
    ///
    /// If the weight cannot be used.
    #[track_caller]
    pub fn from_arc(weight: Arc<QTensor>, bias: Option<Tensor>) -> Result<Self> {
        let weight = QMatMul::from_weights(weight)?;
        Ok(Linear { weight, bias })
    }

    /// From a product and an optional bias.
    pub fn from_weights(weight: QMatMul, bias: Option<Tensor>) -> Self {
        Linear { weight, bias }
    }
}

impl Module for Linear {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.weight.forward(x)?;
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}

/// A layer with or without the tensor `bias`.
///
/// # Errors
///
/// If a weight is missing or has another shape.
#[track_caller]
pub fn linear_b(in_dim: usize, out_dim: usize, bias: bool, vb: VarBuilder) -> Result<Linear> {
    let bias = match bias {
        true => Some(values(&vb, out_dim, "bias")?),
        false => None,
    };
    let weight = QMatMul::new(in_dim, out_dim, vb)?;
    Ok(Linear { weight, bias })
}

/// A layer with the tensors `weight` and `bias`.
///
/// # Errors
///
/// If a weight is missing or has another shape.
#[track_caller]
pub fn linear(in_dim: usize, out_dim: usize, vb: VarBuilder) -> Result<Linear> {
    linear_b(in_dim, out_dim, true, vb)
}

/// A layer with the tensor `weight`.
///
/// # Errors
///
/// If the weight is missing or has another shape.
#[track_caller]
pub fn linear_no_bias(in_dim: usize, out_dim: usize, vb: VarBuilder) -> Result<Linear> {
    linear_b(in_dim, out_dim, false, vb)
}

/// A layer norm with the tensors `weight` and `bias`.
///
/// # Errors
///
/// If a weight is missing or has another shape.
#[track_caller]
pub fn layer_norm(size: usize, eps: f64, vb: VarBuilder) -> Result<candle_nn::LayerNorm> {
    let (weight, bias) = (values(&vb, size, "weight")?, values(&vb, size, "bias")?);
    Ok(candle_nn::LayerNorm::new(weight, bias, eps))
}

/// A layer norm with the tensor `weight`.
///
/// # Errors
///
/// If the weight is missing or has another shape.
#[track_caller]
pub fn layer_norm_no_bias(size: usize, eps: f64, vb: VarBuilder) -> Result<candle_nn::LayerNorm> {
    let weight = values(&vb, size, "weight")?;
    Ok(candle_nn::LayerNorm::new_no_bias(weight, eps))
}

/// A norm by the root of the mean square.
#[derive(Clone, Debug)]
pub struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    /// A norm with the tensor `weight`.
    ///
    /// # Errors
    ///
    /// If the weight is missing or has another shape.
    #[track_caller]
    pub fn new(size: usize, eps: f64, vb: VarBuilder) -> Result<Self> {
        let weight = values(&vb, size, "weight")?;
        Ok(RmsNorm { weight, eps })
    }

    /// From a weight.
    ///
    /// # Errors
    ///
    /// If the weight cannot be used.
    #[track_caller]
    pub fn from_qtensor(weight: QTensor, eps: f64) -> Result<Self> {
        let weight = weight.dequantize(&weight.device())?;
        Ok(RmsNorm { weight, eps })
    }
}

impl Module for RmsNorm {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        candle_nn::ops::rms_norm(x, &self.weight, self.eps as f32)
    }
}
