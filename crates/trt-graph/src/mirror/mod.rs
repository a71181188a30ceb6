//! candle's API over symbolic tensors.
//!
//! [`candle`] and [`candle_nn`] mirror the paths of `candle_core` and `candle_nn`: model code is
//! ported by changing its `use` lines. Shapes are concrete while a model is traced, so its own
//! control flow works; no element is computed and no weight byte is read.

mod assign;
mod bilinear;
mod binary;
mod build;
pub mod candle_nn;
pub mod candle_transformers;
mod conv;
mod convert;
mod custom;
mod device;
mod gather;
mod grids;
mod index;
pub(crate) mod known;
mod layout;
mod math;
mod module;
mod noise;
mod operators;
mod parts;
pub mod quantized;
pub(crate) mod recorder;
mod resize;
mod scan;
mod scatter;
pub mod size;
mod sort;
pub mod streaming;
mod tensor;
mod values;

pub use tensor::Tensor;

/// The mirror of `candle_core`: candle's own types where they fit, symbolic ones where they must.
pub mod candle {
    pub use super::device::{Device, Storage};
    pub use super::index::{IndexOp, TensorIndexer};
    pub use super::quantized;
    pub use super::streaming::{self, StreamTensor, StreamingBinOp, StreamingModule};
    pub use super::tensor::{Module, ModuleT, Tensor};
    pub use candle_core::{
        Context, CpuStorage, CustomOp1, CustomOp2, CustomOp3, D, DType, DeviceLocation, Error,
        FloatDType, IntDType, Layout, NdArray, Result, Shape, ToUsize2, WithDType, bail, conv,
        error, shape, utils,
    };
}
