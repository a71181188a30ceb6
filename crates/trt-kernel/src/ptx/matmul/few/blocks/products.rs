//! Products of a lane's piece of some rows of `b` with what it meets.
//!
//! With one row of `a`, what it meets stays in registers, and rows of `b` come one after another. With
//! several it is read from shared memory, four values at a time, and meets the same four of each row of
//! `b`, which are all unpacked by then.

use super::meets;
use super::plan::RingPlan;
use super::unpack::{Loaded, Unpacker};
use crate::ptx::asm::{Asm, Class, R};
use crate::sum_order::blocks::{PIECE, Sums};

/// What a lane's piece meets.
pub(super) enum Met {
    /// One row of `a`: values, what sums start with, and sums.
    Held([Vec<R>; 3]),
    /// The shared address of the piece of the first row of `a`; those of others are so many bytes apart.
    Shared(R, usize),
}

impl Met {
    /// Takes a piece at a shared address into registers.
    pub fn hold(asm: &mut Asm, plan: RingPlan, at: R) -> Met {
        let fours = (0..PIECE / 4).flat_map(|i| meets::get(asm, at, 16 * i, 4));
        let values = fours.collect();
        let [starts, sums] = meets::totals(asm, &Sums::of(plan.block), at, 0);
        Met::Held([values, starts, sums])
    }
}

/// Where a row's segment is: bytes behind a shared address, and how many more there are of them if rows
/// begin anywhere.
pub(super) type Source = ((R, usize), Option<R>);

/// The lane's sums of rows: for each of `m` rows of `a`, those of rows of `b`.
pub(super) fn multiply(
    asm: &mut Asm,
    (plan, m): (RingPlan, usize),
    unpacker: &Unpacker,
    rows: &[Source],
    met: &Met,
) -> Vec<R> {
    match met {
        Met::Held(held) => {
            let one = |row: &Source| {
                let loaded = unpacker.load(asm, row.0, row.1);
                held_row(asm, plan, unpacker, &loaded, held)
            };
            rows.iter().map(one).collect()
        }
        Met::Shared(at, apart) => {
            let load = |row: &Source| unpacker.load(asm, row.0, row.1);
            let loaded: Vec<Loaded> = rows.iter().map(load).collect();
            shared_rows(asm, (plan, m), unpacker, &loaded, (*at, *apart))
        }
    }
}

fn held_row(
    asm: &mut Asm,
    plan: RingPlan,
    unpacker: &Unpacker,
    loaded: &Loaded,
    [values, starts, met]: &[Vec<R>; 3],
) -> R {
    let each = Sums::of(plan.block).each();
    let mut sums = starts.clone();
    for unit in 0..unpacker.units() {
        for (i, number) in unpacker.unit(asm, loaded, unit) {
            let sum = &mut sums[i / each];
            *sum = asm.op("fma.rn.f32", Class::F32, &[&number, &values[i], sum]);
        }
    }
    let scales = unpacker.scales(asm, loaded);
    unpacker.join(asm, &scales, &sums, met)
}

fn shared_rows(
    asm: &mut Asm,
    (plan, m): (RingPlan, usize),
    unpacker: &Unpacker,
    loaded: &[Loaded],
    (at, apart): (R, usize),
) -> Vec<R> {
    let kind = Sums::of(plan.block);
    // For each row of `a`, those of rows of `b`, for each group.
    let mut sums: Vec<Vec<Vec<R>>> = Vec::new();
    for m in 0..m {
        let [starts, _] = meets::totals(asm, &kind, at, m * apart);
        sums.push(vec![starts; loaded.len()]);
    }
    for unit in 0..unpacker.units() {
        let unpack = |row: &Loaded| unpacker.unit(asm, row, unit);
        let numbers: Vec<Vec<(usize, R)>> = loaded.iter().map(unpack).collect();
        let mut fours: Vec<usize> = numbers[0].iter().map(|(i, _)| i / 4).collect();
        fours.sort_unstable();
        fours.dedup();
        for (m, sums) in sums.iter_mut().enumerate() {
            let get = |four: &usize| (*four, meets::get(asm, at, m * apart + 16 * four, 4));
            let x: Vec<(usize, Vec<R>)> = fours.iter().map(get).collect();
            for (numbers, sums) in numbers.iter().zip(sums.iter_mut()) {
                for (i, number) in numbers {
                    let four = x.iter().find(|(four, _)| *four == i / 4);
                    let Some((_, x)) = four else { continue };
                    let sum = &mut sums[i / kind.each()];
                    *sum = asm.op("fma.rn.f32", Class::F32, &[number, &x[i % 4], sum]);
                }
            }
        }
    }
    let scales: Vec<_> = loaded.iter().map(|row| unpacker.scales(asm, row)).collect();
    let mut out = Vec::new();
    for (m, sums) in sums.iter().enumerate() {
        let [_, met] = meets::totals(asm, &kind, at, m * apart);
        for (sums, scales) in sums.iter().zip(&scales) {
            out.push(unpacker.join(asm, scales, sums, &met));
        }
    }
    out
}
