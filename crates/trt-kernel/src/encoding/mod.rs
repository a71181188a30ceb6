//! How values are written down in memory: what lies at the pointer of an argument.
//!
//! A weight's meaning is its values; an encoding says how many bytes they take and where a row
//! starts. [`Encoding::Plain`] is an element after another, which every kernel reads and writes.
//! Any other is read only where a kernel says so: as the right operand of a product and as the
//! table of a gather. The invariant: rows are encoded independently of each other, so any run of
//! rows is encoded as it lies in the whole, and whoever places, moves or bounds an argument asks
//! here for bytes instead of multiplying by an element's size.

mod block;
mod decode;
mod encode;

pub use block::BlockType;
pub(crate) use decode::{IQ4_VALUES, MXFP4_DOUBLED, exponent_of_half, scale_and_min};
pub use encode::EncodeError;

use crate::DType;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How the values of an argument are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Encoding {
    /// Each value by itself, little-endian.
    Plain(DType),
    /// Blocks of neighbouring values of a row.
    Blocks(BlockType),
}

impl Encoding {
    /// The encodings of arguments that are all plain.
    pub fn plain(dtypes: impl IntoIterator<Item = DType>) -> Vec<Encoding> {
        dtypes.into_iter().map(Encoding::Plain).collect()
    }

    /// The dtype of the values: of blocks it is f32.
    pub const fn dtype(self) -> DType {
        match self {
            Encoding::Plain(dtype) => dtype,
            Encoding::Blocks(_) => DType::F32,
        }
    }

    /// The dtype, if elements lie one after another.
    pub const fn as_plain(self) -> Option<DType> {
        match self {
            Encoding::Plain(dtype) => Some(dtype),
            Encoding::Blocks(_) => None,
        }
    }

    /// Values that are written down together: rows are whole multiples of this.
    pub const fn values(self) -> usize {
        match self {
            Encoding::Plain(_) => 1,
            Encoding::Blocks(block) => block.values(),
        }
    }

    /// Bytes of that many values.
    pub const fn bytes(self) -> usize {
        match self {
            Encoding::Plain(dtype) => dtype.size(),
            Encoding::Blocks(block) => block.bytes(),
        }
    }

    /// What kernels on any device take the address of the first row to be a multiple of.
    pub const fn alignment(self) -> usize {
        match self {
            Encoding::Plain(dtype) => dtype.size(),
            Encoding::Blocks(block) => block.alignment(),
        }
    }

    /// Bytes of a row of `columns` values; none if no whole number of blocks holds them, or if a
    /// `usize` does not hold the bytes.
    pub const fn row_bytes(self, columns: usize) -> Option<usize> {
        match columns.is_multiple_of(self.values()) {
            true => (columns / self.values()).checked_mul(self.bytes()),
            false => None,
        }
    }

    /// The name that printed graphs and kernels use: that of the dtype or of the block.
    pub const fn name(self) -> &'static str {
        match self {
            Encoding::Plain(dtype) => dtype.name(),
            Encoding::Blocks(block) => block.name(),
        }
    }
}

impl From<DType> for Encoding {
    fn from(dtype: DType) -> Encoding {
        Encoding::Plain(dtype)
    }
}

impl From<BlockType> for Encoding {
    fn from(block: BlockType) -> Encoding {
        Encoding::Blocks(block)
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Encoding {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        if let Some(block) = BlockType::ALL.into_iter().find(|b| b.name() == s) {
            return Ok(Encoding::Blocks(block));
        }
        s.parse().map(Encoding::Plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_whole_blocks() {
        let q8 = Encoding::Blocks(BlockType::Q8_0);
        assert_eq!(q8.row_bytes(96), Some(102));
        assert_eq!(q8.row_bytes(40), None);
        assert_eq!(Encoding::Plain(DType::BF16).row_bytes(5), Some(10));
        assert_eq!(Encoding::Plain(DType::F32).row_bytes(usize::MAX), None);
    }

    #[test]
    fn names_are_read_back() {
        let plain = DType::ALL.map(Encoding::Plain);
        let all = plain
            .into_iter()
            .chain(BlockType::ALL.map(Encoding::Blocks));
        for encoding in all {
            assert_eq!(encoding.name().parse(), Ok(encoding));
        }
        assert!("q9".parse::<Encoding>().is_err());
    }
}
