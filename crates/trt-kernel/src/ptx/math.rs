//! The scalar functions of a body, with candle's definitions; `functions.rs` has those that take
//! more than an instruction.

use super::asm::{Asm, Class, R, imm};
use super::functions::{add, erf, exp, fma, log, mul, pick, pow, round, sigmoid, sin, tanh, test};
use crate::{Binary, Compare, Ty, Unary};

/// `x / 2 * (1 + y)`.
fn half_times(asm: &mut Asm, x: R, y: R) -> R {
    let half = mul(asm, &x, &imm(0.5));
    let y = add(asm, &y, &imm(1.0));
    mul(asm, &half, &y)
}

/// A function of one float, with candle's definitions.
pub(super) fn unary_f32(asm: &mut Asm, f: Unary, x: R) -> R {
    let plain = |asm: &mut Asm, name: &str| asm.op(name, Class::F32, &[&x]);
    match f {
        Unary::Neg => plain(asm, "neg.f32"),
        Unary::Abs => plain(asm, "abs.f32"),
        Unary::Exp => exp(asm, x),
        Unary::Log => log(asm, x),
        Unary::Sin => sin(asm, x, 0),
        Unary::Cos => sin(asm, x, 1),
        Unary::Tanh => tanh(asm, x),
        Unary::Sqr => mul(asm, &x, &x),
        Unary::Sqrt => plain(asm, "sqrt.rn.f32"),
        Unary::Recip => plain(asm, "rcp.rn.f32"),
        Unary::Erf => erf(asm, x),
        Unary::Relu => {
            // Zero for NaN.
            let above = test(asm, "gt", x, &imm(0.0));
            pick(asm, above, &x, &imm(0.0))
        }
        Unary::Silu => {
            let s = sigmoid(asm, x);
            mul(asm, &x, &s)
        }
        Unary::Gelu => {
            let square = mul(asm, &x, &x);
            let inner = fma(asm, &square, &imm(0.044715), &imm(1.0));
            let root = mul(asm, &x, &imm(0.797_884_6));
            let inner = mul(asm, &root, &inner);
            let y = tanh(asm, inner);
            half_times(asm, x, y)
        }
        Unary::GeluErf => {
            let inner = mul(asm, &x, &imm(std::f32::consts::FRAC_1_SQRT_2));
            let y = erf(asm, inner);
            half_times(asm, x, y)
        }
        Unary::Sigmoid => sigmoid(asm, x),
        Unary::Floor => plain(asm, "cvt.rmi.f32.f32"),
        Unary::Ceil => plain(asm, "cvt.rpi.f32.f32"),
        Unary::Round => round(asm, x),
        Unary::Sign => {
            let above = asm.op("set.gt.f32.f32", Class::F32, &[&x, &imm(0.0)]);
            let below = asm.op("set.lt.f32.f32", Class::F32, &[&x, &imm(0.0)]);
            asm.op("sub.rn.f32", Class::F32, &[&above, &below])
        }
    }
}

/// A function of two floats. With a NaN, the first is the larger and the smaller.
pub(super) fn binary_f32(asm: &mut Asm, f: Binary, x: R, y: R) -> R {
    let name = match f {
        Binary::Add => "add.rn.f32",
        Binary::Sub => "sub.rn.f32",
        Binary::Mul => "mul.rn.f32",
        Binary::Div => "div.rn.f32",
        Binary::Maximum => return either(asm, "lt", x, y),
        Binary::Minimum => return either(asm, "gt", x, y),
        Binary::Pow => return pow(asm, x, y),
    };
    asm.op(name, Class::F32, &[&x, &y])
}

/// `y` if the comparison of `x` with it holds, else `x`.
fn either(asm: &mut Asm, comparison: &str, x: R, y: R) -> R {
    let holds = test(asm, comparison, x, &y);
    pick(asm, holds, &y, &x)
}

/// A function of one integer. Overflow wraps; functions that integers lack do not pass the check
/// of the body and give the value back.
pub(super) fn unary_i64(asm: &mut Asm, f: Unary, x: R) -> R {
    match f {
        Unary::Neg => asm.op("neg.s64", Class::B64, &[&x]),
        Unary::Abs => asm.op("abs.s64", Class::B64, &[&x]),
        Unary::Sqr => asm.op("mul.lo.s64", Class::B64, &[&x, &x]),
        Unary::Sign => {
            let low = asm.op("max.s64", Class::B64, &[&x, &-1]);
            asm.op("min.s64", Class::B64, &[&low, &1])
        }
        Unary::Exp
        | Unary::Log
        | Unary::Sin
        | Unary::Cos
        | Unary::Tanh
        | Unary::Sqrt
        | Unary::Recip
        | Unary::Erf
        | Unary::Relu
        | Unary::Silu
        | Unary::Gelu
        | Unary::GeluErf
        | Unary::Sigmoid
        | Unary::Floor
        | Unary::Ceil
        | Unary::Round => x,
    }
}

/// A function of two integers. Overflow wraps; a quotient by zero is zero.
pub(super) fn binary_i64(asm: &mut Asm, f: Binary, x: R, y: R) -> R {
    let name = match f {
        Binary::Add => "add.s64",
        Binary::Sub => "sub.s64",
        Binary::Mul => "mul.lo.s64",
        Binary::Maximum => "max.s64",
        Binary::Minimum => "min.s64",
        Binary::Div => return divide(asm, x, y),
        Binary::Pow => return x,
    };
    asm.op(name, Class::B64, &[&x, &y])
}

/// The instruction is not defined for 0 and for the one quotient that overflows, so it does not
/// see divisors 0 and -1.
fn divide(asm: &mut Asm, x: R, y: R) -> R {
    let zero = asm.op("setp.eq.s64", Class::Pred, &[&y, &0]);
    let minus = asm.op("setp.eq.s64", Class::Pred, &[&y, &-1]);
    let either = asm.op("or.pred", Class::Pred, &[&zero, &minus]);
    let by = asm.op("selp.b64", Class::B64, &[&1, &y, &either]);
    let q = asm.op("div.s64", Class::B64, &[&x, &by]);
    let negated = asm.op("neg.s64", Class::B64, &[&x]);
    let q = asm.op("selp.b64", Class::B64, &[&negated, &q, &minus]);
    asm.op("selp.b64", Class::B64, &[&0, &q, &zero])
}

/// A comparison; with a NaN only `Ne` holds.
pub(super) fn compare(asm: &mut Asm, f: Compare, x: R, y: R) -> R {
    let float = x.class == Class::F32;
    let name = match f {
        Compare::Eq => "eq",
        Compare::Ne if float => "neu",
        Compare::Ne => "ne",
        Compare::Lt => "lt",
        Compare::Le => "le",
        Compare::Gt => "gt",
        Compare::Ge => "ge",
    };
    let ty = if float { "f32" } else { "s64" };
    asm.op(&format!("setp.{name}.{ty}"), Class::Pred, &[&x, &y])
}

/// `if c { a } else { b }`.
pub(super) fn select(asm: &mut Asm, c: R, a: R, b: R) -> R {
    match a.class {
        Class::F32 => pick(asm, c, &a, &b),
        Class::Pred => {
            let a = asm.op("and.pred", Class::Pred, &[&a, &c]);
            let not = asm.op("not.pred", Class::Pred, &[&c]);
            let b = asm.op("and.pred", Class::Pred, &[&b, &not]);
            asm.op("or.pred", Class::Pred, &[&a, &b])
        }
        Class::B16 | Class::B32 | Class::B64 => asm.op("selp.b64", a.class, &[&a, &b, &c]),
    }
}

/// A conversion; the register's class is the type that it comes from.
pub(super) fn cast(asm: &mut Asm, x: R, ty: Ty) -> R {
    match (x.class, ty) {
        (Class::F32, Ty::I64) => {
            let whole = asm.op("cvt.rzi.s64.f32", Class::B64, &[&x]);
            let nan = asm.op("setp.nan.f32", Class::Pred, &[&x, &x]);
            asm.op("selp.b64", Class::B64, &[&0, &whole, &nan])
        }
        (Class::F32, Ty::Bool) => test(asm, "neu", x, &imm(0.0)),
        (Class::F32, Ty::F32) => x,
        (Class::Pred, Ty::F32) => pick(asm, x, &imm(1.0), &imm(0.0)),
        (Class::Pred, Ty::I64) => widen(asm, x),
        (Class::Pred, Ty::Bool) => x,
        (_, Ty::F32) => asm.op("cvt.rn.f32.s64", Class::F32, &[&x]),
        (_, Ty::Bool) => asm.op("setp.ne.s64", Class::Pred, &[&x, &0]),
        (_, Ty::I64) => x,
    }
}

/// A value as it is stored: truths are the integers 0 and 1.
pub(super) fn widen(asm: &mut Asm, x: R) -> R {
    match x.class {
        Class::Pred => asm.op("selp.b64", Class::B64, &[&1, &0, &x]),
        _ => x,
    }
}
