//! Attention of few queries: keys and values go from memory to registers to tensor cores.
//!
//! A block takes a tile of 8 or 16 rows of a key head and one split of its keys; its warps (eight
//! where there is room to merge) take 16 keys in turn and merge at the end. What a lane reads with one access of 16 bytes (eight
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
//! heads leave that to the other blocks of the multiprocessor). Addresses are made before the wait
//! for the launch ahead.
//!
//! Up to one step's keys are one block's: they are all in flight at once, and reading them takes a
//! multiprocessor no longer than merging two splits would. More are split finely, since then the
//! merge is paid for anyway.
//!
//! Limit: memory bandwidth for long contexts (each key and value is read once for the whole
//! group), latency for short ones: one trip for all reads, 16 dependent products of halves, the
//! softmax, the merge of the warps.

mod merge;

use super::combine::Share;
use super::fragment::{self, from_lane, halves};
use super::frame::{Frame, Keys, Row};
use super::mem::{self, over_lanes};
use super::{FEW, Plan, extent, int};
use crate::ptx::access;
use crate::ptx::asm::{Asm, Class, Int, R};
use crate::ptx::emitted::Extent;
use crate::ptx::scope;

/// Warps of a multiprocessor.
const CROWD: usize = 8;
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

/// Warps of a block: as many as there is shared memory to merge.
pub(super) fn warps(plan: &Plan) -> usize {
    match tiles(plan) * plan.k.value_dim <= 128 {
        true => 8,
        false => 4,
    }
}

/// Threads of a block.
pub(super) fn threads(plan: &Plan) -> u32 {
    32 * warps(plan) as u32
}

pub(super) fn grid(plan: &Plan, splits: usize) -> [Extent; 3] {
    [
        Extent::Fixed((plan.k.kv_heads * splits) as u32),
        extent(plan.rows(), 8 * tiles(plan) as u32),
        extent(plan.k.batch.clone(), 1),
    ]
}

pub(super) fn entry(plan: &Plan, name: &str, splits: usize) -> String {
    let mut asm = Asm::default();
    let f = Frame::begin_early(&mut asm, plan);
    let block = Block::begin(&mut asm, &f, splits);
    match &block.share {
        None => block.run(&mut asm),
        Some(share) => {
            // Others of the launch wait for the one ahead, so this need not.
            let some = share.takes_part(&mut asm);
            asm.when(some, true, |asm| block.run(asm));
        }
    }
    let crowd = Some((CROWD / block.warps) as u32);
    scope::crowded_entry(name, &plan.params(), threads(plan), crowd, asm)
}

/// One block's part of the work.
struct Block<'a> {
    f: &'a Frame<'a>,
    warp: R,
    /// A lane's place in fragments.
    g: R,
    t: R,
    kv_head: Int,
    /// Where keys are split.
    share: Option<Share>,
    /// First row.
    first: R,
    keys: Keys,
    warps: usize,
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
    fn begin(asm: &mut Asm, f: &'a Frame<'a>, splits: usize) -> Block<'a> {
        let plan = f.plan;
        let (warps, rows) = (warps(plan), 8 * tiles(plan));
        // The first splits are the first blocks: there may be keys for no others.
        let x = asm.op("mov.u32", Class::B32, &[&"%ctaid.x"]);
        let kv_head = int::rem(asm, x, Int::Imm(plan.k.kv_heads as i64));
        let index = int::div(asm, x, Int::Imm(plan.k.kv_heads as i64));
        let tile = asm.op("mov.u32", Class::B32, &[&"%ctaid.y"]);
        let first = asm.op("mul.lo.u32", Class::B32, &[&tile, &rows]);
        let share = (splits > 1).then(|| Share {
            kv_head,
            index,
            split: f.split(asm, index, (KEYS * warps) as i64),
            first,
            rows,
            axis: 'y',
            slices: 1,
            slice: Int::Imm(0),
            column: Int::Imm(0),
            width: plan.k.value_dim,
            warps,
        });
        let keys = match &share {
            Some(share) => share.split.keys,
            None => {
                let last = int::sub(asm, f.queries, Int::Imm(1));
                f.seen(asm, Int::Imm(0), last, KEYS as i64)
            }
        };
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
            share,
            first,
            keys,
            warps,
            k: own(asm, &plan.k.k, &t),
            v: own(asm, &plan.k.v, &g),
            g,
            t,
        }
    }

    fn run(&self, asm: &mut Asm) {
        let k = self.f.plan.k;
        let tiles: Vec<Tile> = (0..tiles(self.f.plan)).map(|i| self.tile(asm, i)).collect();
        let skip = asm.op("mul.lo.u32", Class::B32, &[&self.warp, &KEYS]);
        let first = int::add(asm, self.keys.start, skip);
        let key = asm.op("mov.b32", Class::B32, &[&first]);
        let keys = fresh(asm, KEYS / 8, k.head_dim.div_ceil(32));
        let values = fresh(asm, 4, k.value_dim.div_ceil(64));
        let places = self.query_places(asm, &tiles);
        let ahead = k.head_dim + k.value_dim <= AHEAD;
        let at = ahead.then(|| (self.key_places(asm, first), self.value_places(asm, first)));
        let all = at
            .iter()
            .flat_map(|(k, v)| k.iter().chain(v))
            .chain(&places);
        if let Some((keys, values)) = &at {
            self.prefetch(asm, keys, (32, k.head_dim));
            self.prefetch(asm, values, (64, k.value_dim));
        }
        self.wait(asm, all);
        let queries = self.queries(asm, &places);
        if let Some((key_places, value_places)) = at {
            let some = asm.op("setp.lt.s32", Class::Pred, &[&key, &self.keys.end]);
            self.read_keys(asm, &key_places, &keys, Some(some));
            self.read_values(asm, &value_places, &values, Some(some));
        }
        let step = Int::Imm((KEYS * self.warps) as i64);
        asm.count_rolled(key, self.keys.end, step, |asm| {
            let next = int::add(asm, key, step);
            let more = asm.op("setp.lt.s32", Class::Pred, &[&next, &self.keys.end]);
            if !ahead {
                let places = self.key_places(asm, key.into());
                self.read_keys(asm, &places, &keys, None);
            }
            let scores = self.scores(asm, &queries, &keys);
            if ahead {
                let places = self.key_places(asm, next);
                self.read_keys(asm, &places, &keys, Some(more));
            }
            let weights: Vec<[R; 2]> = (tiles.iter().enumerate())
                .map(|(i, tile)| self.softmax(asm, key, tile, i, &scores))
                .collect();
            if !ahead {
                // Keeps these reads from moving up to where keys take the registers.
                asm.put("bar.warp.sync 0xffffffff");
                let places = self.value_places(asm, key.into());
                self.read_values(asm, &places, &values, None);
            }
            self.add_values(asm, &tiles, &weights, &values);
            if ahead {
                let places = self.value_places(asm, next);
                self.read_values(asm, &places, &values, Some(more));
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

    /// Waits for the launch ahead with these addresses made: the wait hangs on them, else the
    /// assembler would move what makes them behind it. They are never all zero.
    fn wait<'r>(&self, asm: &mut Asm, addresses: impl Iterator<Item = &'r R>) {
        if !self.f.scope.target.overlaps() {
            return;
        }
        let any = addresses.copied();
        let any = any.reduce(|a, b| asm.op("or.b64", Class::B64, &[&a, &b]));
        match any {
            None => self.f.scope.wait(asm),
            Some(any) => {
                let some = asm.op("setp.ne.s64", Class::Pred, &[&any, &0]);
                asm.when(some, true, |asm| self.f.scope.wait(asm));
            }
        }
    }

    /// Sends for rows before the wait: nearly all were written long ago, and since then other
    /// weights went through the second-level cache. What is still written arrives there as well.
    fn prefetch(&self, asm: &mut Asm, places: &[R], (size, all): (usize, usize)) {
        if !self.f.scope.target.overlaps() {
            return;
        }
        for place in places {
            for block in 0..all / size {
                let offset = block * size * 2;
                asm.put(format_args!("prefetch.global.L2 [{place}+{offset}]"));
            }
        }
    }

    /// Where a lane's part of the rows' queries lies.
    fn query_places(&self, asm: &mut Asm, tiles: &[Tile]) -> Vec<R> {
        let column = asm.op("mul.lo.u32", Class::B32, &[&self.t, &8]);
        let place = |tile: &Tile| {
            let Row { head, query, .. } = tile.row;
            self.f.at(asm, &self.f.plan.k.q, head, query, column.into())
        };
        tiles.iter().map(place).collect()
    }

    /// The rows' queries as left sides, one for each 16 elements.
    fn queries(&self, asm: &mut Asm, places: &[R]) -> Vec<[R; 4]> {
        let k = self.f.plan.k;
        let read: Read = fresh(asm, 2, k.head_dim.div_ceil(32));
        for (place, to) in places.iter().zip(&read) {
            read_row(asm, *place, to, (self.t, 32, k.head_dim), None);
        }
        let pair = |[a, b]: [&[R; 4]; 2], i: usize| [a[i], b[i], a[i + 1], b[i + 1]];
        (read[0].iter().zip(&read[1]))
            .flat_map(|(a, b)| [pair([a, b], 0), pair([a, b], 2)])
            .collect()
    }

    /// Where a lane's part of 16 keys lies.
    fn key_places(&self, asm: &mut Asm, key: Int) -> Vec<R> {
        let place = |i: usize| {
            let row = int::add(asm, self.g, Int::Imm(8 * i as i64));
            self.row(asm, &self.f.plan.k.k, self.k, key, row)
        };
        (0..KEYS / 8).map(place).collect()
    }

    fn read_keys(&self, asm: &mut Asm, places: &[R], to: &Read, when: Option<R>) {
        for (place, to) in places.iter().zip(to) {
            read_row(asm, *place, to, (self.t, 32, self.f.plan.k.head_dim), when);
        }
    }

    /// Where a lane's part of 16 values lies.
    fn value_places(&self, asm: &mut Asm, key: Int) -> Vec<R> {
        let first = asm.op("mul.lo.u32", Class::B32, &[&self.t, &2]);
        let place = |i: i64| {
            let row = int::add(asm, first, Int::Imm(i));
            self.row(asm, &self.f.plan.k.v, self.v, key, row)
        };
        [0, 1, 8, 9].map(place).to_vec()
    }

    fn read_values(&self, asm: &mut Asm, places: &[R], to: &Read, when: Option<R>) {
        for (place, to) in places.iter().zip(to) {
            read_row(asm, *place, to, (self.g, 64, self.f.plan.k.value_dim), when);
        }
    }

    /// The address of a key or value; one beyond the last gives the last.
    fn row(&self, asm: &mut Asm, o: &crate::Operand, base: R, key: Int, row: Int) -> R {
        let key = int::add(asm, key, row);
        let last = int::sub(asm, self.keys.end, Int::Imm(1));
        let key = int::min(asm, key, last);
        self.f.step(asm, o, base, 2, key)
    }

    /// Dot products of 16 rows with two tiles of eight keys, in two chains that do not wait for
    /// each other.
    fn scores(&self, asm: &mut Asm, queries: &[[R; 4]], keys: &Read) -> Vec<[R; 4]> {
        let dtype = self.f.plan.dtype(&self.f.plan.k.q);
        let zeros = |asm: &mut Asm| [fragment::zeros(asm), fragment::zeros(asm)];
        let sums: Vec<[[R; 4]; 2]> = keys.iter().map(|_| zeros(asm)).collect();
        for (i, query) in queries.iter().enumerate() {
            for (sums, key) in sums.iter().zip(keys) {
                let part = key[i / 2];
                let b = [part[i % 2 * 2], part[i % 2 * 2 + 1]];
                fragment::multiply(asm, dtype, &sums[i % 2], *query, b);
            }
        }
        let mut add = |a: &R, b: &R| asm.op("add.f32", Class::F32, &[a, b]);
        let both = |[a, b]: &[[R; 4]; 2]| std::array::from_fn(|i| add(&a[i], &b[i]));
        sums.iter().map(both).collect()
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
