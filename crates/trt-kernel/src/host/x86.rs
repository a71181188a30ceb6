//! The x86-64 instruction sets: AVX-512 (with and without products of bfloat16 and of numbers of 16 bits) and AVX2.
//!
//! Invariant: as for [`Simd`]: nothing here runs on a CPU without the instructions, and pointers
//! cover a vector.

use super::simd::{Job, Simd};
use half::f16;
use std::arch::x86_64::*;

/// # Safety
/// The CPU must have these features.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub unsafe fn run_avx512<J: Job>(job: J) -> J::Out {
    job.run::<Avx512>()
}

/// # Safety
/// The CPU must have these features.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
pub unsafe fn run_avx512_bf16<J: Job>(job: J) -> J::Out {
    job.run::<Avx512>()
}

/// # Safety
/// The CPU must have these features.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub unsafe fn run_avx512_vnni<J: Job>(job: J) -> J::Out {
    job.run::<Avx512>()
}

/// # Safety
/// The CPU must have these features.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn run_avx2<J: Job>(job: J) -> J::Out {
    job.run::<Avx2>()
}

#[derive(Clone, Copy)]
pub struct Avx512;

impl Simd for Avx512 {
    const TILE_VECTORS: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        // SAFETY: the caller promises the instructions.
        unsafe { _mm512_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        // SAFETY: the caller promises the instructions.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        // SAFETY: the caller promises the instructions, and a vector to read at `p`.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> __m512 {
        // SAFETY: the caller promises the instructions, and a vector to read at `p`.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p as *const __m256i));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> __m512 {
        // SAFETY: the caller promises the instructions, and a vector to read at `p`.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p as *const __m256i)) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the caller promises the instructions.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller promises the instructions.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sum(v: __m512) -> f32 {
        // SAFETY: the caller promises the instructions.
        unsafe { _mm512_reduce_add_ps(v) }
    }
    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
    #[inline(always)]
    unsafe fn dot_pairs(a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: vectors of one size without invalid values.
        let pairs = |v: __m512| unsafe { std::mem::transmute::<__m512, __m512bh>(v) };
        // SAFETY: the caller is inside `run_pairs`, which knows that the CPU has this one.
        unsafe { _mm512_dpbf16_ps(c, pairs(a), pairs(b)) }
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_pitch: usize, to: *mut f32, to_pitch: usize) {
        // SAFETY: the caller promises the instructions, and that both squares are accessible.
        unsafe {
            // Pairs of rows, then fours: lane `l` of `q[4 i + j]` is column `4 l + j` of rows
            // `4 i..4 i + 4`. Plain loops, so that the arrays stay in registers.
            let mut q = [_mm512_setzero_ps(); 16];
            for i in 0..4 {
                let row = |j: usize| _mm512_loadu_ps(from.add((4 * i + j) * from_pitch));
                let (r0, r1, r2, r3) = (row(0), row(1), row(2), row(3));
                let low_01 = _mm512_castps_pd(_mm512_unpacklo_ps(r0, r1));
                let high_01 = _mm512_castps_pd(_mm512_unpackhi_ps(r0, r1));
                let low_23 = _mm512_castps_pd(_mm512_unpacklo_ps(r2, r3));
                let high_23 = _mm512_castps_pd(_mm512_unpackhi_ps(r2, r3));
                q[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(low_01, low_23));
                q[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low_01, low_23));
                q[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high_01, high_23));
                q[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high_01, high_23));
            }
            // A 4 x 4 transpose of 128-bit lanes.
            for j in 0..4 {
                let even_low = _mm512_shuffle_f32x4::<0x88>(q[j], q[4 + j]);
                let odd_low = _mm512_shuffle_f32x4::<0xdd>(q[j], q[4 + j]);
                let even_high = _mm512_shuffle_f32x4::<0x88>(q[8 + j], q[12 + j]);
                let odd_high = _mm512_shuffle_f32x4::<0xdd>(q[8 + j], q[12 + j]);
                let put = |i: usize, v| _mm512_storeu_ps(to.add(i * to_pitch), v);
                put(j, _mm512_shuffle_f32x4::<0x88>(even_low, even_high));
                put(4 + j, _mm512_shuffle_f32x4::<0x88>(odd_low, odd_high));
                put(8 + j, _mm512_shuffle_f32x4::<0xdd>(even_low, even_high));
                put(12 + j, _mm512_shuffle_f32x4::<0xdd>(odd_low, odd_high));
            }
        }
    }
    #[inline(always)]
    unsafe fn widen_f16(p: *const u16, out: &mut [f32]) {
        // SAFETY: the caller promises the same, and where AVX-512 is chosen there is AVX2.
        unsafe { Avx2::widen_f16(p, out) }
    }
    #[inline(always)]
    unsafe fn narrow_f16(from: &[f32], p: *mut u16) {
        // SAFETY: the caller promises the same, and where AVX-512 is chosen there is AVX2.
        unsafe { Avx2::narrow_f16(from, p) }
    }
}

#[derive(Clone, Copy)]
pub struct Avx2;

impl Simd for Avx2 {
    const TILE_VECTORS: usize = 2;

    #[inline(always)]
    unsafe fn zero() -> __m256 {
        // SAFETY: the caller promises the instructions.
        unsafe { _mm256_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        // SAFETY: the caller promises the instructions.
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m256 {
        // SAFETY: the caller promises the instructions, and a vector to read at `p`.
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> __m256 {
        // SAFETY: the caller promises the instructions, and a vector to read at `p`.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p as *const __m128i));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> __m256 {
        // SAFETY: the caller promises the instructions, and a vector to read at `p`.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p as *const __m128i)) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: the caller promises the instructions.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        // SAFETY: the caller promises the instructions.
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sum(v: __m256) -> f32 {
        // SAFETY: the caller promises the instructions.
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
    #[inline(always)]
    unsafe fn widen_f16(p: *const u16, out: &mut [f32]) {
        let whole = out.len() / 8 * 8;
        // SAFETY: the caller promises the instructions, and `out.len()` readable halves at
        // `p`; vectors end at `whole`, which is no more than that.
        unsafe {
            for i in (0..whole).step_by(8) {
                _mm256_storeu_ps(out.as_mut_ptr().add(i), Self::load_f16(p.add(i)));
            }
            for (i, o) in out.iter_mut().enumerate().skip(whole) {
                *o = f16::from_bits(p.add(i).read_unaligned()).to_f32();
            }
        }
    }
    #[inline(always)]
    unsafe fn narrow_f16(from: &[f32], p: *mut u16) {
        let whole = from.len() / 8 * 8;
        // SAFETY: the caller promises the instructions, and `from.len()` writable halves at
        // `p`; vectors end at `whole`, which is no more than that.
        unsafe {
            for i in (0..whole).step_by(8) {
                let v = _mm256_loadu_ps(from.as_ptr().add(i));
                let h = _mm256_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT }>(v);
                _mm_storeu_si128(p.add(i) as *mut __m128i, h);
            }
            for (i, x) in from.iter().enumerate().skip(whole) {
                p.add(i).write_unaligned(f16::from_f32(*x).to_bits());
            }
        }
    }
}
