//! Rows that a block runs before its attention: the queries of its key head, and the last key and
//! value.
//!
//! All go to shared memory, rounded as if stored, and the block that has the last key among its own
//! stores key and value behind those of earlier calls too: nobody reads them there in this launch,
//! so there is one writer and no reader. What the rows load is on its way before the first keys
//! and values are, and what they compute is done while those arrive. Where a step of the attention
//! has the last key, lanes take it from shared memory.
//!
//! Threads are given to queries, key and value by warps, so that these run beside each other.
//!
//! Cost: a trip to the cache, which the first keys take too, and a barrier. What it saves is a
//! launch.

use super::read::{Read, Space, VALUES, read_row};
use super::{DecodeBlock, KEYS, tiles};
use crate::fusible::HeadRow;
use crate::ptx::asm::{Asm, Class, Int, R};
use crate::ptx::attention::frame::Keys;
use crate::ptx::attention::{int, mem};
use crate::ptx::lanes::{Lanes, Point};
use crate::ptx::{access, space};
use crate::{Dim, Inst};

/// What a block computes first, and where it puts that.
pub(super) struct First<'a> {
    pieces: Vec<Piece<'a>>,
    /// Shared addresses (u32).
    queries: R,
    key: Option<R>,
    value: Option<R>,
    /// Rows of queries.
    rows: usize,
    /// The key of this call, which is the last one.
    last: Int,
    /// Whether this block writes it.
    writes: R,
}

/// What each thread takes of a row kernel: some points, or none.
struct Piece<'a> {
    stored: &'a HeadRow<'a>,
    lanes: Lanes<'a>,
    lanes_at_once: usize,
    at: Vec<Int>,
    takes: R,
    /// The shared address of its first point.
    to: R,
    /// Whether it is stored to memory too.
    kept: bool,
}

/// The work of one row kernel.
struct HeadJob<'a> {
    stored: &'a HeadRow<'a>,
    /// The first head, and how many.
    head: Int,
    heads: usize,
    base: R,
    pitch: usize,
    kept: bool,
}

impl HeadJob<'_> {
    /// Threads that it takes.
    fn units(&self, lanes: usize) -> usize {
        self.heads * (self.stored.columns / lanes.min(widest(self.stored)))
    }
}

/// How many points of a row a thread may take at once.
fn widest(stored: &HeadRow) -> usize {
    let row = stored.row;
    let accesses = space::accesses(&row.body, &row.args);
    access::lanes(&Dim::from(stored.columns), accesses)
}

/// Bytes from a row of queries to the next, so that rows lie in different banks.
fn pitch(dim: usize) -> usize {
    2 * dim + 64
}

impl<'a> First<'a> {
    /// Makes addresses; touches no memory.
    pub fn begin(asm: &mut Asm, block: &DecodeBlock<'a>) -> Option<First<'a>> {
        let f = block.f;
        let (k, before) = (f.plan.k, f.plan.before.as_ref()?);
        let rows = (8 * tiles(f.plan)).min(f.plan.group());
        let queries = mem::array(asm, rows * pitch(k.head_dim));
        let room = |asm: &mut Asm, stored: &Option<HeadRow>, dim: usize| {
            (stored.is_some()).then(|| mem::array(asm, 2 * dim))
        };
        let key = room(asm, &before.key, k.head_dim);
        let value = room(asm, &before.value, k.value_dim);
        let last = int::sub(asm, f.keys, Int::Imm(1));
        // The last key is among the block's own.
        let Keys { start, end } = block.keys;
        let [end, number] = [end, last].map(|i| asm.op("mov.b32", Class::B32, &[&i]));
        let own = asm.op("setp.gt.s32", Class::Pred, &[&end, &number]);
        let own = asm.op("setp.le.and.s32", Class::Pred, &[&start, &number, &own]);
        let writes = asm.op("setp.eq.and.u32", Class::Pred, &[&block.first, &0, &own]);
        let head = int::mul(asm, block.kv_head, Int::Imm(f.plan.group() as i64));
        let head = int::add(asm, head, block.first);
        let mut jobs = vec![HeadJob {
            stored: &before.queries,
            head,
            heads: rows,
            base: queries,
            pitch: pitch(k.head_dim),
            kept: false,
        }];
        for (stored, base) in [(&before.key, key), (&before.value, value)] {
            if let (Some(stored), Some(base)) = (stored, base) {
                jobs.push(HeadJob {
                    stored,
                    head: block.kv_head,
                    heads: 1,
                    base,
                    pitch: 0,
                    kept: true,
                });
            }
        }
        Some(First {
            pieces: pieces(asm, block, &jobs, own),
            queries,
            key,
            value,
            rows,
            last,
            writes,
        })
    }

    /// The addresses that were made.
    pub fn addresses(&self) -> impl Iterator<Item = &R> {
        self.pieces.iter().flat_map(|p| p.lanes.places())
    }

    /// Starts all loads.
    pub fn load(&mut self, asm: &mut Asm) {
        for piece in &mut self.pieces {
            for (i, inst) in piece.stored.row.body.insts.iter().enumerate() {
                if matches!(inst, Inst::Load(..)) {
                    let point = point(&piece.at, piece.lanes_at_once);
                    piece.lanes.step_if(asm, point, i, Some(piece.takes));
                }
            }
        }
    }

    /// Computes and stores; then all threads may read it.
    pub fn run(&mut self, asm: &mut Asm, block: &DecodeBlock) {
        let writes = self.writes;
        for piece in &mut self.pieces {
            asm.when(piece.takes, true, |asm| piece.run(asm, block, writes));
        }
        asm.put("bar.sync 0");
    }

    /// The ends of the keys and of the values that earlier calls have stored, in a range.
    pub fn stored(&self, asm: &mut Asm, keys: Keys) -> [Int; 2] {
        let end = int::min(asm, keys.end, self.last);
        [self.key, self.value].map(|own| own.map_or(keys.end, |_| end))
    }

    /// Reads a lane's part of the rows' queries.
    pub fn read_queries(&self, asm: &mut Asm, block: &DecodeBlock, to: &Read) {
        let dim = block.f.plan.k.head_dim;
        for (i, to) in to.iter().enumerate().take(tiles(block.f.plan)) {
            let row = int::add(asm, block.g, Int::Imm(8 * i as i64));
            let row = int::min(asm, row, Int::Imm(self.rows as i64 - 1));
            let row = asm.op("mov.b32", Class::B32, &[&row]);
            let at = mem::cell(asm, self.queries, row, pitch(dim));
            let at = mem::cell(asm, at, block.t, 16);
            read_row(asm, Space::Shared, at, to, (block.t, 32, dim), None);
        }
    }

    /// Puts the last key where it is one of a step's from `key` on.
    pub fn last_key(&self, asm: &mut Asm, block: &DecodeBlock, key: R, to: &Read) {
        let Some(base) = self.key else { return };
        let dim = block.f.plan.k.head_dim;
        self.where_last(asm, key, |asm, place| {
            let at = mem::cell(asm, base, block.t, 16);
            for (i, to) in to.iter().enumerate() {
                let row = int::add(asm, block.g, Int::Imm(8 * i as i64));
                let this = asm.op("setp.eq.u32", Class::Pred, &[&place, &row]);
                read_row(asm, Space::Shared, at, to, (block.t, 32, dim), Some(this));
            }
        });
    }

    /// Puts the last value where it is one of a step's from `key` on.
    pub fn last_value(&self, asm: &mut Asm, block: &DecodeBlock, key: R, to: &Read) {
        let Some(base) = self.value else { return };
        let dim = block.f.plan.k.value_dim;
        self.where_last(asm, key, |asm, place| {
            let at = mem::cell(asm, base, block.g, 16);
            let first = asm.op("mul.lo.u32", Class::B32, &[&block.t, &2]);
            for (row, to) in VALUES.into_iter().zip(to) {
                let row = int::add(asm, first, Int::Imm(row));
                let this = asm.op("setp.eq.u32", Class::Pred, &[&place, &row]);
                read_row(asm, Space::Shared, at, to, (block.g, 64, dim), Some(this));
            }
        });
    }

    /// Does something where the last key is one of a step's, with its place there.
    fn where_last(&self, asm: &mut Asm, key: R, each: impl FnOnce(&mut Asm, R)) {
        let place = asm.op("sub.s32", Class::B32, &[&self.last, &key]);
        let here = asm.op("setp.lt.u32", Class::Pred, &[&place, &KEYS]);
        asm.when(here, true, |asm| each(asm, place));
    }
}

/// Gives threads to jobs: as few points to each as lets all run at once.
fn pieces<'a>(
    asm: &mut Asm,
    block: &DecodeBlock<'a>,
    jobs: &[HeadJob<'a>],
    own: R,
) -> Vec<Piece<'a>> {
    let threads = 32 * block.warps;
    let needed = |lanes: usize| {
        let each = jobs.iter().map(|j| j.units(lanes).next_multiple_of(32));
        each.sum::<usize>()
    };
    let lanes = [2, 4, 8].into_iter().find(|l| needed(*l) <= threads);
    let lanes = lanes.unwrap_or(8);
    let mut pieces = Vec::new();
    let mut start = 0;
    for job in jobs {
        let units = job.units(lanes);
        // Rounds of the block in which some of its threads have a part.
        for round in start / threads..(start + units).div_ceil(threads) {
            let skipped = (round * threads) as i64 - start as i64;
            let unit = int::add(asm, block.f.tid, Int::Imm(skipped));
            pieces.push(job.piece(asm, block, (unit, units), lanes, own));
        }
        start = (start + units).next_multiple_of(32);
    }
    pieces
}

impl<'a> HeadJob<'a> {
    fn piece(
        &self,
        asm: &mut Asm,
        block: &DecodeBlock<'a>,
        (unit, units): (Int, usize),
        lanes: usize,
        own: R,
    ) -> Piece<'a> {
        let stored = self.stored;
        let lanes = lanes.min(widest(stored));
        let chunks = Int::Imm((stored.columns / lanes) as i64);
        let mut takes = asm.op("setp.lt.u32", Class::Pred, &[&unit, &units]);
        if self.kept {
            takes = asm.op("and.pred", Class::Pred, &[&takes, &own]);
        }
        // Threads that take no part may have any index.
        let within = int::div(asm, unit, chunks);
        let chunk = int::rem(asm, unit, chunks);
        let column = int::mul(asm, chunk, Int::Imm(lanes as i64));
        let head = int::add(asm, self.head, within);
        let all = match self.kept {
            true => block.f.plan.k.kv_heads,
            false => block.f.plan.k.heads,
        };
        // The last tile of a key head may have fewer rows.
        let head = int::min(asm, head, Int::Imm(all as i64 - 1));
        let mut at = vec![Int::Imm(0); stored.row.space.len()];
        if let Some(axis) = stored.batch {
            at[axis] = block.f.batch.into();
        }
        if let Some(axis) = stored.head {
            at[axis] = head;
        }
        if let Some(last) = at.last_mut() {
            *last = column;
        }
        let [row, column] = [within, column].map(|i| asm.op("mov.b32", Class::B32, &[&i]));
        let to = mem::cell(asm, self.base, row, self.pitch);
        let to = mem::cell(asm, to, column, 2);
        let body = &stored.row.body;
        let mut points = Lanes::new(&block.f.scope, body, &stored.row.args);
        for (i, inst) in body.insts.iter().enumerate() {
            let memory =
                matches!(inst, Inst::Load(..)) || self.kept && matches!(inst, Inst::Store(..));
            if memory {
                points.aim(asm, point(&at, lanes), i);
            }
        }
        Piece {
            stored,
            lanes: points,
            lanes_at_once: lanes,
            at,
            takes,
            to,
            kept: self.kept,
        }
    }
}

impl Piece<'_> {
    fn run(&mut self, asm: &mut Asm, block: &DecodeBlock, writes: R) {
        let body = &self.stored.row.body;
        for (i, inst) in body.insts.iter().enumerate() {
            let point = point(&self.at, self.lanes_at_once);
            match inst {
                Inst::Load(..) => {}
                Inst::Store(arg, view, value) => {
                    let values: Vec<R> = (0..self.lanes_at_once)
                        .map(|l| self.lanes.lane(*value, l))
                        .collect();
                    let dtype = self.stored.row.args[arg.0 as usize];
                    let target = block.f.plan.target;
                    let bits = access::encode(asm, target, dtype, &values);
                    let offset = self.stored.part(view) as i64 * 2;
                    let bytes = 2 * self.lanes_at_once;
                    access::store_to(asm, "shared", (self.to, offset), bytes, 2, &bits);
                    if self.kept {
                        asm.when(writes, true, |asm| self.lanes.step(asm, point, i));
                    }
                }
                _ => self.lanes.step(asm, point, i),
            }
        }
    }
}

fn point(at: &[Int], lanes: usize) -> Point<'_> {
    Point {
        at,
        lanes,
        input: &[],
    }
}
