//! 32-bit arithmetic on integers that may be known already.

use crate::ptx::asm::{Asm, Class, Int};
use crate::ptx::divide;

fn fold(asm: &mut Asm, name: &str, a: Int, b: Int, known: fn(i64, i64) -> i64) -> Int {
    match (a, b) {
        (Int::Imm(a), Int::Imm(b)) => Int::Imm(known(a, b)),
        _ => Int::Reg(asm.op(name, Class::B32, &[&a, &b])),
    }
}

/// `a + b`
pub(super) fn add(asm: &mut Asm, a: impl Into<Int>, b: impl Into<Int>) -> Int {
    match (a.into(), b.into()) {
        (x, Int::Imm(0)) | (Int::Imm(0), x) => x,
        (a, b) => fold(asm, "add.s32", a, b, |a, b| a + b),
    }
}

/// `a - b`
pub(super) fn sub(asm: &mut Asm, a: impl Into<Int>, b: impl Into<Int>) -> Int {
    fold(asm, "sub.s32", a.into(), b.into(), |a, b| a - b)
}

/// `a * b`
pub(super) fn mul(asm: &mut Asm, a: impl Into<Int>, b: impl Into<Int>) -> Int {
    match (a.into(), b.into()) {
        (x, Int::Imm(1)) | (Int::Imm(1), x) => x,
        (a, b) => fold(asm, "mul.lo.s32", a, b, |a, b| a * b),
    }
}

/// The smaller one.
pub(super) fn min(asm: &mut Asm, a: impl Into<Int>, b: impl Into<Int>) -> Int {
    fold(asm, "min.s32", a.into(), b.into(), i64::min)
}

/// The larger one.
pub(super) fn max(asm: &mut Asm, a: impl Into<Int>, b: impl Into<Int>) -> Int {
    fold(asm, "max.s32", a.into(), b.into(), i64::max)
}

/// `a / by`, rounded down; neither is negative and `by` is not zero.
pub(super) fn div(asm: &mut Asm, a: impl Into<Int>, by: impl Into<Int>) -> Int {
    match (a.into(), by.into()) {
        (a, Int::Imm(1)) => a,
        (Int::Reg(a), by @ Int::Imm(_)) => Int::Reg(divide::div_rem_by(asm, a, by).0),
        (a, by) => fold(asm, "div.u32", a, by, |a, b| a / b),
    }
}

/// `a % by`; neither is negative and `by` is not zero.
pub(super) fn rem(asm: &mut Asm, a: impl Into<Int>, by: impl Into<Int>) -> Int {
    match (a.into(), by.into()) {
        (_, Int::Imm(1)) => Int::Imm(0),
        (Int::Reg(a), by @ Int::Imm(_)) => Int::Reg(divide::div_rem_by(asm, a, by).1),
        (a, by) => fold(asm, "rem.u32", a, by, |a, b| a % b),
    }
}

/// The largest multiple of a power of two that is not above `a`.
pub(super) fn floor(asm: &mut Asm, a: impl Into<Int>, power: i64) -> Int {
    fold(asm, "and.b32", a.into(), Int::Imm(-power), |a, b| a & b)
}
