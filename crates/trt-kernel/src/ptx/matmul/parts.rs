//! Outputs that some blocks share, each with a part of `k`.
//!
//! A block writes its sums to working memory and counts itself; the one that finds all others done adds the parts in their order,
//! whoever it is, and runs the epilogue. So the order of sums follows from `k` and the number of parts. Why the last block sees
//! all parts, and why no two launches share a live counter: as in the merging of attention's splits.

use super::frame::MatmulFrame;
use super::mma::Cut;
use super::out::Sums;
use super::ring::DEPTH;
use crate::ptx::asm::{Asm, Class, R};

/// Bytes of the sums of a block of 64 x 64 outputs.
pub(super) const BYTES: usize = 64 * 64 * 4;
/// Floats that a thread moves at once.
const LANES: usize = 4;

/// The part of this block.
pub(super) struct Part {
    cut: Cut,
    /// Where the sums of all begin in working memory.
    at: usize,
    /// Which it is.
    index: R,
    /// The first element along `k`.
    pub first: R,
    /// Stages of 64 elements; 0 or less if there is nothing left.
    pub steps: R,
}

impl Part {
    /// A part of so many steps, by the block's place along the grid's z axis; `at` is where sums lie in working memory.
    pub fn begin(asm: &mut Asm, cut: Cut, steps: usize, at: usize) -> Part {
        let each = steps.div_ceil(cut.blocks);
        let index = asm.op("mov.u32", Class::B32, &[&"%ctaid.z"]);
        let before = asm.op("mul.lo.s32", Class::B32, &[&index, &each]);
        let left = asm.op("sub.s32", Class::B32, &[&steps, &before]);
        Part {
            cut,
            at,
            index,
            first: asm.op("mul.lo.s32", Class::B32, &[&before, &DEPTH]),
            steps: asm.op("min.s32", Class::B32, &[&left, &each]),
        }
    }

    /// Writes the block's sums, and where it is the last, puts those of all parts in their place and runs the rest. All threads come
    /// here, and see the sums.
    pub fn finish(
        &self,
        asm: &mut Asm,
        frame: &MatmulFrame<'_>,
        sums: &Sums,
        threads: u32,
        rest: impl FnOnce(&mut Asm),
    ) {
        let [x, y, across] = ["%ctaid.x", "%ctaid.y", "%nctaid.x"]
            .map(|name| asm.op("mov.u32", Class::B32, &[&name]));
        let tile = asm.op("mad.lo.s32", Class::B32, &[&y, &across, &x]);
        let all = asm.op("mul.lo.s32", Class::B32, &[&tile, &self.cut.blocks]);
        let memory = asm.op("add.s64", Class::B64, &[&frame.scope.scratch, &self.at]);
        let all = asm.op("mad.wide.u32", Class::B64, &[&all, &BYTES, &memory]);
        let own = asm.op("mad.wide.u32", Class::B64, &[&self.index, &BYTES, &all]);
        let fours = each_four(sums, threads);
        for four in fours.clone() {
            let (shared, global) = four.places(asm, frame, sums, own);
            let values = asm.regs(Class::F32, LANES);
            load(asm, "shared", &values, shared, 0);
            store(asm, "global", &values, global);
        }
        let last = asm.op("mov.b32", Class::B32, &[&(self.cut.blocks - 1)]);
        // Behind the sums, where stages were.
        let found = asm.op(
            "add.s32",
            Class::B32,
            &[&sums.base, &(sums.rows * sums.pitch * 4)],
        );
        let one = asm.op("setp.eq.u32", Class::Pred, &[&frame.tid, &0]);
        asm.put("bar.sync 0");
        asm.when(one, true, |asm| {
            let counters = frame.scope.counters(asm);
            let at = asm.op("mad.wide.u32", Class::B64, &[&tile, &4, &counters]);
            let at = format!("[{at}]");
            let before = asm.op("atom.acq_rel.gpu.global.inc.u32", Class::B32, &[&at, &last]);
            asm.put(format_args!("st.shared.u32 [{found}], {before}"));
        });
        asm.put("bar.sync 0");
        let before = asm.op("ld.shared.u32", Class::B32, &[&format_args!("[{found}]")]);
        let is_last = asm.op("setp.eq.u32", Class::Pred, &[&before, &last]);
        asm.when(is_last, true, |asm| {
            for four in fours {
                let (shared, global) = four.places(asm, frame, sums, all);
                let parts: Vec<Vec<R>> = (0..self.cut.blocks)
                    .map(|part| {
                        let values = asm.regs(Class::F32, LANES);
                        load(asm, "global", &values, global, part * BYTES);
                        values
                    })
                    .collect();
                let sum = parts.into_iter().reduce(|sum, part| {
                    let pairs = sum.into_iter().zip(part);
                    pairs
                        .map(|(s, p)| asm.op("add.f32", Class::F32, &[&s, &p]))
                        .collect()
                });
                store(asm, "shared", &sum.unwrap_or_default(), shared);
            }
            asm.put("bar.sync 0");
            rest(asm);
        });
    }
}

/// Four neighbouring sums of each thread.
#[derive(Clone, Copy)]
struct Four {
    /// Those of the first thread.
    first: usize,
}

/// All that a thread has of a block's sums.
fn each_four(sums: &Sums, threads: u32) -> impl Iterator<Item = Four> + Clone + use<> {
    let (all, step) = (sums.rows * sums.cols, threads as usize * LANES);
    (0..all).step_by(step).map(|first| Four { first })
}

impl Four {
    /// Where they are in shared memory, and in a part that begins there.
    fn places(&self, asm: &mut Asm, frame: &MatmulFrame<'_>, sums: &Sums, part: R) -> (R, R) {
        let i = asm.op("mad.lo.s32", Class::B32, &[&frame.tid, &LANES, &self.first]);
        let row = asm.op("shr.u32", Class::B32, &[&i, &sums.cols.trailing_zeros()]);
        let col = asm.op("and.b32", Class::B32, &[&i, &(sums.cols - 1)]);
        let place = asm.op("mad.lo.s32", Class::B32, &[&row, &sums.pitch, &col]);
        let shared = asm.op("mad.lo.s32", Class::B32, &[&place, &4, &sums.base]);
        (shared, asm.op("mad.wide.u32", Class::B64, &[&i, &4, &part]))
    }
}

fn load(asm: &mut Asm, space: &str, values: &[R], at: R, offset: usize) {
    let list = listed(values);
    asm.put(format_args!(
        "ld.{space}.v4.f32 {{{list}}}, [{at}+{offset}]"
    ));
}

fn store(asm: &mut Asm, space: &str, values: &[R], at: R) {
    let list = listed(values);
    asm.put(format_args!("st.{space}.v4.f32 [{at}], {{{list}}}"));
}

fn listed(values: &[R]) -> String {
    values
        .iter()
        .map(R::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
