//! Queries, keys and values on their way to registers: where a lane's parts lie, and how they come.

use super::staged::First;
use super::{DecodeBlock, Flow, KEYS, Tile};
use crate::Operand;
use crate::ptx::asm::{Asm, Class, Int, R};
use crate::ptx::attention::frame::QueryRow;
use crate::ptx::attention::int;

/// The values of a step that a lane reads, from value `2t` on.
pub(super) const VALUES: [i64; 4] = [0, 1, 8, 9];

/// Where a row is read.
#[derive(Clone, Copy)]
pub(super) enum Space {
    Global,
    Shared,
}

/// Where the keys and values of a block end that it reads from memory.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    pub key: Int,
    pub value: Int,
}

impl Ends {
    /// Whether there are keys from one on, and values.
    pub fn some(&self, asm: &mut Asm, key: Int) -> [R; 2] {
        let some = asm.op("setp.lt.s32", Class::Pred, &[&key, &self.key]);
        match self.key == self.value {
            true => [some; 2],
            false => [
                some,
                asm.op("setp.lt.s32", Class::Pred, &[&key, &self.value]),
            ],
        }
    }
}

/// Keys and values on their way: for each row that a lane reads, accesses of four registers.
pub(super) type Read = Vec<Vec<[R; 4]>>;

impl Flow<'_> {
    /// Makes registers zero where a step may not fill all of them: nothing stays in them from the
    /// step before.
    pub(super) fn clear(&self, asm: &mut Asm, all: &Read) {
        if self.before.is_some() {
            let registers = all.iter().flatten().flatten();
            registers.for_each(|r| asm.op_to("mov.b32", *r, &[&0]));
        }
    }
}

impl DecodeBlock<'_> {
    /// Where the keys and values end that are in memory.
    pub(super) fn ends(&self, asm: &mut Asm, before: Option<&First>) -> Ends {
        let all = self.keys.end;
        let [key, value] = match before {
            None => [all, all],
            Some(before) => before.stored(asm, self.keys),
        };
        Ends { key, value }
    }

    /// Sends for rows before the wait: nearly all were written long ago, and since then other
    /// weights went through the second-level cache. What is still written arrives there as well.
    pub(super) fn prefetch(&self, asm: &mut Asm, places: &[R], (size, all): (usize, usize)) {
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
    pub(super) fn query_places(&self, asm: &mut Asm, tiles: &[Tile]) -> Vec<R> {
        let column = asm.op("mul.lo.u32", Class::B32, &[&self.t, &8]);
        let place = |tile: &Tile| {
            let QueryRow { head, query, .. } = tile.row;
            self.f.at(asm, &self.f.plan.k.q, head, query, column.into())
        };
        tiles.iter().map(place).collect()
    }

    /// Starts to read the rows' queries.
    pub(super) fn read_queries(&self, asm: &mut Asm, places: &[R], to: &Read) {
        for (place, to) in places.iter().zip(to) {
            read_row(
                asm,
                Space::Global,
                *place,
                to,
                (self.t, 32, self.f.plan.k.head_dim),
                None,
            );
        }
    }

    /// Where a lane's part of 16 keys lies.
    pub(super) fn key_places(&self, asm: &mut Asm, key: Int, ends: Ends) -> Vec<R> {
        let place = |i: usize| {
            let row = int::add(asm, self.g, Int::Imm(8 * i as i64));
            self.row(asm, (&self.f.plan.k.k, self.k, ends.key), key, row)
        };
        (0..KEYS / 8).map(place).collect()
    }

    pub(super) fn read_keys(&self, asm: &mut Asm, places: &[R], to: &Read, when: Option<R>) {
        for (place, to) in places.iter().zip(to) {
            read_row(
                asm,
                Space::Global,
                *place,
                to,
                (self.t, 32, self.f.plan.k.head_dim),
                when,
            );
        }
    }

    /// Where a lane's part of 16 values lies.
    pub(super) fn value_places(&self, asm: &mut Asm, key: Int, ends: Ends) -> Vec<R> {
        let first = asm.op("mul.lo.u32", Class::B32, &[&self.t, &2]);
        let place = |i: i64| {
            let row = int::add(asm, first, Int::Imm(i));
            self.row(asm, (&self.f.plan.k.v, self.v, ends.value), key, row)
        };
        VALUES.map(place).to_vec()
    }

    pub(super) fn read_values(&self, asm: &mut Asm, places: &[R], to: &Read, when: Option<R>) {
        for (place, to) in places.iter().zip(to) {
            read_row(
                asm,
                Space::Global,
                *place,
                to,
                (self.g, 64, self.f.plan.k.value_dim),
                when,
            );
        }
    }

    /// The address of a key or value; one beyond the last gives the last.
    fn row(&self, asm: &mut Asm, (o, base, end): (&Operand, R, Int), key: Int, row: Int) -> R {
        let key = int::add(asm, key, row);
        let mut last = int::sub(asm, end, Int::Imm(1));
        if self.f.plan.before.is_some() {
            // There may be none; then it is sent for, but not read.
            last = int::max(asm, last, Int::Imm(0));
        }
        let key = int::min(asm, key, last);
        self.f.step(asm, o, base, 2, key)
    }
}

/// Queries as left sides, one for each 16 elements.
pub(super) fn sides(read: &Read) -> Vec<[R; 4]> {
    let pair = |[a, b]: [&[R; 4]; 2], i: usize| [a[i], b[i], a[i + 1], b[i + 1]];
    (read[0].iter().zip(&read[1]))
        .flat_map(|(a, b)| [pair([a, b], 0), pair([a, b], 2)])
        .collect()
}

/// Registers for `rows` rows of `accesses` accesses, all zero: what lies beyond a row's end stays
/// so.
pub(super) fn fresh(asm: &mut Asm, rows: usize, accesses: usize) -> Read {
    let mut access = || std::array::from_fn(|_| asm.op("mov.b32", Class::B32, &[&0]));
    (0..rows)
        .map(|_| (0..accesses).map(|_| access()).collect())
        .collect()
}

/// Whether eight elements, from `part * 8` on in block `block` of `size` elements, lie inside of
/// `all`; nothing if all parts of the block do.
pub(super) fn inside(
    asm: &mut Asm,
    (part, size, all): (R, usize, usize),
    block: usize,
) -> Option<R> {
    let left = all.saturating_sub(block * size) / 8;
    (left < size / 8).then(|| asm.op("setp.lt.u32", Class::Pred, &[&part, &left]))
}

/// Reads a lane's part of a row, where `when` holds.
pub(super) fn read_row(
    asm: &mut Asm,
    space: Space,
    address: R,
    to: &[[R; 4]],
    (part, size, all): (R, usize, usize),
    when: Option<R>,
) {
    let name = match space {
        // Nobody reads it again.
        Space::Global => "global.L1::no_allocate",
        Space::Shared => "shared",
    };
    for (i, [a, b, c, d]) in to.iter().enumerate() {
        let guard = match (inside(asm, (part, size, all), i), when) {
            (None, when) => when,
            (part, None) => part,
            (Some(p), Some(when)) => Some(asm.op("and.pred", Class::Pred, &[&p, &when])),
        };
        let guard = guard.map(|p| format!("@{p} ")).unwrap_or_default();
        let offset = i * size * 2;
        asm.put(format_args!(
            "{guard}ld.{name}.v4.b32 {{{a}, {b}, {c}, {d}}}, [{address}+{offset}]"
        ));
    }
}
