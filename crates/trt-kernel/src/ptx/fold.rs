//! Folds over the threads of a row, in an order that never changes.
//!
//! A row has a power of two threads of one warp, or all threads of a block. Each thread folds
//! what it has; then lanes exchange over distances that halve, and warps through shared memory,
//! where every thread folds the warps' values in the same order. All threads get the result.

use super::asm::{Asm, Class, R, imm};
use crate::Reduce;

/// Threads that fold together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FoldTeam {
    /// A power of two up to 32, or a multiple of 32: then all threads of the block.
    pub threads: u32,
}

/// What a fold starts with.
pub(super) fn neutral(kind: Reduce) -> String {
    imm(match kind {
        Reduce::Sum => 0.0,
        Reduce::Max => f32::NEG_INFINITY,
        Reduce::Min => f32::INFINITY,
    })
}

fn name(kind: Reduce) -> &'static str {
    match kind {
        Reduce::Sum => "add.rn.f32",
        Reduce::Max => "max.f32",
        Reduce::Min => "min.f32",
    }
}

/// Folds registers as a tree.
pub(super) fn tree(asm: &mut Asm, kind: Reduce, values: &[R]) -> R {
    match values {
        [one] => *one,
        [] => asm.op("mov.f32", Class::F32, &[&neutral(kind)]),
        many => {
            let (lo, hi) = many.split_at(many.len().div_ceil(2));
            let (lo, hi) = (tree(asm, kind, lo), tree(asm, kind, hi));
            asm.op(name(kind), Class::F32, &[&lo, &hi])
        }
    }
}

/// `acc = fold(acc, x)`.
pub(super) fn take(asm: &mut Asm, kind: Reduce, acc: R, x: R) {
    asm.op_to(name(kind), acc, &[&acc, &x]);
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
                let shuffle = "shfl.sync.bfly.b32";
                let other = asm.op(shuffle, Class::F32, &[x, &distance, &31, &"0xFFFFFFFF"]);
                *x = asm.op(name(*kind), Class::F32, &[x, &other]);
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
        let pitch = warps.next_multiple_of(4) * 4;
        let array = asm.shared(pitch * mine.len(), 16);
        let base = asm.op("mov.u32", Class::B32, &[&array]);
        let tid = asm.op("mov.u32", Class::B32, &[&"%tid.x"]);
        let lane = asm.op("and.b32", Class::B32, &[&tid, &31]);
        let first = asm.op("setp.eq.s32", Class::Pred, &[&lane, &0]);
        asm.when(first, true, |asm| {
            let warp = asm.op("shr.u32", Class::B32, &[&tid, &5]);
            let slot = asm.op("mad.lo.u32", Class::B32, &[&warp, &4, &base]);
            for (i, (_, x)) in mine.iter().enumerate() {
                asm.put(format_args!("st.shared.f32 [{slot}+{}], {x}", i * pitch));
            }
        });
        asm.put("bar.sync 0");
        (mine.iter().enumerate())
            .map(|(i, (kind, _))| {
                let all = shared_row(asm, base, i * pitch, warps);
                tree(asm, *kind, &all)
            })
            .collect()
    }
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
