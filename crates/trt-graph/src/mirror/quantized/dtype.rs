//! The types of tensors in GGUF files, by candle's names.

use candle_core::{Result, bail};
use trt_kernel::{BlockType, DType, Encoding};

/// How a tensor of a GGUF file is written down: candle's types, and three that candle has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the formats' own names")]
pub enum GgmlDType {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    /// No weight has it, and none of this type is read.
    Q8_1,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    /// No weight has it, and none of this type is read.
    Q8K,
    Iq4Nl,
    Iq4Xs,
    Mxfp4,
}

impl GgmlDType {
    /// The type of a weight that is stored so.
    #[track_caller]
    pub(super) fn of(encoding: Encoding) -> Result<GgmlDType> {
        Ok(match encoding {
            Encoding::Plain(DType::F32) => GgmlDType::F32,
            Encoding::Plain(DType::F16) => GgmlDType::F16,
            Encoding::Plain(DType::BF16) => GgmlDType::BF16,
            Encoding::Plain(_) | Encoding::Packed(_) | Encoding::Code => {
                bail!("a tensor of {encoding} is none of a quantised model")
            }
            Encoding::Blocks(block) => match block {
                BlockType::Q4_0 => GgmlDType::Q4_0,
                BlockType::Q4_1 => GgmlDType::Q4_1,
                BlockType::Q5_0 => GgmlDType::Q5_0,
                BlockType::Q5_1 => GgmlDType::Q5_1,
                BlockType::Q8_0 => GgmlDType::Q8_0,
                BlockType::Q2K => GgmlDType::Q2K,
                BlockType::Q3K => GgmlDType::Q3K,
                BlockType::Q4K => GgmlDType::Q4K,
                BlockType::Q5K => GgmlDType::Q5K,
                BlockType::Q6K => GgmlDType::Q6K,
                BlockType::Iq4Nl => GgmlDType::Iq4Nl,
                BlockType::Iq4Xs => GgmlDType::Iq4Xs,
                BlockType::Mxfp4 => GgmlDType::Mxfp4,
            },
        })
    }

    /// Bytes of a block, or of an element where there are no blocks.
    pub fn type_size(&self) -> usize {
        match self {
            GgmlDType::F32 => 4,
            GgmlDType::F16 | GgmlDType::BF16 => 2,
            GgmlDType::Q8_1 => 36,
            GgmlDType::Q8K => 292,
            blocks => blocks.block().map_or(0, BlockType::bytes),
        }
    }

    /// Values of a block: 1 where there are none.
    pub fn block_size(&self) -> usize {
        match self {
            GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16 => 1,
            GgmlDType::Q8_1 => 32,
            GgmlDType::Q8K => 256,
            blocks => blocks.block().map_or(0, BlockType::values),
        }
    }

    fn block(self) -> Option<BlockType> {
        Some(match self {
            GgmlDType::Q4_0 => BlockType::Q4_0,
            GgmlDType::Q4_1 => BlockType::Q4_1,
            GgmlDType::Q5_0 => BlockType::Q5_0,
            GgmlDType::Q5_1 => BlockType::Q5_1,
            GgmlDType::Q8_0 => BlockType::Q8_0,
            GgmlDType::Q2K => BlockType::Q2K,
            GgmlDType::Q3K => BlockType::Q3K,
            GgmlDType::Q4K => BlockType::Q4K,
            GgmlDType::Q5K => BlockType::Q5K,
            GgmlDType::Q6K => BlockType::Q6K,
            GgmlDType::Iq4Nl => BlockType::Iq4Nl,
            GgmlDType::Iq4Xs => BlockType::Iq4Xs,
            GgmlDType::Mxfp4 => BlockType::Mxfp4,
            GgmlDType::F32
            | GgmlDType::F16
            | GgmlDType::BF16
            | GgmlDType::Q8_1
            | GgmlDType::Q8K => return None,
        })
    }
}
