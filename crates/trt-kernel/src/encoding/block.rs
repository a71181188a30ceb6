//! Blocks of values as GGUF files write them: how many values in how many bytes.
//!
//! What the bytes of a block mean is `decode.rs`; everything else follows that definition.

use serde::{Deserialize, Serialize};

/// A kind of block: so many values of a row in so many bytes.
///
/// A value is a small number times a scale, plus a minimum where there is one. Types whose name ends
/// in `K` hold 256 values in sub-blocks of 16 or 32, each with a scale of its own in units of the block's. The
/// names are candle's (`GgmlDType`) where it has the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum BlockType {
    /// 32 values of 4 bits about 8; a scale of f16.
    Q4_0,
    /// 32 values of 4 bits; scale and minimum of f16.
    Q4_1,
    /// 32 values of 5 bits about 16; a scale of f16.
    Q5_0,
    /// 32 values of 5 bits; scale and minimum of f16.
    Q5_1,
    /// 32 values of i8; a scale of f16.
    Q8_0,
    /// 256 values of 2 bits; scales and minima of 4 bits for each 16.
    Q2K,
    /// 256 values of 3 bits about 4; scales of 6 bits for each 16.
    Q3K,
    /// 256 values of 4 bits; scales and minima of 6 bits for each 32.
    Q4K,
    /// 256 values of 5 bits; scales and minima of 6 bits for each 32.
    Q5K,
    /// 256 values of 6 bits about 32; scales of i8 for each 16.
    Q6K,
    /// 32 values of a table of 16; a scale of f16.
    Iq4Nl,
    /// 256 values of the same table; scales of 6 bits for each 32.
    Iq4Xs,
    /// 32 numbers of 4 bits with exponents of their own (E2M1); a scale that is a power of two (E8M0).
    Mxfp4,
}

impl BlockType {
    /// Every type, for tests and tables.
    pub const ALL: [BlockType; 13] = [
        BlockType::Q4_0,
        BlockType::Q4_1,
        BlockType::Q5_0,
        BlockType::Q5_1,
        BlockType::Q8_0,
        BlockType::Q2K,
        BlockType::Q3K,
        BlockType::Q4K,
        BlockType::Q5K,
        BlockType::Q6K,
        BlockType::Iq4Nl,
        BlockType::Iq4Xs,
        BlockType::Mxfp4,
    ];

    /// Values of a block.
    pub const fn values(self) -> usize {
        match self {
            BlockType::Q4_0
            | BlockType::Q4_1
            | BlockType::Q5_0
            | BlockType::Q5_1
            | BlockType::Q8_0
            | BlockType::Iq4Nl
            | BlockType::Mxfp4 => 32,
            BlockType::Q2K
            | BlockType::Q3K
            | BlockType::Q4K
            | BlockType::Q5K
            | BlockType::Q6K
            | BlockType::Iq4Xs => 256,
        }
    }

    /// Bytes of a block.
    pub const fn bytes(self) -> usize {
        match self {
            BlockType::Q4_0 | BlockType::Iq4Nl => 18,
            BlockType::Q4_1 => 20,
            BlockType::Q5_0 => 22,
            BlockType::Q5_1 => 24,
            BlockType::Q8_0 => 34,
            BlockType::Q2K => 84,
            BlockType::Q3K => 110,
            BlockType::Q4K => 144,
            BlockType::Q5K => 176,
            BlockType::Q6K => 210,
            BlockType::Iq4Xs => 136,
            BlockType::Mxfp4 => 17,
        }
    }

    /// What every address of a number of two bytes is a multiple of, if that of the first block is:
    /// 2, or 1 where blocks have an odd number of bytes.
    pub const fn alignment(self) -> usize {
        match self {
            BlockType::Mxfp4 => 1,
            _ => 2,
        }
    }

    /// The name that printed graphs and kernels use, e.g. `q4_k`: that of GGUF files in small
    /// letters.
    pub const fn name(self) -> &'static str {
        match self {
            BlockType::Q4_0 => "q4_0",
            BlockType::Q4_1 => "q4_1",
            BlockType::Q5_0 => "q5_0",
            BlockType::Q5_1 => "q5_1",
            BlockType::Q8_0 => "q8_0",
            BlockType::Q2K => "q2_k",
            BlockType::Q3K => "q3_k",
            BlockType::Q4K => "q4_k",
            BlockType::Q5K => "q5_k",
            BlockType::Q6K => "q6_k",
            BlockType::Iq4Nl => "iq4_nl",
            BlockType::Iq4Xs => "iq4_xs",
            BlockType::Mxfp4 => "mxfp4",
        }
    }
}
