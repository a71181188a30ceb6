//! Layers: candle's traits over symbolic tensors.

use super::tensor::Tensor;
use candle_core::Result;

/// A layer: candle's trait over symbolic tensors.
pub trait Module {
    /// The layer's result.
    ///
    /// # Errors
    ///
    /// If the input does not fit the layer.
    fn forward(&self, xs: &Tensor) -> Result<Tensor>;
}

/// A layer that behaves differently in training; candle-trt runs with `train` false.
pub trait ModuleT {
    /// The layer's result.
    ///
    /// # Errors
    ///
    /// If the input does not fit the layer, or `train` is set where only inference is there.
    fn forward_t(&self, xs: &Tensor, train: bool) -> Result<Tensor>;
}

impl<F: Fn(&Tensor) -> Result<Tensor>> Module for F {
    #[track_caller]
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        self(xs)
    }
}

impl<M: Module> Module for Option<&M> {
    #[track_caller]
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        match self {
            None => Ok(xs.clone()),
            Some(m) => m.forward(xs),
        }
    }
}

impl<M: Module> ModuleT for M {
    #[track_caller]
    fn forward_t(&self, xs: &Tensor, _train: bool) -> Result<Tensor> {
        self.forward(xs)
    }
}
