//! GGML files, which came before GGUF: their types, so that model files compile, and no reading.

use super::qtensor::QTensor;
use crate::mirror::device::Device;
use candle_core::{Result, bail};

pub use candle_core::quantized::ggml_file::HParams;

/// The content of a GGML file. There is none: these files are not read.
#[derive(Debug)]
pub struct Content {
    /// The sizes of the model.
    pub hparams: HParams,
    /// Where tensors would lie.
    pub device: Device,
}

impl Content {
    /// Not in this version.
    ///
    /// # Errors
    ///
    /// Always: GGML files are not read.
    #[track_caller]
    pub fn read<R: std::io::Seek + std::io::Read>(
        _reader: &mut R,
        _device: &Device,
    ) -> Result<Content> {
        bail!("GGML files are not read by candle-trt: convert the model to GGUF")
    }

    /// Not in this version.
    ///
    /// # Errors
    ///
    /// Always: GGML files are not read.
    #[track_caller]
    pub fn remove(&mut self, name: &str) -> Result<QTensor> {
        bail!("'{name}' is in a GGML file, which candle-trt does not read: convert it to GGUF")
    }
}
