//! Functions of double floats.

use super::inst::Ty;
use super::ops::{Fun, Typed};

/// A double from its bits.
pub fn get(bits: u64) -> f64 {
    f64::from_bits(bits)
}

/// Bits of a double.
pub fn put(x: f64) -> u64 {
    x.to_bits()
}

/// A double function by its opcode.
pub fn function(parts: &[&str]) -> Option<Typed> {
    let (_, name) = parts.split_last()?;
    let (fun, n) = match name {
        ["mov"] => (Fun::One(|a| a), 1),
        ["neg"] => (Fun::One(|a| put(-get(a))), 1),
        ["abs"] => (Fun::One(|a| put(get(a).abs())), 1),
        ["add", "rn"] => (Fun::Two(|a, b| put(get(a) + get(b))), 2),
        ["sub", "rn"] => (Fun::Two(|a, b| put(get(a) - get(b))), 2),
        ["mul", "rn"] => (Fun::Two(|a, b| put(get(a) * get(b))), 2),
        ["div", "rn"] => (Fun::Two(|a, b| put(get(a) / get(b))), 2),
        ["fma", "rn"] => (Fun::Three(|a, b, c| put(get(a).mul_add(get(b), get(c)))), 3),
        ["selp"] => return Some(super::ops::select(Ty::F64)),
        _ => return None,
    };
    Some(Typed {
        fun,
        d: Ty::F64,
        src: vec![Ty::F64; n],
        divides: false,
    })
}

/// A comparison of doubles.
pub fn test(name: &str) -> Option<fn(u64, u64) -> bool> {
    Some(match name {
        "eq" => |a, b| get(a) == get(b),
        "neu" => |a, b| get(a) != get(b),
        "lt" => |a, b| get(a) < get(b),
        "le" => |a, b| get(a) <= get(b),
        "gt" => |a, b| get(a) > get(b),
        "ge" => |a, b| get(a) >= get(b),
        _ => return None,
    })
}
