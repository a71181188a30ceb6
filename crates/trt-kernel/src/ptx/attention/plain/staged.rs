//! Rows of queries, keys and values on their way to shared memory, as f32.

use super::{KEYS, OWN, PITCH, PlainBlock, SLICE, WARPS};
use crate::Operand;
use crate::ptx::asm::{Asm, Class, Int, R};
use crate::ptx::attention::{int, mem};

/// Rows of an operand on the way to shared memory.
pub(super) struct Staged<'a> {
    pub operand: &'a Operand,
    pub to: R,
    /// Bytes between staged rows.
    pub pitch: usize,
    /// Columns of a staged row.
    pub columns: usize,
    /// First column.
    pub first: Int,
    /// End of the columns; zeros beyond.
    pub end: usize,
}

impl PlainBlock<'_> {
    /// Each warp stages its own rows.
    pub(super) fn stage_queries(&self, asm: &mut Asm, from: R) {
        let k = self.f.plan.k;
        for i in 0..OWN {
            let local = asm.op("mad.lo.u32", Class::B32, &[&self.warp, &OWN, &i]);
            let index = int::add(asm, local, self.first);
            let row = self.f.row(asm, self.kv_head, index);
            let base = self.f.at(asm, &k.q, row.head, row.query, from.into());
            let to = mem::cell(asm, self.q, local, PITCH);
            let stage = Staged {
                operand: &k.q,
                to,
                pitch: PITCH,
                columns: SLICE,
                first: from.into(),
                end: k.head_dim,
            };
            self.stage_row(asm, base, to, &stage, None);
        }
    }

    /// Stages 32 keys (or values) from `key` on; zeros beyond the last.
    pub(super) fn stage_keys(&self, asm: &mut Asm, key: R, stage: &Staged) {
        let first = asm.op("mov.b32", Class::B32, &[&self.warp]);
        asm.count(
            first,
            Int::Imm(KEYS as i64),
            Int::Imm(WARPS as i64),
            |asm| {
                let index = int::add(asm, key, first);
                let inside = asm.op("setp.lt.s32", Class::Pred, &[&index, &self.keys.end]);
                let o = stage.operand;
                let base = self.f.at(asm, o, self.kv_head, index, stage.first);
                let to = mem::cell(asm, stage.to, first, stage.pitch);
                self.stage_row(asm, base, to, stage, Some(inside));
            },
        );
    }

    /// Stages one row by the lanes of a warp.
    fn stage_row(&self, asm: &mut Asm, base: R, to: R, stage: &Staged, when: Option<R>) {
        let to = mem::cell(asm, to, self.lane, 4);
        let dtype = self.f.plan.dtype(stage.operand);
        let values: Vec<R> = (0..stage.columns / 32)
            .map(|i| {
                let lane = int::add(asm, self.lane, Int::Imm(32 * i as i64));
                let column = int::add(asm, lane, stage.first);
                let mut inside = asm.op("setp.lt.s32", Class::Pred, &[&column, &stage.end]);
                if let Some(when) = when {
                    inside = asm.op("and.pred", Class::Pred, &[&inside, &when]);
                }
                let address = self.f.step(asm, stage.operand, base, 3, lane);
                mem::load(asm, dtype, address, inside)
            })
            .collect();
        for (i, value) in values.iter().enumerate() {
            asm.put(format_args!("st.shared.f32 [{to}+{}], {value}", 128 * i));
        }
    }
}
