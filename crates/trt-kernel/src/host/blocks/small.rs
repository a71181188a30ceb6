//! Blocks of 32 values in registers.
//!
//! Of codes of four bits, sixteen bytes hold the first half of a block in their low halves and the
//! second in their high ones.

use super::Unpack;
use crate::BlockType;
use crate::encoding::{IQ4_VALUES, MXFP4_DOUBLED, exponent_of_half};
use crate::host::codes::{Codes, Sixteen};

/// The codes themselves.
pub(super) static PLAIN: Sixteen = Sixteen::from(0);
/// The same about 8.
static ABOUT_8: Sixteen = Sixteen::from(-8);
pub(super) static IQ4: Sixteen = Sixteen::table(IQ4_VALUES);
static MXFP4: Sixteen = Sixteen::table(MXFP4_DOUBLED);

#[derive(Clone, Copy)]
pub(super) struct Q4_0;
#[derive(Clone, Copy)]
pub(super) struct Q4_1;
#[derive(Clone, Copy)]
pub(super) struct Q5_0;
#[derive(Clone, Copy)]
pub(super) struct Q5_1;
#[derive(Clone, Copy)]
pub(super) struct Q8_0;
#[derive(Clone, Copy)]
pub(super) struct Iq4Nl;
#[derive(Clone, Copy)]
pub(super) struct Mxfp4;

/// Values `at` and on of 16 bytes of codes of four bits.
///
/// # Safety
/// As for [`Unpack`]: 16 bytes at `quants`.
#[inline(always)]
pub(super) unsafe fn nibbles<C: Codes>(fours: C::Fours, quants: *const u8, at: usize) -> C::V {
    // SAFETY: the caller's promise.
    unsafe {
        let both = C::bytes(quants.add(at % 16));
        C::four(fours, both, if at < 16 { 0 } else { 4 })
    }
}

/// Codes of five bits: four bytes with the fifth ones come before the others.
///
/// # Safety
/// As for [`Unpack`]: 20 bytes at `quants`.
#[inline(always)]
unsafe fn fives<C: Codes>(quants: *const u8, at: usize) -> C::B {
    // SAFETY: the caller's promise.
    unsafe {
        let high = u32::from_le((quants as *const u32).read_unaligned());
        let both = C::bytes(quants.add(4 + at % 16));
        let four = C::and(if at < 16 { both } else { C::shr(both, 4) }, 15);
        C::or(four, C::fifths(high >> at))
    }
}

impl Unpack for Q4_0 {
    const TYPE: BlockType = BlockType::Q4_0;
    const UNIT: usize = 32;
    type Head = f32;
    #[inline(always)]
    unsafe fn head<C: Codes>(block: *const u8, head: &mut f32) {
        // SAFETY: the caller's promise.
        *head = unsafe { C::half(block) };
    }
    #[inline(always)]
    unsafe fn vector<C: Codes>(block: *const u8, d: &f32, _: usize, at: usize) -> C::V {
        // SAFETY: the caller's promise.
        unsafe {
            let fours = C::fours(&ABOUT_8, *d, None);
            nibbles::<C>(fours, block.add(2), at)
        }
    }
}

impl Unpack for Q4_1 {
    const TYPE: BlockType = BlockType::Q4_1;
    const UNIT: usize = 32;
    type Head = (f32, f32);
    #[inline(always)]
    unsafe fn head<C: Codes>(block: *const u8, head: &mut (f32, f32)) {
        // SAFETY: the caller's promise.
        *head = unsafe { (C::half(block), C::half(block.add(2))) };
    }
    #[inline(always)]
    unsafe fn vector<C: Codes>(block: *const u8, head: &(f32, f32), _: usize, at: usize) -> C::V {
        // SAFETY: the caller's promise.
        unsafe {
            let fours = C::fours(&PLAIN, head.0, Some(head.1));
            nibbles::<C>(fours, block.add(4), at)
        }
    }
}

impl Unpack for Q5_0 {
    const TYPE: BlockType = BlockType::Q5_0;
    const UNIT: usize = 32;
    type Head = f32;
    #[inline(always)]
    unsafe fn head<C: Codes>(block: *const u8, head: &mut f32) {
        // SAFETY: the caller's promise.
        *head = unsafe { C::half(block) };
    }
    #[inline(always)]
    unsafe fn vector<C: Codes>(block: *const u8, d: &f32, _: usize, at: usize) -> C::V {
        // SAFETY: the caller's promise.
        unsafe { C::line(C::less(fives::<C>(block.add(2), at), 16), *d, None) }
    }
}

impl Unpack for Q5_1 {
    const TYPE: BlockType = BlockType::Q5_1;
    const UNIT: usize = 32;
    type Head = (f32, f32);
    #[inline(always)]
    unsafe fn head<C: Codes>(block: *const u8, head: &mut (f32, f32)) {
        // SAFETY: the caller's promise.
        *head = unsafe { (C::half(block), C::half(block.add(2))) };
    }
    #[inline(always)]
    unsafe fn vector<C: Codes>(block: *const u8, head: &(f32, f32), _: usize, at: usize) -> C::V {
        // SAFETY: the caller's promise.
        unsafe { C::line(fives::<C>(block.add(4), at), head.0, Some(head.1)) }
    }
}

impl Unpack for Q8_0 {
    const TYPE: BlockType = BlockType::Q8_0;
    const UNIT: usize = 32;
    type Head = f32;
    #[inline(always)]
    unsafe fn head<C: Codes>(block: *const u8, head: &mut f32) {
        // SAFETY: the caller's promise.
        *head = unsafe { C::half(block) };
    }
    #[inline(always)]
    unsafe fn vector<C: Codes>(block: *const u8, d: &f32, _: usize, at: usize) -> C::V {
        // SAFETY: the caller's promise.
        unsafe { C::line(C::bytes(block.add(2 + at)), *d, None) }
    }
}

impl Unpack for Iq4Nl {
    const TYPE: BlockType = BlockType::Iq4Nl;
    const UNIT: usize = 32;
    type Head = f32;
    #[inline(always)]
    unsafe fn head<C: Codes>(block: *const u8, head: &mut f32) {
        // SAFETY: the caller's promise.
        *head = unsafe { C::half(block) };
    }
    #[inline(always)]
    unsafe fn vector<C: Codes>(block: *const u8, d: &f32, _: usize, at: usize) -> C::V {
        // SAFETY: the caller's promise.
        unsafe {
            let fours = C::fours(&IQ4, *d, None);
            nibbles::<C>(fours, block.add(2), at)
        }
    }
}

impl Unpack for Mxfp4 {
    const TYPE: BlockType = BlockType::Mxfp4;
    const UNIT: usize = 32;
    type Head = f32;
    #[inline(always)]
    unsafe fn head<C: Codes>(block: *const u8, head: &mut f32) {
        // SAFETY: the caller's promise.
        *head = exponent_of_half(unsafe { *block });
    }
    #[inline(always)]
    unsafe fn vector<C: Codes>(block: *const u8, d: &f32, _: usize, at: usize) -> C::V {
        // SAFETY: the caller's promise.
        unsafe {
            let fours = C::fours(&MXFP4, *d, None);
            nibbles::<C>(fours, block.add(1), at)
        }
    }
}
