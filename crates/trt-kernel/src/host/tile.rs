//! The matmul micro-kernel: many rows of activations against a packed panel of 64 columns.
//!
//! Each output is one chain of multiply-adds over `k` in order, started from zero or from what
//! the output holds (with bfloat16 on both sides and a CPU that has the instruction, of pairs of
//! them). Which rows share a tile changes nothing, so a panel gives the same bits
//! whatever rows, range or thread it runs with: the row-range law for many rows.

use super::HostError;
use super::simd::{self, Job, Simd};
use super::span::{Args, Run};
use crate::{Arg, Encoding, ROW_PANEL};

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
    /// Whether elements of `a` and `b` are pairs of bfloat16 rather than f32.
    pub pairs: bool,
}

impl Panel<'_> {
    /// Computes it with the best instructions.
    pub fn run(self) {
        match self.pairs {
            true => simd::run_pairs(self),
            false => simd::run(self),
        }
    }

    #[inline(always)]
    fn rows<S: Simd, const M: usize>(&mut self, i: usize) {
        let width = S::TILE_VECTORS * S::LANES;
        for j in (0..PANEL).step_by(width) {
            match (S::TILE_VECTORS, self.pairs) {
                (4, true) => self.tile::<S, M, 4, true>(i, j),
                (4, false) => self.tile::<S, M, 4, false>(i, j),
                (2, _) => self.tile::<S, M, 2, false>(i, j),
                _ => self.tile::<S, M, 1, false>(i, j),
            }
        }
    }

    // Rows and vectors are indices into registers.
    #[allow(clippy::needless_range_loop)]
    #[inline(always)]
    fn tile<S: Simd, const M: usize, const V: usize, const P: bool>(&mut self, i: usize, j: usize) {
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
                        sums[n][v] = match P {
                            true => S::dot_pairs(x, b[v], sums[n][v]),
                            false => S::fma(x, b[v], sums[n][v]),
                        };
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
        match m - i {
            5 => self.rows::<S, 5>(i),
            4 => self.rows::<S, 4>(i),
            3 => self.rows::<S, 3>(i),
            2 => self.rows::<S, 2>(i),
            1 => self.rows::<S, 1>(i),
            _ => {}
        }
    }
}

/// Where the columns of a panel lie: element offset of the first, elements between columns,
/// elements between contracted elements.
pub(super) type Axes = (i64, i64, i64);

/// Packs `out[k, j] = b[j, k]` for `cols` (at most 64) columns `j` and `k` contracted elements,
/// converted to f32; the columns up to 64 are zero.
pub(super) fn pack(
    args: &Args,
    arg: Arg,
    axes: Axes,
    cols: usize,
    k: usize,
    out: &mut [f32],
) -> Result<(), HostError> {
    simd::run(Pack {
        args,
        arg,
        axes,
        cols,
        k,
        pairs: false,
        out,
    })
}

/// [`pack`] for what is bfloat16, without conversion, and for blocks, whose values are rounded to it;
/// contracted elements are neighbours: `k` pairs.
pub(super) fn pack_pairs(
    args: &Args,
    arg: Arg,
    axes: Axes,
    cols: usize,
    k: usize,
    out: &mut [f32],
) -> Result<(), HostError> {
    simd::run(Pack {
        args,
        arg,
        axes,
        cols,
        k,
        pairs: true,
        out,
    })
}

struct Pack<'a> {
    args: &'a Args<'a>,
    arg: Arg,
    axes: Axes,
    cols: usize,
    k: usize,
    pairs: bool,
    out: &'a mut [f32],
}

/// Columns and contracted elements that are transposed in one go.
const SIDE: usize = 16;
/// Contracted elements (or pairs) of 16 columns that are read before they are transposed.
const STRIP: usize = 128;
/// The same of blocks that become f32: the largest block has as many values.
const STRIP_OF_BLOCKS: usize = 256;

/// Reads a run of neighbours as pairs of bfloat16.
#[inline(always)]
fn load_pairs<S: Simd>(args: &Args, arg: Arg, run: Run, row: &mut [f32]) -> Result<(), HostError> {
    let Encoding::Blocks(_) = args.encoding(arg) else {
        return args.load_bits(arg, run, row);
    };
    let mut values = [0f32; 2 * STRIP];
    let values = &mut values[..2 * row.len()];
    args.load_f32::<S>(arg, run, values)?;
    // SAFETY: a job has the instructions, and a row has room for two halves in each element.
    unsafe { S::narrow_bf16(values, row.as_mut_ptr().cast()) };
    Ok(())
}

impl Job for Pack<'_> {
    type Out = Result<(), HostError>;
    #[inline(always)]
    fn run<S: Simd>(self) -> Self::Out {
        let (offset, column, along) = self.axes;
        let out = &mut self.out[..self.k * PANEL];
        if column == 1 && along != 1 {
            for (k, row) in out.chunks_exact_mut(PANEL).enumerate() {
                let run = Run {
                    offset: offset + k as i64 * along,
                    stride: 1,
                    count: self.cols,
                };
                self.args
                    .load_f32::<S>(self.arg, run, &mut row[..self.cols])?;
                row[self.cols..].fill(0.0);
            }
            return Ok(());
        }
        let strip = match (self.pairs, self.args.encoding(self.arg)) {
            (false, Encoding::Blocks(_)) => STRIP_OF_BLOCKS,
            _ => STRIP,
        };
        let mut rows = [0f32; SIDE * STRIP_OF_BLOCKS];
        let rows = &mut rows[..SIDE * strip];
        for from in (0..self.k).step_by(strip) {
            let len = strip.min(self.k - from);
            for first in (0..PANEL).step_by(SIDE) {
                for (j, row) in rows.chunks_exact_mut(strip).enumerate() {
                    let row = &mut row[..len];
                    if first + j >= self.cols {
                        row.fill(0.0);
                        continue;
                    }
                    let unit = if self.pairs { 2 } else { 1 };
                    let run = Run {
                        offset: offset + (first + j) as i64 * column + (unit * from) as i64 * along,
                        stride: along,
                        count: unit * len,
                    };
                    match self.pairs {
                        true => load_pairs::<S>(self.args, self.arg, run, row)?,
                        false => self.args.load_f32::<S>(self.arg, run, row)?,
                    }
                }
                for k in (0..len / SIDE * SIDE).step_by(SIDE) {
                    let to = &mut out[(from + k) * PANEL + first..][..(SIDE - 1) * PANEL + SIDE];
                    // SAFETY: 16 rows of at least `k + 16` elements in `rows`, and `to` spans 16
                    // rows of a panel.
                    unsafe {
                        S::transpose(rows.as_ptr().add(k), strip, to.as_mut_ptr(), PANEL);
                    }
                }
                for k in len / SIDE * SIDE..len {
                    let to = &mut out[(from + k) * PANEL + first..][..SIDE];
                    for (o, row) in to.iter_mut().zip(rows.chunks_exact(strip)) {
                        *o = row[k];
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::simd::{Isa, run_on};

    #[test]
    fn every_instruction_set_computes_the_product() {
        let (m, k) = (20, 37);
        let a: Vec<f32> = (0..m * k).map(|i| (i % 7) as f32 - 3.0).collect();
        let b: Vec<f32> = (0..k * PANEL).map(|i| (i % 5) as f32 - 2.0).collect();
        for isa in Isa::available() {
            for rows in 1..=m {
                let mut c = vec![1f32; rows * PANEL];
                let panel = Panel {
                    a: &a,
                    lda: k,
                    m: rows,
                    k,
                    b: &b,
                    c: &mut c,
                    ldc: PANEL,
                    add: true,
                    pairs: false,
                };
                run_on(isa, panel);
                for (i, row) in c.chunks(PANEL).enumerate() {
                    for (j, x) in row.iter().enumerate() {
                        let sum: f32 = (0..k).map(|t| a[i * k + t] * b[t * PANEL + j]).sum();
                        assert_eq!(*x, 1.0 + sum, "{isa:?} {i} {j}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_instruction_set_packs_the_transpose() {
        use crate::DType;
        use crate::host::Span;
        let (cols, k) = (50, 171);
        let b: Vec<f32> = (0..cols * k).map(|i| i as f32).collect();
        for isa in Isa::available() {
            let mut out = vec![-1f32; k * PANEL];
            let mut spans = [Span::from_slice(&b)];
            let args = Args {
                spans: Span::raw(&mut spans),
                encodings: &[Encoding::Plain(DType::F32)],
            };
            let pack = Pack {
                args: &args,
                arg: Arg(0),
                axes: (0, k as i64, 1),
                cols,
                k,
                pairs: false,
                out: &mut out,
            };
            run_on(isa, pack).unwrap();
            for (t, row) in out.chunks(PANEL).enumerate() {
                for (j, x) in row.iter().enumerate() {
                    let expected = if j < cols { b[j * k + t] } else { 0.0 };
                    assert_eq!(*x, expected, "{isa:?} {t} {j}");
                }
            }
        }
    }
}
