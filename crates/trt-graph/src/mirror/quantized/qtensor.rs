//! A weight as its file holds it.

use super::dtype::GgmlDType;
use crate::mirror::candle_nn::Stored;
use crate::mirror::device::Device;
use crate::mirror::tensor::Tensor;
use candle_core::{DType, Result, Shape, bail};
use std::fmt;

/// A weight in blocks or in floats: a name, never bytes.
///
/// One that cannot be used, say because no kernel has its type, is an error at its first use and not when
/// it is got: model code takes another tensor for a missing one.
pub struct QTensor {
    shape: Shape,
    what: What,
}

enum What {
    /// The weight as it lies, its type and where it comes from.
    Weight(Tensor, GgmlDType, Stored),
    /// Why it cannot be used.
    Refused(String),
}

impl QTensor {
    /// The weight that is stored so.
    #[track_caller]
    pub(super) fn weight(stored: Stored) -> Result<QTensor> {
        let dtype = GgmlDType::of(stored.encoding)?;
        let shape = Shape::from(stored.shape.clone());
        let what = What::Weight(stored.weight()?, dtype, stored);
        Ok(QTensor { shape, what })
    }

    /// A tensor that is there and cannot be used. It has no axes.
    pub(super) fn refused(why: String) -> QTensor {
        QTensor {
            shape: ().into(),
            what: What::Refused(why),
        }
    }

    /// Whether it can be used.
    #[track_caller]
    pub(crate) fn usable(&self) -> Result<()> {
        self.known().map(drop)
    }

    #[track_caller]
    fn known(&self) -> Result<(&Tensor, GgmlDType, &Stored)> {
        match &self.what {
            What::Weight(weight, dtype, stored) => Ok((weight, *dtype, stored)),
            What::Refused(why) => bail!("{why}"),
        }
    }

    /// The values in a float dtype. Nothing is converted where a product or a gather reads them.
    #[track_caller]
    pub(super) fn values(&self, dtype: DType) -> Result<Tensor> {
        let (weight, _, stored) = self.known()?;
        stored.values(weight, dtype)
    }

    /// Blocks of a model that runs without being compiled cannot be made here.
    ///
    /// # Errors
    ///
    /// Always: weights are quantised before a model is traced.
    #[track_caller]
    pub fn quantize(src: &Tensor, dtype: GgmlDType) -> Result<QTensor> {
        bail!("{src:?} cannot be quantised to {dtype:?} while a model is traced")
    }

    /// The type; of a tensor that cannot be used, f32.
    pub fn dtype(&self) -> GgmlDType {
        self.known().map_or(GgmlDType::F32, |known| known.1)
    }

    /// The only device: where a program runs is decided when it is compiled.
    pub fn device(&self) -> Device {
        Device::Cpu
    }

    /// The number of axes.
    #[track_caller]
    pub fn rank(&self) -> usize {
        self.shape.rank()
    }

    /// The shape, row-major.
    #[track_caller]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The values in f32.
    ///
    /// # Errors
    ///
    /// If the tensor cannot be used.
    #[track_caller]
    pub fn dequantize(&self, _device: &Device) -> Result<Tensor> {
        self.values(DType::F32)
    }

    /// The values in f16.
    ///
    /// # Errors
    ///
    /// If the tensor cannot be used.
    #[track_caller]
    pub fn dequantize_f16(&self, _device: &Device) -> Result<Tensor> {
        self.values(DType::F16)
    }

    /// The values, in f32, of rows that are picked by ids of any shape.
    ///
    /// # Errors
    ///
    /// If the tensor is no matrix or cannot be used, or the ids are floats.
    #[track_caller]
    pub fn embedding(&self, ids: &Tensor) -> Result<Tensor> {
        let (_, hidden) = self.shape.dims2()?;
        let mut dims = ids.dims().to_vec();
        dims.push(hidden);
        self.values(DType::F32)?
            .index_select(&ids.flatten_all()?, 0)?
            .reshape(dims)
    }

    /// Bytes in the file; of a tensor that cannot be used, none.
    pub fn storage_size_in_bytes(&self) -> usize {
        let (values, Ok((_, dtype, _))) = (self.shape.elem_count(), self.known()) else {
            return 0;
        };
        values / dtype.block_size() * dtype.type_size()
    }

    /// The bytes of a weight are not known while a model is traced.
    ///
    /// # Errors
    ///
    /// Always.
    #[track_caller]
    pub fn data(&self) -> Result<std::borrow::Cow<'_, [u8]>> {
        bail!("the bytes of {self:?} are not known while a model is traced")
    }

    /// Products by experts that values pick.
    ///
    /// # Errors
    ///
    /// Always: experts that values pick are not in this version.
    #[track_caller]
    pub fn indexed_moe_forward(&self, _x: &Tensor, _ids: &Tensor) -> Result<Tensor> {
        self.usable()?;
        bail!(
            "experts of {self:?} are picked by values, which is not in this version of candle-trt"
        )
    }
}

impl fmt::Debug for QTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Weight(_, dtype, _) => write!(f, "QTensor[{:?}; {dtype:?}]", self.shape),
            What::Refused(why) => write!(f, "QTensor[{why}]"),
        }
    }
}
