//! [`Words`] of AVX-512 and AVX2.

use super::words::Words;
use super::x86::{Avx2, Avx512};
use std::arch::x86_64::*;

impl Words for Avx512 {
    type I = __m512i;

    #[inline(always)]
    unsafe fn nothing() -> __m512i {
        // SAFETY: the caller promises the instructions.
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    unsafe fn pairs(p: *const i16) -> __m512i {
        // SAFETY: the caller promises the instructions, and 32 numbers to read at `p`.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn pair(p: *const i16) -> __m512i {
        // SAFETY: the caller promises the instructions, and a pair to read at `p`.
        unsafe { _mm512_set1_epi32((p as *const i32).read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn dot(sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the caller promises the instructions.
        unsafe { _mm512_add_epi32(sum, _mm512_madd_epi16(a, b)) }
    }
    #[inline(always)]
    unsafe fn dot_at_once(sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the caller is inside `run_words`, which knows that the CPU has this one.
        unsafe { dpwssd(sum, a, b) }
    }
    #[inline(always)]
    unsafe fn scaled(sum: __m512i, by: __m512) -> __m512 {
        // SAFETY: the caller promises the instructions.
        unsafe { _mm512_mul_ps(_mm512_cvtepi32_ps(sum), by) }
    }
}

/// `_mm512_dpwssd_epi32`, written out: the compiler splits the intrinsic into a product and a sum where it thinks that the chain of
/// sums is what takes time, and two instructions instead of one are what does.
///
/// # Safety
/// The CPU must have the instructions.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn dpwssd(mut sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: the caller's promise; nothing but registers is touched.
    unsafe {
        std::arch::asm!(
            "vpdpwssd {sum}, {a}, {b}",
            sum = inout(zmm_reg) sum,
            a = in(zmm_reg) a,
            b = in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

impl Words for Avx2 {
    type I = __m256i;

    #[inline(always)]
    unsafe fn nothing() -> __m256i {
        // SAFETY: the caller promises the instructions.
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn pairs(p: *const i16) -> __m256i {
        // SAFETY: the caller promises the instructions, and 16 numbers to read at `p`.
        unsafe { _mm256_loadu_si256(p.cast()) }
    }
    #[inline(always)]
    unsafe fn pair(p: *const i16) -> __m256i {
        // SAFETY: the caller promises the instructions, and a pair to read at `p`.
        unsafe { _mm256_set1_epi32((p as *const i32).read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn dot(sum: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller promises the instructions.
        unsafe { _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)) }
    }
    #[inline(always)]
    unsafe fn scaled(sum: __m256i, by: __m256) -> __m256 {
        // SAFETY: the caller promises the instructions.
        unsafe { _mm256_mul_ps(_mm256_cvtepi32_ps(sum), by) }
    }
}
