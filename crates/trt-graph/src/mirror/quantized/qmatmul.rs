//! Products by the rows of a weight in blocks.

use super::dtype::GgmlDType;
use super::qtensor::QTensor;
use crate::mirror::device::Device;
use crate::mirror::tensor::{Module, Tensor};
use candle_core::{D, DType, Result, bail};
use std::sync::Arc;

/// `x W^T` with a weight of shape `(out_dim, in_dim)`.
///
/// By blocks the result has the dtype of `x`, be it f32, f16 or bf16, and is summed in f32 over the values that
/// the blocks mean. `CANDLE_DEQUANTIZE_ALL` and `CANDLE_DEQUANTIZE_ALL_F16` have no effect.
#[derive(Clone, Debug)]
pub enum QMatMul {
    /// A weight in blocks.
    QTensor(Arc<QTensor>),
    /// A weight in floats, seen as f32: the dtype that `x` must have.
    Tensor(Tensor),
    /// A weight in f16: `x` is rounded to it, and the result converted back.
    TensorF16(Tensor),
}

impl QMatMul {
    /// A layer with this weight.
    ///
    /// # Errors
    ///
    /// If the tensor cannot be used.
    #[track_caller]
    pub fn from_arc(qtensor: Arc<QTensor>) -> Result<Self> {
        qtensor.usable()?;
        Ok(match qtensor.dtype() {
            GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16 => {
                QMatMul::Tensor(qtensor.dequantize(&Device::Cpu)?)
            }
            _ => QMatMul::QTensor(qtensor),
        })
    }

    /// A layer with this weight.
    ///
    /// # Errors
    ///
    /// If the tensor cannot be used.
    #[track_caller]
    pub fn from_qtensor(qtensor: QTensor) -> Result<Self> {
        QMatMul::from_arc(Arc::new(qtensor))
    }

    /// The weight in f16.
    ///
    /// # Errors
    ///
    /// None; the signature is candle's.
    #[track_caller]
    pub fn dequantize_f16(&self) -> Result<Tensor> {
        match self {
            QMatMul::QTensor(t) => t.dequantize_f16(&Device::Cpu),
            QMatMul::Tensor(t) => t.to_dtype(DType::F16),
            QMatMul::TensorF16(t) => Ok(t.clone()),
        }
    }

    /// The product of `xs` rounded to f16 and the weight in f16, converted back.
    ///
    /// # Errors
    ///
    /// If the input does not fit the weight.
    #[track_caller]
    pub fn forward_via_f16(&self, xs: &Tensor) -> Result<Tensor> {
        via_f16(xs, &self.dequantize_f16()?)
    }

    /// Products by experts that values pick.
    ///
    /// # Errors
    ///
    /// Always: experts that values pick are not in this version.
    #[track_caller]
    pub fn indexed_moe_forward(&self, x: &Tensor, ids: &Tensor) -> Result<Tensor> {
        match self {
            QMatMul::QTensor(t) => t.indexed_moe_forward(x, ids),
            QMatMul::Tensor(t) | QMatMul::TensorF16(t) => {
                bail!(
                    "experts of {t:?} are picked by values, which is not in this version of candle-trt"
                )
            }
        }
    }

    /// The rows of the weight that are picked by ids of any shape.
    ///
    /// # Errors
    ///
    /// If the weight is no matrix, or the ids are floats.
    #[track_caller]
    pub fn embedding(&self, ids: &Tensor) -> Result<Tensor> {
        match self {
            QMatMul::QTensor(t) => t.embedding(ids),
            QMatMul::Tensor(w) | QMatMul::TensorF16(w) => {
                let mut dims = ids.dims().to_vec();
                dims.push(w.dim(D::Minus1)?);
                w.index_select(&ids.flatten_all()?, 0)?.reshape(dims)
            }
        }
    }
}

impl Module for QMatMul {
    #[track_caller]
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        match self {
            QMatMul::QTensor(t) => by_rows(xs, &t.values(xs.dtype())?),
            QMatMul::Tensor(w) => by_rows(xs, w),
            QMatMul::TensorF16(w) => via_f16(xs, w),
        }
    }
}

#[track_caller]
fn via_f16(xs: &Tensor, w: &Tensor) -> Result<Tensor> {
    by_rows(&xs.to_dtype(DType::F16)?, w)?.to_dtype(xs.dtype())
}

#[track_caller]
fn by_rows(xs: &Tensor, w: &Tensor) -> Result<Tensor> {
    let (n, k) = w.dims2()?;
    match xs.dims() {
        [.., _, last] if *last == k => xs.product(&w.t()?),
        _ => bail!("qmatmul: input {xs:?} for a weight of shape ({n}, {k})"),
    }
}
