//! A path into weights that are given as they are stored.

use crate::mirror::candle_nn;
use crate::mirror::device::Device;
use crate::mirror::quantized::QTensor;
use candle_core::{Result, Shape, bail};
use std::path::Path;
use std::sync::Arc;

/// A path into the weights: [`candle_nn::VarBuilder`], for tensors in blocks.
#[derive(Clone, Debug)]
pub struct VarBuilder(candle_nn::VarBuilder<'static>);

impl From<candle_nn::VarBuilder<'_>> for VarBuilder {
    fn from(vb: candle_nn::VarBuilder<'_>) -> Self {
        VarBuilder(vb.owned())
    }
}

impl VarBuilder {
    /// Not here: whoever compiles a model opens its files.
    ///
    /// # Errors
    ///
    /// Always; a builder is made from the one that loading a model is given.
    #[track_caller]
    pub fn from_gguf<P: AsRef<Path>>(p: P, _device: &Device) -> Result<Self> {
        bail!(
            "candle-trt opens files itself: give {} to Weights::open, and make this builder from the one \
             that the model is loaded with",
            p.as_ref().display()
        )
    }

    /// One level deeper.
    pub fn pp<S: ToString>(&self, s: S) -> Self {
        VarBuilder(self.0.pp(s))
    }

    /// The tensor of a name, which must have this shape.
    ///
    /// # Errors
    ///
    /// If there is no such tensor, it cannot be used, or it has another shape.
    #[track_caller]
    pub fn get<S: Into<Shape>>(&self, s: S, name: &str) -> Result<Arc<QTensor>> {
        let (shape, tensor) = (s.into(), self.get_no_shape(name)?);
        if tensor.shape() != &shape {
            bail!(
                "weight '{}' has shape {:?} in the file, the model expects {shape:?}",
                self.0.full_name(name),
                tensor.shape()
            );
        }
        Ok(tensor)
    }

    /// The tensor of a name, whatever its shape.
    ///
    /// # Errors
    ///
    /// If there is no such tensor, or it cannot be used.
    #[track_caller]
    pub fn get_no_shape(&self, name: &str) -> Result<Arc<QTensor>> {
        let tensor = self.0.quantized(name)?;
        tensor.usable()?;
        Ok(Arc::new(tensor))
    }

    /// The only device: where a program runs is decided when it is compiled.
    pub fn device(&self) -> &Device {
        self.0.device()
    }

    /// Whether the file has a tensor of this name, which is whole: as in candle, the path does not
    /// count.
    pub fn contains_key(&self, key: &str) -> bool {
        self.0.root().contains_tensor(key)
    }
}
