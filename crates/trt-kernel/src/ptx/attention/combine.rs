//! Merging the splits of a row: `out = Σ 2^(max - M) values / Σ 2^(max - M) sum`.
//!
//! Working memory holds a record for each row and split: the weighted values, then maximum and
//! sum. Records of splits without keys are neither written nor read. A block merges one row:
//! its warps take every eighth split, and add up in the order of the warps.
//!
//! Limit: latency; the records are small and lie in the L2 cache.

use super::frame::{Frame, Row};
use super::mem::{self, over_lanes};
use super::{FEW, Plan, extent, int};
use crate::Dim;
use crate::ptx::asm::{Asm, Class, Int, R, imm};
use crate::ptx::emitted::Extent;
use crate::ptx::scope;

/// Threads of a block.
pub(super) const THREADS: u32 = 256;
const WARPS: usize = THREADS as usize / 32;
/// Columns of a block: four for each lane.
const COLUMNS: usize = 128;
/// Split `s` starts at `s` times a multiple of this many keys.
pub(super) const ALIGN: i64 = 64;

/// Values of a record.
pub(super) fn padded(plan: &Plan) -> usize {
    plan.k.value_dim.next_multiple_of(4)
}

/// Bytes of a record; maximum and sum follow the values.
fn record(plan: &Plan) -> usize {
    (padded(plan) + 4) * 4
}

/// Working memory of all records.
pub(super) fn scratch(plan: &Plan) -> Dim {
    let queries = match plan.k.queries.constant() {
        Some(_) => plan.k.queries.clone(),
        None => Dim::from(i64::from(FEW)),
    };
    let rows = &(&plan.k.batch * &queries) * &Dim::from(plan.k.heads);
    &rows * &Dim::from(plan.splits * record(plan))
}

pub(super) fn grid(plan: &Plan) -> [Extent; 3] {
    let columns = plan.k.value_dim.div_ceil(COLUMNS) as u32;
    let rows = &plan.rows() * &Dim::from(plan.k.kv_heads);
    [
        extent(rows, 1),
        Extent::Fixed(columns),
        extent(plan.k.batch.clone(), 1),
    ]
}

/// The address of a record.
pub(super) fn at(asm: &mut Asm, f: &Frame, kv_head: Int, row: Int, split: Int) -> R {
    let heads = Int::Imm(f.plan.k.kv_heads as i64);
    let index = int::mul(asm, f.batch, heads);
    let index = int::add(asm, index, kv_head);
    let index = int::mul(asm, index, f.rows);
    let index = int::add(asm, index, row);
    let index = int::mul(asm, index, Int::Imm(f.plan.splits as i64));
    let index = int::add(asm, index, split);
    let bytes = record(f.plan);
    let index = asm.op("mov.b32", Class::B32, &[&index]);
    asm.op(
        "mad.wide.u32",
        Class::B64,
        &[&index, &bytes, &f.scope.scratch],
    )
}

/// Writes maximum and sum of a record.
pub(super) fn write_sums(asm: &mut Asm, plan: &Plan, record: R, max: R, sum: R) {
    let offset = padded(plan) * 4;
    asm.put(format_args!(
        "st.global.v2.f32 [{record}+{offset}], {{{max}, {sum}}}"
    ));
}

/// Writes a finished value.
pub(super) fn write(asm: &mut Asm, f: &Frame, row: &Row, column: Int, value: R) {
    let out = &f.plan.k.out;
    let address = f.at(asm, out, row.head, row.query, column);
    let dtype = f.plan.dtype(out);
    mem::store(asm, f.plan.target, dtype, address, value);
}

pub(super) fn entry(plan: &Plan, name: &str) -> String {
    let mut asm = Asm::default();
    let asm_ = &mut asm;
    let f = Frame::begin(asm_, plan);
    let params = scope::params(plan.k.args.len(), 0);
    body(asm_, &f);
    scope::entry(name, &params, THREADS, asm)
}

fn body(asm: &mut Asm, f: &Frame) {
    let plan = f.plan;
    let index = asm.op("mov.u32", Class::B32, &[&"%ctaid.x"]);
    let kv_head = int::div(asm, index, f.rows);
    let row = int::rem(asm, index, f.rows);
    let lane = asm.op("and.b32", Class::B32, &[&f.tid, &31]);
    let warp = asm.op("shr.u32", Class::B32, &[&f.tid, &5]);
    let group = asm.op("mov.u32", Class::B32, &[&"%ctaid.y"]);
    let first = asm.op("mul.lo.u32", Class::B32, &[&group, &COLUMNS]);
    let column = asm.op("mad.lo.u32", Class::B32, &[&lane, &4, &first]);

    let (all, chunk) = f.splits(asm, ALIGN);
    let record = at(asm, f, kv_head, row, Int::Imm(0));
    // Values of this warp's splits and the sums of all, all in flight together.
    let inside = asm.op("setp.lt.u32", Class::Pred, &[&column, &padded(plan)]);
    let here = asm.op("mad.wide.u32", Class::B64, &[&column, &4, &record]);
    let stride = self::record(plan);
    let here = asm.op("mad.wide.u32", Class::B64, &[&warp, &stride, &here]);
    let values: Vec<[R; 4]> = (0..plan.splits.div_ceil(WARPS))
        .map(|i| {
            let split = int::add(asm, warp, Int::Imm((i * WARPS) as i64));
            let used = used(asm, plan, (all.start, all.end, chunk), split, Some(inside));
            load_values(asm, here, i * WARPS * stride, used)
        })
        .collect();
    let sums: Vec<[R; 2]> = (0..plan.splits.div_ceil(32))
        .map(|i| {
            let split = int::add(asm, lane, Int::Imm(32 * i as i64));
            let used = used(asm, plan, (all.start, all.end, chunk), split, None);
            let at = asm.op("mad.wide.u32", Class::B64, &[&split, &stride, &record]);
            load_sums(asm, plan, at, used)
        })
        .collect();
    let (weights, inverse) = weights(asm, &sums);
    let total = weighted(asm, warp, &values, &weights);
    let sum = across_warps(asm, (lane, warp, f.tid), total);

    let column = int::add(asm, first, f.tid);
    let column = asm.op("mov.b32", Class::B32, &[&column]);
    let mine = asm.op("setp.lt.u32", Class::Pred, &[&f.tid, &COLUMNS]);
    let value_dim = plan.k.value_dim;
    let mine = asm.op(
        "setp.lt.and.u32",
        Class::Pred,
        &[&column, &value_dim, &mine],
    );
    asm.when(mine, true, |asm| {
        let x = sum(asm);
        let x = asm.op("mul.f32", Class::F32, &[&x, &inverse]);
        let row = f.row(asm, kv_head, row);
        write(asm, f, &row, column.into(), x);
    });
}

/// Whether a split has keys.
fn used(asm: &mut Asm, plan: &Plan, all: (Int, Int, Int), split: Int, and: Option<R>) -> R {
    let (start, end, chunk) = all;
    let skip = int::mul(asm, split, chunk);
    let from = int::add(asm, start, skip);
    let p = asm.op("setp.lt.s32", Class::Pred, &[&from, &end]);
    let p = asm.op("setp.lt.and.s32", Class::Pred, &[&split, &plan.splits, &p]);
    match and {
        None => p,
        Some(other) => asm.op("and.pred", Class::Pred, &[&p, &other]),
    }
}

fn load_values(asm: &mut Asm, address: R, offset: usize, used: R) -> [R; 4] {
    let v: [R; 4] = std::array::from_fn(|_| asm.f32(0.0));
    let [a, b, c, d] = v;
    asm.put(format_args!(
        "@{used} ld.global.v4.f32 {{{a}, {b}, {c}, {d}}}, [{address}+{offset}]"
    ));
    v
}

fn load_sums(asm: &mut Asm, plan: &Plan, address: R, used: R) -> [R; 2] {
    let (max, sum) = (asm.f32(f32::NEG_INFINITY), asm.f32(0.0));
    let offset = padded(plan) * 4;
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

/// The weighted values of this warp's splits.
fn weighted(asm: &mut Asm, warp: R, values: &[[R; 4]], weights: &[R]) -> [R; 4] {
    let total: [R; 4] = std::array::from_fn(|_| asm.f32(0.0));
    for (i, value) in values.iter().enumerate() {
        // Split `warp + 8 i` is lane `warp + 8 (i % 4)` of register `i / 4`.
        let lane = int::add(asm, warp, Int::Imm((i % 4 * WARPS) as i64));
        let w = asm.op(
            "shfl.sync.idx.b32",
            Class::F32,
            &[&weights[i / 4], &lane, &"0x1f", &"0xffffffff"],
        );
        for (t, v) in total.iter().zip(value) {
            asm.op_to("fma.rn.f32", *t, &[v, &w, t]);
        }
    }
    total
}

/// Hands the warps' values over through shared memory; what comes back adds up the column of a
/// thread.
fn across_warps(
    asm: &mut Asm,
    (lane, warp, tid): (R, R, R),
    values: [R; 4],
) -> impl FnOnce(&mut Asm) -> R + use<> {
    let base = mem::array(asm, WARPS * COLUMNS * 4);
    let to = mem::cell(asm, base, warp, COLUMNS * 4);
    let to = mem::cell(asm, to, lane, 16);
    let [a, b, c, d] = values;
    asm.put(format_args!(
        "st.shared.v4.f32 [{to}], {{{a}, {b}, {c}, {d}}}"
    ));
    asm.put("bar.sync 0");
    let from = mem::cell(asm, base, tid, 4);
    move |asm| {
        let mut sum = asm.op("mov.f32", Class::F32, &[&imm(0.0)]);
        for w in 0..WARPS {
            let at = format!("[{from}+{}]", w * COLUMNS * 4);
            let x = asm.op("ld.shared.f32", Class::F32, &[&at]);
            sum = asm.op("add.f32", Class::F32, &[&sum, &x]);
        }
        sum
    }
}
