//! Blocks of values on the CPU: how each type is unpacked in registers, and what is done with that.
//!
//! An [`Unpack`] gives the values of a block a vector at a time, written once over the instruction
//! sets ([`Codes`]). Invariant: they are the bits that `BlockType::decode` defines, in every set, so that a product
//! over blocks is the product over their decoded values in f32, summed in the same order:
//! [`dot`] for few rows, and what copies values out ([`unpack`]) for everything else.

mod dot;
mod large;
mod panel;
mod small;
#[cfg(test)]
mod tests;
mod unpack;

pub(super) use dot::{RowsAt, dot};
pub(super) use panel::{elements, pack, sub_block};
pub(super) use unpack::unpack;

use super::codes::{Codes, Sixteen};
use crate::BlockType;

/// What each code of a block is multiplied by, and what is added.
trait Head: Copy + Default {
    /// The scale of a sub-block.
    fn scale(&self, sub: usize) -> f32;
    /// What is added to its values, in types that have a minimum.
    fn least(&self, sub: usize) -> Option<f32>;
}

/// What is made of the codes of a sub-block.
///
/// # Safety
/// Methods need the instructions of `C`.
trait Make<C: Codes>: Copy {
    /// What becomes of as many codes as a vector has lanes.
    type Out;
    /// Of four bits of each byte, from bit `from` (0, 2 or 4) on, which stand for `codes`.
    unsafe fn four(self, sub: usize, codes: &'static Sixteen, b: C::B, from: u32) -> Self::Out;
    /// Of signed bytes.
    unsafe fn bytes(self, sub: usize, b: C::B) -> Self::Out;
}

/// Makes the values that codes stand for.
#[derive(Clone, Copy)]
struct Values<'a, H>(&'a H);

impl<C: Codes, H: Head> Make<C> for Values<'_, H> {
    type Out = C::V;
    #[inline(always)]
    unsafe fn four(self, sub: usize, codes: &'static Sixteen, b: C::B, from: u32) -> C::V {
        // SAFETY: the caller's promise.
        unsafe {
            C::four(
                C::fours(codes, self.0.scale(sub), self.0.least(sub)),
                b,
                from,
            )
        }
    }
    #[inline(always)]
    unsafe fn bytes(self, sub: usize, b: C::B) -> C::V {
        // SAFETY: the caller's promise.
        unsafe { C::line(b, self.0.scale(sub), self.0.least(sub)) }
    }
}

/// A type of block, unpacked in registers.
///
/// # Safety
/// Methods need the instructions of `C`, and all bytes of a block at `block`.
trait Unpack: Copy + 'static {
    /// Which it is.
    const TYPE: BlockType;
    /// Values that one turn of a loop unpacks: places inside of them are constants there.
    const UNIT: usize;
    /// Values of a sub-block.
    const SUB: usize = 32;
    /// Scales and minima of a block.
    type Head: Head;
    /// Reads them.
    unsafe fn head<C: Codes>(block: *const u8, head: &mut Self::Head);
    /// What is made of the codes from `unit * UNIT + at` on; `at` is a multiple of the lanes.
    unsafe fn codes<C: Codes, M: Make<C>>(
        block: *const u8,
        unit: usize,
        at: usize,
        make: M,
    ) -> M::Out;
    /// The values there.
    #[inline(always)]
    unsafe fn vector<C: Codes>(
        block: *const u8,
        head: &Self::Head,
        unit: usize,
        at: usize,
    ) -> C::V {
        // SAFETY: the caller's promise.
        unsafe { Self::codes::<C, _>(block, unit, at, Values(head)) }
    }
}

/// Keeps the scales of many sub-blocks in memory: taking them out of a vector one by one costs more than to
/// load each into all lanes.
#[inline(always)]
fn in_memory<T: Unpack>(head: &mut T::Head) {
    if size_of::<T::Head>() > size_of::<(f32, f32)>() {
        std::hint::black_box(head);
    }
}

/// Code for any type of block. `run` must be `#[inline(always)]`.
trait OfBlocks {
    /// What it returns.
    type Out;
    /// The code.
    fn run<T: Unpack>(self) -> Self::Out;
}

/// Runs code for a type.
#[inline(always)]
fn of_blocks<J: OfBlocks>(block: BlockType, job: J) -> J::Out {
    match block {
        BlockType::Q4_0 => job.run::<small::Q4_0>(),
        BlockType::Q4_1 => job.run::<small::Q4_1>(),
        BlockType::Q5_0 => job.run::<small::Q5_0>(),
        BlockType::Q5_1 => job.run::<small::Q5_1>(),
        BlockType::Q8_0 => job.run::<small::Q8_0>(),
        BlockType::Q2K => job.run::<large::Q2K>(),
        BlockType::Q3K => job.run::<large::Q3K>(),
        BlockType::Q4K => job.run::<large::Q4K>(),
        BlockType::Q5K => job.run::<large::Q5K>(),
        BlockType::Q6K => job.run::<large::Q6K>(),
        BlockType::Iq4Nl => job.run::<small::Iq4Nl>(),
        BlockType::Iq4Xs => job.run::<large::Iq4Xs>(),
        BlockType::Mxfp4 => job.run::<small::Mxfp4>(),
    }
}
