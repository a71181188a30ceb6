//! What is known of a GGUF file: its metadata and its tensors, by name.

use super::dtype::GgmlDType;
use super::qtensor::QTensor;
use crate::mirror::candle_nn::{VarBuilder, WeightSource};
use crate::mirror::device::Device;
use candle_core::{Result, Shape, bail};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

pub use candle_core::quantized::gguf_file::{Value, ValueType};

/// What a GGUF file says of a tensor. Where it lies there is not for model code.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// Its type.
    pub ggml_dtype: GgmlDType,
    /// Its shape, row-major.
    pub shape: Shape,
}

/// The content of the GGUF file that a model's weights are from, however many parts it has.
///
/// candle's fields, but for those that say how the file is laid out.
pub struct Content {
    /// What the file says of the model.
    pub metadata: Arc<HashMap<String, Value>>,
    /// All tensors whose type this version knows.
    pub tensor_infos: HashMap<String, TensorInfo>,
    source: Arc<dyn WeightSource>,
}

impl VarBuilder<'_> {
    /// The content of the GGUF file that the weights are from, whatever the path of this builder.
    ///
    /// # Errors
    ///
    /// If they are from no GGUF file.
    #[track_caller]
    pub fn gguf(&self) -> Result<Content> {
        let source = self.source().clone();
        let Some(metadata) = source.metadata() else {
            bail!("the weights are from no GGUF file");
        };
        let mut tensor_infos = HashMap::new();
        for name in source.names() {
            let Some(stored) = source.find(&name) else {
                continue;
            };
            if let Ok(ggml_dtype) = GgmlDType::of(stored.encoding) {
                let shape = Shape::from(stored.shape);
                tensor_infos.insert(name, TensorInfo { ggml_dtype, shape });
            }
        }
        Ok(Content {
            metadata,
            tensor_infos,
            source,
        })
    }

    /// The weight of a name as it is stored, whatever its shape.
    ///
    /// # Errors
    ///
    /// If there is no such weight. One that cannot be used is an error where it is used.
    #[track_caller]
    pub(in crate::mirror) fn quantized(&self, name: &str) -> Result<QTensor> {
        let full = self.full_name(name);
        match self.source().refusal(&full) {
            Some(why) if self.source().find(&full).is_none() => Ok(QTensor::refused(why)),
            _ => QTensor::weight(self.stored(&full)?),
        }
    }
}

impl Content {
    /// Not here: whoever compiles a model opens its files.
    ///
    /// # Errors
    ///
    /// Always; [`VarBuilder::gguf`] gives the content of the file that was opened.
    #[track_caller]
    pub fn read<R: std::io::Seek + std::io::Read>(_reader: &mut R) -> Result<Content> {
        bail!(
            "candle-trt opens files itself: give the .gguf file to Weights::open and take its content \
             from VarBuilder::gguf"
        )
    }

    /// The tensor of a name. The reader is not read, and any will do.
    ///
    /// # Errors
    ///
    /// If the file has no such tensor. One that cannot be used is an error where it is used: model code
    /// takes another tensor for a missing one.
    #[track_caller]
    pub fn tensor<R: std::io::Seek + std::io::Read>(
        &self,
        _reader: &mut R,
        name: &str,
        _device: &Device,
    ) -> Result<QTensor> {
        match self.source.find(name) {
            Some(stored) if self.tensor_infos.contains_key(name) => QTensor::weight(stored),
            _ => match self.source.refusal(name) {
                Some(why) => Ok(QTensor::refused(why)),
                None => bail!("cannot find tensor info for {name}"),
            },
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content")
            .field("metadata", &self.metadata.len())
            .field("tensor_infos", &self.tensor_infos)
            .finish_non_exhaustive()
    }
}
