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
//! scale, that body. The exponentials take about a third of the time of the products.

use super::fragment::{self, load4x};
use super::frame::{Frame, Keys, Row};
use super::mem::{self, over_lanes};
use super::{Plan, combine, extent, int};
use crate::ptx::access;
use crate::ptx::asm::{Asm, Class, Int, R, imm};
use crate::ptx::emitted::Extent;
use crate::ptx::scope;
use crate::{Dim, Operand};
use std::f32::consts::LOG2_E;

/// Threads of a block.
pub(super) const THREADS: u32 = 128;
const WARPS: usize = THREADS as usize / 32;
/// Up to this width the queries' fragments stay in registers too.
const KEPT: usize = 64;
/// Blocks that a multiprocessor holds.
const CROWD: u32 = 2;

/// How the work is cut.
#[derive(Clone, Copy)]
struct Shape {
    /// Sixteen-row fragments of a warp.
    parts: usize,
    /// Keys of a tile.
    tile: usize,
}

impl Shape {
    /// As much as registers hold beside the sums, which are as wide as a value.
    fn of(plan: &Plan) -> Shape {
        let wide = plan.k.head_dim.max(plan.k.value_dim) > 128;
        let body = plan.factor.is_none() && plan.k.value_dim > 64;
        Shape {
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
pub(super) fn shared(plan: &Plan) -> u32 {
    let shape = Shape::of(plan);
    let (k, v) = (pitch(plan.k.head_dim), pitch(plan.k.value_dim));
    ((shape.queries() + shape.tile) * k + shape.tile * v) as u32
}

pub(super) fn grid(plan: &Plan) -> [Extent; 3] {
    [
        extent(plan.k.queries.clone(), Shape::of(plan).queries() as u32),
        Extent::Fixed(plan.k.heads as u32),
        extent(plan.k.batch.clone(), 1),
    ]
}

pub(super) fn entry(plan: &Plan, name: &str) -> String {
    let mut asm = Asm::default();
    let f = Frame::begin(&mut asm, plan);
    Block::begin(&mut asm, &f).run(&mut asm);
    let params = scope::params(plan.k.args.len(), 0);
    scope::crowded_entry(name, &params, THREADS, Some(CROWD), asm)
}

/// One block's part of the work.
struct Block<'a> {
    f: &'a Frame<'a>,
    head: Int,
    kv_head: Int,
    /// First query of the block, of the warp, of the lane.
    first: [R; 3],
    keys: Keys,
    shape: Shape,
    t: R,
    /// Where the lane's row for `ldmatrix` lies: of the warp's queries, of keys, of values.
    q: R,
    k: R,
    v: R,
    q_copy: Copy<'a>,
    k_copy: Copy<'a>,
    v_copy: Copy<'a>,
}

/// The running softmax of a row. A lane has rows `g`, `g + 8`, `g + 16`, …: two of a fragment.
struct Running {
    max: R,
    /// Of the keys that this lane had.
    sum: R,
}

/// A thread's part in copying rows to shared memory: one piece of every few rows.
struct Copy<'a> {
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

impl<'a> Block<'a> {
    fn begin(asm: &mut Asm, f: &'a Frame<'a>) -> Block<'a> {
        let k = f.plan.k;
        let shape = Shape::of(f.plan);
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
        let g = asm.op("shr.u32", Class::B32, &[&lane, &2]);
        let of_warp = asm.op("mad.lo.u32", Class::B32, &[&warp, &shape.own(), &first]);
        Block {
            f,
            head: head.into(),
            kv_head,
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
        let rows: Vec<Running> = (0..2 * self.shape.parts)
            .map(|_| Running::new(asm))
            .collect();
        let sums: Vec<Vec<[R; 4]>> = (0..self.shape.parts)
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
    fn row(&self, asm: &mut Asm, i: usize) -> (Int, Row) {
        let index = int::add(asm, self.first[2], Int::Imm(8 * i as i64));
        let end = int::sub(asm, self.f.queries, Int::Imm(1));
        let query = int::min(asm, index, end);
        (index, self.f.query(asm, self.head, query))
    }

    /// The `i`-th sixteen elements of the warp's queries, as left sides.
    fn queries(&self, asm: &mut Asm, i: usize) -> Vec<[R; 4]> {
        let pitch = pitch(self.f.plan.k.head_dim);
        (0..self.shape.parts)
            .map(|p| load4x(asm, false, self.q, p * 16 * pitch + i * 32))
            .collect()
    }

    /// Dot products of the warp's queries with a tile of keys: for each part, eight keys a
    /// fragment.
    fn scores(&self, asm: &mut Asm, kept: Option<&[Vec<[R; 4]>]>) -> Vec<Vec<[R; 4]>> {
        let plan = self.f.plan;
        let dtype = plan.dtype(&plan.k.q);
        let pitch = pitch(plan.k.head_dim);
        let sums: Vec<Vec<[R; 4]>> = (0..self.shape.parts)
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

    /// Takes a tile's scores into maxima and sums; the weights are left sides of 16 keys each.
    fn softmax(
        &self,
        asm: &mut Asm,
        key: R,
        rows: &[Running],
        sums: &[Vec<[R; 4]>],
        scores: &[Vec<[R; 4]>],
    ) -> Vec<Vec<[R; 4]>> {
        let first = asm.op("mad.lo.s32", Class::B32, &[&self.t, &2, &key]);
        let factor = self.factor();
        if factor.is_none() {
            self.score_body(asm, first, scores);
        }
        let edge = self.edge(asm, key);
        asm.when(edge, true, |asm| self.mask(asm, first, scores));
        let factor = imm(factor.unwrap_or(1.0));
        for (i, row) in rows.iter().enumerate() {
            let mine: Vec<R> = (scores[i / 2].iter())
                .flat_map(|s| [s[i % 2 * 2], s[i % 2 * 2 + 1]])
                .collect();
            let fade = self.weights(asm, row, &mine, &factor);
            for sum in &sums[i / 2] {
                for s in &sum[i % 2 * 2..][..2] {
                    asm.op_to("mul.f32", *s, &[s, &fade]);
                }
            }
        }
        let plan = self.f.plan;
        let dtype = plan.dtype(&plan.k.v);
        let mut pack = |s: &[R]| access::encode_halves(asm, plan.target, dtype, [s[0], s[1]]);
        (scores.iter())
            .map(|part| {
                (part.chunks_exact(2))
                    .map(|s| [&s[0][..2], &s[0][2..], &s[1][..2], &s[1][2..]].map(&mut pack))
                    .collect()
            })
            .collect()
    }

    /// The factor that turns dot products into scores times log2(e), where that is all and does
    /// not turn the largest into the smallest.
    fn factor(&self) -> Option<f32> {
        self.f.plan.factor.filter(|f| *f > 0.0).map(|f| f * LOG2_E)
    }

    /// Turns dot products into scores.
    fn score_body(&self, asm: &mut Asm, first: R, scores: &[Vec<[R; 4]>]) {
        for i in 0..2 * self.shape.parts {
            let (_, row) = self.row(asm, i);
            for (n, sums) in scores[i / 2].iter().enumerate() {
                let key = asm.op("add.s32", Class::B32, &[&first, &(8 * n)]);
                let dots = &sums[i % 2 * 2..][..2];
                let scores = self.f.scores(asm, &row, key, dots);
                for (to, score) in dots.iter().zip(scores) {
                    asm.op_to("mov.f32", *to, &[&score]);
                }
            }
        }
    }

    /// Whether some query of the warp does not see all keys of a tile.
    fn edge(&self, asm: &mut Asm, key: R) -> R {
        let first = self.f.query(asm, self.head, self.first[1].into());
        let last = int::add(asm, self.first[1], Int::Imm(self.shape.own() as i64 - 1));
        let last = self.f.query(asm, self.head, last);
        let horizon = self.f.horizon(asm, &first, self.keys.end);
        let end = asm.op("add.s32", Class::B32, &[&key, &self.shape.tile]);
        let edge = asm.op("setp.gt.s32", Class::Pred, &[&end, &horizon]);
        match last.low {
            None => edge,
            Some(low) => asm.op("setp.lt.or.s32", Class::Pred, &[&key, &low, &edge]),
        }
    }

    fn mask(&self, asm: &mut Asm, first: R, scores: &[Vec<[R; 4]>]) {
        for i in 0..2 * self.shape.parts {
            let (_, row) = self.row(asm, i);
            let horizon = self.f.horizon(asm, &row, self.keys.end);
            for (n, sums) in scores[i / 2].iter().enumerate() {
                for (j, score) in sums[i % 2 * 2..][..2].iter().enumerate() {
                    let key = int::add(asm, first, Int::Imm((8 * n + j) as i64));
                    let masked = self.f.mask(asm, &row, horizon, key, *score);
                    asm.op_to("mov.f32", *score, &[&masked]);
                }
            }
        }
    }

    /// Turns a row's scores into weights; returns what its sums so far weigh.
    fn weights(&self, asm: &mut Asm, row: &Running, scores: &[R], factor: &str) -> R {
        let max = asm.op("mov.f32", Class::F32, &[&row.max]);
        for s in scores {
            asm.op_to("max.f32", max, &[&max, s]);
        }
        let max = over_lanes(asm, "max.f32", max, &[1, 2]);
        let reference = mem::reference(asm, max);
        let reference = asm.op("mul.f32", Class::F32, &[&reference, &factor]);
        let minus = asm.op("neg.f32", Class::F32, &[&reference]);
        let weight = |asm: &mut Asm, to: R, x: R| {
            let power = asm.op("fma.rn.f32", Class::F32, &[&x, &factor, &minus]);
            asm.op_to("ex2.approx.f32", to, &[&power]);
        };
        let fade = asm.reg(Class::F32);
        weight(asm, fade, row.max);
        asm.op_to("mov.f32", row.max, &[&max]);
        asm.op_to("mul.f32", row.sum, &[&row.sum, &fade]);
        for s in scores {
            weight(asm, *s, *s);
            asm.op_to("add.f32", row.sum, &[&row.sum, s]);
        }
        fade
    }

    /// Adds up the weighted values of a tile.
    fn add_values(&self, asm: &mut Asm, sums: &[Vec<[R; 4]>], weights: &[Vec<[R; 4]>]) {
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
    fn write(&self, asm: &mut Asm, running: &Running, sums: &[[R; 4]], i: usize) {
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

impl Running {
    fn new(asm: &mut Asm) -> Running {
        Running {
            max: asm.f32(f32::NEG_INFINITY),
            sum: asm.f32(0.0),
        }
    }
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

/// Waits for this thread's copies, then for all threads'.
fn arrived(asm: &mut Asm) {
    asm.put("cp.async.wait_all");
    asm.put("bar.sync 0");
}

impl<'a> Copy<'a> {
    fn begin(
        asm: &mut Asm,
        f: &Frame,
        (operand, head): (&'a Operand, Int),
        (rows, elements): (usize, usize),
        to: R,
    ) -> Copy<'a> {
        let pieces = elements / 8;
        let threads = (padded(elements) / 8).next_power_of_two();
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
    fn rows(&self, asm: &mut Asm, f: &Frame, first: Int, last: Int) {
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
