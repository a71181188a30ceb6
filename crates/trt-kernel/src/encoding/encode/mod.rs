//! Blocks made of values: the numbers whose decoded values are near.
//!
//! Scales are searched for the least sum of squared errors (`fit.rs`), rounded to what a block holds, and only
//! then are values rounded to codes, so that codes know the scale that they will be read with. What comes out decodes
//! to finite values, and zeros to zeros. A value for which there is no such block is an error.

mod fit;
mod large;
mod small;

use super::BlockType;
use half::f16;

/// Why values are not encoded.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum EncodeError {
    /// There is no encoder of the type.
    #[error("values are not encoded as {}, only read", .0.name())]
    ReadOnly(BlockType),
    /// No whole number of blocks, or another number of bytes than they take.
    #[error("{values} values in {bytes} bytes are no whole blocks of {}", .block.name())]
    Length {
        /// The type.
        block: BlockType,
        /// Values given.
        values: usize,
        /// Bytes to write to.
        bytes: usize,
    },
    /// A value that is infinite or no number.
    #[error("value {index} is {value}, which blocks cannot hold")]
    NotFinite {
        /// Its place among the values.
        index: usize,
        /// The value.
        value: f32,
    },
    /// Values whose scale is beyond f16.
    #[error("values from {index} on need a scale of {scale:e}, and blocks of {} hold at most 65504", .block.name())]
    TooLarge {
        /// The type.
        block: BlockType,
        /// The first value of their block.
        index: usize,
        /// The scale.
        scale: f32,
    },
}

/// A scale that f16 cannot hold.
struct Beyond(f64);

/// Rounds a scale to f16.
fn half(scale: f64) -> Result<f16, Beyond> {
    let rounded = f16::from_f64(scale);
    match rounded.is_finite() {
        true => Ok(rounded),
        false => Err(Beyond(scale)),
    }
}

impl BlockType {
    /// Whether values can be written as this.
    pub const fn encodes(self) -> bool {
        !matches!(self, BlockType::Iq4Nl | BlockType::Iq4Xs | BlockType::Mxfp4)
    }

    /// Writes values as blocks that decode to near ones.
    ///
    /// # Errors
    /// [`EncodeError`]: a type that is only read, lengths that are no whole blocks, values that are not finite or whose
    /// scale is beyond f16. What is written then is anything.
    pub fn encode(self, values: &[f32], bytes: &mut [u8]) -> Result<(), EncodeError> {
        if !self.encodes() {
            return Err(EncodeError::ReadOnly(self));
        }
        let whole = values.len().is_multiple_of(self.values());
        if !whole || values.len() / self.values() * self.bytes() != bytes.len() {
            return Err(EncodeError::Length {
                block: self,
                values: values.len(),
                bytes: bytes.len(),
            });
        }
        if let Some(index) = values.iter().position(|v| !v.is_finite()) {
            let value = values[index];
            return Err(EncodeError::NotFinite { index, value });
        }
        let blocks = bytes.chunks_exact_mut(self.bytes());
        for (b, (values, block)) in values.chunks_exact(self.values()).zip(blocks).enumerate() {
            block.fill(0);
            self.encode_block(values, block)
                .map_err(|Beyond(scale)| EncodeError::TooLarge {
                    block: self,
                    index: b * self.values(),
                    scale: scale as f32,
                })?;
        }
        Ok(())
    }

    fn encode_block(self, values: &[f32], block: &mut [u8]) -> Result<(), Beyond> {
        match self {
            BlockType::Q4_0 => small::q4_0(values, block),
            BlockType::Q4_1 => small::q4_1(values, block),
            BlockType::Q5_0 => small::q5_0(values, block),
            BlockType::Q5_1 => small::q5_1(values, block),
            BlockType::Q8_0 => small::q8_0(values, block),
            BlockType::Q2K => large::q2k(values, block),
            BlockType::Q3K => large::q3k(values, block),
            BlockType::Q4K => large::q4k(values, block),
            BlockType::Q5K => large::q5k(values, block),
            BlockType::Q6K => large::q6k(values, block),
            // Refused before.
            BlockType::Iq4Nl | BlockType::Iq4Xs | BlockType::Mxfp4 => Ok(()),
        }
    }
}
