//! Few rows: weight rows are read once, in place, as dot products with all activations.

use super::MatmulCall;
use crate::host::HostError;
use crate::host::blocks::{self, RowsAt};
use crate::host::dot::{self, Rows, padded};
use crate::host::runs::Load;
use crate::host::scratch;
use crate::host::simd;
use crate::host::span::Run;
use crate::host::team::Team;
use crate::host::tile::{self, PANEL, Panel};
use crate::{BlockType, Encoding};
use std::ops::Range;

/// Bytes of weight that make a part of a few-row launch.
const PART: usize = 96 * 1024;
/// Values of blocks that are unpacked at once, unless four rows are more.
const UNPACKED: usize = 8 * 1024;

impl MatmulCall<'_> {
    pub(super) fn few(&self, team: &Team) -> Result<(), HostError> {
        let (m, k, pad) = (self.m, self.k, padded(self.k));
        let n = self.n.len();
        scratch::with(self.batch * m * pad, |x| {
            for (batch, x) in x.chunks_exact_mut((m * pad).max(1)).enumerate() {
                self.activations(batch, 0, x, pad)?;
            }
            let x = &*x;
            // As much as a `usize` holds is inside of memory anyway.
            let row_bytes = self
                .kernel
                .right()
                .row_bytes(k)
                .unwrap_or(usize::MAX / (n * self.batch));
            let bytes = self.batch * n * row_bytes;
            // An even number of parts for each thread, of whole groups of weight rows.
            let rounds = bytes.div_ceil(PART * team.threads());
            let parts = if bytes < 2 * PART / 3 {
                1
            } else {
                rounds * team.threads()
            };
            let per_part = (self.batch * n).div_ceil(parts).next_multiple_of(4);
            let parts = (self.batch * n).div_ceil(per_part);
            team.try_run(parts, |p| {
                let mut unit = p * per_part;
                let end = (unit + per_part).min(self.batch * n);
                while unit < end {
                    let batch = unit / n;
                    let stop = end.min((batch + 1) * n);
                    let cols = self.n.start + unit - batch * n..self.n.start + stop - batch * n;
                    let x = &x[batch * m * pad..][..m * pad];
                    self.few_part(batch, cols, x)?;
                    unit = stop;
                }
                Ok(())
            })
        })
    }

    fn few_part(&self, batch: usize, cols: Range<usize>, x: &[f32]) -> Result<(), HostError> {
        // Sums of a part stay in the first-level cache.
        let step = (8192 / self.m).max(4);
        scratch::with(self.m * step, |sums| {
            for from in cols.clone().step_by(step) {
                let count = step.min(cols.end - from);
                let (offset, column, along) = self.b_axes(batch, from);
                let args = &self.call.args;
                if self.k == 0 {
                    sums.fill(0.0);
                } else if let Encoding::Blocks(block) = self.kernel.right() {
                    self.few_blocks(block, (offset, column), x, &mut sums[..self.m * count])?;
                } else if along == 1 || self.k == 1 {
                    let rows = Rows {
                        arg: self.kernel.b.arg,
                        offset,
                        stride: column,
                    };
                    dot::dot(args, rows, count, self.k, x, (sums, count))?;
                } else {
                    self.few_strided((offset, column, along), count, x, sums)?;
                }
                self.epilogue(batch, 0..self.m, from..from + count, sums, count)?;
            }
            Ok(())
        })
    }

    /// Rows of blocks. Where they start inside of blocks they are unpacked some at a time, and then
    /// are as those of f32; both sum the same values in the same order.
    fn few_blocks(
        &self,
        block: BlockType,
        (offset, column): (i64, i64),
        x: &[f32],
        sums: &mut [f32],
    ) -> Result<(), HostError> {
        let (k, args, arg) = (self.k, &self.call.args, self.kernel.b.arg);
        let place = RowsAt {
            arg,
            block,
            offset,
            stride: column,
        };
        if blocks::dot(args, place, k, x, sums)? {
            return Ok(());
        }
        let count = sums.len() / self.m;
        // What is unpacked stays in the first-level cache.
        let together = (UNPACKED / k).clamp(4, PANEL);
        scratch::with(together * k, |unpacked| {
            for first in (0..count).step_by(together) {
                let rows = together.min(count - first);
                for (r, row) in unpacked.chunks_exact_mut(k).take(rows).enumerate() {
                    let run = Run {
                        offset: offset + (first + r) as i64 * column,
                        stride: 1,
                        count: k,
                    };
                    simd::run(Load(args, arg, run, row))?;
                }
                let rows = &unpacked[..rows * k];
                dot::dot_unpacked(rows, k, x, (&mut sums[first..], count));
            }
            Ok(())
        })
    }

    /// Columns whose contracted elements are not neighbours: gathered by panels.
    fn few_strided(
        &self,
        (offset, column, along): (i64, i64, i64),
        count: usize,
        x: &[f32],
        sums: &mut [f32],
    ) -> Result<(), HostError> {
        let pad = padded(self.k);
        scratch::with(PANEL * (self.k + self.m), |buffer| {
            let (packed, c) = buffer.split_at_mut(PANEL * self.k);
            for from in (0..count).step_by(PANEL) {
                let cols = PANEL.min(count - from);
                let at = (offset + from as i64 * column, column, along);
                tile::pack(&self.call.args, self.kernel.b.arg, at, cols, self.k, packed)?;
                let panel = Panel {
                    a: x,
                    lda: pad,
                    m: self.m,
                    k: self.k,
                    b: packed,
                    c,
                    ldc: PANEL,
                    add: false,
                    pairs: false,
                };
                panel.run();
                for (i, row) in c.chunks_exact(PANEL).enumerate() {
                    sums[i * count + from..][..cols].copy_from_slice(&row[..cols]);
                }
            }
            Ok(())
        })
    }
}
