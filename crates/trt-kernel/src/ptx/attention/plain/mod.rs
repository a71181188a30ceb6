//! Attention for any dtypes, sizes and strides, on any device.
//!
//! A block takes 16 rows of a key head and up to 128 columns of the values. Keys go by 32 at a
//! time: queries and keys are staged in shared memory as f32, 64 elements of the head at a time,
//! then the values. Each warp owns four rows: a lane is a key while scores are made, and columns
//! `lane`, `lane + 32`, … while values are added up.
//!
//! Limit: f32 arithmetic without tensor cores, fed from shared memory (a load of four floats for
//! about three multiply-adds), and staging that waits for memory. Values of more than 128
//! columns make the scores once for each 128.

mod staged;

use super::combine::Share;
use super::frame::{AttentionFrame, Keys, QueryRow};
use super::mem::{self, over_lanes};
use super::{AttentionPlan, combine, extent, int};
use crate::launch::Extent;
use crate::ptx::asm::{Asm, Class, Int, R};
use crate::ptx::scope;
use staged::Staged;

/// Threads of a block.
pub(super) const THREADS: u32 = 128;
pub(super) const WARPS: usize = THREADS as usize / 32;
/// Blocks that a multiprocessor holds.
const CROWD: u32 = 4;
/// Rows of a warp.
const OWN: usize = 4;
/// Rows of a block.
pub(super) const ROWS: usize = WARPS * OWN;
/// Keys that are staged together.
const KEYS: usize = 32;
/// Elements of the head that are staged together.
const SLICE: usize = 64;
/// Columns of the values that a block takes at most.
const COLUMNS: usize = 128;
/// Bytes of a staged row of the head: lanes that read four elements of their own key each hit
/// different banks.
const PITCH: usize = (SLICE + 4) * 4;

/// Columns of a slice at most.
pub(super) fn share_width(plan: &AttentionPlan) -> usize {
    plan.k.value_dim.min(COLUMNS)
}

/// Blocks beside each other along the columns of the values.
pub(super) fn slices(plan: &AttentionPlan) -> usize {
    plan.k.value_dim.div_ceil(COLUMNS)
}

pub(super) fn grid(plan: &AttentionPlan, splits: usize) -> [Extent; 3] {
    let blocks = plan.k.kv_heads * splits * slices(plan);
    [
        extent(plan.rows(), ROWS as u32),
        Extent::Fixed(blocks as u32),
        extent(plan.k.batch.clone(), 1),
    ]
}

/// An entry that takes all keys of its rows, or one of `splits` parts.
pub(super) fn entry(plan: &AttentionPlan, name: &str, splits: usize) -> String {
    let mut asm = Asm::default();
    let f = AttentionFrame::begin(&mut asm, plan);
    let block = PlainBlock::begin(&mut asm, &f, splits);
    match &block.share {
        None => block.run(&mut asm),
        Some(share) => {
            let some = share.takes_part(&mut asm);
            asm.when(some, true, |asm| block.run(asm));
        }
    }
    scope::crowded_entry(name, &plan.params(), THREADS, Some(CROWD), asm)
}

/// One block's part of the work.
struct PlainBlock<'a> {
    f: &'a AttentionFrame<'a>,
    lane: R,
    warp: R,
    kv_head: Int,
    /// First row.
    first: R,
    /// First column of the values.
    column: Int,
    /// Where keys are split.
    share: Option<Share>,
    keys: Keys,
    /// Shared memory.
    q: R,
    k: R,
    v: R,
    p: R,
}

/// The running softmax of a row; all lanes of its warp hold the same maximum and sum.
struct RunningRow {
    row: QueryRow,
    horizon: Int,
    max: R,
    sum: R,
    values: Vec<R>,
}

impl<'a> PlainBlock<'a> {
    fn begin(asm: &mut Asm, f: &'a AttentionFrame<'a>, splits: usize) -> PlainBlock<'a> {
        let slices = slices(f.plan);
        let y = asm.op("mov.u32", Class::B32, &[&"%ctaid.y"]);
        let slice = int::rem(asm, y, Int::Imm(slices as i64));
        let y = int::div(asm, y, Int::Imm(slices as i64));
        let kv_head = int::rem(asm, y, Int::Imm(f.plan.k.kv_heads as i64));
        let index = int::div(asm, y, Int::Imm(f.plan.k.kv_heads as i64));
        let tile = asm.op("mov.u32", Class::B32, &[&"%ctaid.x"]);
        let first = asm.op("mul.lo.u32", Class::B32, &[&tile, &ROWS]);
        let column = int::mul(asm, slice, Int::Imm(COLUMNS as i64));
        let share = (splits > 1).then(|| Share {
            kv_head,
            index,
            split: f.split(asm, index, 0),
            first,
            rows: ROWS,
            axis: 'x',
            slices,
            slice,
            column,
            width: share_width(f.plan),
            warps: WARPS,
        });
        let keys = match &share {
            Some(share) => share.split.keys,
            None => {
                let last = int::add(asm, first, Int::Imm(ROWS as i64 - 1));
                let (first, last) = (f.row(asm, kv_head, first), f.row(asm, kv_head, last));
                f.seen(asm, first.query, last.query, KEYS as i64)
            }
        };
        let width = f.plan.k.value_dim.min(COLUMNS).next_multiple_of(32);
        PlainBlock {
            f,
            lane: asm.op("and.b32", Class::B32, &[&f.tid, &31]),
            warp: asm.op("shr.u32", Class::B32, &[&f.tid, &5]),
            kv_head,
            first,
            column,
            share,
            keys,
            q: mem::array(asm, ROWS * PITCH),
            k: mem::array(asm, KEYS * PITCH),
            v: mem::array(asm, KEYS * width * 4),
            p: mem::array(asm, ROWS * KEYS * 4),
        }
    }

    /// Columns of a staged value: those of the block, rounded up to whole warps.
    fn width(&self) -> usize {
        self.f.plan.k.value_dim.min(COLUMNS).next_multiple_of(32)
    }

    fn run(&self, asm: &mut Asm) {
        let own = asm.op("mul.lo.u32", Class::B32, &[&self.warp, &OWN]);
        let own = int::add(asm, own, self.first);
        let rows: Vec<RunningRow> = (0..OWN)
            .map(|i| {
                let index = int::add(asm, own, Int::Imm(i as i64));
                let row = self.f.row(asm, self.kv_head, index);
                RunningRow {
                    horizon: self.f.horizon(asm, &row, self.keys.end),
                    row,
                    max: asm.f32(f32::NEG_INFINITY),
                    sum: asm.f32(0.0),
                    values: (0..self.width() / 32).map(|_| asm.f32(0.0)).collect(),
                }
            })
            .collect();
        let key = asm.op("mov.b32", Class::B32, &[&self.keys.start]);
        asm.count(key, self.keys.end, Int::Imm(KEYS as i64), |asm| {
            let dots = self.dots(asm, key);
            self.softmax(asm, key, &rows, &dots);
            self.values(asm, key, &rows);
        });
        match &self.share {
            None => self.write_all(asm, own, &rows, None),
            Some(share) => {
                let alone = share.split.alone;
                asm.when(alone, true, |asm| self.write_all(asm, own, &rows, None));
                asm.when(alone, false, |asm| {
                    self.write_all(asm, own, &rows, Some(share));
                    share.finish(asm, self.f);
                });
            }
        }
    }

    /// Writes the warp's rows, finished or as records.
    fn write_all(&self, asm: &mut Asm, own: Int, rows: &[RunningRow], share: Option<&Share>) {
        for (i, row) in rows.iter().enumerate() {
            let index = int::add(asm, own, Int::Imm(i as i64));
            let index = asm.op("mov.b32", Class::B32, &[&index]);
            let inside = asm.op("setp.lt.s32", Class::Pred, &[&index, &self.f.rows]);
            asm.when(inside, true, |asm| match share {
                None => self.write(asm, row),
                Some(share) => self.write_record(asm, row, index, share),
            });
        }
    }

    /// The dot products of this lane's key with the warp's rows.
    fn dots(&self, asm: &mut Asm, key: R) -> Vec<R> {
        let k = self.f.plan.k;
        let sums: Vec<R> = (0..OWN).map(|_| asm.f32(0.0)).collect();
        let own = asm.op("mul.lo.u32", Class::B32, &[&self.warp, &(OWN * PITCH)]);
        let q = asm.op("add.u32", Class::B32, &[&self.q, &own]);
        let mine = mem::cell(asm, self.k, self.lane, PITCH);
        let from = asm.op("mov.b32", Class::B32, &[&0]);
        asm.count(
            from,
            Int::Imm(k.head_dim as i64),
            Int::Imm(SLICE as i64),
            |asm| {
                asm.put("bar.sync 0");
                self.stage_queries(asm, from);
                let stage = Staged {
                    operand: &k.k,
                    to: self.k,
                    pitch: PITCH,
                    columns: SLICE,
                    first: from.into(),
                    end: k.head_dim,
                };
                self.stage_keys(asm, key, &stage);
                asm.put("bar.sync 0");
                for at in (0..SLICE.min(k.head_dim)).step_by(4) {
                    let key = mem::load4(asm, mine, at * 4);
                    for (i, sum) in sums.iter().enumerate() {
                        let query = mem::load4(asm, q, i * PITCH + at * 4);
                        for (a, b) in query.iter().zip(&key) {
                            asm.op_to("fma.rn.f32", *sum, &[a, b, sum]);
                        }
                    }
                }
            },
        );
        sums
    }

    /// Takes 32 scores of each row into its maximum and sum, and leaves their weights in shared
    /// memory for the warp.
    fn softmax(&self, asm: &mut Asm, key: R, rows: &[RunningRow], dots: &[R]) {
        const ALL: [u32; 5] = [16, 8, 4, 2, 1];
        let key = asm.op("add.s32", Class::B32, &[&key, &self.lane]);
        let own = asm.op("mul.lo.u32", Class::B32, &[&self.warp, &(OWN * KEYS * 4)]);
        let to = asm.op("add.u32", Class::B32, &[&self.p, &own]);
        let to = mem::cell(asm, to, self.lane, 4);
        for (i, (row, dot)) in rows.iter().zip(dots).enumerate() {
            let score = self.f.scores(asm, &row.row, key, &[*dot])[0];
            let score = self.f.mask(asm, &row.row, row.horizon, key, score);
            let max = over_lanes(asm, "max.f32", score, &ALL);
            let max = asm.op("max.f32", Class::F32, &[&max, &row.max]);
            let reference = mem::reference(asm, max);
            let fade = mem::weight(asm, row.max, reference);
            let weight = mem::weight(asm, score, reference);
            asm.put(format_args!(
                "st.shared.f32 [{to}+{}], {weight}",
                i * KEYS * 4
            ));
            let sum = over_lanes(asm, "add.f32", weight, &ALL);
            asm.op_to("fma.rn.f32", row.sum, &[&row.sum, &fade, &sum]);
            asm.op_to("mov.f32", row.max, &[&max]);
            for v in &row.values {
                asm.op_to("mul.f32", *v, &[v, &fade]);
            }
        }
    }

    /// Adds up the weighted values of 32 keys.
    fn values(&self, asm: &mut Asm, key: R, rows: &[RunningRow]) {
        // The values of the keys before were read before the barriers of these keys' scores.
        let stage = Staged {
            operand: &self.f.plan.k.v,
            to: self.v,
            pitch: self.width() * 4,
            columns: self.width(),
            first: self.column,
            end: self.f.plan.k.value_dim,
        };
        self.stage_keys(asm, key, &stage);
        asm.put("bar.sync 0");
        let own = asm.op("mul.lo.u32", Class::B32, &[&self.warp, &(OWN * KEYS * 4)]);
        let p = asm.op("add.u32", Class::B32, &[&self.p, &own]);
        let v = mem::cell(asm, self.v, self.lane, 4);
        for four in (0..KEYS).step_by(4) {
            let weights: Vec<[R; 4]> = (0..OWN)
                .map(|i| mem::load4(asm, p, (i * KEYS + four) * 4))
                .collect();
            for j in 0..4 {
                for c in 0..self.width() / 32 {
                    let at = format!("[{v}+{}]", (four + j) * stage.pitch + 128 * c);
                    let x = asm.op("ld.shared.f32", Class::F32, &[&at]);
                    for (row, w) in rows.iter().zip(&weights) {
                        asm.op_to("fma.rn.f32", row.values[c], &[&w[j], &x, &row.values[c]]);
                    }
                }
            }
        }
    }

    /// Writes a finished row.
    fn write(&self, asm: &mut Asm, row: &RunningRow) {
        let inverse = mem::inverse(asm, row.sum);
        for (c, value) in row.values.iter().enumerate() {
            let column = int::add(asm, self.lane, Int::Imm(32 * c as i64));
            let column = int::add(asm, column, self.column);
            let end = self.f.plan.k.value_dim;
            let inside = asm.op("setp.lt.s32", Class::Pred, &[&column, &end]);
            asm.when(inside, true, |asm| {
                let x = asm.op("mul.f32", Class::F32, &[value, &inverse]);
                combine::write(asm, self.f, &row.row, column, x);
            });
        }
    }

    /// Writes a row as the record of its split, to its padded end.
    fn write_record(&self, asm: &mut Asm, row: &RunningRow, index: R, share: &Share) {
        let record = share.record(asm, self.f, index.into(), share.index);
        let lane = asm.op("mad.wide.u32", Class::B64, &[&self.lane, &4, &record]);
        let end = combine::padded(share.width);
        for (c, value) in row.values.iter().enumerate() {
            let column = int::add(asm, self.lane, Int::Imm(32 * c as i64));
            let inside = asm.op("setp.lt.s32", Class::Pred, &[&column, &end]);
            let at = 128 * c;
            asm.put(format_args!(
                "@{inside} st.global.f32 [{lane}+{at}], {value}"
            ));
        }
        let one = asm.op("setp.eq.u32", Class::Pred, &[&self.lane, &0]);
        asm.when(one, true, |asm| {
            share.write_sums(asm, record, row.max, row.sum)
        });
    }
}
