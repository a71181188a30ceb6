//! Small numbers turned into vectors of f32: what unpacking blocks takes of an instruction set.
//!
//! Codes are unpacked as bytes, as many as a vector has lanes, and widened last: shifts and masks of
//! bytes cost half of those of lanes, except where lanes that were widened once serve several times
//! ([`Codes::four`]). Invariant: each method gives the same bits with every set, so
//! an unpacked value never depends on the CPU. As for [`super::simd::Simd`], methods are
//! reached only where the CPU has the instructions.

use half::f16;

/// What codes of four bits stand for, before scales.
pub(super) struct Sixteen {
    pub values: [i8; 16],
    /// The first of them, if each is one more than that before it: then a sum makes them.
    pub first: Option<i8>,
}

impl Sixteen {
    /// Numbers one after another.
    pub const fn from(first: i8) -> Sixteen {
        let (mut values, mut i) = ([first; 16], 1);
        while i < 16 {
            values[i] = values[i - 1] + 1;
            i += 1;
        }
        Sixteen {
            values,
            first: Some(first),
        }
    }

    /// Any numbers.
    pub const fn table(values: [i8; 16]) -> Sixteen {
        let first = None;
        Sixteen { values, first }
    }
}

/// Codes of a few bits, and the values that they stand for.
///
/// # Safety
/// Every `unsafe` method needs a CPU with the set's instructions, and pointers valid for as many bytes
/// as it reads; no alignment is assumed.
pub(super) trait Codes: Copy + 'static {
    /// Elements of a vector.
    const LANES: usize;
    /// The vector of f32.
    type V: Copy;
    /// As many bytes as a vector has lanes.
    type B: Copy;
    /// What the sixteen codes of four bits stand for.
    type Fours: Copy;
    /// Reads bytes.
    unsafe fn bytes(p: *const u8) -> Self::B;
    /// Bitwise, of each byte.
    unsafe fn and(b: Self::B, mask: u8) -> Self::B;
    /// Bitwise.
    unsafe fn or(a: Self::B, b: Self::B) -> Self::B;
    /// Each byte shifted down; bits above what is left of it are any.
    unsafe fn shr(b: Self::B, by: u32) -> Self::B;
    /// Each byte shifted up; bits below are any.
    unsafe fn shl(b: Self::B, by: u32) -> Self::B;
    /// `b - n`, wrapping.
    unsafe fn less(b: Self::B, n: u8) -> Self::B;
    /// 16 in byte `i` where bit `i` is set, else 0.
    unsafe fn fifths(bits: u32) -> Self::B;
    /// Signed bytes as f32.
    unsafe fn signed(b: Self::B) -> Self::V;
    /// Writes signed bytes as numbers of 16 bits.
    unsafe fn words(b: Self::B, p: *mut i16);
    /// What four bits of each byte stand for, from bit `from` (0, 2 or 4) on, as signed bytes.
    unsafe fn look(codes: &'static Sixteen, b: Self::B, from: u32) -> Self::B;
    /// Codes of four bits that stand for `codes.values[q] * scale + least`.
    unsafe fn fours(codes: &'static Sixteen, scale: f32, least: Option<f32>) -> Self::Fours;
    /// What four bits of each byte stand for, from bit `from` (0, 2 or 4) on.
    unsafe fn four(fours: Self::Fours, b: Self::B, from: u32) -> Self::V;
    /// `b * scale + least`, of signed bytes.
    unsafe fn line(b: Self::B, scale: f32, least: Option<f32>) -> Self::V;
    /// Writes f32.
    unsafe fn put(v: Self::V, p: *mut f32);
    /// A number of half precision.
    unsafe fn half(p: *const u8) -> f32;
}

impl Codes for super::simd::Portable {
    const LANES: usize = 8;
    type V = [f32; 8];
    type B = [u8; 8];
    type Fours = [f32; 16];

    #[inline(always)]
    unsafe fn bytes(p: *const u8) -> [u8; 8] {
        // SAFETY: the caller's promise: 8 bytes are readable.
        unsafe { (p as *const [u8; 8]).read_unaligned() }
    }
    #[inline(always)]
    unsafe fn and(b: [u8; 8], mask: u8) -> [u8; 8] {
        b.map(|b| b & mask)
    }
    #[inline(always)]
    unsafe fn or(a: [u8; 8], b: [u8; 8]) -> [u8; 8] {
        std::array::from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    unsafe fn shr(b: [u8; 8], by: u32) -> [u8; 8] {
        b.map(|b| b >> (by & 7))
    }
    #[inline(always)]
    unsafe fn shl(b: [u8; 8], by: u32) -> [u8; 8] {
        b.map(|b| b << (by & 7))
    }
    #[inline(always)]
    unsafe fn less(b: [u8; 8], n: u8) -> [u8; 8] {
        b.map(|b| b.wrapping_sub(n))
    }
    #[inline(always)]
    unsafe fn fifths(bits: u32) -> [u8; 8] {
        std::array::from_fn(|i| ((bits >> i & 1) as u8) << 4)
    }
    #[inline(always)]
    unsafe fn signed(b: [u8; 8]) -> [f32; 8] {
        b.map(|b| f32::from(b as i8))
    }
    #[inline(always)]
    unsafe fn words(b: [u8; 8], p: *mut i16) {
        // SAFETY: the caller's promise: 8 elements are writable.
        unsafe { (p as *mut [i16; 8]).write_unaligned(b.map(|b| i16::from(b as i8))) }
    }
    #[inline(always)]
    unsafe fn look(codes: &'static Sixteen, b: [u8; 8], from: u32) -> [u8; 8] {
        b.map(|b| codes.values[usize::from(b >> (from & 7) & 15)] as u8)
    }
    #[inline(always)]
    unsafe fn fours(codes: &'static Sixteen, scale: f32, least: Option<f32>) -> [f32; 16] {
        codes.values.map(|c| match least {
            Some(least) => f32::from(c) * scale + least,
            None => f32::from(c) * scale,
        })
    }
    #[inline(always)]
    unsafe fn four(fours: [f32; 16], b: [u8; 8], from: u32) -> [f32; 8] {
        b.map(|b| fours[usize::from(b >> (from & 7) & 15)])
    }
    #[inline(always)]
    unsafe fn line(b: [u8; 8], scale: f32, least: Option<f32>) -> [f32; 8] {
        b.map(|b| match least {
            Some(least) => f32::from(b as i8) * scale + least,
            None => f32::from(b as i8) * scale,
        })
    }
    #[inline(always)]
    unsafe fn put(v: [f32; 8], p: *mut f32) {
        // SAFETY: the caller's promise: 8 elements are writable.
        unsafe { (p as *mut [f32; 8]).write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn half(p: *const u8) -> f32 {
        // SAFETY: the caller's promise: two bytes are readable.
        f16::from_bits(u16::from_le(unsafe { (p as *const u16).read_unaligned() })).to_f32()
    }
}
