//! Folds over the threads of a row, in an order that never changes.
//!
//! A row has a power of two threads of one warp, or all threads of a block. Each thread folds
//! what it has; then lanes exchange over distances that halve, and warps through shared memory,
//! where every thread folds the warps' values in the same order. All threads get the result.

use super::asm::{Asm, Class, R, imm};
use crate::{Reduce, Ty};

/// Threads that fold together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FoldTeam {
    /// A power of two up to 32, or a multiple of 32: then all threads of the block.
    pub threads: u32,
}

/// A team of another size than the block that folds for it: its order is kept by threads that stand for several
/// members each, or for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stands {
    /// Members of the team, a multiple of 32: thread `t` stands for `t`, `t + threads` and so on.
    pub members: u32,
    /// Threads of the block, a multiple of 32.
    pub threads: u32,
}

impl Stands {
    /// Members that a thread stands for at most.
    pub fn shares(self) -> u32 {
        self.members.div_ceil(self.threads)
    }

    /// Folds what members have, `[row][share][fold]`, as a team of that size would. All threads of the block are here, and
    /// those who stand for nobody have neutral elements. The result has the same places, and is the same in all shares of a row.
    pub fn fold(self, asm: &mut Asm, values: &[(Reduce, R)], folds: usize) -> Vec<R> {
        if values.is_empty() {
            return vec![];
        }
        let [warps, own] = [self.members, self.threads].map(|n| (n / 32) as usize);
        let shares = self.shares() as usize;
        let lanes = FoldTeam { threads: 32 };
        let mine = lanes.fold(asm, values);
        let pitch = |r: &R| warps.next_multiple_of(4) * width(r);
        let row = folds * shares;
        let mut bytes = 0;
        // One array for each fold of each row, which has a place for each warp of the team.
        let mut starts = Vec::with_capacity(values.len() / shares);
        for place in (0..values.len()).filter(|i| i % row < folds) {
            starts.push(bytes);
            bytes += pitch(&mine[place]);
        }
        let array = asm.shared(bytes, 16);
        let base = asm.op("mov.u32", Class::B32, &[&array]);
        let tid = asm.op("mov.u32", Class::B32, &[&"%tid.x"]);
        let lane = asm.op("and.b32", Class::B32, &[&tid, &31]);
        let first = asm.op("setp.eq.s32", Class::Pred, &[&lane, &0]);
        let warp = asm.op("shr.u32", Class::B32, &[&tid, &5]);
        for share in 0..shares {
            let number = asm.op("add.u32", Class::B32, &[&warp, &(share * own)]);
            let some = asm.op("setp.lt.and.u32", Class::Pred, &[&number, &warps, &first]);
            asm.when(some, true, |asm| {
                for (i, x) in mine
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| i % row / folds == share)
                {
                    let start = starts[i / row * folds + i % folds];
                    let at = asm.op("mad.lo.u32", Class::B32, &[&number, &width(x), &base]);
                    let name = match x.class {
                        Class::B64 => "st.shared.b64",
                        _ => "st.shared.f32",
                    };
                    asm.put(format_args!("{name} [{at}+{start}], {x}"));
                }
            });
        }
        asm.put("bar.sync 0");
        let folded: Vec<R> = (0..starts.len())
            .map(|i| {
                let (kind, x) = values[i / folds * row + i % folds];
                let all = match x.class {
                    Class::B64 => shared_integers(asm, base, starts[i], warps),
                    _ => shared_row(asm, base, starts[i], warps),
                };
                tree(asm, kind, &all)
            })
            .collect();
        let place = |i: usize| folded[i / row * folds + i % folds];
        (0..values.len()).map(place).collect()
    }
}

/// What a fold of numbers of a class starts with.
pub(super) fn neutral(kind: Reduce, class: Class) -> String {
    match (class, kind) {
        (Class::B64, Reduce::Sum) => "0".into(),
        (Class::B64, Reduce::Max) => "0x8000000000000000".into(),
        (Class::B64, Reduce::Min) => "0x7FFFFFFFFFFFFFFF".into(),
        (_, Reduce::Sum) => imm(0.0),
        (_, Reduce::Max) => imm(f32::NEG_INFINITY),
        (_, Reduce::Min) => imm(f32::INFINITY),
    }
}

/// The class of what is folded.
pub(super) fn class(ty: Option<Ty>) -> Class {
    match ty {
        Some(Ty::I64) => Class::B64,
        Some(Ty::F32 | Ty::Bool) | None => Class::F32,
    }
}

fn name(kind: Reduce, class: Class) -> &'static str {
    match (class, kind) {
        (Class::B64, Reduce::Sum) => "add.s64",
        (Class::B64, Reduce::Max) => "max.s64",
        (Class::B64, Reduce::Min) => "min.s64",
        (_, Reduce::Sum) => "add.rn.f32",
        (_, Reduce::Max) => "max.f32",
        (_, Reduce::Min) => "min.f32",
    }
}

/// Folds one or more registers as a tree.
pub(super) fn tree(asm: &mut Asm, kind: Reduce, values: &[R]) -> R {
    match values {
        [one] => *one,
        [] => asm.op("mov.f32", Class::F32, &[&neutral(kind, Class::F32)]),
        many => {
            let (lo, hi) = many.split_at(many.len().div_ceil(2));
            let (lo, hi) = (tree(asm, kind, lo), tree(asm, kind, hi));
            asm.op(name(kind, lo.class), lo.class, &[&lo, &hi])
        }
    }
}

/// `acc = fold(acc, x)`.
pub(super) fn take(asm: &mut Asm, kind: Reduce, acc: R, x: R) {
    asm.op_to(name(kind, acc.class), acc, &[&acc, &x]);
}

impl FoldTeam {
    /// Folds each value over the team. All threads of the block are here; a block calls this
    /// as often as it likes, since each call has memory of its own.
    pub fn fold(self, asm: &mut Asm, values: &[(Reduce, R)]) -> Vec<R> {
        if values.is_empty() {
            return vec![];
        }
        let mut distance = self.threads.min(32) / 2;
        let mut mine: Vec<(Reduce, R)> = values.to_vec();
        while distance > 0 {
            for (kind, x) in &mut mine {
                let other = across_lanes(asm, *x, distance);
                *x = asm.op(name(*kind, x.class), x.class, &[x, &other]);
            }
            distance /= 2;
        }
        match self.threads.div_ceil(32) {
            1 => mine.into_iter().map(|(_, x)| x).collect(),
            warps => self.across(asm, &mine, warps as usize),
        }
    }

    fn across(self, asm: &mut Asm, mine: &[(Reduce, R)], warps: usize) -> Vec<R> {
        // Each fold's values start at a multiple of 16 bytes.
        let pitch = |r: &R| warps.next_multiple_of(4) * width(r);
        let mut bytes = 0;
        let starts = mine.iter().map(|(_, x)| {
            bytes += pitch(x);
            bytes - pitch(x)
        });
        let starts: Vec<usize> = starts.collect();
        let array = asm.shared(bytes, 16);
        let base = asm.op("mov.u32", Class::B32, &[&array]);
        let tid = asm.op("mov.u32", Class::B32, &[&"%tid.x"]);
        let lane = asm.op("and.b32", Class::B32, &[&tid, &31]);
        let first = asm.op("setp.eq.s32", Class::Pred, &[&lane, &0]);
        asm.when(first, true, |asm| {
            let warp = asm.op("shr.u32", Class::B32, &[&tid, &5]);
            let slot = asm.op("mad.lo.u32", Class::B32, &[&warp, &4, &base]);
            let wide = mine.iter().any(|(_, x)| width(x) > 4);
            let wide = wide.then(|| asm.op("mad.lo.u32", Class::B32, &[&warp, &8, &base]));
            for ((_, x), start) in mine.iter().zip(&starts) {
                match (x.class, wide) {
                    (Class::B64, Some(slot)) => {
                        asm.put(format_args!("st.shared.b64 [{slot}+{start}], {x}"));
                    }
                    _ => asm.put(format_args!("st.shared.f32 [{slot}+{start}], {x}")),
                }
            }
        });
        asm.put("bar.sync 0");
        (mine.iter().zip(&starts))
            .map(|((kind, x), start)| {
                let all = match x.class {
                    Class::B64 => shared_integers(asm, base, *start, warps),
                    _ => shared_row(asm, base, *start, warps),
                };
                tree(asm, *kind, &all)
            })
            .collect()
    }
}

/// The bytes of a register's value.
fn width(r: &R) -> usize {
    if r.class == Class::B64 { 8 } else { 4 }
}

/// What the lane so far away has, whose number differs in one bit.
fn across_lanes(asm: &mut Asm, x: R, distance: u32) -> R {
    let shuffle = |asm: &mut Asm, x: R| {
        let name = "shfl.sync.bfly.b32";
        asm.op(name, x.class, &[&x, &distance, &31, &"0xFFFFFFFF"])
    };
    if x.class != Class::B64 {
        return shuffle(asm, x);
    }
    let halves = asm.regs(Class::B32, 2);
    asm.put(format_args!(
        "mov.b64 {{{}, {}}}, {x}",
        halves[0], halves[1]
    ));
    let [lo, hi] = [halves[0], halves[1]].map(|half| shuffle(asm, half));
    let both = format!("{{{lo}, {hi}}}");
    asm.op("mov.b64", Class::B64, &[&both])
}

/// Reads `n` integers from shared memory, two at a time where it can.
fn shared_integers(asm: &mut Asm, base: R, offset: usize, n: usize) -> Vec<R> {
    let all = asm.regs(Class::B64, n);
    for (i, part) in all.chunks(2).enumerate() {
        let at = offset + 16 * i;
        match part {
            [a, b] => asm.put(format_args!("ld.shared.v2.b64 {{{a}, {b}}}, [{base}+{at}]")),
            few => {
                for r in few {
                    asm.put(format_args!("ld.shared.b64 {r}, [{base}+{at}]"));
                }
            }
        }
    }
    all
}

/// Reads `n` floats from shared memory, four at a time where it can.
fn shared_row(asm: &mut Asm, base: R, offset: usize, n: usize) -> Vec<R> {
    let all = asm.regs(Class::F32, n);
    for (i, part) in all.chunks(4).enumerate() {
        let at = offset + 16 * i;
        match part {
            [a, b, c, d] => asm.put(format_args!(
                "ld.shared.v4.f32 {{{a}, {b}, {c}, {d}}}, [{base}+{at}]"
            )),
            few => {
                for (j, r) in few.iter().enumerate() {
                    asm.put(format_args!("ld.shared.f32 {r}, [{base}+{}]", at + 4 * j));
                }
            }
        }
    }
    all
}
