//! Activation functions by name: candle's own enum, which configs deserialise to.

use super::ops;
use super::var_builder::VarBuilder;
use crate::mirror::tensor::{Module, Tensor};
use candle_core::{Result, bail};

pub use candle_nn::Activation;

impl Module for Activation {
    #[track_caller]
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        match self {
            Activation::Gelu => xs.gelu_erf(),
            Activation::NewGelu | Activation::GeluPytorchTanh => xs.gelu(),
            Activation::Relu => xs.relu(),
            Activation::Relu2 => xs.relu()?.sqr(),
            Activation::Relu6 => xs.clamp(0f32, 6f32),
            Activation::Silu | Activation::Swish => xs.silu(),
            Activation::Sigmoid => ops::sigmoid(xs),
            Activation::HardSigmoid => ops::hard_sigmoid(xs),
            Activation::Swiglu => ops::swiglu(xs),
            Activation::Elu(alpha) => xs.elu(*alpha),
            Activation::LeakyRelu(slope) => ops::leaky_relu(xs, *slope),
            Activation::HardSwish => xs * ops::hard_sigmoid(xs)?,
            other => candle_core::bail!("activation {other:?} is not supported by candle-trt"),
        }
    }
}

/// `x > 0 ? x : w x`, with one `w` or one for each channel.
#[derive(Clone, Debug)]
pub struct PReLU {
    weight: Tensor,
    is_scalar: bool,
}

impl PReLU {
    /// From a weight, which is one number or one for each channel.
    pub fn new(weight: Tensor, is_scalar: bool) -> Self {
        Self { weight, is_scalar }
    }

    /// The weight.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// Whether it is one number.
    pub fn is_scalar(&self) -> bool {
        self.is_scalar
    }
}

impl Module for PReLU {
    #[track_caller]
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let weight = match (self.is_scalar, xs.rank()) {
            (true, _) => self.weight.reshape(())?,
            (false, rank) if rank >= 2 && xs.shape() != self.weight.shape() => {
                let (channels, weights) = (xs.dim(1)?, self.weight.elem_count());
                if channels != weights {
                    bail!("prelu: {weights} numbers for {channels} channels of {xs:?}");
                }
                let mut shape = vec![1; rank];
                shape[1] = weights;
                self.weight.reshape(shape)?
            }
            (false, _) => self.weight.clone(),
        };
        xs.maximum(0f64)? + xs.minimum(0f64)?.broadcast_mul(&weight)?
    }
}

/// A layer with the tensor `weight` of one number, or of one for each channel.
///
/// # Errors
///
/// If the weight is missing or has another shape.
#[track_caller]
pub fn prelu(num_channels: Option<usize>, vb: VarBuilder) -> Result<PReLU> {
    let weight = vb.get(num_channels.unwrap_or(1), "weight")?;
    Ok(PReLU::new(weight, num_channels.is_none()))
}
