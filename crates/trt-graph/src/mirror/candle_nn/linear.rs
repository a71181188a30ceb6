//! Linear layers.

use super::var_builder::VarBuilder;
use crate::mirror::tensor::{Module, Tensor};
use candle_core::Result;

/// `x W^T + b`, with `W` of shape `(out_dim, in_dim)`.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// From a weight and an optional bias of shape `(out_dim,)`.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
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

impl Module for Linear {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (out, inner) = self.weight.dims2()?;
        match x.dims().last() {
            Some(last) if *last == inner && x.rank() >= 2 => {}
            _ => candle_core::bail!(
                "linear: input {:?} for a weight of shape ({out}, {inner})",
                x.shape()
            ),
        }
        let y = x.product(&self.weight.t()?)?;
        match &self.bias {
            None => Ok(y),
            Some(bias) => y.broadcast_add(bias),
        }
    }
}

/// A layer with the tensors `weight` and `bias`.
///
/// # Errors
///
/// If a weight is missing or has another shape.
#[track_caller]
pub fn linear(in_dim: usize, out_dim: usize, vb: VarBuilder) -> Result<Linear> {
    let weight = vb.get((out_dim, in_dim), "weight")?;
    Ok(Linear::new(weight, Some(vb.get(out_dim, "bias")?)))
}

/// A layer with the tensor `weight`.
///
/// # Errors
///
/// If a weight is missing or has another shape.
#[track_caller]
pub fn linear_no_bias(in_dim: usize, out_dim: usize, vb: VarBuilder) -> Result<Linear> {
    Ok(Linear::new(vb.get((out_dim, in_dim), "weight")?, None))
}

/// A layer with or without bias.
///
/// # Errors
///
/// If a weight is missing or has another shape.
#[track_caller]
pub fn linear_b(in_dim: usize, out_dim: usize, bias: bool, vb: VarBuilder) -> Result<Linear> {
    match bias {
        true => linear(in_dim, out_dim, vb),
        false => linear_no_bias(in_dim, out_dim, vb),
    }
}
