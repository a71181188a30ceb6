//! Products of many rows over the codes of blocks, as sums of integers.
//!
//! A weight's value is `scale * code + least`, both fixed in a sub-block of 16 or 32 values. So a sub-block of
//! a row of activations that is written as numbers of 16 bits times a scale of its own ([`rows`]) meets it as
//! `scale * scale_of_x * Σ code * x + least * Σ x`: sums of integers, which are exact, and two roundings
//! in f32 for 16 or 32 products ([`tile`]). Each output is one chain over sub-blocks in order, so
//! rows, ranges, threads and the split of the contracted size change no bit.
//!
//! What is rounded is each activation, by at most 2^-16 (and a hundredth of that) of the largest one in its
//! sub-block. Codes are turned about the middle of their range ([`middle`]), so that `least` is small.
//! Invariant: whatever this cannot do within that bound says so and is done in f32: rows with
//! values that are infinite, not numbers, above [`rows::MOST`] or all below [`rows::LEAST`], and panels with scales that are not finite
//! or above [`MOST_SCALE`].

mod rows;
#[cfg(test)]
mod tests;
mod tile;

pub(super) use rows::{Layout, Quantise};
pub(super) use tile::{CodePanel, Stretch};

use crate::BlockType;

/// The largest scale or minimum of a sub-block: with activations up to [`rows::MOST`] and codes of 8 bits no
/// product reaches what f32 cannot hold.
pub(super) const MOST_SCALE: f32 = 1.099_511_6e12; // 2^40

/// No sum of a sub-block leaves 32 bits: a code is no larger than 128 in size.
const _: () = assert!(32 * 128 * 32767 <= i32::MAX as i64);

/// What is taken from each code, so that codes of types with a minimum lie about zero.
pub(super) const fn middle(block: BlockType) -> u8 {
    match block {
        BlockType::Q2K => 2,
        BlockType::Q4_1 | BlockType::Q4K => 8,
        BlockType::Q5_1 | BlockType::Q5K => 16,
        BlockType::Q4_0
        | BlockType::Q5_0
        | BlockType::Q8_0
        | BlockType::Q3K
        | BlockType::Q6K
        | BlockType::Iq4Nl
        | BlockType::Iq4Xs
        | BlockType::Mxfp4 => 0,
    }
}
