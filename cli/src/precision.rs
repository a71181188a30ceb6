//! What weights are stored as, under the names that each format has for it.

use std::str::FromStr;

use candle_core::DType;
use candle_trt::kernel::BlockType;

/// A storage dtype.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Precision {
    Bf16,
    F16,
    F32,
}

/// What weights are to be stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// As the files hold them.
    Stored,
    /// Written out in a dtype.
    Plain(Precision),
    /// Matrices in blocks of a type, the rest as it is.
    Blocks(BlockType),
}

impl Storage {
    /// The dtype that they are to be written out in, if they are.
    pub fn precision(self) -> Option<Precision> {
        match self {
            Storage::Plain(precision) => Some(precision),
            Storage::Stored | Storage::Blocks(_) => None,
        }
    }
}

impl FromStr for Storage {
    type Err = String;

    fn from_str(name: &str) -> Result<Storage, String> {
        let plain = [Precision::Bf16, Precision::F16, Precision::F32];
        let blocks = || BlockType::ALL.into_iter().filter(|b| b.encodes());
        if name == "stored" {
            Ok(Storage::Stored)
        } else if let Some(precision) = plain.into_iter().find(|p| p.name() == name) {
            Ok(Storage::Plain(precision))
        } else if let Some(block) = blocks().find(|b| b.name() == name) {
            Ok(Storage::Blocks(block))
        } else {
            let names: Vec<&str> = blocks().map(BlockType::name).collect();
            Err(format!(
                "not one of stored, bf16, f16, f32, {}",
                names.join(", ")
            ))
        }
    }
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
