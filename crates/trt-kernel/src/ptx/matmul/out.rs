//! From sums to outputs: every variant leaves its sums in shared memory, `[m][n]` of the block,
//! and the threads of the block run the epilogue over them.
//!
//! The way through shared memory costs little beside the product and gives what fragments in
//! registers do not: neighbouring threads hold neighbouring outputs, so loads and stores of the
//! epilogue are wide and coalesced, and its code stands once in the text.

use super::MatmulFrame;
use crate::ptx::access::multiple;
use crate::ptx::asm::{Asm, Class, Int, R};
use crate::ptx::lanes::{Lanes, Point};
use crate::{Dim, Inst};

/// Sums of a block in shared memory.
pub(super) struct Sums {
    /// Shared address of the first (u32), 16-byte aligned.
    pub base: R,
    /// Rows of the block.
    pub rows: usize,
    /// Columns of the block, a power of two.
    pub cols: usize,
    /// Elements from a row to the next; a multiple of 4 if there are 4 or more lanes.
    pub pitch: usize,
}

/// How many neighbouring outputs a thread takes, if the block has `cols` columns.
pub(super) fn lanes(n: &Dim, cols: usize) -> usize {
    let fits = |l: &usize| multiple(n, *l) && cols.is_multiple_of(*l);
    [8, 4, 2].into_iter().find(fits).unwrap_or(1)
}

/// Where a group of neighbouring outputs is, in the block and in the result.
struct At {
    row: R,
    col: R,
    batch: Int,
    m: R,
    n: R,
    /// Whether it is inside of the result.
    inside: R,
}

impl At {
    /// The `i`-th group of a block of `cols` columns whose first output is `[m, n]`.
    fn new(
        asm: &mut Asm,
        frame: &MatmulFrame<'_>,
        cols: usize,
        [m, n]: [Int; 2],
        i: R,
        lanes: usize,
    ) -> At {
        let groups = cols / lanes;
        let row = asm.op("shr.u32", Class::B32, &[&i, &groups.trailing_zeros()]);
        let col = asm.op("and.b32", Class::B32, &[&i, &(groups - 1)]);
        let col = match lanes {
            1 => col,
            _ => asm.op("shl.b32", Class::B32, &[&col, &lanes.trailing_zeros()]),
        };
        let m = match m {
            Int::Imm(0) => row,
            m => asm.op("add.s32", Class::B32, &[&row, &m]),
        };
        let n = asm.op("add.s32", Class::B32, &[&col, &n]);
        let inside = asm.op("setp.lt.s32", Class::Pred, &[&m, &frame.m]);
        At {
            row,
            col,
            batch: frame.batch,
            m,
            n,
            inside: asm.op("setp.lt.and.s32", Class::Pred, &[&n, &frame.end, &inside]),
        }
    }

    fn index(&self) -> [Int; 3] {
        [self.batch, Int::Reg(self.m), Int::Reg(self.n)]
    }
}

/// The most registers that hold what was loaded ahead.
const AHEAD: usize = 8;

/// What an epilogue loads, on its way while the product is computed: the one group of outputs of
/// this thread.
pub(super) struct Ahead<'a> {
    at: At,
    values: Lanes<'a>,
    /// How many instructions from the first on are considered; of them the loads have run.
    considered: usize,
}

impl<'a> Ahead<'a> {
    /// Emits the loads before the first store, for a block of `threads` threads with `rows` x `cols`
    /// outputs from `[m, n]` on. None if a thread has several groups of
    /// outputs, or there is nothing to load, or too much to keep.
    pub fn load(
        asm: &mut Asm,
        frame: &'a MatmulFrame<'a>,
        [rows, cols]: [usize; 2],
        origin: [Int; 2],
        threads: u32,
    ) -> Option<Ahead<'a>> {
        let kernel = frame.kernel;
        let lanes = lanes(&kernel.n, cols);
        let insts = &kernel.epilogue.insts;
        let stores = |i: &Inst| matches!(i, Inst::Store(..));
        let considered = insts.iter().position(stores).unwrap_or(insts.len());
        let loads = |i: &usize| matches!(insts[*i], Inst::Load(..));
        let loads: Vec<usize> = (0..considered).filter(loads).collect();
        let groups = rows * cols / lanes;
        if groups > threads as usize || !(1..=AHEAD / lanes).contains(&loads.len()) {
            return None;
        }
        let mut at = At::new(asm, frame, cols, origin, frame.tid, lanes);
        if groups < threads as usize {
            let own = [&frame.tid, &groups as &dyn std::fmt::Display, &at.inside];
            at.inside = asm.op("setp.lt.and.s32", Class::Pred, &own);
        }
        let mut values = Lanes::new(&frame.scope, &kernel.epilogue, &frame.types);
        let point = Point {
            at: &at.index(),
            lanes,
            input: &[],
        };
        for i in loads {
            values.step_if(asm, point, i, Some(at.inside));
        }
        Some(Ahead {
            at,
            values,
            considered,
        })
    }
}

/// Runs the epilogue over the sums of a block of `threads` threads whose first output is
/// `[m, n]`. The sums are visible to all threads of the block.
pub(super) fn run(asm: &mut Asm, frame: &MatmulFrame<'_>, sums: &Sums, m: Int, n: R, threads: u32) {
    let lanes = lanes(&frame.kernel.n, sums.cols);
    let work = (sums.rows * sums.cols / lanes) as i64;
    let each = |asm: &mut Asm, i: R| {
        let at = At::new(asm, frame, sums.cols, [m, Int::Reg(n)], i, lanes);
        let values = Lanes::new(&frame.scope, &frame.kernel.epilogue, &frame.types);
        let none = Ahead {
            at,
            values,
            considered: 0,
        };
        finish(asm, frame, sums, none);
    };
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

/// What is left of the epilogue of a group of outputs, if it is inside of the result.
pub(super) fn finish(asm: &mut Asm, frame: &MatmulFrame<'_>, sums: &Sums, ahead: Ahead<'_>) {
    let lanes = lanes(&frame.kernel.n, sums.cols);
    let Ahead {
        at,
        mut values,
        considered,
    } = ahead;
    asm.when(at.inside, true, |asm| {
        let place = asm.op("mad.lo.s32", Class::B32, &[&at.row, &sums.pitch, &at.col]);
        let place = asm.op("mad.lo.s32", Class::B32, &[&place, &4, &sums.base]);
        let input = read(asm, place, lanes);
        let point = Point {
            at: &at.index(),
            lanes,
            input: &input,
        };
        for (i, inst) in frame.kernel.epilogue.insts.iter().enumerate() {
            if i >= considered || !matches!(inst, Inst::Load(..)) {
                values.step(asm, point, i);
            }
        }
    });
}

/// Neighbouring floats of shared memory.
fn read(asm: &mut Asm, at: R, lanes: usize) -> Vec<R> {
    let regs = asm.regs(Class::F32, lanes);
    for (i, four) in regs.chunks(4).enumerate() {
        let offset = 16 * i;
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
