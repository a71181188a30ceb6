//! Dot products of a few rows of activations with rows of blocks, at memory speed.
//!
//! A row is unpacked in registers and meets the activations there. Values and order of sums are those of
//! [`crate::host::dot`] over the unpacked row: vectors at even and odd places in two
//! accumulators, so that a row of activations alone gives what it gives among others.

use super::{OfBlocks, Unpack, in_memory, of_blocks};
use crate::host::HostError;
use crate::host::dot::{one_stretch, prefetch};
use crate::host::simd::{self, Job, Simd};
use crate::host::span::{Args, Run};
use crate::{Arg, BlockType};

/// Rows that share what is read of one row of activations: as many as there are registers for.
const ROWS: usize = 4;
const FEWER_ROWS: usize = 2;

/// Rows of blocks in memory, all of which is readable.
#[derive(Clone, Copy)]
pub(super) struct BlockRows {
    block: BlockType,
    first: *const u8,
    /// Bytes between rows.
    stride: isize,
    /// Blocks of a row.
    blocks: usize,
}

impl BlockRows {
    /// # Safety
    /// At `first` and every `stride` bytes further on there must be `blocks` readable blocks, for as
    /// many rows as are multiplied.
    pub unsafe fn new(block: BlockType, first: *const u8, stride: isize, blocks: usize) -> Self {
        BlockRows {
            block,
            first,
            stride,
            blocks,
        }
    }
}

/// The rows of blocks of an argument: row `r` starts at value `offset + r * stride`.
#[derive(Clone, Copy)]
pub(in crate::host) struct RowsAt {
    pub arg: Arg,
    pub block: BlockType,
    pub offset: i64,
    pub stride: i64,
}

/// `out[i * rows + r] = Σ_k x[i * k + k] * w[r, k]` for `i < m` and each row `r` of `out.len() / m`; false, and nothing is
/// done, where rows start inside of blocks.
pub(in crate::host) fn dot(
    args: &Args,
    at: RowsAt,
    k: usize,
    x: &[f32],
    out: &mut [f32],
) -> Result<bool, HostError> {
    let values = at.block.values();
    let starts = |from: i64| from % values as i64 == 0;
    let m = x.len() / k.max(1);
    if !starts(at.offset) || !starts(at.stride) || !k.is_multiple_of(values) || m == 0 {
        return Ok(false);
    }
    let count = out.len() / m;
    if count == 0 {
        return Ok(true);
    }
    let row = |r: usize| Run {
        offset: at.offset.saturating_add(at.stride.saturating_mul(r as i64)),
        stride: 1,
        count: k,
    };
    // Rows are evenly spaced, so if the first and the last are inside, all are.
    let (first, _) = args.blocks(at.arg, at.block, row(0))?;
    args.blocks(at.arg, at.block, row(count - 1))?;
    let stride = at.stride as isize / values as isize * at.block.bytes() as isize;
    // SAFETY: just checked.
    let rows = unsafe { BlockRows::new(at.block, first, stride, k / values) };
    simd::run(Dots { rows, x, out });
    Ok(true)
}

pub(super) struct Dots<'a> {
    pub rows: BlockRows,
    pub x: &'a [f32],
    pub out: &'a mut [f32],
}

impl Job for Dots<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let set = std::marker::PhantomData::<S>;
        of_blocks(self.rows.block, Typed { dots: self, set })
    }
}

struct Typed<'a, S> {
    dots: Dots<'a>,
    set: std::marker::PhantomData<S>,
}

impl<S: Simd> OfBlocks for Typed<'_, S> {
    type Out = ();
    #[inline(always)]
    fn run<T: Unpack>(self) {
        let Dots { rows, x, out } = self.dots;
        let k = rows.blocks * T::TYPE.values();
        let m = x.len() / k.max(1);
        if m == 1 {
            let done = match S::LANES {
                16 => one::<S, T, ROWS>(rows, x, out),
                _ => one::<S, T, FEWER_ROWS>(rows, x, out),
            };
            for (r, sum) in out.iter_mut().enumerate().skip(done) {
                [[*sum]] = group::<S, T, 1, 1>(rows, r, x);
            }
            return;
        }
        let count = out.len() / m.max(1);
        for r in 0..count {
            // The row stays in the first-level cache.
            let mut i = 0;
            while i < m {
                let x = &x[i * k..];
                let mut put = |n: usize, sum: f32| out[(i + n) * count + r] = sum;
                i += match m - i {
                    1 => {
                        let [[sum]] = group::<S, T, 1, 1>(rows, r, x);
                        put(0, sum);
                        1
                    }
                    2 | 3 => {
                        let sums = group::<S, T, 1, 2>(rows, r, x);
                        (sums.iter().enumerate()).for_each(|(n, [sum])| put(n, *sum));
                        2
                    }
                    _ => {
                        let sums = group::<S, T, 1, 4>(rows, r, x);
                        (sums.iter().enumerate()).for_each(|(n, [sum])| put(n, *sum));
                        4
                    }
                };
            }
        }
    }
}

/// One row of activations with as many groups of `R` rows as there are: how many rows that is.
#[inline(always)]
fn one<S: Simd, T: Unpack, const R: usize>(rows: BlockRows, x: &[f32], out: &mut [f32]) -> usize {
    let (groups, _) = out.as_chunks_mut::<R>();
    for (g, sums) in groups.iter_mut().enumerate() {
        [*sums] = group::<S, T, R, 1>(rows, g * R, x);
    }
    groups.len() * R
}

/// Rows `r` and on with the first rows of activations.
// Rows are indices into registers.
#[allow(clippy::needless_range_loop)]
#[inline(always)]
fn group<S: Simd, T: Unpack, const R: usize, const M: usize>(
    rows: BlockRows,
    r: usize,
    x: &[f32],
) -> [[f32; R]; M] {
    let (bytes, values, lanes) = (T::TYPE.bytes(), T::TYPE.values(), S::LANES);
    let k = rows.blocks * values;
    assert!(x.len() >= M * k, "activations");
    // SAFETY: a job has the instructions, `BlockRows` promises the blocks of each row, and there are
    // activations for all of them.
    unsafe {
        let w: [*const u8; R] =
            std::array::from_fn(|j| rows.first.offset((r + j) as isize * rows.stride));
        let stretch = one_stretch(R, rows.stride, rows.blocks * bytes);
        let mut even = [[S::zero(); R]; M];
        let mut odd = [[S::zero(); R]; M];
        for b in 0..rows.blocks {
            let block: [*const u8; R] = std::array::from_fn(|j| w[j].add(b * bytes));
            let mut heads = [T::Head::default(); R];
            for j in 0..R {
                T::head::<S>(block[j], &mut heads[j]);
                in_memory::<T>(&mut heads[j]);
            }
            // One row alone the CPU foresees itself.
            let mut line = 0;
            while R > 1 && line < R * bytes {
                let next = match stretch {
                    true => w[0].wrapping_add(R * bytes * b + line),
                    false => block[line / bytes].wrapping_add(line % bytes),
                };
                prefetch(next);
                line += 64;
            }
            for unit in 0..values / T::UNIT {
                let x = x.as_ptr().add(b * values + unit * T::UNIT);
                let mut at = 0;
                while at < T::UNIT {
                    for j in 0..R {
                        let v0 = T::vector::<S>(block[j], &heads[j], unit, at);
                        let v1 = T::vector::<S>(block[j], &heads[j], unit, at + lanes);
                        for n in 0..M {
                            let x = x.add(n * k + at);
                            even[n][j] = S::fma(v0, S::load(x), even[n][j]);
                            odd[n][j] = S::fma(v1, S::load(x.add(lanes)), odd[n][j]);
                        }
                    }
                    at += 2 * lanes;
                }
            }
        }
        let mut sums = [[0f32; R]; M];
        for n in 0..M {
            for j in 0..R {
                sums[n][j] = S::sum(S::add(even[n][j], odd[n][j]));
            }
        }
        sums
    }
}
