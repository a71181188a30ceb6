//! candle's API over symbolic tensors.
//!
//! [`candle`] and [`candle_nn`] mirror the paths of `candle_core` and `candle_nn`: model code is
//! ported by changing its `use` lines. Shapes are concrete while a model is traced, so its own
//! control flow works; no element is computed and no weight byte is read.

mod binary;
mod build;
pub mod candle_nn;
pub mod candle_transformers;
mod conv;
mod device;
mod index;
mod layout;
mod math;
mod operators;
mod parts;
pub mod quantized;
pub(crate) mod recorder;
mod resize;
pub mod size;
mod tensor;
pub(crate) mod values;

pub use tensor::Tensor;

/// The mirror of `candle_core`: candle's own types where they fit, symbolic ones where they must.
pub mod candle {
    pub use super::device::{Device, Storage};
    pub use super::index::{IndexOp, TensorIndexer};
    pub use super::quantized;
    pub use super::tensor::{Module, ModuleT, Tensor};
    pub use candle_core::{
        Context, D, DType, DeviceLocation, Error, FloatDType, IntDType, Layout, NdArray, Result,
        Shape, WithDType, bail, conv, shape,
    };
}
