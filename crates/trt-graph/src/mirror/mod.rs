//! candle's API over symbolic tensors.
//!
//! [`candle`] and [`candle_nn`] mirror the paths of `candle_core` and `candle_nn`: model code is
//! ported by changing its `use` lines. Shapes are concrete while a model is traced, so its own
//! control flow works; no element is computed and no weight byte is read.

mod binary;
mod build;
pub mod candle_nn;
mod conv;
mod index;
mod layout;
mod math;
mod operators;
mod parts;
pub(crate) mod recorder;
mod resize;
pub mod size;
mod tensor;
mod values;

pub use tensor::Tensor;

/// The mirror of `candle_core`: candle's own types where they fit, symbolic ones where they must.
pub mod candle {
    pub use super::index::{IndexOp, TensorIndexer};
    pub use super::tensor::{Module, ModuleT, Tensor};
    pub use candle_core::{
        Context, D, DType, Device, Error, FloatDType, IntDType, NdArray, Result, Shape, WithDType,
        bail, conv, shape,
    };
}
