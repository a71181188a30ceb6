//! 16-bit floats: conversions, and arithmetic alone and in pairs.

use super::inst::Ty;
use super::ops::{Fun, Typed};
use half::{bf16, f16};

/// Half-precision bits as a float.
pub fn widen(bits: u64, ty: Ty) -> f32 {
    match ty {
        Ty::F16 => f16::from_bits(bits as u16).to_f32(),
        _ => bf16::from_bits(bits as u16).to_f32(),
    }
}

/// Rounds to nearest even; NaN is canonical.
pub fn to_bf16(x: f32) -> u64 {
    if x.is_nan() {
        0x7fff
    } else {
        u64::from(bf16::from_f32(x).to_bits())
    }
}

/// Rounds to nearest even; NaN is canonical.
pub fn to_f16(x: f32) -> u64 {
    if x.is_nan() {
        0x7fff
    } else {
        u64::from(f16::from_f32(x).to_bits())
    }
}

/// Half-precision arithmetic, alone and in pairs. One f64 holds any such product and sum
/// closely enough that rounding it once gives the nearest.
pub fn function(parts: &[&str], ty: Ty) -> Option<Typed> {
    fn bf(x: f64) -> u64 {
        if x.is_nan() {
            0x7fff
        } else {
            u64::from(bf16::from_f64(x).to_bits())
        }
    }
    fn hf(x: f64) -> u64 {
        if x.is_nan() {
            0x7fff
        } else {
            u64::from(f16::from_f64(x).to_bits())
        }
    }
    fn b(x: u64) -> f64 {
        bf16::from_bits(x as u16).to_f64()
    }
    fn h(x: u64) -> f64 {
        f16::from_bits(x as u16).to_f64()
    }
    macro_rules! form {
        (2, $get:ident, $put:ident, |$x:ident, $y:ident| $e:expr) => {
            Fun::Two(|a, b| {
                let f = |a: u64, b: u64| {
                    let ($x, $y) = ($get(a), $get(b));
                    $put($e)
                };
                f(a, b) | if PAIR { f(a >> 16, b >> 16) << 16 } else { 0 }
            })
        };
    }
    fn of<const PAIR: bool>(name: &[&str], wide: bool) -> Option<Fun> {
        Some(match (name, wide) {
            (["add"] | ["add", "rn"], true) => form!(2, b, bf, |x, y| x + y),
            (["sub"] | ["sub", "rn"], true) => form!(2, b, bf, |x, y| x - y),
            (["mul"] | ["mul", "rn"], true) => form!(2, b, bf, |x, y| x * y),
            (["max"], true) => form!(2, b, bf, |x, y| x.max(y)),
            (["min"], true) => form!(2, b, bf, |x, y| x.min(y)),
            (["add"] | ["add", "rn"], false) => form!(2, h, hf, |x, y| x + y),
            (["sub"] | ["sub", "rn"], false) => form!(2, h, hf, |x, y| x - y),
            (["mul"] | ["mul", "rn"], false) => form!(2, h, hf, |x, y| x * y),
            (["max"], false) => form!(2, h, hf, |x, y| x.max(y)),
            (["min"], false) => form!(2, h, hf, |x, y| x.min(y)),
            (["fma", "rn"], true) => Fun::Three(|x, y, z| {
                let f = |x: u64, y: u64, z: u64| bf(b(x).mul_add(b(y), b(z)));
                f(x, y, z)
                    | if PAIR {
                        f(x >> 16, y >> 16, z >> 16) << 16
                    } else {
                        0
                    }
            }),
            (["fma", "rn"], false) => Fun::Three(|x, y, z| {
                let f = |x: u64, y: u64, z: u64| hf(h(x).mul_add(h(y), h(z)));
                f(x, y, z)
                    | if PAIR {
                        f(x >> 16, y >> 16, z >> 16) << 16
                    } else {
                        0
                    }
            }),
            _ => return None,
        })
    }
    let (_, name) = parts.split_last()?;
    let fun = match ty {
        Ty::Bf16 => of::<false>(name, true)?,
        Ty::F16 => of::<false>(name, false)?,
        Ty::Bf16x2 => of::<true>(name, true)?,
        Ty::F16x2 => of::<true>(name, false)?,
        _ => return None,
    };
    let n = if matches!(fun, Fun::Three(_)) { 3 } else { 2 };
    Some(Typed {
        fun,
        d: ty,
        src: vec![ty; n],
        divides: false,
    })
}
