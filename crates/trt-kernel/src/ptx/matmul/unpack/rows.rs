//! Packed rows, written out as they were.
//!
//! A warp takes a block of a unit at a time: it copies the words into shared memory, and each lane goes through its stream,
//! step by step, and stores pieces of 16 bytes. Bound by what a look-up waits for: a step of 16 values is 8 of them (16 by a
//! code of one symbol a word), one after another, and a multiprocessor holds 8 warps.

use super::{HEAD, MatmulFrame, PIECE, Slab};
use crate::Matmul;
use crate::launch::Extent;
use crate::ptx::asm::{Asm, Class, Int, R};
use crate::ptx::block::Block;
use crate::ptx::emitted::Target;
use crate::ptx::packed::{BEHIND, Blocks, Found, Layout, Stream, Words, table};
use trt_pack::{STREAMS, TABLE_BYTES};

const WARPS: usize = 2;
const THREADS: usize = 32 * WARPS;
/// Bytes of a warp's words: a block with more than its plain bytes of them is stored.
const ROOM: usize = 16384;
/// Blocks of threads that keep a large device busy.
const BUSY: usize = 1024;

/// The entry that writes out the `i`-th slab of the rows of a launch.
pub(super) fn emit(kernel: &Matmul, target: Target, slab: Slab, i: usize) -> Option<Block> {
    let layout = Layout::of(kernel)?;
    let mut asm = Asm::default();
    let frame = MatmulFrame::begin_early(&mut asm, kernel, target);
    let busy = |rows: &usize| kernel.n.constant_size().unwrap_or(0) / rows >= BUSY;
    // Blocks of a row that lanes share have 16 rows, and those of shorter rows up to 64.
    let rows = match layout.geometry.lanes() {
        32 => [64, 32].into_iter().find(busy).unwrap_or(16),
        _ => 64,
    };
    let job = Job {
        blocks: Blocks {
            layout,
            scope: &frame.scope,
            tiles: frame.tiles?,
        },
        target,
        tid: frame.tid,
        slab,
        rows,
    };
    job.body(&mut asm, i);
    let whole = Extent::Rows {
        weight: 0,
        per: rows as u32,
    };
    Some(Block {
        name: format!("unpack{i}"),
        asm,
        threads: THREADS as u32,
        crowd: None,
        grid: [slab.extent(i, &whole), Extent::Fixed(1), Extent::Fixed(1)],
        shared: 0,
        order: None,
    })
}

struct Job<'a> {
    blocks: Blocks<'a>,
    target: Target,
    tid: R,
    slab: Slab,
    /// Rows of a block of threads.
    rows: usize,
}

/// What a warp writes out.
struct Own {
    lane: R,
    /// Its part of shared memory.
    words: R,
    table: R,
    /// Its rows of the weight.
    first: R,
    end: R,
    /// Where the first row of the slab goes, and which it is.
    out: R,
    slab: R,
}

impl Job<'_> {
    fn body(&self, asm: &mut Asm, number: usize) {
        let scope = self.blocks.scope;
        let tiles = &self.blocks.tiles;
        let skipped = number * self.slab.rows;
        let slab = asm.op("add.s32", Class::B32, &[&tiles.first, &skipped]);
        let place = asm.op("mov.u32", Class::B32, &[&"%ctaid.x"]);
        let array = asm.shared(TABLE_BYTES, PIECE);
        let place_of_table = asm.op("mov.u32", Class::B32, &[&array]);
        let threads = (self.tid, THREADS);
        table(asm, &self.blocks.layout, scope, threads, place_of_table);
        asm.put("bar.sync 0");
        // Until the launch ahead has ended its product may read what this one replaces.
        scope.wait(asm);
        self.slab.say(asm, scope, [place, self.tid], slab);

        let array = asm.shared(WARPS * ROOM, PIECE);
        let base = asm.op("mov.u32", Class::B32, &[&array]);
        let lane = asm.op("and.b32", Class::B32, &[&self.tid, &31]);
        let warp = asm.op("shr.u32", Class::B32, &[&self.tid, &5]);
        let first = asm.op("mad.lo.s32", Class::B32, &[&place, &self.rows, &slab]);
        let end = asm.op("add.s32", Class::B32, &[&first, &self.rows]);
        let most = asm.op("add.s32", Class::B32, &[&slab, &self.slab.rows]);
        let most = asm.op("min.s32", Class::B32, &[&most, &tiles.end]);
        let own = Own {
            lane,
            words: asm.op("mad.lo.s32", Class::B32, &[&warp, &ROOM, &base]),
            table: place_of_table,
            first,
            end: asm.op("min.s32", Class::B32, &[&end, &most]),
            out: asm.op("add.s64", Class::B64, &[&scope.scratch, &HEAD]),
            slab,
        };
        // Warps share stretches, or where a row has one the rows.
        let stretches = self.blocks.layout.geometry.stretches();
        let (stretch, step, own) = match stretches {
            1 => {
                let each = self.rows / WARPS;
                let first = asm.op("mad.lo.s32", Class::B32, &[&warp, &each, &own.first]);
                let end = asm.op("add.s32", Class::B32, &[&first, &each]);
                let end = asm.op("min.s32", Class::B32, &[&end, &own.end]);
                let zero = asm.op("mov.b32", Class::B32, &[&0]);
                (zero, 1, Own { first, end, ..own })
            }
            _ => (warp, WARPS, own),
        };
        let row = asm.op("mov.b32", Class::B32, &[&own.first]);
        asm.count_rolled(row, Int::Reg(own.end), Int::Imm(0), |asm| {
            let stretch = asm.op("mov.b32", Class::B32, &[&stretch]);
            let next = asm.op("mov.b32", Class::B32, &[&own.end]);
            let all = Int::Imm(stretches as i64);
            asm.count_rolled(stretch, all, Int::Imm(step as i64), |asm| {
                let found = self.blocks.find(asm, row, stretch);
                asm.op_to("add.u32", next, &[&found.row, &found.rows]);
                self.block(asm, &own, &found, stretch);
            });
            asm.put(format_args!("mov.b32 {row}, {next}"));
        });
    }

    /// Writes out a block.
    fn block(&self, asm: &mut Asm, own: &Own, found: &Found, stretch: R) {
        let geometry = self.blocks.layout.geometry;
        // Where the block's first piece would go.
        let row = asm.op("sub.s32", Class::B32, &[&found.row, &own.slab]);
        let bytes = 2 * geometry.columns();
        let out = asm.op("mad.wide.s32", Class::B64, &[&row, &bytes, &own.out]);
        let skipped = geometry.stretch() * PIECE;
        let out = asm.op("mad.wide.u32", Class::B64, &[&stretch, &skipped, &out]);
        let other = asm.label();
        let end = asm.label();
        asm.put(format_args!("@!{} bra {other}", found.packed));
        self.packed(asm, own, found, out);
        asm.put(format_args!("bra {end}"));
        asm.place(&other);
        self.stored(asm, own, found, out);
        asm.place(&end);
    }

    /// Whether a row of a block is among the warp's.
    fn among(&self, asm: &mut Asm, own: &Own, found: &Found, row: R) -> R {
        let row = asm.op("add.s32", Class::B32, &[&row, &found.row]);
        let behind = asm.op("setp.ge.s32", Class::Pred, &[&row, &own.first]);
        asm.op("setp.lt.and.s32", Class::Pred, &[&row, &own.end, &behind])
    }

    fn packed(&self, asm: &mut Asm, own: &Own, found: &Found, out: R) {
        let layout = &self.blocks.layout;
        let lanes = layout.geometry.lanes();
        let from = asm.op("cvt.u64.u32", Class::B64, &[&found.before]);
        let from = asm.op("add.s64", Class::B64, &[&found.start, &from]);
        let to = (own.lane, from, own.words);
        let words = Words::copy(asm, self.target, to, (found.words, ROOM - BEHIND));
        let byte = found.stream(asm, own.lane);
        Words::wait(asm, self.target);
        let stream = Stream::new(asm, layout.packed).with(own.table);
        stream.bind(asm, words);
        stream.begin(asm, byte);

        let lane = asm.op("and.b32", Class::B32, &[&own.lane, &(lanes - 1)]);
        let row = asm.op("shr.u32", Class::B32, &[&own.lane, &lanes.trailing_zeros()]);
        let rows = Int::Reg(found.rows);
        let step = Int::Imm((STREAMS / lanes) as i64);
        asm.count_rolled(row, rows, step, |asm| {
            let among = self.among(asm, own, found, row);
            let pair = asm.op("mov.b32", Class::B32, &[&0]);
            asm.count_rolled(pair, found.width, Int::Imm(2 * lanes as i64), |asm| {
                let first = asm.op("add.u32", Class::B32, &[&pair, &lane]);
                let there = asm.op("setp.lt.u32", Class::Pred, &[&first, &found.width]);
                asm.when(there, true, |asm| {
                    let at = At {
                        row,
                        pair,
                        lane,
                        first,
                        among,
                    };
                    self.step(asm, &stream, found, out, at);
                });
            });
        });
        // All have read their words.
        asm.put("bar.warp.sync 0xffffffff");
    }

    /// A step of a stream: one or two pieces.
    fn step(&self, asm: &mut Asm, stream: &Stream, found: &Found, out: R, at: At) {
        let geometry = self.blocks.layout.geometry;
        let (lanes, width) = (geometry.lanes(), found.width);
        let other = asm.op("add.u32", Class::B32, &[&at.first, &lanes]);
        let two = asm.op("setp.lt.u32", Class::Pred, &[&other, &width]);
        // Where both rounds are there for all lanes, each has its pieces side by side.
        let full = asm.op("add.u32", Class::B32, &[&at.pair, &(2 * lanes)]);
        let full = asm.op("setp.le.u32", Class::Pred, &[&full, &width]);
        let beside = asm.op("add.u32", Class::B32, &[&at.first, &at.lane]);
        let plain = asm.op("selp.b32", Class::B32, &[&beside, &at.first, &full]);
        let apart = asm.op("selp.b32", Class::B32, &[&8, &(8 * lanes), &full]);
        let plain = asm.op("mad.lo.u32", Class::B32, &[&at.row, &width, &plain]);
        let plain = asm.op("mad.wide.u32", Class::B64, &[&plain, &8, &found.start]);
        let apart = asm.op("mad.wide.u32", Class::B64, &[&apart, &1, &plain]);
        let mut load = |from: R| {
            let two = [asm.reg(Class::B32), asm.reg(Class::B32)];
            let (a, b, before) = (two[0], two[1], Found::PLAIN);
            (
                two,
                format!("ld.global.nc.v2.b32 {{{a}, {b}}}, [{from}+{before}]"),
            )
        };
        let ((first, loads), (second, more)) = (load(plain), load(apart));
        asm.put(loads);
        let pairs = [asm.regs(Class::B32, 4), asm.regs(Class::B32, 4)];
        let one = stream.piece(asm, first, &pairs[0]);
        let end = asm.label();
        let done = asm.label();
        let columns = 2 * geometry.columns();
        let to = asm.op("mad.wide.u32", Class::B64, &[&at.row, &columns, &out]);
        let to = asm.op("mad.wide.u32", Class::B64, &[&at.first, &PIECE, &to]);
        let store = |asm: &mut Asm, pairs: &[R], round: usize| {
            let list = pairs
                .iter()
                .map(R::to_string)
                .collect::<Vec<_>>()
                .join(", ");
            let offset = round * lanes * PIECE;
            asm.put(format_args!(
                "@{} st.global.v4.b32 [{to}+{offset}], {{{list}}}",
                at.among
            ));
        };
        asm.put(format_args!("@{two} bra {end}"));
        stream.escapes(asm, &[&one]);
        store(asm, &one.pairs, 0);
        asm.put(format_args!("bra {done}"));
        asm.place(&end);
        asm.put(more);
        let other = stream.piece(asm, second, &pairs[1]);
        stream.escapes(asm, &[&one, &other]);
        store(asm, &one.pairs, 0);
        store(asm, &other.pairs, 1);
        asm.place(&done);
    }

    /// Writes out values that lie in the block as they are, or zeros.
    fn stored(&self, asm: &mut Asm, own: &Own, found: &Found, out: R) {
        let columns = 2 * self.blocks.layout.geometry.columns();
        let row = asm.op("mov.b32", Class::B32, &[&0]);
        asm.count_rolled(row, Int::Reg(found.rows), Int::Imm(1), |asm| {
            let among = self.among(asm, own, found, row);
            let to = asm.op("mad.wide.u32", Class::B64, &[&row, &columns, &out]);
            let first = asm.op("mul.lo.u32", Class::B32, &[&row, &found.width]);
            let piece = asm.op("mov.b32", Class::B32, &[&own.lane]);
            asm.count_rolled(piece, found.width, Int::Imm(32), |asm| {
                let from = asm.op("add.u32", Class::B32, &[&first, &piece]);
                let from = asm.op("mad.wide.u32", Class::B64, &[&from, &PIECE, &found.start]);
                let to = asm.op("mad.wide.u32", Class::B64, &[&piece, &PIECE, &to]);
                let four = asm.regs(Class::B32, 4);
                for r in &four {
                    asm.op_to("mov.b32", *r, &[&0]);
                }
                let list = four.iter().map(R::to_string).collect::<Vec<_>>().join(", ");
                asm.put(format_args!(
                    "@{} ld.global.nc.v4.b32 {{{list}}}, [{from}]",
                    found.stored
                ));
                asm.put(format_args!("@{among} st.global.v4.b32 [{to}], {{{list}}}"));
            });
        });
    }
}

/// Where a lane is in a block.
#[derive(Clone, Copy)]
struct At {
    row: R,
    /// The first piece of both rounds, the lane among those that share the row, and its own piece of the first round.
    pair: R,
    lane: R,
    first: R,
    /// Whether the row is one of the warp's.
    among: R,
}
