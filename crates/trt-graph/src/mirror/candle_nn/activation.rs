//! Activation functions by name: candle's own enum, which configs deserialise to.

use super::ops;
use crate::mirror::tensor::{Module, Tensor};
use candle_core::Result;

pub use candle_nn::Activation;

impl Module for Activation {
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
