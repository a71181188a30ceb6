//! [`Codes`] of AVX-512 and AVX2.
//!
//! A product of a code and a scale has at most 24 bits, so it is exact and its sum with a minimum is
//! rounded once: fused or not, the bits are those of a product and a sum.

use super::codes::{Codes, Sixteen};
use super::x86::{Avx2, Avx512};
use std::arch::x86_64::*;

impl Codes for Avx512 {
    const LANES: usize = 16;
    type V = __m512;
    type B = __m128i;
    type Fours = __m512;

    #[inline(always)]
    unsafe fn bytes(p: *const u8) -> __m128i {
        // SAFETY: the caller promises the instructions, and 16 bytes to read at `p`.
        unsafe { _mm_loadu_si128(p as *const __m128i) }
    }
    #[inline(always)]
    unsafe fn and(b: __m128i, mask: u8) -> __m128i {
        // SAFETY: the caller promises the instructions.
        unsafe { _mm_and_si128(b, _mm_set1_epi8(mask as i8)) }
    }
    #[inline(always)]
    unsafe fn or(a: __m128i, b: __m128i) -> __m128i {
        // SAFETY: the caller promises the instructions.
        unsafe { _mm_or_si128(a, b) }
    }
    #[inline(always)]
    unsafe fn shr(b: __m128i, by: u32) -> __m128i {
        // SAFETY: the caller promises the instructions.
        unsafe { _mm_srl_epi16(b, _mm_cvtsi32_si128(by as i32)) }
    }
    #[inline(always)]
    unsafe fn shl(b: __m128i, by: u32) -> __m128i {
        // SAFETY: the caller promises the instructions.
        unsafe { _mm_sll_epi16(b, _mm_cvtsi32_si128(by as i32)) }
    }
    #[inline(always)]
    unsafe fn less(b: __m128i, n: u8) -> __m128i {
        // SAFETY: the caller promises the instructions.
        unsafe { _mm_sub_epi8(b, _mm_set1_epi8(n as i8)) }
    }
    #[inline(always)]
    unsafe fn fifths(bits: u32) -> __m128i {
        // SAFETY: the caller promises the instructions.
        unsafe { _mm_maskz_set1_epi8(bits as __mmask16, 16) }
    }
    #[inline(always)]
    unsafe fn signed(b: __m128i) -> __m512 {
        // SAFETY: the caller promises the instructions.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(b)) }
    }
    #[inline(always)]
    unsafe fn words(b: __m128i, p: *mut i16) {
        // SAFETY: the caller promises the instructions, and 16 numbers to write at `p`.
        unsafe { _mm256_storeu_si256(p as *mut __m256i, _mm256_cvtepi8_epi16(b)) }
    }
    #[inline(always)]
    unsafe fn look(codes: &'static Sixteen, b: __m128i, from: u32) -> __m128i {
        // SAFETY: the caller promises the instructions.
        unsafe { look(codes, Self::and(Self::shr(b, from), 15)) }
    }
    #[inline(always)]
    unsafe fn fours(codes: &'static Sixteen, scale: f32, least: Option<f32>) -> __m512 {
        // SAFETY: the caller promises the instructions, and there are 16 codes.
        unsafe { Self::line(Self::bytes(codes.values.as_ptr().cast()), scale, least) }
    }
    #[inline(always)]
    unsafe fn four(fours: __m512, b: __m128i, from: u32) -> __m512 {
        // SAFETY: the caller promises the instructions. The permutation takes four bits of a lane.
        unsafe {
            let wide = _mm512_cvtepu8_epi32(b);
            let codes = match from {
                0 => wide,
                2 => _mm512_srl_epi32(wide, opaque(&TWO)),
                _ => _mm512_srl_epi32(wide, opaque(&FOUR)),
            };
            _mm512_permutexvar_ps(codes, fours)
        }
    }
    #[inline(always)]
    unsafe fn line(b: __m128i, scale: f32, least: Option<f32>) -> __m512 {
        // SAFETY: the caller promises the instructions.
        unsafe {
            let (codes, scale) = (Self::signed(b), _mm512_set1_ps(scale));
            match least {
                Some(least) => _mm512_fmadd_ps(codes, scale, _mm512_set1_ps(least)),
                None => _mm512_mul_ps(codes, scale),
            }
        }
    }
    #[inline(always)]
    unsafe fn put(v: __m512, p: *mut f32) {
        // SAFETY: the caller promises the instructions, and a vector to write at `p`.
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn half(p: *const u8) -> f32 {
        // SAFETY: the caller promises the same.
        unsafe { half(p) }
    }
}

impl Codes for Avx2 {
    const LANES: usize = 8;
    type V = __m256;
    type B = __m128i;
    /// The codes, their scale and the least value.
    type Fours = (&'static Sixteen, f32, Option<f32>);

    #[inline(always)]
    unsafe fn bytes(p: *const u8) -> __m128i {
        // SAFETY: the caller promises the instructions, and 8 bytes to read at `p`.
        unsafe { _mm_loadl_epi64(p as *const __m128i) }
    }
    #[inline(always)]
    unsafe fn and(b: __m128i, mask: u8) -> __m128i {
        // SAFETY: the caller promises the instructions.
        unsafe { _mm_and_si128(b, _mm_set1_epi8(mask as i8)) }
    }
    #[inline(always)]
    unsafe fn or(a: __m128i, b: __m128i) -> __m128i {
        // SAFETY: the caller promises the instructions.
        unsafe { _mm_or_si128(a, b) }
    }
    #[inline(always)]
    unsafe fn shr(b: __m128i, by: u32) -> __m128i {
        // SAFETY: the caller promises the instructions.
        unsafe { _mm_srl_epi16(b, _mm_cvtsi32_si128(by as i32)) }
    }
    #[inline(always)]
    unsafe fn shl(b: __m128i, by: u32) -> __m128i {
        // SAFETY: the caller promises the instructions.
        unsafe { _mm_sll_epi16(b, _mm_cvtsi32_si128(by as i32)) }
    }
    #[inline(always)]
    unsafe fn less(b: __m128i, n: u8) -> __m128i {
        // SAFETY: the caller promises the instructions.
        unsafe { _mm_sub_epi8(b, _mm_set1_epi8(n as i8)) }
    }
    #[inline(always)]
    unsafe fn fifths(bits: u32) -> __m128i {
        // SAFETY: the caller promises the instructions.
        unsafe {
            let each = _mm_set_epi8(0, 0, 0, 0, 0, 0, 0, 0, -128, 64, 32, 16, 8, 4, 2, 1);
            let set = _mm_cmpeq_epi8(_mm_and_si128(_mm_set1_epi8(bits as i8), each), each);
            _mm_and_si128(set, _mm_set1_epi8(16))
        }
    }
    #[inline(always)]
    unsafe fn signed(b: __m128i) -> __m256 {
        // SAFETY: the caller promises the instructions.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(b)) }
    }
    #[inline(always)]
    unsafe fn words(b: __m128i, p: *mut i16) {
        // SAFETY: the caller promises the instructions, and 8 numbers to write at `p`.
        unsafe { _mm_storeu_si128(p as *mut __m128i, _mm_cvtepi8_epi16(b)) }
    }
    #[inline(always)]
    unsafe fn look(codes: &'static Sixteen, b: __m128i, from: u32) -> __m128i {
        // SAFETY: the caller promises the instructions.
        unsafe { look(codes, Self::and(Self::shr(b, from), 15)) }
    }
    #[inline(always)]
    unsafe fn fours(codes: &'static Sixteen, scale: f32, least: Option<f32>) -> Self::Fours {
        (codes, scale, least)
    }
    #[inline(always)]
    unsafe fn four((codes, scale, least): Self::Fours, b: __m128i, from: u32) -> __m256 {
        // SAFETY: the caller promises the instructions, and there are 16 codes.
        unsafe {
            let Some(first) = codes.first else {
                return Self::line(Self::look(codes, b, from), scale, least);
            };
            // Lanes are widened once for all codes in a byte.
            let wide = _mm256_cvtepu8_epi32(b);
            let shifted = match from {
                0 => wide,
                2 => _mm256_srl_epi32(wide, opaque(&TWO)),
                _ => _mm256_srl_epi32(wide, opaque(&FOUR)),
            };
            let four = _mm256_and_si256(shifted, _mm256_set1_epi32(15));
            let four = _mm256_add_epi32(four, _mm256_set1_epi32(i32::from(first)));
            let four = _mm256_cvtepi32_ps(four);
            let scale = _mm256_set1_ps(scale);
            match least {
                Some(least) => _mm256_fmadd_ps(four, scale, _mm256_set1_ps(least)),
                None => _mm256_mul_ps(four, scale),
            }
        }
    }
    #[inline(always)]
    unsafe fn line(b: __m128i, scale: f32, least: Option<f32>) -> __m256 {
        // SAFETY: the caller promises the instructions.
        unsafe {
            let (codes, scale) = (Self::signed(b), _mm256_set1_ps(scale));
            match least {
                Some(least) => _mm256_fmadd_ps(codes, scale, _mm256_set1_ps(least)),
                None => _mm256_mul_ps(codes, scale),
            }
        }
    }
    #[inline(always)]
    unsafe fn put(v: __m256, p: *mut f32) {
        // SAFETY: the caller promises the instructions, and a vector to write at `p`.
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn half(p: *const u8) -> f32 {
        // SAFETY: the caller promises the same.
        unsafe { half(p) }
    }
}

/// What each byte, which is below 16, stands for.
///
/// # Safety
/// The CPU must have the instructions.
#[inline(always)]
unsafe fn look(codes: &'static Sixteen, fours: __m128i) -> __m128i {
    // SAFETY: the caller's promise, and there are 16 codes.
    unsafe { _mm_shuffle_epi8(_mm_loadu_si128(codes.values.as_ptr().cast()), fours) }
}

static TWO: i32 = 2;
static FOUR: i32 = 4;

/// A count that the compiler does not know. It would move a shift of widened lanes ahead of their
/// widening, which then is done for each shift instead of once, and takes most of the time.
///
/// # Safety
/// The CPU must have the instructions.
#[inline(always)]
unsafe fn opaque(count: &'static i32) -> __m128i {
    // SAFETY: the caller's promise; a reference is readable.
    unsafe { _mm_cvtsi32_si128(std::ptr::read_volatile(count)) }
}

/// # Safety
/// The CPU must have the instructions, and two bytes must be readable at `p`.
#[inline(always)]
unsafe fn half(p: *const u8) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let bits = i32::from((p as *const u16).read_unaligned());
        _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)))
    }
}
