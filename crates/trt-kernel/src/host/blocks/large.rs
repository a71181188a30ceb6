//! Blocks of 256 values in registers.
//!
//! Scales of sub-blocks are made f32 once for each block, a vector of them at a time, and lie in memory
//! from where each is loaded into all lanes.

use super::small::{IQ4, PLAIN, nibbles};
use super::{Head, Make, Unpack};
use crate::BlockType;
use crate::host::codes::{Codes, Sixteen};

/// Codes of two bits, whatever the next two are.
static TWO_BITS: Sixteen = Sixteen::table([0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]);

#[derive(Clone, Copy)]
pub(super) struct Q2K;
#[derive(Clone, Copy)]
pub(super) struct Q3K;
#[derive(Clone, Copy)]
pub(super) struct Q4K;
#[derive(Clone, Copy)]
pub(super) struct Q5K;
#[derive(Clone, Copy)]
pub(super) struct Q6K;
#[derive(Clone, Copy)]
pub(super) struct Iq4Xs;

/// The scale of each sub-block.
type Scales = [f32; 16];

/// The scale and what is added for each sub-block: its minimum, negated.
#[derive(Clone, Copy, Default)]
pub(super) struct Lines {
    scale: Scales,
    least: Scales,
}

impl Head for Scales {
    #[inline(always)]
    fn scale(&self, sub: usize) -> f32 {
        self[sub]
    }
    #[inline(always)]
    fn least(&self, _: usize) -> Option<f32> {
        None
    }
}

impl Head for Lines {
    #[inline(always)]
    fn scale(&self, sub: usize) -> f32 {
        self.scale[sub]
    }
    #[inline(always)]
    fn least(&self, sub: usize) -> Option<f32> {
        Some(self.least[sub])
    }
}

/// Signed numbers times a scale.
///
/// # Safety
/// As for [`Codes`].
#[inline(always)]
unsafe fn times<C: Codes>(numbers: [u8; 16], scale: f32, out: &mut Scales) {
    for at in (0..16).step_by(C::LANES) {
        // SAFETY: the caller's promise; both arrays have 16 elements.
        unsafe {
            let codes = C::bytes(numbers.as_ptr().add(at));
            C::put(C::line(codes, scale, None), out.as_mut_ptr().add(at));
        }
    }
}

/// The low half of each byte.
const FOUR_BITS: u128 = 0x0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f;

/// Some bytes of a block.
///
/// # Safety
/// As many bytes must be readable at `p`.
#[inline(always)]
unsafe fn read<const N: usize>(p: *const u8) -> [u8; N] {
    // SAFETY: the caller's promise.
    unsafe { (p as *const [u8; N]).read_unaligned() }
}

/// Scales and minima of 6 bits for each of eight sub-blocks.
///
/// # Safety
/// As for [`Unpack`]: 16 bytes at `block`.
#[inline(always)]
unsafe fn six_bits<C: Codes>(block: *const u8, head: &mut Lines) {
    // SAFETY: the caller's promise.
    let (d, dmin, words) = unsafe {
        let word = |i: usize| u32::from_le_bytes(read(block.add(4 + 4 * i)));
        let words = [word(0), word(1), word(2)];
        (C::half(block), C::half(block.add(2)), words)
    };
    const SIX: u32 = 0x3f3f_3f3f;
    const FOUR: u32 = 0x0f0f_0f0f;
    const TWO: u32 = 0x0303_0303;
    let [scales, minima, both] = words;
    let join = |low: u32, high: u32| u128::from(low) | u128::from(high) << 32;
    let scales = join(scales & SIX, both & FOUR | (scales >> 6 & TWO) << 4);
    let minima = join(minima & SIX, both >> 4 & FOUR | (minima >> 6 & TWO) << 4);
    // SAFETY: the caller's promise.
    unsafe {
        times::<C>(scales.to_le_bytes(), d, &mut head.scale);
        times::<C>(minima.to_le_bytes(), -dmin, &mut head.least);
    }
}

impl Unpack for Q2K {
    const TYPE: BlockType = BlockType::Q2K;
    const UNIT: usize = 128;
    const SUB: usize = 16;
    type Head = Lines;
    #[inline(always)]
    unsafe fn head<C: Codes>(block: *const u8, head: &mut Lines) {
        // SAFETY: the caller's promise.
        unsafe {
            let both = u128::from_le_bytes(read(block));
            let (scales, minima) = (both & FOUR_BITS, both >> 4 & FOUR_BITS);
            times::<C>(
                scales.to_le_bytes(),
                C::half(block.add(80)),
                &mut head.scale,
            );
            times::<C>(
                minima.to_le_bytes(),
                -C::half(block.add(82)),
                &mut head.least,
            );
        }
    }
    #[inline(always)]
    unsafe fn codes<C: Codes, M: Make<C>>(
        block: *const u8,
        unit: usize,
        at: usize,
        make: M,
    ) -> M::Out {
        let sub = 8 * unit + at / 16;
        // SAFETY: the caller's promise.
        unsafe {
            let four = C::bytes(block.add(16 + 32 * unit + at % 32));
            match at / 32 {
                // Above the last code there is nothing.
                3 => make.bytes(sub, C::and(C::shr(four, 6), 3)),
                pair => make.four(sub, &TWO_BITS, four, 2 * pair as u32),
            }
        }
    }
}

impl Unpack for Q3K {
    const TYPE: BlockType = BlockType::Q3K;
    const UNIT: usize = 128;
    const SUB: usize = 16;
    type Head = Scales;
    #[inline(always)]
    unsafe fn head<C: Codes>(block: *const u8, head: &mut Scales) {
        // SAFETY: the caller's promise.
        let (d, low, high) = unsafe {
            let low = u64::from_le_bytes(read(block.add(96)));
            let high = u32::from_le_bytes(read(block.add(104)));
            (C::half(block.add(108)), low, high)
        };
        let two = |i: u32| u128::from(high >> (2 * i) & 0x0303_0303) << (32 * i + 4);
        let four = (u128::from(low) | u128::from(low) << 60) & FOUR_BITS;
        let six = four | two(0) | two(1) | two(2) | two(3);
        // Signed bytes: 32 less, without a borrow between them.
        let scales = six.to_le_bytes().map(|six| six.wrapping_sub(32));
        // SAFETY: the caller's promise.
        unsafe { times::<C>(scales, d, head) }
    }
    #[inline(always)]
    unsafe fn codes<C: Codes, M: Make<C>>(
        block: *const u8,
        unit: usize,
        at: usize,
        make: M,
    ) -> M::Out {
        let pair = (at / 32) as u32;
        // SAFETY: the caller's promise.
        unsafe {
            let four = C::bytes(block.add(32 + 32 * unit + at % 32));
            let eight = C::bytes(block.add(at % 32));
            let third = C::and(C::shr(eight, 4 * unit as u32 + pair), 1);
            let q = C::or(C::and(C::shr(four, 2 * pair), 3), C::shl(third, 2));
            make.bytes(8 * unit + at / 16, C::less(q, 4))
        }
    }
}

impl Unpack for Q4K {
    const TYPE: BlockType = BlockType::Q4K;
    const UNIT: usize = 64;
    type Head = Lines;
    #[inline(always)]
    unsafe fn head<C: Codes>(block: *const u8, head: &mut Lines) {
        // SAFETY: the caller's promise.
        unsafe { six_bits::<C>(block, head) }
    }
    #[inline(always)]
    unsafe fn codes<C: Codes, M: Make<C>>(
        block: *const u8,
        unit: usize,
        at: usize,
        make: M,
    ) -> M::Out {
        let sub = 2 * unit + at / 32;
        // SAFETY: the caller's promise.
        unsafe {
            let both = C::bytes(block.add(16 + 32 * unit + at % 32));
            make.four(sub, &PLAIN, both, if at < 32 { 0 } else { 4 })
        }
    }
}

impl Unpack for Q5K {
    const TYPE: BlockType = BlockType::Q5K;
    const UNIT: usize = 64;
    type Head = Lines;
    #[inline(always)]
    unsafe fn head<C: Codes>(block: *const u8, head: &mut Lines) {
        // SAFETY: the caller's promise.
        unsafe { six_bits::<C>(block, head) }
    }
    #[inline(always)]
    unsafe fn codes<C: Codes, M: Make<C>>(
        block: *const u8,
        unit: usize,
        at: usize,
        make: M,
    ) -> M::Out {
        let sub = 2 * unit + at / 32;
        // SAFETY: the caller's promise.
        unsafe {
            let both = C::bytes(block.add(48 + 32 * unit + at % 32));
            let four = C::and(if at < 32 { both } else { C::shr(both, 4) }, 15);
            let eight = C::bytes(block.add(16 + at % 32));
            let fifth = C::and(C::shr(eight, sub as u32), 1);
            make.bytes(sub, C::or(four, C::shl(fifth, 4)))
        }
    }
}

impl Unpack for Q6K {
    const TYPE: BlockType = BlockType::Q6K;
    const UNIT: usize = 128;
    const SUB: usize = 16;
    type Head = Scales;
    #[inline(always)]
    unsafe fn head<C: Codes>(block: *const u8, head: &mut Scales) {
        // SAFETY: the caller's promise.
        unsafe { times::<C>(read(block.add(192)), C::half(block.add(208)), head) }
    }
    #[inline(always)]
    unsafe fn codes<C: Codes, M: Make<C>>(
        block: *const u8,
        unit: usize,
        at: usize,
        make: M,
    ) -> M::Out {
        let quarter = at / 32;
        // SAFETY: the caller's promise.
        unsafe {
            let low = C::bytes(block.add(64 * unit + at % 64));
            let high = C::bytes(block.add(128 + 32 * unit + at % 32));
            let four = C::and(C::shr(low, 4 * (quarter / 2) as u32), 15);
            let two = C::and(C::shr(high, 2 * quarter as u32), 3);
            let q = C::less(C::or(four, C::shl(two, 4)), 32);
            make.bytes(8 * unit + at / 16, q)
        }
    }
}

impl Unpack for Iq4Xs {
    const TYPE: BlockType = BlockType::Iq4Xs;
    const UNIT: usize = 32;
    type Head = Scales;
    #[inline(always)]
    unsafe fn head<C: Codes>(block: *const u8, head: &mut Scales) {
        // SAFETY: the caller's promise.
        let (d, top, low) = unsafe {
            let top = u16::from_le_bytes(read(block.add(2)));
            (C::half(block), top, read::<4>(block.add(4)))
        };
        let scales = std::array::from_fn(|i| match i {
            0..8 => {
                let four = low[i / 2] >> (4 * (i % 2)) & 15;
                let two = (top >> (2 * i) & 3) as u8;
                (four | two << 4).wrapping_sub(32)
            }
            _ => 0,
        });
        // SAFETY: the caller's promise.
        unsafe { times::<C>(scales, d, head) }
    }
    #[inline(always)]
    unsafe fn codes<C: Codes, M: Make<C>>(
        block: *const u8,
        unit: usize,
        at: usize,
        make: M,
    ) -> M::Out {
        // SAFETY: the caller's promise.
        unsafe { nibbles(&IQ4, block.add(8 + 16 * unit), (unit, at), make) }
    }
}
