//! Layers that do nothing outside of training.

use crate::mirror::tensor::{Module, ModuleT, Tensor};
use candle_core::{Result, bail};

/// Elements are dropped in training only.
#[derive(Clone, Debug)]
pub struct Dropout {
    drop_p: f32,
}

/// Elements dropped with a probability: for training.
///
/// # Errors
///
/// Always: candle-trt does not train.
#[track_caller]
pub fn dropout(xs: &Tensor, drop_p: f32) -> Result<Tensor> {
    bail!(
        "dropout of {xs:?} with a probability of {drop_p}: candle-trt does not train; give train = false"
    )
}

impl Dropout {
    /// A layer that drops with a probability.
    pub fn new(drop_p: f32) -> Dropout {
        Self { drop_p }
    }

    /// The input.
    ///
    /// # Errors
    ///
    /// In training: candle-trt does not train.
    #[track_caller]
    pub fn forward(&self, xs: &Tensor, train: bool) -> Result<Tensor> {
        match train {
            true => dropout(xs, self.drop_p),
            false => Ok(xs.clone()),
        }
    }
}

impl ModuleT for Dropout {
    #[track_caller]
    fn forward_t(&self, xs: &Tensor, train: bool) -> Result<Tensor> {
        self.forward(xs, train)
    }
}

/// The input as it is.
#[derive(Clone, Debug, Default)]
pub struct Identity;

impl Identity {
    /// The layer.
    pub fn new() -> Identity {
        Self
    }
}

impl Module for Identity {
    #[track_caller]
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        Ok(xs.clone())
    }
}
