//! Sums of products of numbers of 16 bits: what products over codes of blocks take of an instruction set.
//!
//! A lane holds two numbers or one sum of 32 bits. Invariant: sums are of integers, so they are the same
//! with every set; what they become in f32 is rounded once, to nearest even. As for
//! [`super::simd::Simd`], methods are reached only where the CPU has the instructions.

use super::codes::Codes;
use super::simd::Portable;

/// Pairs of numbers of 16 bits, and sums of 32 bits.
///
/// # Safety
/// Every `unsafe` method needs a CPU with the set's instructions, and pointers valid for as many numbers
/// as it reads; no alignment is assumed.
pub(super) trait Words: Codes {
    /// A pair, or a sum, in each lane of the vector of f32.
    type I: Copy;
    /// All zero.
    unsafe fn nothing() -> Self::I;
    /// Reads a pair for each lane.
    unsafe fn pairs(p: *const i16) -> Self::I;
    /// Reads one pair into all lanes.
    unsafe fn pair(p: *const i16) -> Self::I;
    /// `sum` plus both products of two pairs in each lane, wrapping.
    unsafe fn dot(sum: Self::I, a: Self::I, b: Self::I) -> Self::I;
    /// The same in one instruction; only inside [`super::simd::run_words`].
    #[inline(always)]
    unsafe fn dot_at_once(sum: Self::I, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the caller's promise.
        unsafe { Self::dot(sum, a, b) }
    }
    /// Sums as f32, times `by`.
    unsafe fn scaled(sum: Self::I, by: Self::V) -> Self::V;
}

impl Words for Portable {
    type I = [i32; 8];

    #[inline(always)]
    unsafe fn nothing() -> [i32; 8] {
        [0; 8]
    }
    #[inline(always)]
    unsafe fn pairs(p: *const i16) -> [i32; 8] {
        // SAFETY: the caller's promise: 8 pairs are readable.
        unsafe { (p as *const [i32; 8]).read_unaligned() }
    }
    #[inline(always)]
    unsafe fn pair(p: *const i16) -> [i32; 8] {
        // SAFETY: the caller's promise: a pair is readable.
        [unsafe { (p as *const i32).read_unaligned() }; 8]
    }
    #[inline(always)]
    unsafe fn dot(sum: [i32; 8], a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        // Which of a pair is the upper one makes no difference.
        std::array::from_fn(|i| {
            let low = i32::from(a[i] as i16).wrapping_mul(i32::from(b[i] as i16));
            let high = (a[i] >> 16).wrapping_mul(b[i] >> 16);
            sum[i].wrapping_add(low).wrapping_add(high)
        })
    }
    #[inline(always)]
    unsafe fn scaled(sum: [i32; 8], by: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| sum[i] as f32 * by[i])
    }
}
