//! Runs of blocks, written out.
//!
//! A warp takes 32 runs of 32 values that lie one after another, a run each lane, and hands them over through shared
//! memory, so that lanes store neighbouring pieces of 16 bytes. Bound by memory: what blocks take is read and two bytes
//! a value are written (of 7e9 values of 4.5 bits 18 GB, 4.1 ms at 4.4 TB/s), beside about 9 instructions for a
//! value (2.2 ms of a H200's schedulers).

use super::{HEAD, MatmulFrame, PIECE, Slab};
use crate::launch::Extent;
use crate::ptx::access;
use crate::ptx::asm::{Asm, Class, Int, R};
use crate::ptx::block::Block;
use crate::ptx::divide;
use crate::ptx::emitted::Target;
use crate::ptx::encoded::{Lies, RUN, Run};
use crate::{BlockType, Encoding, Matmul, ROW_PANEL};

const THREADS: usize = 256;
/// Runs that a block takes, about.
const RUNS: usize = 2 * THREADS;
/// Bytes of a run that is written out.
const RUN_BYTES: usize = 2 * RUN;

/// The entry that writes out the `i`-th slab of the rows of a launch.
pub(super) fn emit(kernel: &Matmul, target: Target, slab: Slab, i: usize) -> Option<Block> {
    let Encoding::Blocks(block) = kernel.right() else {
        return None;
    };
    let runs = kernel.k.constant_size()? / RUN;
    let rows = (RUNS / runs).clamp(1, ROW_PANEL);
    let mut asm = Asm::default();
    let frame = MatmulFrame::begin_early(&mut asm, kernel, target);
    let job = Unpack {
        frame: &frame,
        block,
        slab,
        number: i,
        runs,
        rows,
    };
    job.body(&mut asm);
    let whole = Extent::Rows {
        weight: 0,
        per: rows as u32,
    };
    Some(Block {
        name: format!("unpack{i}"),
        asm,
        threads: THREADS as u32,
        crowd: Some(3),
        grid: [slab.extent(i, &whole), Extent::Fixed(1), Extent::Fixed(1)],
        shared: 0,
        order: None,
    })
}

struct Unpack<'a> {
    frame: &'a MatmulFrame<'a>,
    block: BlockType,
    slab: Slab,
    /// Which slab.
    number: usize,
    /// Runs of a row.
    runs: usize,
    /// Rows of a block.
    rows: usize,
}

impl Unpack<'_> {
    fn body(&self, asm: &mut Asm) {
        let frame = self.frame;
        let Some(tiles) = &frame.tiles else { return };
        let first = asm.op(
            "add.s32",
            Class::B32,
            &[&tiles.first, &(self.number * self.slab.rows)],
        );
        let place = asm.op("mov.u32", Class::B32, &[&"%ctaid.x"]);
        let skipped = asm.op("mul.lo.s32", Class::B32, &[&place, &self.rows]);
        let row0 = asm.op("add.s32", Class::B32, &[&first, &skipped]);
        // Those of the block, of the slab and of the launch.
        let rest = asm.op("sub.s32", Class::B32, &[&tiles.end, &row0]);
        let own = asm.op("sub.s32", Class::B32, &[&self.slab.rows, &skipped]);
        let rows = asm.op("min.s32", Class::B32, &[&rest, &own]);
        let rows = asm.op("min.s32", Class::B32, &[&rows, &self.rows]);
        let count = asm.op("mul.lo.s32", Class::B32, &[&rows, &self.runs]);

        let array = asm.shared(THREADS * RUN_BYTES, PIECE);
        let base = asm.op("mov.u32", Class::B32, &[&array]);
        let lane = asm.op("and.b32", Class::B32, &[&frame.tid, &31]);
        let warp = asm.op("sub.s32", Class::B32, &[&frame.tid, &lane]);
        let base = asm.op("mad.lo.s32", Class::B32, &[&warp, &RUN_BYTES, &base]);
        let out = asm.op("add.s64", Class::B64, &[&frame.scope.scratch, &HEAD]);
        let bytes = self.runs * RUN_BYTES;
        let out = asm.op("mad.wide.s32", Class::B64, &[&skipped, &bytes, &out]);

        let start = asm.op("mov.b32", Class::B32, &[&warp]);
        let step = Int::Imm(THREADS as i64);
        asm.count_rolled(start, Int::Reg(count), step, |asm| {
            let run = asm.op("add.s32", Class::B32, &[&start, &lane]);
            let inside = asm.op("setp.lt.s32", Class::Pred, &[&run, &count]);
            asm.when(inside, true, |asm| {
                self.put_down(asm, run, row0, base, lane)
            });
            // Until the launch ahead has ended its product may read what this one replaces.
            frame.scope.wait(asm);
            asm.put("bar.warp.sync 0xffffffff");
            self.store(asm, [start, count, lane], base, out);
            asm.put("bar.warp.sync 0xffffffff");
        });
        self.slab.say(asm, &frame.scope, [place, frame.tid], first);
    }

    /// Makes a run and puts it into shared memory, its pieces permuted by the lane so that those of several lanes
    /// meet every bank once.
    fn put_down(&self, asm: &mut Asm, run: R, row0: R, base: R, lane: R) {
        let frame = self.frame;
        let (row, column) = divide::div_rem(asm, run, self.runs as u32);
        let row = asm.op("add.s32", Class::B32, &[&row, &row0]);
        let row = frame.b_row(asm, row);
        let column = asm.op("mul.lo.s32", Class::B32, &[&column, &RUN]);
        let run = Run::of_row(asm, self.block, (row, column), RUN, Lies::InTile);
        let values = run.values(asm);
        let (target, dtype) = (frame.scope.target, frame.kernel.left_dtype());
        let bits = access::encode(asm, target, dtype, &values);
        let permuted = asm.op("bfe.u32", Class::B32, &[&lane, &1, &2]);
        let at = asm.op("mad.lo.s32", Class::B32, &[&lane, &RUN_BYTES, &base]);
        for (piece, four) in bits.chunks(4).enumerate() {
            let place = asm.op("xor.b32", Class::B32, &[&permuted, &piece]);
            let at = asm.op("mad.lo.s32", Class::B32, &[&place, &PIECE, &at]);
            access::store_to(asm, "shared", (at, 0), PIECE, 4, four);
        }
    }

    /// Stores the runs of a warp, neighbouring pieces by neighbouring lanes.
    fn store(&self, asm: &mut Asm, [start, count, lane]: [R; 3], base: R, out: R) {
        const PIECES: usize = RUN_BYTES / PIECE;
        let first = asm.op("mad.lo.s32", Class::B32, &[&start, &PIECES, &lane]);
        let end = asm.op("mul.lo.s32", Class::B32, &[&count, &PIECES]);
        let to = asm.op("mad.wide.s32", Class::B64, &[&first, &PIECE, &out]);
        for i in 0..PIECES {
            let number = asm.op("add.s32", Class::B32, &[&lane, &(32 * i)]);
            let run = asm.op("shr.u32", Class::B32, &[&number, &PIECES.trailing_zeros()]);
            let permuted = asm.op("bfe.u32", Class::B32, &[&run, &1, &2]);
            let place = asm.op("xor.b32", Class::B32, &[&number, &permuted]);
            let at = asm.op("mad.lo.s32", Class::B32, &[&place, &PIECE, &base]);
            let next = asm.op("add.s32", Class::B32, &[&first, &(32 * i)]);
            let inside = asm.op("setp.lt.s32", Class::Pred, &[&next, &end]);
            asm.when(inside, true, |asm| {
                let four = asm.regs(Class::B32, 4);
                let list = four.iter().map(R::to_string).collect::<Vec<_>>().join(", ");
                asm.put(format_args!("ld.shared.v4.b32 {{{list}}}, [{at}]"));
                access::store(asm, to, (32 * i * PIECE) as i64, PIECE, 4, &four);
            });
        }
    }
}
