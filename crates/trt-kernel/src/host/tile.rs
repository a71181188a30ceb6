//! The matmul micro-kernel: many rows of activations against a packed panel of 64 columns.
//!
//! Each output is one chain of multiply-adds over `k` in order, started from zero or from what
//! the output holds. Which rows share a tile changes nothing, so a panel gives the same bits
//! whatever rows, range or thread it runs with: the row-range law for many rows.

use super::HostError;
use super::exec::Place;
use super::simd::{self, Job, Simd};
use super::span::{Args, Run};
use crate::{Arg, ROW_PANEL};

/// Columns of a panel.
pub(super) const PANEL: usize = ROW_PANEL;
/// The contracted size that is packed at once: a block of panel fits the second-level cache.
pub(super) const BLOCK: usize = 512;

/// `c[i, j] (+)= Σ_k a[i, k] * b[k, j]` for `i < m` and the panel's 64 columns.
pub(super) struct Panel<'a> {
    /// Activations, rows `lda` apart.
    pub a: &'a [f32],
    pub lda: usize,
    pub m: usize,
    pub k: usize,
    /// `[k, 64]`.
    pub b: &'a [f32],
    /// Rows `ldc` apart, 64 columns each.
    pub c: &'a mut [f32],
    pub ldc: usize,
    /// Whether to add to what `c` holds.
    pub add: bool,
}

impl Panel<'_> {
    /// Computes it with the best instructions.
    pub fn run(self) {
        simd::run(self);
    }

    #[inline(always)]
    fn rows<S: Simd, const M: usize>(&mut self, i: usize) {
        const { assert!(PANEL % 16 == 0) };
        let width = S::TILE_VECTORS * S::LANES;
        for j in (0..PANEL).step_by(width) {
            match S::TILE_VECTORS {
                4 => self.tile::<S, M, 4>(i, j),
                2 => self.tile::<S, M, 2>(i, j),
                _ => self.tile::<S, M, 1>(i, j),
            }
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const M: usize, const V: usize>(&mut self, i: usize, j: usize) {
        // SAFETY: `run` checked that `a` has `m` rows of `k`, `b` has `k` rows of 64 and `c` has
        // `m` rows of 64; `i + M <= m` and `j + V * LANES <= 64`.
        unsafe {
            let a: [*const f32; M] =
                std::array::from_fn(|n| self.a.as_ptr().add((i + n) * self.lda));
            let b = self.b.as_ptr().add(j);
            let c = self.c.as_mut_ptr().add(i * self.ldc + j);
            let mut sums = [[S::zero(); V]; M];
            if self.add {
                for n in 0..M {
                    for v in 0..V {
                        sums[n][v] = S::load(c.add(n * self.ldc + v * S::LANES));
                    }
                }
            }
            for k in 0..self.k {
                let b: [S::V; V] =
                    std::array::from_fn(|v| S::load(b.add(k * PANEL + v * S::LANES)));
                for n in 0..M {
                    let x = S::splat(*a[n].add(k));
                    for v in 0..V {
                        sums[n][v] = S::fma(x, b[v], sums[n][v]);
                    }
                }
            }
            for n in 0..M {
                for v in 0..V {
                    S::store(sums[n][v], c.add(n * self.ldc + v * S::LANES));
                }
            }
        }
    }
}

impl Job for Panel<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(mut self) {
        let (m, k) = (self.m, self.k);
        if m == 0 {
            return;
        }
        assert!(
            k == 0 || self.a.len() >= (m - 1) * self.lda + k,
            "rows of a"
        );
        assert!(self.b.len() >= k * PANEL, "rows of b");
        assert!(self.c.len() >= (m - 1) * self.ldc + PANEL, "rows of c");
        let mut i = 0;
        while i + 6 <= m {
            self.rows::<S, 6>(i);
            i += 6;
        }
        if i + 4 <= m {
            self.rows::<S, 4>(i);
            i += 4;
        }
        while i < m {
            self.rows::<S, 1>(i);
            i += 1;
        }
    }
}

/// Packs `out[k, j] = b[j, k]` for `cols` (at most 64) columns `j` and `k` contracted elements,
/// converted to f32; the columns up to 64 are zero. `place` maps axes `(j, k)`.
pub(super) fn pack(
    args: &Args,
    arg: Arg,
    (offset, column, along): (i64, i64, i64),
    cols: usize,
    k: usize,
    out: &mut [f32],
) -> Result<(), HostError> {
    simd::run(Pack {
        args,
        arg,
        offset,
        column,
        along,
        cols,
        k,
        out,
    })
}

struct Pack<'a> {
    args: &'a Args<'a>,
    arg: Arg,
    offset: i64,
    /// Elements between columns of the panel.
    column: i64,
    /// Elements between contracted elements.
    along: i64,
    cols: usize,
    k: usize,
    out: &'a mut [f32],
}

impl Job for Pack<'_> {
    type Out = Result<(), HostError>;
    #[inline(always)]
    fn run<S: Simd>(self) -> Self::Out {
        let out = &mut self.out[..self.k * PANEL];
        if self.column == 1 && self.along != 1 {
            for (k, row) in out.chunks_exact_mut(PANEL).enumerate() {
                let run = Run {
                    offset: self.offset + k as i64 * self.along,
                    stride: 1,
                    count: self.cols,
                };
                self.args
                    .load_f32::<S>(self.arg, run, &mut row[..self.cols])?;
                row[self.cols..].fill(0.0);
            }
            return Ok(());
        }
        const GROUP: usize = 16;
        let mut rows = [[0f32; BLOCK]; GROUP];
        for from in (0..self.k).step_by(BLOCK) {
            let len = BLOCK.min(self.k - from);
            for first in (0..PANEL).step_by(GROUP) {
                for (j, row) in rows.iter_mut().enumerate() {
                    if first + j < self.cols {
                        let run = Run {
                            offset: self.offset
                                + (first + j) as i64 * self.column
                                + from as i64 * self.along,
                            stride: self.along,
                            count: len,
                        };
                        self.args.load_f32::<S>(self.arg, run, &mut row[..len])?;
                    } else {
                        row[..len].fill(0.0);
                    }
                }
                for k in 0..len {
                    let to = &mut out[(from + k) * PANEL + first..][..GROUP];
                    for (o, row) in to.iter_mut().zip(&rows) {
                        *o = row[k];
                    }
                }
            }
        }
        Ok(())
    }
}

/// The strides of a template operand's two inner axes at a batch, for [`pack`].
pub(super) fn inner_axes(place: &Place, outer: &[i64]) -> (i64, i64, i64) {
    let mut index = [0; super::exec::MAX_AXES];
    index[..outer.len()].copy_from_slice(outer);
    (
        place.at(&index),
        place.strides[outer.len()],
        place.strides[outer.len() + 1],
    )
}
