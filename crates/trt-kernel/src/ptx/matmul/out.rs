//! From sums to outputs: every variant leaves its sums in shared memory, `[m][n]` of the block,
//! and the threads of the block run the epilogue over them.
//!
//! The way through shared memory costs little beside the product and gives what fragments in
//! registers do not: neighbouring threads hold neighbouring outputs, so loads and stores of the
//! epilogue are wide and coalesced, and its code stands once in the text.

use super::Frame;
use crate::Dim;
use crate::ptx::access::multiple;
use crate::ptx::asm::{Asm, Class, Int, R};
use crate::ptx::lanes::{self, Point};

/// Sums of a block in shared memory. Each output is the sum of `parts` of them, in order.
pub(super) struct Sums {
    /// Shared address of the first (u32), 16-byte aligned.
    pub base: R,
    /// Rows of the block.
    pub rows: usize,
    /// Columns of the block, a power of two.
    pub cols: usize,
    /// Elements from a row to the next; a multiple of 4 if there are 4 or more lanes.
    pub pitch: usize,
    /// How many sums make an output.
    pub parts: usize,
}

/// How many neighbouring outputs a thread takes, if the block has `cols` columns.
pub(super) fn lanes(n: &Dim, cols: usize) -> usize {
    let fits = |l: &usize| multiple(n, *l) && cols.is_multiple_of(*l);
    [8, 4, 2].into_iter().find(fits).unwrap_or(1)
}

/// Runs the epilogue over the sums of a block of `threads` threads whose first output is
/// `[m, n]`. The sums are visible to all threads of the block.
pub(super) fn run(asm: &mut Asm, frame: &Frame<'_>, sums: &Sums, m: Int, n: R, threads: u32) {
    let lanes = match sums.parts {
        1 => lanes(&frame.kernel.n, sums.cols),
        _ => 1,
    };
    let work = (sums.rows * sums.cols / lanes) as i64;
    let each = |asm: &mut Asm, i: R| point(asm, frame, sums, [m, Int::Reg(n)], i, lanes);
    if work > i64::from(threads) {
        let i = asm.op("mov.b32", Class::B32, &[&frame.tid]);
        let step = Int::Imm(i64::from(threads));
        asm.count(i, Int::Imm(work), step, |asm| each(asm, i));
    } else if work < i64::from(threads) {
        let p = asm.op("setp.lt.s32", Class::Pred, &[&frame.tid, &work]);
        asm.when(p, true, |asm| each(asm, frame.tid));
    } else {
        each(asm, frame.tid);
    }
}

/// The epilogue for the `i`-th group of neighbouring outputs, if inside of the result.
fn point(asm: &mut Asm, frame: &Frame<'_>, sums: &Sums, origin: [Int; 2], i: R, lanes: usize) {
    let groups = sums.cols / lanes;
    let row = asm.op("shr.u32", Class::B32, &[&i, &groups.trailing_zeros()]);
    let col = asm.op("and.b32", Class::B32, &[&i, &(groups - 1)]);
    let col = match lanes {
        1 => col,
        _ => asm.op("shl.b32", Class::B32, &[&col, &lanes.trailing_zeros()]),
    };
    let m = match origin[0] {
        Int::Imm(0) => row,
        m => asm.op("add.s32", Class::B32, &[&row, &m]),
    };
    let n = asm.op("add.s32", Class::B32, &[&col, &origin[1]]);
    let inside = asm.op("setp.lt.s32", Class::Pred, &[&m, &frame.m]);
    let inside = asm.op("setp.lt.and.s32", Class::Pred, &[&n, &frame.end, &inside]);
    asm.when(inside, true, |asm| {
        let at = asm.op("mad.lo.s32", Class::B32, &[&row, &sums.pitch, &col]);
        let at = asm.op("mad.lo.s32", Class::B32, &[&at, &4, &sums.base]);
        let mut input = read(asm, at, 0, lanes);
        for part in 1..sums.parts {
            let more = read(asm, at, part * sums.rows * sums.pitch * 4, lanes);
            for (sum, x) in input.iter_mut().zip(more) {
                *sum = asm.op("add.rn.f32", Class::F32, &[sum, &x]);
            }
        }
        let point = Point {
            at: &[frame.batch, Int::Reg(m), Int::Reg(n)],
            lanes,
            input: &input,
        };
        let kernel = frame.kernel;
        lanes::run(asm, &frame.scope, &kernel.epilogue, &kernel.args, point);
    });
}

/// Neighbouring floats of shared memory.
fn read(asm: &mut Asm, at: R, offset: usize, lanes: usize) -> Vec<R> {
    let regs = asm.regs(Class::F32, lanes);
    for (i, four) in regs.chunks(4).enumerate() {
        let offset = offset + 16 * i;
        match four {
            [a] => asm.put(format_args!("ld.shared.f32 {a}, [{at}+{offset}]")),
            [a, b] => asm.put(format_args!(
                "ld.shared.v2.f32 {{{a}, {b}}}, [{at}+{offset}]"
            )),
            _ => {
                let list = four.iter().map(R::to_string).collect::<Vec<_>>().join(", ");
                asm.put(format_args!("ld.shared.v4.f32 {{{list}}}, [{at}+{offset}]"));
            }
        }
    }
    regs
}
