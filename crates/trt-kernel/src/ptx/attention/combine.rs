//! Merging the splits of a row: `out = Σ 2^(max - M) values / Σ 2^(max - M) sum`.
//!
//! Working memory holds a record for each row and split: the weighted values, then maximum and
//! sum. The blocks that share rows count themselves when their records are written, and the one
//! that finds all others done merges, in the order of the splits: who that is changes no bit. The
//! counter wraps to zero by itself. Where all keys are one split's, nothing is counted or merged.
//!
//! Why the last block sees all records: each block's writes are ordered before its first thread's
//! atomic by the barrier, the atomics of a counter follow each other, each releasing what came
//! before and acquiring what the earlier ones released, and another barrier hands that on to the
//! threads that read. Why launches never share a live counter: a launch counts after it has waited
//! for the one ahead to end (which had waited for the one before it), and other streams and graphs
//! have counters of their own.
//!
//! A cluster that merges through distributed shared memory would save two trips to the L2 cache of
//! about three, but only on Hopper, only for as many splits as a cluster has blocks (8, where a
//! long context wants 16 to 64), and its blocks must fit into one group of multiprocessors before
//! any of them starts.
//!
//! Limit: latency of four dependent trips: the records out, the atomic, the records in, the result.

use super::frame::{AttentionFrame, Keys, QueryRow, Split};
use super::mem::{self, over_lanes};
use super::{AttentionPlan, FEW, int};
use crate::Dim;
use crate::ptx::access;
use crate::ptx::asm::{Asm, Class, Int, R};

/// Columns that a warp merges: four for each lane.
const COLUMNS: usize = 128;
/// Splits whose values are in flight together.
const BATCH: usize = 16;

/// One block's part of rows whose keys are split between some blocks.
pub(super) struct Share {
    pub kv_head: Int,
    /// Which split this is, and what it takes.
    pub index: Int,
    pub split: Split,
    /// First row of the key head, and how many there are at most.
    pub first: R,
    pub rows: usize,
    /// Tiles of rows are numbered along this axis of the grid.
    pub axis: char,
    /// Blocks beside each other along the columns of the values, and which this is.
    pub slices: usize,
    pub slice: Int,
    /// First column, and how many each slice has at most.
    pub column: Int,
    pub width: usize,
    pub warps: usize,
}

/// Bytes of a record of so many columns; maximum and sum follow the values.
fn record(width: usize) -> usize {
    (padded(width) + 4) * 4
}

/// Values of a record.
pub(super) fn padded(width: usize) -> usize {
    width.next_multiple_of(4)
}

/// Working memory of all records, of slices of so many columns.
pub(super) fn scratch(plan: &AttentionPlan, width: usize) -> Dim {
    let queries = match plan.k.queries.constant() {
        Some(_) => plan.k.queries.clone(),
        None => Dim::from(i64::from(FEW)),
    };
    let batch = match plan.k.batch.constant() {
        Some(_) => plan.k.batch.clone(),
        None => Dim::from(plan.split_batches),
    };
    let rows = &(&batch * &queries) * &Dim::from(plan.k.heads);
    let slices = plan.k.value_dim.div_ceil(width);
    &rows * &Dim::from(plan.splits * slices * record(width))
}

impl Share {
    /// Whether a block has anything to do: the first split always has, so that rows that see no
    /// key are written too.
    pub fn takes_part(&self, asm: &mut Asm) -> R {
        let Keys { start, end } = self.split.keys;
        let some = asm.op("setp.lt.s32", Class::Pred, &[&start, &end]);
        asm.op("setp.eq.or.s32", Class::Pred, &[&self.index, &0, &some])
    }

    /// The number of the rows, of all that blocks share.
    fn number(&self, asm: &mut Asm, f: &AttentionFrame) -> Int {
        let heads = int::mul(asm, f.batch, Int::Imm(f.plan.k.kv_heads as i64));
        let head = int::add(asm, heads, self.kv_head);
        let group = int::mul(asm, head, Int::Imm(self.slices as i64));
        int::add(asm, group, self.slice)
    }

    /// The address of the record of a row and split.
    pub fn record(&self, asm: &mut Asm, f: &AttentionFrame, row: Int, split: Int) -> R {
        let index = self.number(asm, f);
        let index = int::mul(asm, index, f.rows);
        let index = int::add(asm, index, row);
        let index = int::mul(asm, index, Int::Imm(f.plan.splits as i64));
        let index = int::add(asm, index, split);
        let index = asm.op("mov.b32", Class::B32, &[&index]);
        asm.op(
            "mad.wide.u32",
            Class::B64,
            &[&index, &record(self.width), &f.scope.scratch],
        )
    }

    /// Writes maximum and sum of a record.
    pub fn write_sums(&self, asm: &mut Asm, record: R, max: R, sum: R) {
        let offset = padded(self.width) * 4;
        asm.put(format_args!(
            "st.global.v2.f32 [{record}+{offset}], {{{max}, {sum}}}"
        ));
    }

    /// Counts this block, whose threads have all written their records, and merges if it is the
    /// last. All of its threads come here.
    pub fn finish(&self, asm: &mut Asm, f: &AttentionFrame) {
        let last = int::sub(asm, self.split.used, Int::Imm(1));
        let last = asm.op("mov.b32", Class::B32, &[&last]);
        let found = mem::array(asm, 4);
        let one = asm.op("setp.eq.u32", Class::Pred, &[&f.tid, &0]);
        asm.put("bar.sync 0");
        asm.when(one, true, |asm| {
            let (x, n) = (
                format!("%ctaid.{}", self.axis),
                format!("%nctaid.{}", self.axis),
            );
            let tile = asm.op("mov.u32", Class::B32, &[&x]);
            let tiles = asm.op("mov.u32", Class::B32, &[&n]);
            let number = self.number(asm, f);
            let index = asm.op("mad.lo.u32", Class::B32, &[&number, &tiles, &tile]);
            let counters = f.scope.counters(asm);
            let at = asm.op("mad.wide.u32", Class::B64, &[&index, &4, &counters]);
            let at = format!("[{at}]");
            let before = asm.op("atom.acq_rel.gpu.global.inc.u32", Class::B32, &[&at, &last]);
            asm.put(format_args!("st.shared.u32 [{found}], {before}"));
        });
        asm.put("bar.sync 0");
        let before = asm.op("ld.shared.u32", Class::B32, &[&format_args!("[{found}]")]);
        let all = asm.op("setp.eq.u32", Class::Pred, &[&before, &last]);
        asm.when(all, true, |asm| self.merge(asm, f));
    }

    /// Merges all rows: a warp takes up to 128 columns of one at a time.
    fn merge(&self, asm: &mut Asm, f: &AttentionFrame) {
        let beside = padded(self.width).div_ceil(COLUMNS);
        let known = f.plan.rows().constant_size().unwrap_or(self.rows);
        let units = known.min(self.rows) * beside;
        let unit = asm.op("shr.u32", Class::B32, &[&f.tid, &5]);
        let merge = |asm: &mut Asm| {
            let row = int::div(asm, unit, Int::Imm(beside as i64));
            let row = int::add(asm, row, self.first);
            let block = int::rem(asm, unit, Int::Imm(beside as i64));
            let inside = asm.op("setp.lt.s32", Class::Pred, &[&row, &f.rows]);
            asm.when(inside, true, |asm| self.merge_row(asm, f, row, block));
        };
        let [end, step] = [units, self.warps].map(|n| Int::Imm(n as i64));
        if units > self.warps {
            return asm.count(unit, end, step, merge);
        }
        let some = asm.op("setp.lt.u32", Class::Pred, &[&unit, &end]);
        asm.when(some, true, merge);
    }

    fn merge_row(&self, asm: &mut Asm, f: &AttentionFrame, row: Int, block: Int) {
        let (splits, stride) = (f.plan.splits, record(self.width));
        let lane = asm.op("and.b32", Class::B32, &[&f.tid, &31]);
        let block = int::mul(asm, block, Int::Imm(COLUMNS as i64));
        let column = asm.op("mad.lo.u32", Class::B32, &[&lane, &4, &block]);
        let inside = asm.op("setp.lt.u32", Class::Pred, &[&column, &padded(self.width)]);
        let record = self.record(asm, f, row, Int::Imm(0));
        let own = asm.op("mad.wide.u32", Class::B64, &[&lane, &stride, &record]);
        let sums: Vec<[R; 2]> = (0..splits.div_ceil(32))
            .map(|i| {
                let split = int::add(asm, lane, Int::Imm(32 * i as i64));
                let used = asm.op("setp.lt.u32", Class::Pred, &[&split, &self.split.used]);
                let at = 32 * i * stride + padded(self.width) * 4;
                load_sums(asm, own, at, used)
            })
            .collect();
        let here = asm.op("mad.wide.u32", Class::B64, &[&column, &4, &record]);
        let first = self.load_values(asm, here, inside, 0..splits.min(BATCH));
        let (weights, inverse) = weights(asm, &sums);
        let total: [R; 4] = std::array::from_fn(|_| asm.f32(0.0));
        add(asm, &total, &first, &weights, 0);
        for from in (BATCH..splits).step_by(BATCH) {
            let more = asm.op("setp.gt.u32", Class::Pred, &[&self.split.used, &from]);
            asm.when(more, true, |asm| {
                let end = splits.min(from + BATCH);
                let values = self.load_values(asm, here, inside, from..end);
                add(asm, &total, &values, &weights, from);
            });
        }
        asm.when(inside, true, |asm| {
            let out = total.map(|t| asm.op("mul.f32", Class::F32, &[&t, &inverse]));
            let row = f.row(asm, self.kv_head, row);
            let column = int::add(asm, self.column, column);
            write_four(asm, f, &row, column, out);
        });
    }

    /// The values of some splits of a lane's columns, zero for those without keys.
    fn load_values(
        &self,
        asm: &mut Asm,
        here: R,
        inside: R,
        splits: std::ops::Range<usize>,
    ) -> Vec<[R; 4]> {
        let mut values = Vec::new();
        for split in splits {
            let used = asm.op(
                "setp.gt.and.u32",
                Class::Pred,
                &[&self.split.used, &split, &inside],
            );
            let v: [R; 4] = std::array::from_fn(|_| asm.f32(0.0));
            let [a, b, c, d] = v;
            let at = split * record(self.width);
            asm.put(format_args!(
                "@{used} ld.global.v4.f32 {{{a}, {b}, {c}, {d}}}, [{here}+{at}]"
            ));
            values.push(v);
        }
        values
    }
}

/// Writes a finished value.
pub(super) fn write(asm: &mut Asm, f: &AttentionFrame, row: &QueryRow, column: Int, value: R) {
    let out = &f.plan.k.out;
    let address = f.at(asm, out, row.head, row.query, column);
    let dtype = f.plan.dtype(out);
    mem::store(asm, f.plan.target, dtype, address, value);
}

/// Writes four finished values from a column that is a multiple of four; those beyond the last
/// column are dropped.
pub(super) fn write_four(
    asm: &mut Asm,
    f: &AttentionFrame,
    row: &QueryRow,
    column: Int,
    values: [R; 4],
) {
    let (out, end) = (&f.plan.k.out, f.plan.k.value_dim);
    let dtype = f.plan.dtype(out);
    if end.is_multiple_of(4) && access::width(&out.view, None, 4, dtype.size()) == 4 {
        let address = f.at(asm, out, row.head, row.query, column);
        let bits = access::encode(asm, f.plan.target, dtype, &values);
        access::store(asm, address, 0, 4 * dtype.size(), dtype.size(), &bits);
        return;
    }
    for (i, value) in values.into_iter().enumerate() {
        let column = int::add(asm, column, Int::Imm(i as i64));
        if end.is_multiple_of(4) {
            write(asm, f, row, column, value);
            continue;
        }
        let inside = asm.op("setp.lt.s32", Class::Pred, &[&column, &end]);
        asm.when(inside, true, |asm| write(asm, f, row, column, value));
    }
}

fn load_sums(asm: &mut Asm, address: R, offset: usize, used: R) -> [R; 2] {
    let (max, sum) = (asm.f32(f32::NEG_INFINITY), asm.f32(0.0));
    asm.put(format_args!(
        "@{used} ld.global.v2.f32 {{{max}, {sum}}}, [{address}+{offset}]"
    ));
    [max, sum]
}

/// What each split weighs (lane `s` has that of splits `s`, `s + 32`, …), and one over the sum.
fn weights(asm: &mut Asm, sums: &[[R; 2]]) -> (Vec<R>, R) {
    const ALL: [u32; 5] = [16, 8, 4, 2, 1];
    let max = (sums.iter().map(|s| s[0]))
        .reduce(|a, b| asm.op("max.f32", Class::F32, &[&a, &b]))
        .unwrap_or_else(|| asm.f32(f32::NEG_INFINITY));
    let max = over_lanes(asm, "max.f32", max, &ALL);
    let reference = mem::reference(asm, max);
    let mut total = asm.f32(0.0);
    let mut weights = Vec::new();
    for [max, sum] in sums {
        let w = mem::weight(asm, *max, reference);
        total = asm.op("fma.rn.f32", Class::F32, &[&w, sum, &total]);
        weights.push(w);
    }
    let total = over_lanes(asm, "add.f32", total, &ALL);
    let inverse = mem::inverse(asm, total);
    (weights, inverse)
}

/// Adds the weighted values of the splits from `first` on.
fn add(asm: &mut Asm, total: &[R; 4], values: &[[R; 4]], weights: &[R], first: usize) {
    for (split, value) in (first..).zip(values) {
        let w = asm.op(
            "shfl.sync.idx.b32",
            Class::F32,
            &[&weights[split / 32], &(split % 32), &"0x1f", &"0xffffffff"],
        );
        for (t, v) in total.iter().zip(value) {
            asm.op_to("fma.rn.f32", *t, &[v, &w, t]);
        }
    }
}
