//! Instruction sets behind one trait, chosen at run time.
//!
//! A [`Job`] is code written once over a [`Simd`]; [`run`] compiles it for each instruction set
//! and picks the best that the CPU has. Everything a job calls is `#[inline(always)]`, so plain
//! loops inside it are vectorised for that set too. Invariant: the vector methods are only
//! reached through [`run`] or [`run_on`], which know that the CPU has the instructions; that is
//! the promise behind every `unsafe` call of them.

use super::codes::Codes;
use super::elements::bf16_bits;
use super::words::Words;
#[cfg(target_arch = "x86_64")]
use super::x86;
use half::f16;

/// Vectors of f32 and the conversions around them.
///
/// # Safety
/// Every `unsafe` method needs a CPU with the set's instructions, and pointers valid for
/// [`Simd::LANES`] elements; no alignment is assumed.
pub(super) trait Simd: Codes + Words {
    /// Vectors across in a matmul tile; `TILE_VECTORS * LANES` divides 64.
    const TILE_VECTORS: usize;
    /// All zero.
    unsafe fn zero() -> Self::V;
    /// The same value everywhere.
    unsafe fn splat(x: f32) -> Self::V;
    /// Reads f32.
    unsafe fn load(p: *const f32) -> Self::V;
    /// Reads bfloat16.
    unsafe fn load_bf16(p: *const u16) -> Self::V;
    /// Reads half precision.
    unsafe fn load_f16(p: *const u16) -> Self::V;
    /// Writes f32.
    #[inline(always)]
    unsafe fn store(v: Self::V, p: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { Self::put(v, p) }
    }
    /// `a * b + c`, fused if the set can.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a + b`.
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    /// The sum of all lanes, always in the same order.
    unsafe fn sum(v: Self::V) -> f32;
    /// Scalar `a * b + c`, fused if the set can.
    fn mul_add(a: f32, b: f32, c: f32) -> f32;

    /// `c` plus the products of two pairs of bfloat16 in each lane; only inside [`run_pairs`].
    unsafe fn dot_pairs(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        let _ = (a, b);
        c
    }

    /// Transposes 16 x 16 elements; rows are `from_pitch` and `to_pitch` elements apart.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_pitch: usize, to: *mut f32, to_pitch: usize) {
        for i in 0..16 {
            for j in 0..16 {
                // SAFETY: the caller's promise: both squares are accessible.
                unsafe { *to.add(i * to_pitch + j) = *from.add(j * from_pitch + i) };
            }
        }
    }

    /// Reads `out.len()` halves.
    unsafe fn widen_f16(p: *const u16, out: &mut [f32]) {
        for (i, o) in out.iter_mut().enumerate() {
            // SAFETY: the caller's promise: `out.len()` elements are readable.
            *o = f16::from_bits(unsafe { p.add(i).read_unaligned() }).to_f32();
        }
    }

    /// Writes `from` as halves.
    unsafe fn narrow_f16(from: &[f32], p: *mut u16) {
        for (i, x) in from.iter().enumerate() {
            // SAFETY: the caller's promise: `from.len()` elements are writable.
            unsafe { p.add(i).write_unaligned(f16::from_f32(*x).to_bits()) };
        }
    }

    /// Reads `out.len()` bfloat16s.
    #[inline(always)]
    unsafe fn widen_bf16(p: *const u16, out: &mut [f32]) {
        for (i, o) in out.iter_mut().enumerate() {
            // SAFETY: the caller's promise: `out.len()` elements are readable.
            *o = f32::from_bits(u32::from(unsafe { p.add(i).read_unaligned() }) << 16);
        }
    }

    /// Writes `from` as bfloat16s.
    #[inline(always)]
    unsafe fn narrow_bf16(from: &[f32], p: *mut u16) {
        for (i, x) in from.iter().enumerate() {
            // SAFETY: the caller's promise: `from.len()` elements are writable.
            unsafe { p.add(i).write_unaligned(bf16_bits(*x)) };
        }
    }
}

/// Code to be compiled for every instruction set. `run` must be `#[inline(always)]`.
pub(super) trait Job {
    /// What it returns.
    type Out;
    /// The code.
    fn run<S: Simd>(self) -> Self::Out;
}

/// The instruction sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isa {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Isa {
    /// What this CPU has, best first.
    #[cfg(test)]
    pub fn available() -> Vec<Isa> {
        let mut sets = vec![Isa::best(), Isa::Portable];
        #[cfg(target_arch = "x86_64")]
        if sets[0] == Isa::Avx512 {
            sets.insert(1, Isa::Avx2);
        }
        sets.dedup();
        sets
    }

    /// The best set of this CPU.
    #[inline]
    pub fn best() -> Isa {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            if avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
            {
                return Isa::Avx512;
            }
            if avx2 {
                return Isa::Avx2;
            }
        }
        Isa::Portable
    }
}

/// Runs a job with the best instruction set.
#[inline]
pub(super) fn run<J: Job>(job: J) -> J::Out {
    run_on(Isa::best(), job)
}

/// Runs a job with a set that this CPU has.
#[inline]
pub(super) fn run_on<J: Job>(isa: Isa, job: J) -> J::Out {
    match isa {
        // SAFETY: `Isa` values other than `Portable` come from detection.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { x86::run_avx512(job) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { x86::run_avx2(job) },
        Isa::Portable => job.run::<Portable>(),
    }
}

/// Whether [`run_pairs`] works here.
#[inline]
pub(super) fn has_pairs() -> bool {
    #[cfg(target_arch = "x86_64")]
    return Isa::best() == Isa::Avx512 && is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Runs a job that multiplies bfloat16 pairs ([`Simd::dot_pairs`]). Call only where
/// [`has_pairs`]; elsewhere the job runs without them.
#[inline]
pub(super) fn run_pairs<J: Job>(job: J) -> J::Out {
    #[cfg(target_arch = "x86_64")]
    if has_pairs() {
        // SAFETY: just detected.
        return unsafe { x86::run_avx512_bf16(job) };
    }
    run(job)
}

/// Whether [`run_words`] works here.
#[inline]
pub(super) fn has_words() -> bool {
    #[cfg(target_arch = "x86_64")]
    return Isa::best() == Isa::Avx512 && is_x86_feature_detected!("avx512vnni");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Runs a job that sums products of numbers of 16 bits in one instruction ([`Words::dot_at_once`]). Call only where
/// [`has_words`]; elsewhere the job runs without it.
#[inline]
pub(super) fn run_words<J: Job>(job: J) -> J::Out {
    #[cfg(target_arch = "x86_64")]
    if has_words() {
        // SAFETY: just detected.
        return unsafe { x86::run_avx512_vnni(job) };
    }
    run(job)
}

/// Arrays of 8 that the compiler turns into whatever the target has.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Simd for Portable {
    const TILE_VECTORS: usize = 1;

    #[inline(always)]
    unsafe fn zero() -> [f32; 8] {
        [0.; 8]
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> [f32; 8] {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> [f32; 8] {
        // SAFETY: the caller's promise: 8 elements are readable.
        unsafe { (p as *const [f32; 8]).read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> [f32; 8] {
        // SAFETY: the caller's promise: 8 elements are readable.
        let bits = unsafe { (p as *const [u16; 8]).read_unaligned() };
        bits.map(|b| f32::from_bits(u32::from(b) << 16))
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> [f32; 8] {
        // SAFETY: the caller's promise: 8 elements are readable.
        let bits = unsafe { (p as *const [u16; 8]).read_unaligned() };
        bits.map(|b| f16::from_bits(b).to_f32())
    }
    #[inline(always)]
    unsafe fn fma(a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn add(a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sum(v: [f32; 8]) -> f32 {
        ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
    }
    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }
}
