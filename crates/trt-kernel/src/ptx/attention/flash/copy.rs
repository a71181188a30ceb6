//! Rows of an operand on their way to shared memory.

use super::{AttentionFrame, THREADS, padded, pitch};
use crate::Operand;
use crate::ptx::asm::{Asm, Class, Int, R};
use crate::ptx::attention::{int, mem};

/// A thread's part in copying rows to shared memory: one piece of every few rows.
pub(super) struct Copy<'a> {
    operand: &'a Operand,
    /// Rows `per` apart, from the thread's on, as far as `rows`.
    per: usize,
    rows: usize,
    row: R,
    /// Whether the thread has a piece at all.
    some: Option<R>,
    /// The piece in row 0, and in the thread's first row in shared memory.
    from: R,
    to: R,
    pitch: usize,
}

/// Waits for this thread's copies, then for all threads'.
pub(super) fn arrived(asm: &mut Asm) {
    asm.put("cp.async.wait_all");
    asm.put("bar.sync 0");
}

impl<'a> Copy<'a> {
    /// The part in copying `rows` rows of `elements` elements of a head.
    pub fn begin(
        asm: &mut Asm,
        f: &AttentionFrame,
        (operand, head): (&'a Operand, Int),
        (rows, elements): (usize, usize),
        to: R,
    ) -> Copy<'a> {
        let pieces = elements / 8;
        // As many threads a row as cover it, and no more rows at a time than there are.
        let threads = (padded(elements) / 8).next_power_of_two();
        let threads = threads.max(THREADS as usize / rows);
        let row = int::div(asm, f.tid, Int::Imm(threads as i64));
        let row = asm.op("mov.b32", Class::B32, &[&row]);
        let piece = asm.op("and.b32", Class::B32, &[&f.tid, &(threads - 1)]);
        let column = asm.op("mul.lo.u32", Class::B32, &[&piece, &8]);
        let to = mem::cell(asm, to, row, pitch(elements));
        let to = mem::cell(asm, to, piece, 16);
        let per = THREADS as usize / threads;
        if padded(elements) > elements {
            let beyond = asm.op("setp.eq.u32", Class::Pred, &[&piece, &pieces]);
            for i in (0..rows).step_by(per) {
                let offset = i * pitch(elements);
                asm.put(format_args!(
                    "@{beyond} st.shared.v4.b32 [{to}+{offset}], {{0, 0, 0, 0}}"
                ));
            }
        }
        Copy {
            operand,
            per,
            rows,
            row,
            some: (pieces < threads)
                .then(|| asm.op("setp.lt.u32", Class::Pred, &[&piece, &pieces])),
            from: f.at(asm, operand, head, Int::Imm(0), column.into()),
            to,
            pitch: pitch(elements),
        }
    }

    /// Starts copying the rows from `first` on; those beyond `last` are `last` again.
    pub fn rows(&self, asm: &mut Asm, f: &AttentionFrame, first: Int, last: Int) {
        let guard = self.some.map(|p| format!("@{p} ")).unwrap_or_default();
        let mine = int::add(asm, first, self.row);
        for i in (0..self.rows).step_by(self.per) {
            let row = int::add(asm, mine, Int::Imm(i as i64));
            let row = int::min(asm, row, last);
            let from = f.step(asm, self.operand, self.from, 2, row);
            let (to, offset) = (self.to, i * self.pitch);
            asm.put(format_args!(
                "{guard}cp.async.cg.shared.global [{to}+{offset}], [{from}], 16"
            ));
        }
    }
}
