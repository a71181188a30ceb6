//! Random tensors: a compiled model has none, so each of these is an error that says what to do.
//!
//! A program computes the same from the same inputs, at every budget and on every device. So noise is an input:
//! the caller makes it, with a seed of its own, and model code adds it. Zeros in its place would be a wrong answer.

use super::device::Device;
use super::tensor::Tensor;
use crate::line;
use candle_core::{FloatDType, Result, Shape, bail};

#[track_caller]
fn refused(method: &str, shape: &Shape) -> Result<Tensor> {
    line::here();
    bail!(
        "{method} of shape {shape:?}: a compiled model makes no noise; make it outside and give it to the model as \
         an input of the call (call.input)"
    )
}

impl Tensor {
    /// A compiled model makes no noise.
    ///
    /// # Errors
    ///
    /// Always: noise is an input of the call.
    #[track_caller]
    pub fn rand<S: Into<Shape>, T: FloatDType>(_lo: T, _up: T, s: S, _: &Device) -> Result<Tensor> {
        refused("rand", &s.into())
    }

    /// A compiled model makes no noise.
    ///
    /// # Errors
    ///
    /// Always: noise is an input of the call.
    #[track_caller]
    pub fn randn<S: Into<Shape>, T: FloatDType>(
        _mean: T,
        _std: T,
        s: S,
        _device: &Device,
    ) -> Result<Tensor> {
        refused("randn", &s.into())
    }

    /// A compiled model makes no noise.
    ///
    /// # Errors
    ///
    /// Always: noise is an input of the call.
    #[track_caller]
    pub fn rand_like(&self, _lo: f64, _up: f64) -> Result<Tensor> {
        refused("rand_like", self.shape())
    }

    /// A compiled model makes no noise.
    ///
    /// # Errors
    ///
    /// Always: noise is an input of the call.
    #[track_caller]
    pub fn randn_like(&self, _mean: f64, _stdev: f64) -> Result<Tensor> {
        refused("randn_like", self.shape())
    }
}
