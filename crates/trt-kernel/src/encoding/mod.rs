//! How values are written down in memory: what lies at the pointer of an argument.
//!
//! A weight's meaning is its values; an encoding says how many bytes they take and where a row
//! starts. [`Encoding::Plain`] is an element after another, which every kernel reads and writes.
//! Any other is read only where a kernel says so: as the right operand of a product and, in blocks, as the
//! table of a gather. The invariant: rows are encoded independently of each other, so any run of
//! rows is encoded as it lies in the whole, and whoever places, moves or bounds an argument asks
//! here for bytes instead of multiplying by an element's size. Packed rows lie in units of some rows, and so a run of them is whole units.

mod block;
mod decode;
mod encode;
mod packed;

pub use block::BlockType;
pub(crate) use decode::{IQ4_VALUES, MXFP4_DOUBLED, exponent_of_half, scale_and_min};
pub use encode::EncodeError;
pub use packed::PackedType;

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
    /// Units of rows in as few bytes as they take, which [`Encoding::Code`] unpacks.
    Packed(PackedType),
    /// What unpacks an argument of packed rows: see [`trt_pack::argument()`].
    Code,
}

impl Encoding {
    /// The encodings of arguments that are all plain.
    pub fn plain(dtypes: impl IntoIterator<Item = DType>) -> Vec<Encoding> {
        dtypes.into_iter().map(Encoding::Plain).collect()
    }

    /// The dtype of the values: of blocks it is f32, of what unpacks others u32.
    pub const fn dtype(self) -> DType {
        match self {
            Encoding::Plain(dtype) => dtype,
            Encoding::Blocks(_) => DType::F32,
            Encoding::Packed(packed) => packed.dtype(),
            Encoding::Code => DType::U32,
        }
    }

    /// The dtype, if elements lie one after another.
    pub const fn as_plain(self) -> Option<DType> {
        match self {
            Encoding::Plain(dtype) => Some(dtype),
            Encoding::Blocks(_) | Encoding::Packed(_) | Encoding::Code => None,
        }
    }

    /// How units are packed, if rows lie in units.
    pub const fn as_packed(self) -> Option<PackedType> {
        match self {
            Encoding::Packed(packed) => Some(packed),
            Encoding::Plain(_) | Encoding::Blocks(_) | Encoding::Code => None,
        }
    }

    /// Values that are written down together: rows are whole multiples of this.
    pub const fn values(self) -> usize {
        match self {
            Encoding::Plain(_) | Encoding::Code => 1,
            Encoding::Blocks(block) => block.values(),
            Encoding::Packed(_) => PackedType::PIECE,
        }
    }

    /// Bytes of that many values; of packed ones the least that they take.
    pub const fn bytes(self) -> usize {
        match self {
            Encoding::Plain(dtype) => dtype.size(),
            Encoding::Blocks(block) => block.bytes(),
            Encoding::Packed(_) => PackedType::PIECE,
            Encoding::Code => DType::U32.size(),
        }
    }

    /// What kernels on any device take the address of the first row to be a multiple of.
    pub const fn alignment(self) -> usize {
        match self {
            Encoding::Plain(dtype) => dtype.size(),
            Encoding::Blocks(block) => block.alignment(),
            Encoding::Packed(_) | Encoding::Code => trt_pack::ALIGNMENT,
        }
    }

    /// Bytes of a row of `columns` values; none if no whole number of blocks holds them, if a
    /// `usize` does not hold the bytes, or if they are packed, since then each row takes as many as it takes.
    pub const fn row_bytes(self, columns: usize) -> Option<usize> {
        if let Encoding::Packed(_) = self {
            return None;
        }
        match columns.is_multiple_of(self.values()) {
            true => (columns / self.values()).checked_mul(self.bytes()),
            false => None,
        }
    }

    /// Bytes that so many rows take at least, if they can be counted: all of them, unless rows are packed.
    pub fn least_bytes(self, rows: usize, columns: usize) -> Option<usize> {
        match self {
            Encoding::Packed(_) => rows.checked_mul(columns),
            Encoding::Plain(_) | Encoding::Blocks(_) | Encoding::Code => {
                rows.checked_mul(self.row_bytes(columns)?)
            }
        }
    }

    /// Rows that those of a range are a multiple of, and those before it: see [`crate::ROW_PANEL`]. Packed rows are cut between units.
    pub const fn row_step(self, columns: usize) -> usize {
        match self {
            Encoding::Packed(_) => trt_pack::unit_rows(columns),
            Encoding::Plain(_) | Encoding::Blocks(_) | Encoding::Code => crate::ROW_PANEL,
        }
    }

    /// The name that printed graphs and kernels use: that of the dtype or of the block.
    pub const fn name(self) -> &'static str {
        match self {
            Encoding::Plain(dtype) => dtype.name(),
            Encoding::Blocks(block) => block.name(),
            Encoding::Packed(packed) => packed.name(),
            Encoding::Code => "code",
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

impl From<PackedType> for Encoding {
    fn from(packed: PackedType) -> Encoding {
        Encoding::Packed(packed)
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
        if let Some(packed) = PackedType::ALL.into_iter().find(|p| p.name() == s) {
            return Ok(Encoding::Packed(packed));
        }
        if s == Encoding::Code.name() {
            return Ok(Encoding::Code);
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
        assert_eq!(Encoding::Packed(PackedType::Bf16Pairs).row_bytes(64), None);
    }

    #[test]
    fn names_are_read_back() {
        let plain = DType::ALL.map(Encoding::Plain);
        let all = plain
            .into_iter()
            .chain(BlockType::ALL.map(Encoding::Blocks))
            .chain(PackedType::ALL.map(Encoding::Packed))
            .chain([Encoding::Code]);
        for encoding in all {
            assert_eq!(encoding.name().parse(), Ok(encoding));
        }
        assert!("q9".parse::<Encoding>().is_err());
    }
}
