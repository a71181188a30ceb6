//! What a block of keys takes: queries, scores and values as rows of f32.

use super::{AttentionCall, Unit};
use crate::host::HostError;
use crate::host::call_view::{Index, MAX_AXES};
use crate::host::dot::{self, Rows};
use crate::host::exec::Registers;
use crate::host::runs::{Load, Values};
use crate::host::simd;
use crate::host::tile::{self, PANEL, Panel};
use std::ops::Range;

impl AttentionCall<'_> {
    pub(super) fn load_queries(
        &self,
        unit: &Unit,
        q: &mut [f32],
        pad: usize,
    ) -> Result<(), HostError> {
        for (r, row) in q.chunks_exact_mut(pad.max(1)).enumerate() {
            let run = self.q.run(&self.row(unit, r), 3, self.kernel.head_dim);
            let (row, rest) = row.split_at_mut(self.kernel.head_dim);
            simd::run(Load(&self.call.args, self.kernel.q.arg, run, row))?;
            rest.fill(0.0);
        }
        Ok(())
    }

    /// `scores[row, key] = q[row] · k[key]`, rows 64 apart.
    pub(super) fn scores(
        &self,
        unit: &Unit,
        keys: &Range<usize>,
        (q, pad): (&[f32], usize),
        packed: &mut [f32],
        scores: &mut [f32],
    ) -> Result<(), HostError> {
        let (args, arg, dim) = (&self.call.args, self.kernel.k.arg, self.kernel.head_dim);
        let index = [
            unit.batch as i64,
            unit.head as i64,
            keys.start as i64,
            0,
            0,
            0,
            0,
            0,
        ];
        let (offset, stride, along) = (self.k.at(&index), self.k.strides[2], self.k.strides[3]);
        let m = q.len() / pad.max(1);
        if m <= 8 && (along == 1 || dim == 1) {
            let rows = Rows {
                arg,
                offset,
                stride,
            };
            return dot::dot(args, rows, keys.len(), dim, q, (scores, PANEL));
        }
        tile::pack(args, arg, (offset, stride, along), keys.len(), dim, packed)?;
        let panel = Panel {
            a: q,
            lda: pad,
            m,
            k: dim,
            b: packed,
            c: scores,
            ldc: PANEL,
            add: false,
            pairs: false,
        };
        panel.run();
        Ok(())
    }

    /// Runs the score body over the visible scores of a block.
    pub(super) fn score_body(
        &self,
        unit: &Unit,
        keys: &Range<usize>,
        scores: &mut [f32],
    ) -> Result<(), HostError> {
        const RUNS: usize = 8;
        let program = self.call.program;
        let list = &program.stages[0].again;
        let rows = scores.len() / PANEL;
        let len = keys.len();
        Registers::with(program, RUNS * PANEL, |registers| {
            registers.uniform(&self.call, 0)?;
            let mut index: [Index; RUNS] = [[0; MAX_AXES]; RUNS];
            for first in (0..rows).step_by(RUNS) {
                let count = RUNS.min(rows - first);
                for (r, index) in index[..count].iter_mut().enumerate() {
                    *index = self.row(unit, first + r);
                    index[3] = keys.start as i64;
                    if let Some(slot) = program.input {
                        registers.lanes(slot, RUNS * PANEL)[r * len..][..len]
                            .copy_from_slice(&scores[(first + r) * PANEL..][..len]);
                    }
                }
                registers.exec(&self.call, list, &index[..count], len)?;
                if let Some(slot) = program.yielded {
                    let lanes = registers.lanes(slot, RUNS * PANEL);
                    for r in 0..count {
                        scores[(first + r) * PANEL..][..len]
                            .copy_from_slice(&lanes[r * len..][..len]);
                    }
                }
            }
            Ok(())
        })
    }

    /// Values of a block of keys in panels of 64 columns, `[panel, key, 64]`, padded with zeros.
    pub(super) fn load_values(
        &self,
        unit: &Unit,
        keys: &Range<usize>,
        v: &mut [f32],
    ) -> Result<(), HostError> {
        let value = self.kernel.value_dim;
        let index = [
            unit.batch as i64,
            unit.head as i64,
            keys.start as i64,
            0,
            0,
            0,
            0,
            0,
        ];
        simd::run(Values {
            args: &self.call.args,
            arg: self.kernel.v.arg,
            offset: self.v.at(&index),
            strides: (self.v.strides[2], self.v.strides[3]),
            keys: keys.len(),
            value,
            out: v,
        })
    }
}
