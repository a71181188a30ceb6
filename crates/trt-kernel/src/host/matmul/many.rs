//! Many rows: panels of the weight are packed once and meet blocks of converted activations.
//!
//! A weight in blocks is unpacked into panels of f32, which rounds nothing. With activations of bfloat16 and a
//! CPU that multiplies its pairs, it is unpacked into those: each weight is rounded to bfloat16, to nearest even.

use super::MatmulCall;
use crate::host::HostError;
use crate::host::pieces::Pieces;
use crate::host::row::cut;
use crate::host::scratch;
use crate::host::simd;
use crate::host::team::Team;
use crate::host::tile::{self, BLOCK, PANEL, Panel};
use crate::{Arg, DType, Encoding};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Rows of `a` that are converted at once.
const ROWS: usize = 512;

impl MatmulCall<'_> {
    /// Whether both sides are bfloat16 pairs that the CPU multiplies as such, or become that.
    fn pairs(&self) -> bool {
        let encoding = |arg: Arg| self.call.args.encoding(arg);
        let left = encoding(self.left) == Encoding::Plain(DType::BF16);
        let right = match encoding(self.kernel.b.arg) {
            Encoding::Plain(dtype) => dtype == DType::BF16,
            Encoding::Blocks(_) => true,
        };
        simd::has_pairs()
            && left
            && right
            && self.a.strides[2] == 1
            && self.b.strides[2] == 1
            && self.k.is_multiple_of(2)
    }

    pub(super) fn many(&self, team: &Team) -> Result<(), HostError> {
        let m = self.m;
        let pairs = self.pairs();
        // Contracted elements as the panels see them: pairs or f32.
        let k = if pairs { self.k / 2 } else { self.k };
        let rows = ROWS.min(m);
        for batch in 0..self.batch {
            for from in (0..m).step_by(rows) {
                let count = rows.min(m - from);
                scratch::with(count * k, |a| {
                    self.convert(batch, from, a, (k, pairs), team)?;
                    let panels = self.n.len().div_ceil(PANEL);
                    let pieces = Pieces::new(panels, team.threads(), count);
                    let a = &*a;
                    team.try_run(pieces.len(), |p| {
                        let (panel, rows) = pieces.get(p);
                        self.many_part(batch, from, rows, panel, (a, k, pairs))
                    })
                })?;
            }
        }
        Ok(())
    }

    /// Reads `a.len() / k` rows of activations, on all threads.
    fn convert(
        &self,
        batch: usize,
        from: usize,
        a: &mut [f32],
        (k, pairs): (usize, bool),
        team: &Team,
    ) -> Result<(), HostError> {
        const GROUP: usize = 32;
        if k == 0 {
            return Ok(());
        }
        let groups: Vec<Mutex<&mut [f32]>> = a.chunks_mut(GROUP * k).map(Mutex::new).collect();
        cut(team, groups.len(), groups.len() * GROUP * k / 16, |range| {
            for g in range {
                let mut rows = groups[g].lock().unwrap_or_else(PoisonError::into_inner);
                match pairs {
                    true => self.activation_pairs(batch, from + g * GROUP, &mut rows, k)?,
                    false => self.activations(batch, from + g * GROUP, &mut rows, k)?,
                }
            }
            Ok(())
        })
    }

    /// Rows of one panel against a block of activations, then the epilogue.
    fn many_part(
        &self,
        batch: usize,
        from: usize,
        rows: Range<usize>,
        panel: usize,
        (a, k, pairs): (&[f32], usize, bool),
    ) -> Result<(), HostError> {
        let first = self.n.start + panel * PANEL;
        let cols = PANEL.min(self.n.end - first);
        let m = rows.len();
        scratch::with(PANEL * (m + BLOCK.min(k)), |buffer| {
            let (c, packed) = buffer.split_at_mut(PANEL * m);
            let (offset, column, along) = self.b_axes(batch, first);
            if k == 0 {
                c.fill(0.0);
            }
            for at in (0..k).step_by(BLOCK) {
                let len = BLOCK.min(k - at);
                let (args, arg) = (&self.call.args, self.kernel.b.arg);
                let unit = if pairs { 2 } else { 1 };
                let axes = (offset + unit * at as i64 * along, column, along);
                match pairs {
                    true => tile::pack_pairs(args, arg, axes, cols, len, packed)?,
                    false => tile::pack(args, arg, axes, cols, len, packed)?,
                }
                let panel = Panel {
                    a: &a[rows.start * k + at..],
                    lda: k,
                    m,
                    k: len,
                    b: packed,
                    c,
                    ldc: PANEL,
                    add: at > 0,
                    pairs,
                };
                panel.run();
            }
            let rows = from + rows.start..from + rows.end;
            self.epilogue(batch, rows, first..first + cols, c, PANEL)
        })
    }

    /// Reads rows of `a` as pairs of bfloat16.
    fn activation_pairs(
        &self,
        batch: usize,
        from: usize,
        out: &mut [f32],
        pitch: usize,
    ) -> Result<(), HostError> {
        for (i, row) in out.chunks_exact_mut(pitch).enumerate() {
            let index = [batch as i64, (from + i) as i64, 0, 0, 0, 0, 0, 0];
            let run = self.a.run(&index, 2, self.k);
            self.call.args.load_bits(self.left, run, row)?;
        }
        Ok(())
    }
}
