//! The mirror of `candle_core::quantized`: weights in blocks, by name.
//!
//! A [`QTensor`] is a weight as its file holds it, and no block of it is decoded while a model is traced.
//! What is computed with it is exact: [`QMatMul`] multiplies by the values that the blocks mean, in f32, which
//! is what candle computes under `CANDLE_DEQUANTIZE_ALL=1`. candle's default on a CPU rounds activations to
//! eight bits first.
//!
//! Files are opened by whoever compiles a model. Model code gets [`gguf_file::Content`] from
//! [`VarBuilder::gguf`](super::candle_nn::VarBuilder::gguf); the reader that candle's signatures have is not
//! read.

mod dtype;
pub mod ggml_file;
pub mod gguf_file;
mod qmatmul;
mod qtensor;

pub use dtype::GgmlDType;
pub use qmatmul::QMatMul;
pub use qtensor::QTensor;
