//! What weights are stored as, under the names that each format has for it.

use candle_core::DType;
use clap::ValueEnum;

/// A storage dtype.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "clap would show the docs as help")]
pub enum Precision {
    Bf16,
    F16,
    F32,
}

impl Precision {
    /// Its name, as in safetensors' folder names and `torch_dtype`.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Bf16 => "bf16",
            Precision::F16 => "f16",
            Precision::F32 => "f32",
        }
    }

    /// The name that safetensors' headers use.
    pub fn safetensors_name(self) -> &'static str {
        match self {
            Precision::Bf16 => "BF16",
            Precision::F16 => "F16",
            Precision::F32 => "F32",
        }
    }

    /// The name `config.json` uses.
    pub fn torch_name(self) -> &'static str {
        match self {
            Precision::Bf16 => "bfloat16",
            Precision::F16 => "float16",
            Precision::F32 => "float32",
        }
    }

    /// As candle's.
    pub fn dtype(self) -> DType {
        match self {
            Precision::Bf16 => DType::BF16,
            Precision::F16 => DType::F16,
            Precision::F32 => DType::F32,
        }
    }
}
