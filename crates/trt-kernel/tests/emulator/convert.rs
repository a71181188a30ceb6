//! `cvt`: between integers, between floats, and across; rounded as the mode says.

use super::half::{to_bf16, to_f16, widen};
use super::inst::Ty;
use super::ops::{Fun, Typed};
use super::{double, float};

type One = fn(u64) -> u64;

/// A conversion by the parts after `cvt`.
pub fn convert(parts: &[&str]) -> Option<Typed> {
    let [mode @ .., to, from] = parts else {
        return None;
    };
    let (d, s) = (Ty::parse(to)?, Ty::parse(from)?);
    if let (["rn"], Ty::Bf16x2 | Ty::F16x2, Ty::F32) = (mode, d, s) {
        // The first source is the upper half.
        let fun: fn(u64, u64) -> u64 = match d {
            Ty::Bf16x2 => |a, b| to_bf16(float::get(a)) << 16 | to_bf16(float::get(b)),
            _ => |a, b| to_f16(float::get(a)) << 16 | to_f16(float::get(b)),
        };
        let (fun, src) = (Fun::Two(fun), vec![s; 2]);
        return Some(Typed {
            fun,
            d,
            src,
            divides: false,
        });
    }
    let integer = |t: Ty| matches!(t, Ty::U(_) | Ty::S(_));
    let fun = match (mode, integer(d), integer(s)) {
        ([], true, true) => extend(s)?,
        (["rn"], false, true) => from_integer(s, d)?,
        ([rounding], true, false) => to_integer(rounding, s, d)?,
        (mode, false, false) => between_floats(mode, s, d)?,
        _ => return None,
    };
    Some(Typed {
        fun: Fun::One(fun),
        d,
        src: vec![s],
        divides: false,
    })
}

fn between_floats(mode: &[&str], s: Ty, d: Ty) -> Option<One> {
    macro_rules! whole {
        ($of:ident, $method:ident) => {
            |a| $of::put($of::get(a).$method())
        };
    }
    Some(match (mode, d, s) {
        (["rni"], Ty::F32, Ty::F32) => whole!(float, round_ties_even),
        (["rzi"], Ty::F32, Ty::F32) => whole!(float, trunc),
        (["rmi"], Ty::F32, Ty::F32) => whole!(float, floor),
        (["rpi"], Ty::F32, Ty::F32) => whole!(float, ceil),
        (["rni"], Ty::F64, Ty::F64) => whole!(double, round_ties_even),
        (["rzi"], Ty::F64, Ty::F64) => whole!(double, trunc),
        (["rn"], Ty::Bf16, Ty::F32) => |a| to_bf16(float::get(a)),
        (["rn"], Ty::F16, Ty::F32) => |a| to_f16(float::get(a)),
        ([], Ty::F32, Ty::F16) => |a| float::put(widen(a, Ty::F16)),
        ([], Ty::F32, Ty::Bf16) => |a| float::put(widen(a, Ty::Bf16)),
        ([], Ty::F64, Ty::F32) => |a| double::put(f64::from(float::get(a))),
        (["rn"], Ty::F32, Ty::F64) => |a| float::put(double::get(a) as f32),
        _ => return None,
    })
}

/// To nearest even; integers of 8 and 16 bits are exact.
fn from_integer(s: Ty, d: Ty) -> Option<One> {
    Some(match (s, d) {
        (Ty::U(8), Ty::F32) => |a| float::put(f32::from(a as u8)),
        (Ty::U(16), Ty::F32) => |a| float::put(f32::from(a as u16)),
        (Ty::U(32), Ty::F32) => |a| float::put(a as u32 as f32),
        (Ty::U(64), Ty::F32) => |a| float::put(a as f32),
        (Ty::S(16), Ty::F32) => |a| float::put(f32::from(a as i16)),
        (Ty::S(32), Ty::F32) => |a| float::put(a as i32 as f32),
        (Ty::S(64), Ty::F32) => |a| float::put(a as i64 as f32),
        (Ty::S(32), Ty::F64) => |a| double::put(f64::from(a as i32)),
        (Ty::S(64), Ty::F64) => |a| double::put(a as i64 as f64),
        _ => return None,
    })
}

/// Saturates. NaN gives 0, or the highest bit alone where either side has 64 bits.
fn to_integer(rounding: &str, s: Ty, d: Ty) -> Option<One> {
    macro_rules! to {
        ($of:ident, $round:ident, $t:ty, $u:ty, $wide:expr) => {
            |a| {
                let x = $of::get(a);
                let nan = if $wide { 1 << (<$t>::BITS - 1) } else { 0 };
                if x.is_nan() {
                    nan
                } else {
                    x.$round() as $t as $u as u64
                }
            }
        };
    }
    macro_rules! by {
        ($of:ident, $round:ident, $wide:expr) => {
            match d {
                Ty::U(16) => to!($of, $round, u16, u16, $wide),
                Ty::S(16) => to!($of, $round, i16, u16, $wide),
                Ty::U(32) => to!($of, $round, u32, u32, $wide),
                Ty::S(32) => to!($of, $round, i32, u32, $wide),
                Ty::U(64) => to!($of, $round, u64, u64, true),
                Ty::S(64) => to!($of, $round, i64, u64, true),
                _ => return None,
            }
        };
    }
    Some(match (rounding, s) {
        ("rzi", Ty::F32) => by!(float, trunc, false),
        ("rni", Ty::F32) => by!(float, round_ties_even, false),
        ("rmi", Ty::F32) => by!(float, floor, false),
        ("rpi", Ty::F32) => by!(float, ceil, false),
        ("rzi", Ty::F64) => by!(double, trunc, true),
        ("rni", Ty::F64) => by!(double, round_ties_even, true),
        _ => return None,
    })
}

/// Sign or zero extends by the source's type; the destination truncates.
fn extend(s: Ty) -> Option<One> {
    Some(match s {
        Ty::U(8) => |a| a & 0xff,
        Ty::U(16) => |a| a & 0xffff,
        Ty::U(32) => |a| a & 0xffff_ffff,
        Ty::U(64) | Ty::S(64) => |a| a,
        Ty::S(8) => |a| a as i8 as u64,
        Ty::S(16) => |a| a as i16 as u64,
        Ty::S(32) => |a| a as i32 as u64,
        _ => return None,
    })
}
