//! Blocks of 32 values in registers.
//!
//! Of codes of four bits, sixteen bytes hold the first half of a block in their low halves and the
//! second in their high ones.

use super::{Head, Make, Unpack};
use crate::BlockType;
use crate::encoding::{IQ4_VALUES, MXFP4_DOUBLED, exponent_of_half};
use crate::host::codes::{Codes, Sixteen};

/// The codes themselves.
pub(super) static PLAIN: Sixteen = Sixteen::from(0);
/// The same about 8.
static ABOUT_8: Sixteen = Sixteen::from(-8);
pub(super) static IQ4: Sixteen = Sixteen::table(IQ4_VALUES);
static MXFP4: Sixteen = Sixteen::table(MXFP4_DOUBLED);

/// A scale for all values.
impl Head for f32 {
    #[inline(always)]
    fn scale(&self, _: usize) -> f32 {
        *self
    }
    #[inline(always)]
    fn least(&self, _: usize) -> Option<f32> {
        None
    }
}

/// A scale and a minimum for all values.
impl Head for (f32, f32) {
    #[inline(always)]
    fn scale(&self, _: usize) -> f32 {
        self.0
    }
    #[inline(always)]
    fn least(&self, _: usize) -> Option<f32> {
        Some(self.1)
    }
}

/// Codes `at` and on of 16 bytes of codes of four bits.
///
/// # Safety
/// As for [`Unpack`]: 16 bytes at `quants`.
#[inline(always)]
pub(super) unsafe fn nibbles<C: Codes, M: Make<C>>(
    codes: &'static Sixteen,
    quants: *const u8,
    (sub, at): (usize, usize),
    make: M,
) -> M::Out {
    // SAFETY: the caller's promise.
    unsafe {
        let both = C::bytes(quants.add(at % 16));
        make.four(sub, codes, both, if at < 16 { 0 } else { 4 })
    }
}

/// Codes of five bits, less `middle`: four bytes with the fifth ones come before the others.
///
/// # Safety
/// As for [`Unpack`]: 20 bytes at `quants`.
#[inline(always)]
unsafe fn fives<C: Codes, M: Make<C>>(quants: *const u8, at: usize, middle: u8, make: M) -> M::Out {
    // SAFETY: the caller's promise.
    unsafe {
        let high = u32::from_le((quants as *const u32).read_unaligned());
        let both = C::bytes(quants.add(4 + at % 16));
        let four = C::and(if at < 16 { both } else { C::shr(both, 4) }, 15);
        make.bytes(0, C::less(C::or(four, C::fifths(high >> at)), middle))
    }
}

/// A type of 32 values: its head, read from a block, and its codes.
macro_rules! small {
    ($name:ident, $head:ty, |$b:ident| $read:expr, |$block:ident, $at:ident, $make:ident| $codes:expr) => {
        #[derive(Clone, Copy)]
        pub(super) struct $name;

        impl Unpack for $name {
            const TYPE: BlockType = BlockType::$name;
            const UNIT: usize = 32;
            type Head = $head;
            #[inline(always)]
            unsafe fn head<C: Codes>($b: *const u8, head: &mut $head) {
                // SAFETY: the caller's promise.
                *head = unsafe { $read };
            }
            #[inline(always)]
            unsafe fn codes<C: Codes, M: Make<C>>(
                $block: *const u8,
                _: usize,
                $at: usize,
                $make: M,
            ) -> M::Out {
                // SAFETY: the caller's promise.
                unsafe { $codes }
            }
        }
    };
}

small!(Q4_0, f32, |b| C::half(b), |b, at, make| {
    nibbles(&ABOUT_8, b.add(2), (0, at), make)
});
small!(
    Q4_1,
    (f32, f32),
    |b| (C::half(b), C::half(b.add(2))),
    |b, at, make| nibbles(&PLAIN, b.add(4), (0, at), make)
);
small!(Q5_0, f32, |b| C::half(b), |b, at, make| {
    fives(b.add(2), at, 16, make)
});
small!(
    Q5_1,
    (f32, f32),
    |b| (C::half(b), C::half(b.add(2))),
    |b, at, make| fives(b.add(4), at, 0, make)
);
small!(Q8_0, f32, |b| C::half(b), |b, at, make| {
    make.bytes(0, C::bytes(b.add(2 + at)))
});
small!(Iq4Nl, f32, |b| C::half(b), |b, at, make| {
    nibbles(&IQ4, b.add(2), (0, at), make)
});
small!(Mxfp4, f32, |b| exponent_of_half(*b), |b, at, make| {
    nibbles(&MXFP4, b.add(1), (0, at), make)
});
