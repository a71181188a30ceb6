//! Functions of single floats, rounded as the hardware rounds.
//!
//! Approximate functions are computed in f64 and rounded once: the hardware is allowed a few
//! units more. A NaN result is the canonical one.

use super::inst::Ty;
use super::ops::{Fun, Typed};
use super::{double, half};

/// A float from its bits.
pub fn get(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

/// Bits of a float; NaN is canonical.
pub fn put(x: f32) -> u64 {
    if x.is_nan() {
        0x7fff_ffff
    } else {
        u64::from(x.to_bits())
    }
}

pub fn flush(x: f32) -> f32 {
    if x.is_subnormal() {
        0f32.copysign(x)
    } else {
        x
    }
}

/// Rounds a function of one, two or three floats, with or without flushing to zero.
macro_rules! one {
    ($ftz:expr, |$x:ident| $e:expr) => {
        Fun::One(match $ftz {
            false => |a| {
                let $x = get(a);
                put($e)
            },
            true => |a| {
                let $x = flush(get(a));
                put(flush($e))
            },
        })
    };
}
macro_rules! two {
    ($ftz:expr, |$x:ident, $y:ident| $e:expr) => {
        Fun::Two(match $ftz {
            false => |a, b| {
                let ($x, $y) = (get(a), get(b));
                put($e)
            },
            true => |a, b| {
                let ($x, $y) = (flush(get(a)), flush(get(b)));
                put(flush($e))
            },
        })
    };
}
macro_rules! three {
    ($ftz:expr, |$x:ident, $y:ident, $z:ident| $e:expr) => {
        Fun::Three(match $ftz {
            false => |a, b, c| {
                let ($x, $y, $z) = (get(a), get(b), get(c));
                put($e)
            },
            true => |a, b, c| {
                let ($x, $y, $z) = (flush(get(a)), flush(get(b)), flush(get(c)));
                put(flush($e))
            },
        })
    };
}

fn lesser(x: f32, y: f32) -> f32 {
    if x == 0.0 && y == 0.0 && (x.is_sign_negative() || y.is_sign_negative()) {
        -0.0
    } else {
        x.min(y)
    }
}
fn greater(x: f32, y: f32) -> f32 {
    if x == 0.0 && y == 0.0 && (x.is_sign_positive() || y.is_sign_positive()) {
        0.0
    } else {
        x.max(y)
    }
}
fn nan_or(x: f32, y: f32, f: fn(f32, f32) -> f32) -> f32 {
    if x.is_nan() || y.is_nan() {
        f32::NAN
    } else {
        f(x, y)
    }
}

/// `div.approx`: huge divisors give zero.
fn divide(x: f32, y: f32) -> f32 {
    let huge = y.is_finite() && y.abs() > f32::from_bits(0x7e80_0000);
    if huge && x.is_finite() {
        0f32.copysign(x) * y.signum()
    } else {
        x / y
    }
}

/// `sin.approx` and `cos.approx` reduce their argument with one f32 product.
fn turns(x: f32) -> f64 {
    f64::from(x * std::f32::consts::FRAC_1_PI * 0.5).fract() * std::f64::consts::TAU
}

/// A float function by its opcode.
pub fn function(parts: &[&str], ty: Ty) -> Option<Typed> {
    let plain = |fun: Fun, n: usize| Typed {
        fun,
        d: ty,
        src: vec![ty; n],
        divides: false,
    };
    match parts {
        ["mov", "f32"] => return Some(plain(Fun::One(|a| a), 1)),
        ["selp", "f32"] => return Some(super::ops::select(ty)),
        _ if ty == Ty::F64 => return double::function(parts),
        _ if ty != Ty::F32 => return half::function(parts, ty),
        _ => {}
    }
    let ftz = parts.contains(&"ftz");
    let name: Vec<&str> = parts.iter().copied().filter(|p| *p != "ftz").collect();
    let fun = match name.as_slice() {
        ["add", "rn", _] | ["add", _] => two!(ftz, |x, y| x + y),
        ["sub", "rn", _] | ["sub", _] => two!(ftz, |x, y| x - y),
        ["mul", "rn", _] | ["mul", _] => two!(ftz, |x, y| x * y),
        ["fma", "rn", _] => three!(ftz, |x, y, z| x.mul_add(y, z)),
        ["div", "rn", _] => two!(ftz, |x, y| x / y),
        ["div", "approx" | "full", _] => two!(ftz, |x, y| divide(x, y)),
        ["rcp", "rn" | "approx", _] => one!(ftz, |x| 1.0 / x),
        ["sqrt", "rn" | "approx", _] => one!(ftz, |x| x.sqrt()),
        ["rsqrt", "approx", _] => one!(ftz, |x| (1.0 / f64::from(x).sqrt()) as f32),
        ["ex2", "approx", _] => one!(ftz, |x| f64::from(x).exp2() as f32),
        ["lg2", "approx", _] => one!(ftz, |x| f64::from(x).log2() as f32),
        ["sin", "approx", _] => one!(ftz, |x| turns(x).sin() as f32),
        ["cos", "approx", _] => one!(ftz, |x| turns(x).cos() as f32),
        ["tanh", "approx", _] => one!(ftz, |x| f64::from(x).tanh() as f32),
        ["min", _] => two!(ftz, |x, y| lesser(x, y)),
        ["max", _] => two!(ftz, |x, y| greater(x, y)),
        ["min", "NaN", _] => two!(ftz, |x, y| nan_or(x, y, lesser)),
        ["max", "NaN", _] => two!(ftz, |x, y| nan_or(x, y, greater)),
        ["abs", _] => one!(ftz, |x| x.abs()),
        ["neg", _] => one!(ftz, |x| -x),
        ["set", "gt", "f32", _] => two!(ftz, |x, y| if x > y { 1.0 } else { 0.0 }),
        ["set", "lt", "f32", _] => two!(ftz, |x, y| if x < y { 1.0 } else { 0.0 }),
        ["copysign", _] => two!(ftz, |x, y| y.copysign(x)),
        _ => return None,
    };
    let n = match fun {
        Fun::One(_) => 1,
        Fun::Two(_) => 2,
        Fun::Three(_) => 3,
        Fun::Four(_) => 4,
    };
    Some(plain(fun, n))
}

/// A comparison of floats; the unordered forms hold for NaN.
pub fn test(name: &str, ftz: bool) -> Option<fn(u64, u64) -> bool> {
    macro_rules! test {
        (|$x:ident, $y:ident| $e:expr) => {
            match ftz {
                false => |a, b| {
                    let ($x, $y) = (get(a), get(b));
                    $e
                },
                true => |a, b| {
                    let ($x, $y) = (flush(get(a)), flush(get(b)));
                    $e
                },
            }
        };
    }
    Some(match name {
        "eq" => test!(|x, y| x == y),
        "ne" => test!(|x, y| x != y && !x.is_nan() && !y.is_nan()),
        "lt" => test!(|x, y| x < y),
        "le" => test!(|x, y| x <= y),
        "gt" => test!(|x, y| x > y),
        "ge" => test!(|x, y| x >= y),
        "equ" => test!(|x, y| x == y || x.is_nan() || y.is_nan()),
        "neu" => test!(|x, y| x != y),
        "ltu" => test!(|x, y| x < y || x.is_nan() || y.is_nan()),
        "leu" => test!(|x, y| x <= y || x.is_nan() || y.is_nan()),
        "gtu" => test!(|x, y| x > y || x.is_nan() || y.is_nan()),
        "geu" => test!(|x, y| x >= y || x.is_nan() || y.is_nan()),
        "num" => test!(|x, y| !x.is_nan() && !y.is_nan()),
        "nan" => test!(|x, y| x.is_nan() || y.is_nan()),
        _ => return None,
    })
}
