//! Layers one after the other.

use super::func::func;
use crate::line;
use crate::mirror::tensor::{Module, Tensor};
use candle_core::Result;

/// Layers of which each gets what the one before returns.
pub struct Sequential {
    layers: Vec<Box<dyn Module>>,
}

/// No layers yet.
pub fn seq() -> Sequential {
    Sequential { layers: vec![] }
}

impl Sequential {
    /// The number of layers.
    pub fn len(&self) -> i64 {
        self.layers.len() as i64
    }

    /// Whether there is no layer.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// With a layer more.
    #[expect(clippy::should_implement_trait, reason = "candle's name")]
    pub fn add<M: Module + 'static>(mut self, layer: M) -> Self {
        self.layers.push(Box::new(layer));
        self
    }

    /// With a closure more.
    #[track_caller]
    pub fn add_fn<F>(self, f: F) -> Self
    where
        F: 'static + Fn(&Tensor) -> Result<Tensor> + Send + Sync,
    {
        self.add(func(f))
    }

    /// The result of each layer.
    ///
    /// # Errors
    ///
    /// What a layer returns.
    #[track_caller]
    pub fn forward_all(&self, xs: &Tensor) -> Result<Vec<Tensor>> {
        let mut all: Vec<Tensor> = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            all.push(layer.forward(all.last().unwrap_or(xs))?);
        }
        Ok(all)
    }
}

impl Module for Sequential {
    #[track_caller]
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        line::here();
        let mut layers = self.layers.iter();
        layers.try_fold(xs.clone(), |x, layer| layer.forward(&x))
    }
}
