//! Attention of many queries on tensor cores, without the matrix of scores.
//!
//! A block takes 128 queries of a head (64 of a wide one), a fourth for each of its warps. Queries are copied to shared
//! memory once; keys and values follow in tiles, each while the other is in use. Rows in shared
//! memory are an odd number of 16-byte pieces apart, so `ldmatrix` meets no bank twice. A warp's
//! scores stay in registers: as the result of one product they are laid out as the left side of
//! the next. Tiles that no query of the block sees are skipped, and a tile is masked only where
//! its edge, the diagonal or a window crosses it. Rows beyond the last query (key) repeat it.
//!
//! Limit: tensor cores, by what `mma.sync` gets of them; under a score body that does more than
//! scale, that body. Weights are rounded to the dtype of the values, their sum is not. The
//! exponentials take about a third of the time of the products.

mod copy;
mod softmax;

use super::fragment::{self, load4x};
use super::frame::{AttentionFrame, Keys, QueryRow};
use super::mem::{self, over_lanes};
use super::{AttentionPlan, combine, extent, int};
use crate::launch::Extent;
use crate::ptx::access;
use crate::ptx::asm::{Asm, Class, Int, R};
use crate::ptx::scope;
use crate::{Attention, Dim};
use copy::{Copy, arrived};
use softmax::FlashRow;

/// Threads of a block.
pub(super) const THREADS: u32 = 128;
const WARPS: usize = THREADS as usize / 32;
/// Up to this width the queries' fragments stay in registers too.
const KEPT: usize = 64;
/// Blocks that a multiprocessor holds.
const CROWD: u32 = 2;

/// How the work is cut.
#[derive(Clone, Copy)]
struct FlashShape {
    /// Sixteen-row fragments of a warp.
    parts: usize,
    /// Keys of a tile.
    tile: usize,
}

impl FlashShape {
    /// As much as registers hold beside the sums, which are as wide as a value.
    fn of(plan: &AttentionPlan) -> FlashShape {
        let wide = plan.k.head_dim.max(plan.k.value_dim) > 128;
        let body = plan.factor.is_none() && plan.k.value_dim > 64;
        FlashShape {
            parts: if wide { 1 } else { 2 },
            tile: if wide || body { 32 } else { 64 },
        }
    }

    /// Queries of a warp.
    fn own(self) -> usize {
        16 * self.parts
    }

    /// Queries of a block.
    fn queries(self) -> usize {
        WARPS * self.own()
    }
}

/// Elements of a row in shared memory: whole fragments, the last half of one zero.
fn padded(elements: usize) -> usize {
    elements.next_multiple_of(16)
}

/// Bytes between rows in shared memory.
fn pitch(elements: usize) -> usize {
    padded(elements) * 2 + 16
}

/// Bytes of shared memory: queries, a tile of keys, one of values.
pub(super) fn shared(plan: &AttentionPlan) -> u32 {
    let shape = FlashShape::of(plan);
    let (k, v) = (pitch(plan.k.head_dim), pitch(plan.k.value_dim));
    ((shape.queries() + shape.tile) * k + shape.tile * v) as u32
}

pub(super) fn grid(plan: &AttentionPlan) -> [Extent; 3] {
    [
        extent(
            plan.k.queries.clone(),
            FlashShape::of(plan).queries() as u32,
        ),
        Extent::Fixed(plan.k.heads as u32),
        extent(plan.k.batch.clone(), 1),
    ]
}

pub(super) fn entry(plan: &AttentionPlan, name: &str) -> String {
    let mut asm = Asm::default();
    let f = AttentionFrame::begin(&mut asm, plan);
    FlashBlock::begin(&mut asm, &f).run(&mut asm);
    let params = plan.params();
    scope::crowded_entry(name, &params, THREADS, Some(CROWD), asm)
}

/// Fragments of four registers.
type Fragments = Vec<[R; 4]>;

/// One block's part of the work.
struct FlashBlock<'a> {
    f: &'a AttentionFrame<'a>,
    head: Int,
    /// First query of the block, of the warp, of the lane.
    first: [R; 3],
    keys: Keys,
    shape: FlashShape,
    t: R,
    /// Where the lane's row for `ldmatrix` lies: of the warp's queries, of keys, of values.
    q: R,
    k: R,
    v: R,
    q_copy: Copy<'a>,
    k_copy: Copy<'a>,
    v_copy: Copy<'a>,
}

impl<'a> FlashBlock<'a> {
    fn begin(asm: &mut Asm, f: &'a AttentionFrame<'a>) -> FlashBlock<'a> {
        let k = f.plan.k;
        let shape = FlashShape::of(f.plan);
        let tile = asm.op("mov.u32", Class::B32, &[&"%ctaid.x"]);
        // Under a causal mask late queries see more: they go first.
        let tiles = asm.op("mov.u32", Class::B32, &[&"%nctaid.x"]);
        let last = asm.op("sub.u32", Class::B32, &[&tiles, &1]);
        let tile = asm.op("sub.u32", Class::B32, &[&last, &tile]);
        let first = asm.op("mul.lo.u32", Class::B32, &[&tile, &shape.queries()]);
        let head = asm.op("mov.u32", Class::B32, &[&"%ctaid.y"]);
        let kv_head = int::div(asm, head, Int::Imm(f.plan.group() as i64));
        let last = int::add(asm, first, Int::Imm(shape.queries() as i64 - 1));
        let end = int::sub(asm, f.queries, Int::Imm(1));
        let last = int::min(asm, last, end);
        let lane = asm.op("and.b32", Class::B32, &[&f.tid, &31]);
        let warp = asm.op("shr.u32", Class::B32, &[&f.tid, &5]);

        let (bases, at) = places(asm, k, shape, (lane, warp));
        let [q, keys, values] = bases;
        let g = asm.op("shr.u32", Class::B32, &[&lane, &2]);
        let of_warp = asm.op("mad.lo.u32", Class::B32, &[&warp, &shape.own(), &first]);
        FlashBlock {
            f,
            head: head.into(),
            first: [
                first,
                of_warp,
                asm.op("add.u32", Class::B32, &[&of_warp, &g]),
            ],
            keys: f.seen(asm, first.into(), last, 16),
            shape,
            t: asm.op("and.b32", Class::B32, &[&lane, &3]),
            q: at[0],
            k: at[1],
            v: at[2],
            q_copy: Copy::begin(
                asm,
                f,
                (&k.q, head.into()),
                (shape.queries(), k.head_dim),
                q,
            ),
            k_copy: Copy::begin(asm, f, (&k.k, kv_head), (shape.tile, k.head_dim), keys),
            v_copy: Copy::begin(asm, f, (&k.v, kv_head), (shape.tile, k.value_dim), values),
        }
    }

    fn run(&self, asm: &mut Asm) {
        let k = self.f.plan.k;
        let end = int::sub(asm, self.f.queries, Int::Imm(1));
        self.q_copy.rows(asm, self.f, self.first[0].into(), end);
        let key = asm.op("mov.b32", Class::B32, &[&self.keys.start]);
        let last = int::sub(asm, self.keys.end, Int::Imm(1));
        let some = asm.op("setp.lt.s32", Class::Pred, &[&key, &self.keys.end]);
        asm.when(some, true, |asm| {
            self.k_copy.rows(asm, self.f, key.into(), last);
        });
        let rows: Vec<FlashRow> = (0..2 * self.shape.parts)
            .map(|_| FlashRow::new(asm))
            .collect();
        let sums: Vec<Fragments> = (0..self.shape.parts)
            .map(|_| {
                (0..padded(k.value_dim) / 8)
                    .map(|_| fragment::zeros(asm))
                    .collect()
            })
            .collect();
        arrived(asm);
        let kept = (k.head_dim <= KEPT).then(|| {
            (0..padded(k.head_dim) / 16)
                .map(|i| self.queries(asm, i))
                .collect::<Vec<_>>()
        });
        asm.count_rolled(
            key,
            self.keys.end,
            Int::Imm(self.shape.tile as i64),
            |asm| {
                arrived(asm);
                // All are done with the values before.
                self.v_copy.rows(asm, self.f, key.into(), last);
                let scores = self.scores(asm, kept.as_deref());
                let weights = self.softmax(asm, key, &rows, &sums, &scores);
                arrived(asm);
                // All are done with these keys.
                let next = int::add(asm, key, Int::Imm(self.shape.tile as i64));
                let more = asm.op("setp.lt.s32", Class::Pred, &[&next, &self.keys.end]);
                asm.when(more, true, |asm| {
                    self.k_copy.rows(asm, self.f, next, last);
                });
                self.add_values(asm, &sums, &weights);
            },
        );
        for (i, row) in rows.iter().enumerate() {
            self.write(asm, row, &sums[i / 2], i);
        }
    }

    /// The index of the lane's `i`-th row, and the row. Found where it is needed: registers are
    /// scarce.
    fn row(&self, asm: &mut Asm, i: usize) -> (Int, QueryRow) {
        let index = int::add(asm, self.first[2], Int::Imm(8 * i as i64));
        let end = int::sub(asm, self.f.queries, Int::Imm(1));
        let query = int::min(asm, index, end);
        (index, self.f.query(asm, self.head, query))
    }

    /// The `i`-th sixteen elements of the warp's queries, as left sides.
    fn queries(&self, asm: &mut Asm, i: usize) -> Fragments {
        let pitch = pitch(self.f.plan.k.head_dim);
        (0..self.shape.parts)
            .map(|p| load4x(asm, false, self.q, p * 16 * pitch + i * 32))
            .collect()
    }

    /// Dot products of the warp's queries with a tile of keys: for each part, eight keys a
    /// fragment.
    fn scores(&self, asm: &mut Asm, kept: Option<&[Fragments]>) -> Vec<Fragments> {
        let plan = self.f.plan;
        let dtype = plan.dtype(&plan.k.q);
        let pitch = pitch(plan.k.head_dim);
        let sums: Vec<Fragments> = (0..self.shape.parts)
            .map(|_| {
                (0..self.shape.tile / 8)
                    .map(|_| fragment::zeros(asm))
                    .collect()
            })
            .collect();
        for i in 0..padded(plan.k.head_dim) / 16 {
            let queries = match kept {
                Some(kept) => kept[i].clone(),
                None => self.queries(asm, i),
            };
            for n in 0..self.shape.tile / 16 {
                let [a, b, c, d] = load4x(asm, false, self.k, n * 16 * pitch + i * 32);
                for (sums, query) in sums.iter().zip(&queries) {
                    fragment::multiply(asm, dtype, &sums[2 * n], *query, [a, b]);
                    fragment::multiply(asm, dtype, &sums[2 * n + 1], *query, [c, d]);
                }
            }
        }
        sums
    }

    /// Adds up the weighted values of a tile.
    fn add_values(&self, asm: &mut Asm, sums: &[Fragments], weights: &[Fragments]) {
        let plan = self.f.plan;
        let dtype = plan.dtype(&plan.k.v);
        let pitch = pitch(plan.k.value_dim);
        for n in 0..self.shape.tile / 16 {
            for i in 0..padded(plan.k.value_dim) / 16 {
                let [a, b, c, d] = load4x(asm, true, self.v, n * 16 * pitch + i * 32);
                for (sums, weights) in sums.iter().zip(weights) {
                    fragment::multiply(asm, dtype, &sums[2 * i], weights[n], [a, b]);
                    fragment::multiply(asm, dtype, &sums[2 * i + 1], weights[n], [c, d]);
                }
            }
        }
    }

    /// Writes the lane's `i`-th row.
    fn write(&self, asm: &mut Asm, running: &FlashRow, sums: &[[R; 4]], i: usize) {
        let plan = self.f.plan;
        let (out, dtype) = (&plan.k.out, plan.dtype(&plan.k.out));
        let sum = over_lanes(asm, "add.f32", running.sum, &[1, 2]);
        let inverse = mem::inverse(asm, sum);
        let half = i % 2;
        let (index, row) = self.row(asm, i);
        let inside = asm.op("setp.lt.s32", Class::Pred, &[&index, &self.f.queries]);
        let pairs = pairs(&out.view.strides, &out.view.offset);
        asm.when(inside, true, |asm| {
            let first = asm.op("mul.lo.u32", Class::B32, &[&self.t, &2]);
            let address = self.f.at(asm, out, row.head, row.query, first.into());
            for (i, sum) in sums[..plan.k.value_dim / 8].iter().enumerate() {
                let two = [0, 1].map(|j| {
                    let s = sum[2 * half + j];
                    asm.op("mul.f32", Class::F32, &[&s, &inverse])
                });
                if pairs {
                    let bits = access::encode(asm, plan.target, dtype, &two);
                    let size = dtype.size();
                    access::store(asm, address, (8 * i * size) as i64, 2 * size, size, &bits);
                    continue;
                }
                for (j, x) in two.into_iter().enumerate() {
                    let column = int::add(asm, first, Int::Imm((8 * i + j) as i64));
                    combine::write(asm, self.f, &row, column, x);
                }
            }
        });
    }
}

/// Where queries, keys and values lie in shared memory, and of each the row that a lane names to
/// `ldmatrix`.
fn places(
    asm: &mut Asm,
    k: &Attention,
    shape: FlashShape,
    (lane, warp): (R, R),
) -> ([R; 3], [R; 3]) {
    let (wide, tall) = (pitch(k.head_dim), pitch(k.value_dim));
    let q = asm.op("mov.u32", Class::B32, &[&"dynamic"]);
    let keys = asm.op("add.u32", Class::B32, &[&q, &(shape.queries() * wide)]);
    let values = asm.op("add.u32", Class::B32, &[&keys, &(shape.tile * wide)]);
    // Lanes 8i .. 8i + 7 name the rows of the i-th of four 8 x 8 matrices. Left sides and
    // values have the next rows in the second one, keys the next columns.
    let low = asm.op("and.b32", Class::B32, &[&lane, &15]);
    let high = asm.op("shr.u32", Class::B32, &[&lane, &4]);
    let row = asm.op("and.b32", Class::B32, &[&lane, &7]);
    let row = asm.op("mad.lo.u32", Class::B32, &[&high, &8, &row]);
    let column = asm.op("bfe.u32", Class::B32, &[&lane, &3, &1]);
    let own = mem::cell(asm, q, warp, shape.own() * wide);
    let mut place = |base, row, pitch, column| {
        let at = mem::cell(asm, base, row, pitch);
        mem::cell(asm, at, column, 16)
    };
    let at = [
        place(own, low, wide, high),
        place(keys, row, wide, column),
        place(values, low, tall, high),
    ];
    ([q, keys, values], at)
}

/// Whether two neighbouring columns from an even one on are one aligned access.
fn pairs(strides: &[Dim], offset: &Dim) -> bool {
    match strides.split_last() {
        Some((last, outer)) => {
            last.is(1) && (outer.iter().chain([offset])).all(|d| access::multiple(d, 2))
        }
        None => false,
    }
}
