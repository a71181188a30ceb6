//! Attention of few queries: keys and values go from memory to registers to tensor cores.
//!
//! A block takes a tile of 8 or 16 rows of a key head and one split of its keys; its warps (eight
//! where there is room to merge) take 16 keys in turn and merge at the end. What a lane reads with
//! one access of 16 bytes (eight elements of one key or value) is its part of several fragments
//! under a renaming of the axes, so nothing passes through shared memory:
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
mod read;
mod softmax;
mod staged;

use super::combine::Share;
use super::fragment::{self, halves};
use super::frame::{AttentionFrame, Keys, QueryRow};
use super::{AttentionPlan, FEW, extent, int};
use crate::launch::Extent;
use crate::ptx::asm::{Asm, Class, Int, R};
use crate::ptx::scope;
use read::{Ends, Read, fresh, inside, sides};
use staged::First;

/// Warps of a multiprocessor.
const CROWD: usize = 8;
/// Keys of a warp's step: two tiles of eight.
const KEYS: usize = 16;
/// Up to this many elements of a key and value together, the next ones are read ahead: there are
/// registers for them.
const AHEAD: usize = 256;

/// Tiles of eight rows in a block: two where there are more than eight rows and the values of
/// sixteen fit into registers.
pub(super) fn tiles(plan: &AttentionPlan) -> usize {
    let queries = plan.k.queries.constant_size().unwrap_or(FEW as usize);
    match plan.group() * queries > 8 && plan.k.value_dim <= 128 {
        true => 2,
        false => 1,
    }
}

/// Warps of a block: as many as there is shared memory to merge.
pub(super) fn warps(plan: &AttentionPlan) -> usize {
    match tiles(plan) * plan.k.value_dim <= 128 {
        true => 8,
        false => 4,
    }
}

/// Threads of a block.
pub(super) fn threads(plan: &AttentionPlan) -> u32 {
    32 * warps(plan) as u32
}

pub(super) fn grid(plan: &AttentionPlan, splits: usize) -> [Extent; 3] {
    [
        Extent::Fixed((plan.k.kv_heads * splits) as u32),
        extent(plan.rows(), 8 * tiles(plan) as u32),
        extent(plan.k.batch.clone(), 1),
    ]
}

pub(super) fn entry(plan: &AttentionPlan, name: &str, splits: usize) -> String {
    let mut asm = Asm::default();
    let f = AttentionFrame::begin_early(&mut asm, plan);
    let block = DecodeBlock::begin(&mut asm, &f, splits);
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
struct DecodeBlock<'a> {
    f: &'a AttentionFrame<'a>,
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
    row: QueryRow,
    horizon: Int,
    max: R,
    /// Of the keys that this lane had; its neighbours have the others.
    sum: R,
    values: Vec<[R; 4]>,
}

/// What is on its way.
struct Flow<'a> {
    queries: Read,
    keys: Read,
    values: Read,
    /// Whether the next keys and values are read before this step's are done with.
    ahead: bool,
    ends: Ends,
    before: Option<First<'a>>,
}

impl<'a> DecodeBlock<'a> {
    fn begin(asm: &mut Asm, f: &'a AttentionFrame<'a>, splits: usize) -> DecodeBlock<'a> {
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
        DecodeBlock {
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
        let before = First::begin(asm, self);
        let ends = self.ends(asm, before.as_ref());
        let skip = asm.op("mul.lo.u32", Class::B32, &[&self.warp, &KEYS]);
        let first = int::add(asm, self.keys.start, skip);
        let key = asm.op("mov.b32", Class::B32, &[&first]);
        let mut flow = Flow {
            keys: fresh(asm, KEYS / 8, k.head_dim.div_ceil(32)),
            values: fresh(asm, 4, k.value_dim.div_ceil(64)),
            queries: fresh(asm, 2, k.head_dim.div_ceil(32)),
            ahead: k.head_dim + k.value_dim <= AHEAD,
            before,
            ends,
        };
        self.start(asm, &tiles, &mut flow, (first, key));
        let step = Int::Imm((KEYS * self.warps) as i64);
        asm.count_rolled(key, self.keys.end, step, |asm| {
            let next = int::add(asm, key, step);
            self.step(asm, &tiles, &flow, (key, next));
        });
        self.merge(asm, &tiles);
    }

    /// Waits for the launch ahead, starts to read and computes what comes first.
    fn start(&self, asm: &mut Asm, tiles: &[Tile], flow: &mut Flow, (first, key): (Int, R)) {
        let places = match flow.before {
            None => self.query_places(asm, tiles),
            Some(_) => Vec::new(),
        };
        let at = flow.ahead.then(|| {
            let keys = self.key_places(asm, first, flow.ends);
            (keys, self.value_places(asm, first, flow.ends))
        });
        let all = at
            .iter()
            .flat_map(|(k, v)| k.iter().chain(v))
            .chain(&places)
            .chain(flow.before.iter().flat_map(First::addresses));
        if let Some((keys, values)) = &at {
            self.prefetch(asm, keys, (32, self.f.plan.k.head_dim));
            self.prefetch(asm, values, (64, self.f.plan.k.value_dim));
        }
        self.wait(asm, all);
        match &mut flow.before {
            None => self.read_queries(asm, &places, &flow.queries),
            Some(before) => {
                before.load(asm);
                // Keeps the first keys and values, which are far more, behind these.
                asm.put("bar.warp.sync 0xffffffff");
            }
        }
        if let Some((keys, values)) = at {
            let some = flow.ends.some(asm, key.into());
            self.read_keys(asm, &keys, &flow.keys, Some(some[0]));
            self.read_values(asm, &values, &flow.values, Some(some[1]));
        }
        if let Some(before) = &mut flow.before {
            before.run(asm, self);
            if flow.ahead {
                before.read_queries(asm, self, &flow.queries);
            }
        }
    }

    /// Takes 16 keys from `key` on in; `next` are those after them.
    fn step(&self, asm: &mut Asm, tiles: &[Tile], flow: &Flow, (key, next): (R, Int)) {
        let some = match flow.ahead {
            true => Some(flow.ends.some(asm, next)),
            // Without rows before it, a step has only keys that are stored.
            false => (flow.before.as_ref()).map(|_| flow.ends.some(asm, key.into())),
        };
        let [some_keys, some_values] = [0, 1].map(|i| some.map(|s| s[i]));
        if !flow.ahead {
            let places = self.key_places(asm, key.into(), flow.ends);
            flow.clear(asm, &flow.keys);
            self.read_keys(asm, &places, &flow.keys, some_keys);
        }
        if let Some(before) = &flow.before {
            before.last_key(asm, self, key, &flow.keys);
            // Wide ones are read in each step: keys and values need the registers.
            if !flow.ahead {
                before.read_queries(asm, self, &flow.queries);
            }
        }
        let scores = self.scores(asm, &sides(&flow.queries), &flow.keys);
        if flow.ahead {
            let places = self.key_places(asm, next, flow.ends);
            self.read_keys(asm, &places, &flow.keys, some_keys);
        }
        let weights: Vec<[R; 2]> = (tiles.iter().enumerate())
            .map(|(i, tile)| self.softmax(asm, key, tile, i, &scores))
            .collect();
        if !flow.ahead {
            // Keeps these reads from moving up to where keys take the registers.
            asm.put("bar.warp.sync 0xffffffff");
            let places = self.value_places(asm, key.into(), flow.ends);
            flow.clear(asm, &flow.values);
            self.read_values(asm, &places, &flow.values, some_values);
        }
        if let Some(before) = &flow.before {
            before.last_value(asm, self, key, &flow.values);
        }
        self.add_values(asm, tiles, &weights, &flow.values);
        if flow.ahead {
            let places = self.value_places(asm, next, flow.ends);
            self.read_values(asm, &places, &flow.values, some_values);
        }
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
