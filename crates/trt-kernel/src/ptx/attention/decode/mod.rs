//! Attention of few queries: keys and values go from memory to registers to tensor cores.
//!
//! A block takes a tile of 8 or 16 rows of a key head and one split of its keys; its four warps
//! take 16 keys in turn and merge at the end. What a lane reads with one access of 16 bytes (eight
//! elements of one key or value) is its part of several fragments under a renaming of the axes,
//! so nothing passes through shared memory:
//!
//! - scores are `Q K'`: lane `(g, t)` reads elements `32 s + 8 t ..` of key `g`, which are its part
//!   of two fragments; so are the same elements of the query;
//! - weights come out as two keys of a row in a lane, which is the right side of `V' P'`;
//! - lane `(g, t)` reads elements `64 h + 8 g ..` of values `2t`, `2t + 1`, `2t + 8`, `2t + 9`; their
//!   halves, paired, are the left sides, and the result's columns are rows.
//!
//! The next keys are in flight while weights are made, the next values while scores are (wide
//! heads leave that to the other blocks of the multiprocessor).
//!
//! Limit: memory bandwidth for long contexts (each key and value is read once for the whole
//! group), latency for short ones: about two dependent reads, the merge, and a second launch.

mod merge;

use super::fragment::{self, from_lane, halves};
use super::frame::{Frame, Keys, Row};
use super::mem::{self, over_lanes};
use super::{FEW, Plan, combine, extent, int};
use crate::ptx::access;
use crate::ptx::asm::{Asm, Class, Int, R};
use crate::ptx::emitted::Extent;
use crate::ptx::scope;

/// Threads of a block.
pub(super) const THREADS: u32 = 128;
const WARPS: usize = THREADS as usize / 32;
/// Blocks that a multiprocessor holds.
const CROWD: u32 = 2;
/// Keys of a warp's step: two tiles of eight.
const KEYS: usize = 16;
/// Up to this many elements of a key and value together, the next ones are read ahead: there are
/// registers for them.
const AHEAD: usize = 256;

/// Tiles of eight rows in a block: two where there are more than eight rows and the values of
/// sixteen fit into registers.
pub(super) fn tiles(plan: &Plan) -> usize {
    let queries = plan.k.queries.constant_size().unwrap_or(FEW as usize);
    match plan.group() * queries > 8 && plan.k.value_dim <= 128 {
        true => 2,
        false => 1,
    }
}

pub(super) fn grid(plan: &Plan) -> [Extent; 3] {
    [
        Extent::Fixed((plan.k.kv_heads * plan.splits) as u32),
        extent(plan.rows(), 8 * tiles(plan) as u32),
        extent(plan.k.batch.clone(), 1),
    ]
}

pub(super) fn entry(plan: &Plan, name: &str) -> String {
    let mut asm = Asm::default();
    let f = Frame::begin(&mut asm, plan);
    let block = Block::begin(&mut asm, &f);
    match plan.splits > 1 {
        false => block.run(&mut asm),
        true => {
            let Keys { start, end } = block.keys;
            let some = asm.op("setp.lt.s32", Class::Pred, &[&start, &end]);
            asm.when(some, true, |asm| block.run(asm));
        }
    }
    let params = scope::params(plan.k.args.len(), 0);
    scope::crowded_entry(name, &params, THREADS, Some(CROWD), asm)
}

/// One block's part of the work.
struct Block<'a> {
    f: &'a Frame<'a>,
    warp: R,
    /// A lane's place in fragments.
    g: R,
    t: R,
    kv_head: Int,
    split: Int,
    /// First row.
    first: R,
    keys: Keys,
    /// Where a lane's part of the first key and value lies.
    k: R,
    v: R,
}

/// A tile of eight rows. A lane has the scores of row `g` and the values of rows `2t`, `2t + 1`.
struct Tile {
    row: Row,
    horizon: Int,
    max: R,
    /// Of the keys that this lane had; its neighbours have the others.
    sum: R,
    values: Vec<[R; 4]>,
}

/// Keys and values on their way: for each row that a lane reads, accesses of four registers.
type Read = Vec<Vec<[R; 4]>>;

impl<'a> Block<'a> {
    fn begin(asm: &mut Asm, f: &'a Frame<'a>) -> Block<'a> {
        let plan = f.plan;
        let x = asm.op("mov.u32", Class::B32, &[&"%ctaid.x"]);
        let split = int::rem(asm, x, Int::Imm(plan.splits as i64));
        let kv_head = int::div(asm, x, Int::Imm(plan.splits as i64));
        let tile = asm.op("mov.u32", Class::B32, &[&"%ctaid.y"]);
        let lane = asm.op("and.b32", Class::B32, &[&f.tid, &31]);
        let g = asm.op("shr.u32", Class::B32, &[&lane, &2]);
        let t = asm.op("and.b32", Class::B32, &[&lane, &3]);
        let own = |asm: &mut Asm, o, by| {
            let column = asm.op("mul.lo.u32", Class::B32, &[by, &8]);
            f.at(asm, o, kv_head, Int::Imm(0), column.into())
        };
        Block {
            f,
            warp: asm.op("shr.u32", Class::B32, &[&f.tid, &5]),
            kv_head,
            split,
            first: asm.op("mul.lo.u32", Class::B32, &[&tile, &(8 * tiles(plan))]),
            keys: f.split(asm, split, combine::ALIGN),
            k: own(asm, &plan.k.k, &t),
            v: own(asm, &plan.k.v, &g),
            g,
            t,
        }
    }

    fn run(&self, asm: &mut Asm) {
        let k = self.f.plan.k;
        let tiles: Vec<Tile> = (0..tiles(self.f.plan)).map(|i| self.tile(asm, i)).collect();
        let queries = self.queries(asm, &tiles);
        let skip = asm.op("mul.lo.u32", Class::B32, &[&self.warp, &KEYS]);
        let first = int::add(asm, self.keys.start, skip);
        let key = asm.op("mov.b32", Class::B32, &[&first]);
        let keys = fresh(asm, KEYS / 8, k.head_dim.div_ceil(32));
        let values = fresh(asm, 4, k.value_dim.div_ceil(64));
        let ahead = k.head_dim + k.value_dim <= AHEAD;
        if ahead {
            let some = asm.op("setp.lt.s32", Class::Pred, &[&key, &self.keys.end]);
            self.read_keys(asm, first, &keys, Some(some));
            self.read_values(asm, first, &values, Some(some));
        }
        let step = Int::Imm((KEYS * WARPS) as i64);
        asm.count_rolled(key, self.keys.end, step, |asm| {
            let next = int::add(asm, key, step);
            let more = asm.op("setp.lt.s32", Class::Pred, &[&next, &self.keys.end]);
            if !ahead {
                self.read_keys(asm, key.into(), &keys, None);
            }
            let scores = self.scores(asm, &queries, &keys);
            if ahead {
                self.read_keys(asm, next, &keys, Some(more));
            }
            let weights: Vec<[R; 2]> = (tiles.iter().enumerate())
                .map(|(i, tile)| self.softmax(asm, key, tile, i, &scores))
                .collect();
            if !ahead {
                // Keeps these reads from moving up to where keys take the registers.
                asm.put("bar.warp.sync 0xffffffff");
                self.read_values(asm, key.into(), &values, None);
            }
            self.add_values(asm, &tiles, &weights, &values);
            if ahead {
                self.read_values(asm, next, &values, Some(more));
            }
        });
        self.merge(asm, &tiles);
    }

    fn tile(&self, asm: &mut Asm, i: usize) -> Tile {
        let index = int::add(asm, self.first, self.g);
        let index = int::add(asm, index, Int::Imm(8 * i as i64));
        let row = self.f.row(asm, self.kv_head, index);
        let fragments = self.f.plan.k.value_dim.div_ceil(64) * 4;
        Tile {
            horizon: self.f.horizon(asm, &row, self.keys.end),
            row,
            max: asm.f32(f32::NEG_INFINITY),
            sum: asm.f32(0.0),
            values: (0..fragments).map(|_| fragment::zeros(asm)).collect(),
        }
    }

    /// The rows' queries as left sides, one for each 16 elements.
    fn queries(&self, asm: &mut Asm, tiles: &[Tile]) -> Vec<[R; 4]> {
        let k = self.f.plan.k;
        let column = asm.op("mul.lo.u32", Class::B32, &[&self.t, &8]);
        let read: Read = fresh(asm, 2, k.head_dim.div_ceil(32));
        for (tile, to) in tiles.iter().zip(&read) {
            let Row { head, query, .. } = tile.row;
            let address = self.f.at(asm, &k.q, head, query, column.into());
            read_row(asm, address, to, (self.t, 32, k.head_dim), None);
        }
        let pair = |[a, b]: [&[R; 4]; 2], i: usize| [a[i], b[i], a[i + 1], b[i + 1]];
        (read[0].iter().zip(&read[1]))
            .flat_map(|(a, b)| [pair([a, b], 0), pair([a, b], 2)])
            .collect()
    }

    fn read_keys(&self, asm: &mut Asm, key: Int, to: &Read, when: Option<R>) {
        let k = self.f.plan.k;
        for (i, to) in to.iter().enumerate() {
            let row = int::add(asm, self.g, Int::Imm(8 * i as i64));
            let address = self.row(asm, &k.k, self.k, key, row);
            read_row(asm, address, to, (self.t, 32, k.head_dim), when);
        }
    }

    fn read_values(&self, asm: &mut Asm, key: Int, to: &Read, when: Option<R>) {
        let k = self.f.plan.k;
        let first = asm.op("mul.lo.u32", Class::B32, &[&self.t, &2]);
        for (to, i) in to.iter().zip([0, 1, 8, 9]) {
            let row = int::add(asm, first, Int::Imm(i));
            let address = self.row(asm, &k.v, self.v, key, row);
            read_row(asm, address, to, (self.g, 64, k.value_dim), when);
        }
    }

    /// The address of a key or value; one beyond the last gives the last.
    fn row(&self, asm: &mut Asm, o: &crate::Operand, base: R, key: Int, row: Int) -> R {
        let key = int::add(asm, key, row);
        let last = int::sub(asm, self.keys.end, Int::Imm(1));
        let key = int::min(asm, key, last);
        self.f.step(asm, o, base, 2, key)
    }

    /// Dot products of 16 rows with two tiles of eight keys.
    fn scores(&self, asm: &mut Asm, queries: &[[R; 4]], keys: &Read) -> Vec<[R; 4]> {
        let dtype = self.f.plan.dtype(&self.f.plan.k.q);
        let sums: Vec<[R; 4]> = keys.iter().map(|_| fragment::zeros(asm)).collect();
        for (i, query) in queries.iter().enumerate() {
            for (sums, key) in sums.iter().zip(keys) {
                let part = key[i / 2];
                let b = [part[i % 2 * 2], part[i % 2 * 2 + 1]];
                fragment::multiply(asm, dtype, sums, *query, b);
            }
        }
        sums
    }

    /// Takes 16 scores of each row into maximum and sum; the weights are a right side.
    fn softmax(
        &self,
        asm: &mut Asm,
        key: R,
        tile: &Tile,
        index: usize,
        scores: &[[R; 4]],
    ) -> [R; 2] {
        let first = asm.op("mad.lo.s32", Class::B32, &[&self.t, &2, &key]);
        let mut all = Vec::new();
        for (n, dots) in scores.iter().enumerate() {
            let key = int::add(asm, first, Int::Imm(8 * n as i64));
            let key = asm.op("mov.b32", Class::B32, &[&key]);
            let dots = &dots[2 * index..][..2];
            let scores = self.f.scores(asm, &tile.row, key, dots);
            for (j, score) in scores.into_iter().enumerate() {
                let key = int::add(asm, key, Int::Imm(j as i64));
                all.push(self.f.mask(asm, &tile.row, tile.horizon, key, score));
            }
        }
        let max = (all.iter().copied())
            .reduce(|a, b| asm.op("max.f32", Class::F32, &[&a, &b]))
            .unwrap_or(tile.max);
        let max = over_lanes(asm, "max.f32", max, &[1, 2]);
        let max = asm.op("max.f32", Class::F32, &[&max, &tile.max]);
        let reference = mem::reference(asm, max);
        let fade = mem::weight(asm, tile.max, reference);
        asm.op_to("mov.f32", tile.max, &[&max]);
        asm.op_to("mul.f32", tile.sum, &[&tile.sum, &fade]);
        let weights: Vec<R> = all
            .iter()
            .map(|s| mem::weight(asm, *s, reference))
            .collect();
        for w in &weights {
            asm.op_to("add.f32", tile.sum, &[&tile.sum, w]);
        }
        self.fade(asm, tile, fade);
        [0, 2].map(|i| self.pack(asm, weights[i], weights[i + 1]))
    }

    /// Scales the values to a new maximum. Row `2t` is lane `8t`'s row.
    fn fade(&self, asm: &mut Asm, tile: &Tile, fade: R) {
        for j in 0..2 {
            let lane = asm.op("mad.lo.u32", Class::B32, &[&self.t, &8, &(4 * j)]);
            let fade = from_lane(asm, fade, lane);
            for v in &tile.values {
                asm.op_to("mul.f32", v[j], &[&v[j], &fade]);
                asm.op_to("mul.f32", v[2 + j], &[&v[2 + j], &fade]);
            }
        }
    }

    fn pack(&self, asm: &mut Asm, low: R, high: R) -> R {
        let plan = self.f.plan;
        access::encode_halves(asm, plan.target, plan.dtype(&plan.k.v), [low, high])
    }

    /// Adds up the weighted values of 16 keys. Fragment `4 h + i` has elements `64 h + 8 g + 2 i`
    /// (as rows `g`) and the next ones (as rows `g + 8`).
    fn add_values(&self, asm: &mut Asm, tiles: &[Tile], weights: &[[R; 2]], values: &Read) {
        let dtype = self.f.plan.dtype(&self.f.plan.k.v);
        for n in 0..4 * values[0].len() {
            let (h, i) = (n / 4, n % 4);
            let mut half =
                |a: usize, upper| halves(asm, values[a][h][i], values[a + 1][h][i], upper);
            let a = [half(0, false), half(0, true), half(2, false), half(2, true)];
            for (tile, weights) in tiles.iter().zip(weights) {
                fragment::multiply(asm, dtype, &tile.values[n], a, *weights);
            }
        }
    }
}

/// Registers for `rows` rows of `accesses` accesses, all zero: what lies beyond a row's end stays
/// so.
fn fresh(asm: &mut Asm, rows: usize, accesses: usize) -> Read {
    let mut access = || std::array::from_fn(|_| asm.op("mov.b32", Class::B32, &[&0]));
    (0..rows)
        .map(|_| (0..accesses).map(|_| access()).collect())
        .collect()
}

/// Whether eight elements, from `part * 8` on in block `block` of `size` elements, lie inside of
/// `all`; nothing if all parts of the block do.
fn inside(asm: &mut Asm, (part, size, all): (R, usize, usize), block: usize) -> Option<R> {
    let left = all.saturating_sub(block * size) / 8;
    (left < size / 8).then(|| asm.op("setp.lt.u32", Class::Pred, &[&part, &left]))
}

/// Reads a lane's part of a row, where `when` holds; nobody reads it again.
fn read_row(
    asm: &mut Asm,
    address: R,
    to: &[[R; 4]],
    (part, size, all): (R, usize, usize),
    when: Option<R>,
) {
    for (i, [a, b, c, d]) in to.iter().enumerate() {
        let guard = match (inside(asm, (part, size, all), i), when) {
            (None, when) => when,
            (part, None) => part,
            (Some(p), Some(when)) => Some(asm.op("and.pred", Class::Pred, &[&p, &when])),
        };
        let guard = guard.map(|p| format!("@{p} ")).unwrap_or_default();
        let offset = i * size * 2;
        asm.put(format_args!(
            "{guard}ld.global.L1::no_allocate.v4.b32 {{{a}, {b}, {c}, {d}}}, [{address}+{offset}]"
        ));
    }
}
