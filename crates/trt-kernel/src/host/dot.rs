//! Dot products of a few rows of activations with many rows of a weight, at memory speed.
//!
//! Every product is summed the same way whatever rows are done together: vectors at even and
//! odd places in two accumulators, the two added, lanes added in a fixed order. So the result
//! for a weight row depends on nothing but that row, the activations and the instruction set,
//! which is what makes the row-range law hold for few rows.

use super::HostError;
use super::simd::{self, Job, Simd};
use super::span::{Args, Run};
use crate::{Arg, DType};

/// Activations are padded with zeros to a multiple of this.
pub(super) const PAD: usize = 16;

/// The length of a padded row of activations.
pub(super) fn padded(k: usize) -> usize {
    k.next_multiple_of(PAD)
}

/// Weight rows in memory: row `r` starts at element `offset + r * stride`, and is contiguous.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub arg: Arg,
    pub offset: i64,
    pub stride: i64,
}

/// With `k > 0`: `out[i * pitch + r] = Σ_k x[i * padded(k) + k] * w[r, k]` for `i < m`, `r < rows`.
pub(super) fn dot(
    args: &Args,
    w: Rows,
    rows: usize,
    k: usize,
    x: &[f32],
    (out, pitch): (&mut [f32], usize),
) -> Result<(), HostError> {
    let m = x.len() / padded(k).max(1);
    if rows == 0 || m == 0 {
        return Ok(());
    }
    assert!(
        out.len() >= (m - 1) * pitch + rows,
        "sums have room for every row"
    );
    let row = |r: usize| Run {
        offset: w.offset.saturating_add(w.stride.saturating_mul(r as i64)),
        stride: 1,
        count: k,
    };
    // Rows are evenly spaced, so if the first and the last are inside, all are.
    let first = args.address(w.arg, row(0), false)?;
    args.address(w.arg, row(rows - 1), false)?;
    let dtype = args.dtype(w.arg);
    let job = Dots {
        w: first,
        stride: w.stride as isize * dtype.size() as isize,
        dtype,
        rows,
        k,
        x,
        m,
        out,
        pitch,
    };
    simd::run(job);
    Ok(())
}

/// The same with rows of `k > 0` values that lie one after another.
pub(super) fn dot_unpacked(w: &[f32], k: usize, x: &[f32], out: (&mut [f32], usize)) {
    dot_unpacked_on(simd::Isa::best(), w, k, x, out);
}

/// The same with the instructions of a set that this CPU has.
pub(super) fn dot_unpacked_on(
    isa: simd::Isa,
    w: &[f32],
    k: usize,
    x: &[f32],
    (out, pitch): (&mut [f32], usize),
) {
    let (rows, m) = (w.len() / k.max(1), x.len() / padded(k).max(1));
    if rows == 0 || m == 0 {
        return;
    }
    assert!(
        out.len() >= (m - 1) * pitch + rows,
        "sums have room for every row"
    );
    let job = Dots {
        w: w.as_ptr().cast(),
        stride: size_of_val(&w[..k]) as isize,
        dtype: DType::F32,
        rows,
        k,
        x,
        m,
        out,
        pitch,
    };
    simd::run_on(isa, job);
}

/// The checked form of a [`dot`] call: all addresses are inside their memory.
struct Dots<'a> {
    w: *const u8,
    /// Bytes between weight rows.
    stride: isize,
    dtype: DType,
    rows: usize,
    k: usize,
    x: &'a [f32],
    m: usize,
    out: &'a mut [f32],
    pitch: usize,
}

/// A weight element type.
trait Element: Copy {
    const SIZE: usize;
    const ZERO: Self;
    /// # Safety
    /// As [`Simd::load`].
    unsafe fn load<S: Simd>(p: *const Self) -> S::V;
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Bf16(u16);
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Half(u16);

impl Element for f32 {
    const SIZE: usize = 4;
    const ZERO: f32 = 0.0;
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const f32) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { S::load(p) }
    }
}
impl Element for Bf16 {
    const SIZE: usize = 2;
    const ZERO: Bf16 = Bf16(0);
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Bf16) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { S::load_bf16(p as *const u16) }
    }
}
impl Element for Half {
    const SIZE: usize = 2;
    const ZERO: Half = Half(0);
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const Half) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { S::load_f16(p as *const u16) }
    }
}

impl Job for Dots<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(mut self) {
        match self.dtype {
            DType::F32 => self.all::<S, f32>(),
            DType::BF16 => self.all::<S, Bf16>(),
            DType::F16 => self.all::<S, Half>(),
            // Refused when the kernel was prepared.
            DType::U8 | DType::U32 | DType::I64 => {}
        }
    }
}

impl Dots<'_> {
    #[inline(always)]
    fn all<S: Simd, E: Element>(&mut self) {
        let mut i = 0;
        // AVX-512 has registers for four rows of activations at once, others for two.
        let most = if S::LANES == 16 { 4 } else { 2 };
        while i < self.m {
            match (self.m - i).min(most) {
                1 => self.rows::<S, E, 1, 4>(i),
                2 if S::LANES == 16 => self.rows::<S, E, 2, 4>(i),
                2 => self.rows::<S, E, 2, 2>(i),
                3 => self.rows::<S, E, 3, 2>(i),
                _ => self.rows::<S, E, 4, 2>(i),
            }
            i += (self.m - i).min(most);
        }
    }

    /// All weight rows against activations `i..i + M`, `R` weight rows at a time.
    #[inline(always)]
    fn rows<S: Simd, E: Element, const M: usize, const R: usize>(&mut self, i: usize) {
        let mut r = 0;
        while r + R <= self.rows {
            self.group::<S, E, M, R>(i, r);
            r += R;
        }
        while r < self.rows {
            self.group::<S, E, M, 1>(i, r);
            r += 1;
        }
    }

    // Rows and activations are indices into registers.
    #[allow(clippy::needless_range_loop)]
    #[inline(always)]
    fn group<S: Simd, E: Element, const M: usize, const R: usize>(&mut self, i: usize, r: usize) {
        let (k, lanes, pad) = (self.k, S::LANES, padded(self.k));
        // SAFETY: `dot` checked that `rows` weight rows of `k` elements are readable, `x` has
        // `m` rows of `padded(k)` elements, and vectors beyond `k` are read by `partial`.
        unsafe {
            let w: [*const E; R] =
                std::array::from_fn(|j| self.w.offset((r + j) as isize * self.stride) as *const E);
            let x: [*const f32; M] = std::array::from_fn(|j| self.x.as_ptr().add((i + j) * pad));
            let stretch = one_stretch(R, self.stride, k * E::SIZE);
            let mut even = [[S::zero(); R]; M];
            let mut odd = [[S::zero(); R]; M];
            let mut at = 0;
            while at + 2 * lanes <= k {
                for j in 0..R {
                    let next = match stretch {
                        true => {
                            (w[0] as *const u8).wrapping_add((at * R + 2 * lanes * j) * E::SIZE)
                        }
                        false => w[j].add(at) as *const u8,
                    };
                    prefetch(next);
                    let (v0, v1) = (
                        E::load::<S>(w[j].add(at)),
                        E::load::<S>(w[j].add(at + lanes)),
                    );
                    for n in 0..M {
                        even[n][j] = S::fma(v0, S::load(x[n].add(at)), even[n][j]);
                        odd[n][j] = S::fma(v1, S::load(x[n].add(at + lanes)), odd[n][j]);
                    }
                }
                at += 2 * lanes;
            }
            while at < k {
                let left = (k - at).min(lanes);
                for j in 0..R {
                    let v = match left == lanes {
                        true => E::load::<S>(w[j].add(at)),
                        false => partial::<S, E>(w[j].add(at), left),
                    };
                    for n in 0..M {
                        even[n][j] = S::fma(v, S::load(x[n].add(at)), even[n][j]);
                    }
                }
                at += left;
            }
            for n in 0..M {
                for j in 0..R {
                    self.out[(i + n) * self.pitch + r + j] = S::sum(S::add(even[n][j], odd[n][j]));
                }
            }
        }
    }
}

/// The first `n` elements, then zeros.
///
/// # Safety
/// `n` elements must be readable from `p`, and `n` less than a vector.
#[inline(always)]
unsafe fn partial<S: Simd, E: Element>(p: *const E, n: usize) -> S::V {
    let mut buffer = [E::ZERO; 16];
    // SAFETY: the caller's promise; a vector has at most 16 elements.
    unsafe {
        std::ptr::copy_nonoverlapping(p as *const u8, buffer.as_mut_ptr() as *mut u8, n * E::SIZE);
        E::load::<S>(buffer.as_ptr())
    }
}

/// Whether rows that are read together are one short stretch of memory, through which is then asked ahead line by line: asked
/// for row by row, most lines of short rows are asked for several times, and others late, which halves the rate. Long
/// rows are streams of their own.
#[inline(always)]
pub(super) fn one_stretch(rows: usize, stride: isize, bytes: usize) -> bool {
    const SHORT: usize = 16 * 1024;
    stride == bytes as isize && rows * bytes <= SHORT
}

/// Asks for the line that the stream of weights reaches soon. Any address is allowed.
#[inline(always)]
pub(super) fn prefetch(p: *const u8) {
    const AHEAD: usize = 4096;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults, so the address need not be inside the memory.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(p.wrapping_add(AHEAD) as *const i8);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p.wrapping_add(AHEAD);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::simd::{Isa, run_on};
    use half::{bf16, f16};

    /// Small integers, so that every order of summation is exact.
    fn value(i: usize) -> f32 {
        (i % 7) as f32 - 3.0
    }

    #[test]
    fn every_instruction_set_and_dtype_computes_the_products() {
        let rows = 7;
        for isa in Isa::available() {
            for k in [1, 16, 31, 32, 33, 100] {
                for m in 1..=9 {
                    let x: Vec<f32> = (0..m * padded(k))
                        .map(|i| if i % padded(k) < k { value(i / 3) } else { 0.0 })
                        .collect();
                    let w: Vec<f32> = (0..rows * k).map(value).collect();
                    let encode: [(DType, Vec<u8>); 3] = [
                        (DType::F32, w.iter().flat_map(|x| x.to_le_bytes()).collect()),
                        (
                            DType::BF16,
                            w.iter()
                                .flat_map(|x| bf16::from_f32(*x).to_le_bytes())
                                .collect(),
                        ),
                        (
                            DType::F16,
                            w.iter()
                                .flat_map(|x| f16::from_f32(*x).to_le_bytes())
                                .collect(),
                        ),
                    ];
                    for (dtype, bytes) in &encode {
                        let mut out = vec![0f32; m * rows];
                        let job = Dots {
                            w: bytes.as_ptr(),
                            stride: (k * dtype.size()) as isize,
                            dtype: *dtype,
                            rows,
                            k,
                            x: &x,
                            m,
                            out: &mut out,
                            pitch: rows,
                        };
                        run_on(isa, job);
                        for (at, y) in out.iter().enumerate() {
                            let (i, r) = (at / rows, at % rows);
                            let sum: f32 =
                                (0..k).map(|t| x[i * padded(k) + t] * w[r * k + t]).sum();
                            assert_eq!(*y, sum, "{isa:?} {dtype} k={k} m={m}");
                        }
                    }
                }
            }
        }
    }
}
