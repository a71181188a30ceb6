//! Integer functions, comparisons and their names. A value is its bits, zero-extended.

use super::float;
use super::inst::Ty;

/// A function of one to four values.
#[derive(Clone, Copy, Debug)]
pub enum Fun {
    One(fn(u64) -> u64),
    Two(fn(u64, u64) -> u64),
    Three(fn(u64, u64, u64) -> u64),
    Four(fn(u64, u64, u64, u64) -> u64),
}

/// A function with the types of its result and sources.
pub struct Typed {
    pub fun: Fun,
    pub d: Ty,
    pub src: Vec<Ty>,
    /// Whether the second source must not be zero.
    pub divides: bool,
}

/// An integer type, as bits.
trait Int: Copy + Ord {
    const BITS: u32;
    fn of(bits: u64) -> Self;
    fn bits(self) -> u64;
    fn wide(self) -> i128;
    fn from_wide(x: i128) -> u64 {
        Self::of(x as u64).bits()
    }
}

macro_rules! int {
    ($($t:ty as $u:ty),*) => {$(
        impl Int for $t {
            const BITS: u32 = <$t>::BITS;
            fn of(bits: u64) -> Self { bits as $t }
            fn bits(self) -> u64 { u64::from(self as $u) }
            fn wide(self) -> i128 { i128::from(self) }
        }
    )*};
}
int!(
    u8 as u8, i8 as u8, u16 as u16, i16 as u16, u32 as u32, i32 as u32, u64 as u64, i64 as u64
);

fn add<T: Int>(a: u64, b: u64) -> u64 {
    T::of(a.wrapping_add(b)).bits()
}
fn sub<T: Int>(a: u64, b: u64) -> u64 {
    T::of(a.wrapping_sub(b)).bits()
}
fn mul_lo<T: Int>(a: u64, b: u64) -> u64 {
    T::of(a.wrapping_mul(b)).bits()
}
fn mul_hi<T: Int>(a: u64, b: u64) -> u64 {
    T::from_wide((T::of(a).wide() * T::of(b).wide()) >> T::BITS)
}
fn mul_wide<T: Int>(a: u64, b: u64) -> u64 {
    let wide = (T::of(a).wide() * T::of(b).wide()) as u64;
    if T::BITS == 16 {
        u64::from(wide as u32)
    } else {
        wide
    }
}
fn mad_lo<T: Int>(a: u64, b: u64, c: u64) -> u64 {
    T::of(a.wrapping_mul(b).wrapping_add(c)).bits()
}
fn mad_wide<T: Int>(a: u64, b: u64, c: u64) -> u64 {
    let sum = mul_wide::<T>(a, b).wrapping_add(c);
    if T::BITS == 16 {
        u64::from(sum as u32)
    } else {
        sum
    }
}
fn div<T: Int>(a: u64, b: u64) -> u64 {
    T::from_wide(T::of(a).wide() / T::of(b).wide())
}
fn rem<T: Int>(a: u64, b: u64) -> u64 {
    T::from_wide(T::of(a).wide() % T::of(b).wide())
}
fn min<T: Int>(a: u64, b: u64) -> u64 {
    T::of(a).min(T::of(b)).bits()
}
fn max<T: Int>(a: u64, b: u64) -> u64 {
    T::of(a).max(T::of(b)).bits()
}
fn neg<T: Int>(a: u64) -> u64 {
    T::of(a.wrapping_neg()).bits()
}
fn abs<T: Int>(a: u64) -> u64 {
    T::from_wide(T::of(a).wide().abs())
}
fn not<T: Int>(a: u64) -> u64 {
    T::of(!a).bits()
}
fn shl<T: Int>(a: u64, n: u64) -> u64 {
    if n >= u64::from(T::BITS) {
        0
    } else {
        T::of(a << n).bits()
    }
}
fn shr<T: Int>(a: u64, n: u64) -> u64 {
    T::from_wide(T::of(a).wide() >> n.min(u64::from(T::BITS)))
}
fn bfe<T: Int>(a: u64, pos: u64, len: u64) -> u64 {
    let (pos, len) = (pos & 0xff, len & 0xff);
    if len == 0 {
        return 0;
    }
    // Bits beyond the top read as the sign (or zero).
    let field = T::of(a).wide() >> pos.min(u64::from(T::BITS));
    let top = 128 - len.min(u64::from(T::BITS)) as u32;
    let signed = T::of(u64::MAX).wide() < 0;
    let moved = (field << top) >> top;
    T::from_wide(if signed {
        moved
    } else {
        ((field as u128) << top >> top) as i128
    })
}
fn bfi(a: u64, b: u64, pos: u64, len: u64) -> u64 {
    let (pos, len) = (pos & 0xff, len & 0xff);
    if pos >= 32 {
        return b;
    }
    let mask = (((1u128 << len.min(32)) - 1) << pos) as u32;
    u64::from((((a << pos) as u32) & mask) | (b as u32 & !mask))
}
fn lop3(a: u64, b: u64, c: u64, table: u64) -> u64 {
    let bit = |i: u32| {
        let at = (a >> i & 1) << 2 | (b >> i & 1) << 1 | (c >> i & 1);
        (table >> at & 1) << i
    };
    (0..32).map(bit).sum()
}
fn prmt(a: u64, b: u64, select: u64) -> u64 {
    let bytes = a | b << 32;
    let pick = |i: u32| {
        let s = select >> (4 * i) & 0xf;
        let byte = bytes >> (8 * (s & 7)) & 0xff;
        let sign = if byte & 0x80 == 0 { 0 } else { 0xff };
        (if s & 8 == 0 { byte } else { sign }) << (8 * i)
    };
    (0..4).map(pick).sum()
}
fn shf_l(a: u64, b: u64, n: u64) -> u64 {
    ((a | b << 32) << (n & 31)) >> 32 & 0xffff_ffff
}
fn shf_r(a: u64, b: u64, n: u64) -> u64 {
    (a | b << 32) >> (n & 31) & 0xffff_ffff
}

/// The function `$f` for an integer type.
macro_rules! ints {
    ($ty:expr, $f:ident) => {
        match $ty {
            Ty::U(16) => $f::<u16>,
            Ty::U(32) => $f::<u32>,
            Ty::U(64) => $f::<u64>,
            Ty::S(16) => $f::<i16>,
            Ty::S(32) => $f::<i32>,
            Ty::S(64) => $f::<i64>,
            _ => return None,
        }
    };
}

/// The function that an opcode names, if it is a function of each lane alone.
pub fn function(parts: &[&str]) -> Option<Typed> {
    if let ["cvt", rest @ ..] = parts {
        return super::convert::convert(rest);
    }
    let ty = Ty::parse(parts.last()?)?;
    let plain = |fun: Fun| {
        let n = match fun {
            Fun::One(_) => 1,
            Fun::Two(_) => 2,
            Fun::Three(_) => 3,
            Fun::Four(_) => 4,
        };
        Typed {
            fun,
            d: ty,
            src: vec![ty; n],
            divides: false,
        }
    };
    let wide = Ty::U(2 * ty.bits());
    let shift = |fun| Typed {
        src: vec![ty, Ty::U(32)],
        ..plain(fun)
    };
    let bits = |n: u32| ty == Ty::U(n);
    let signed = matches!(ty, Ty::S(_));
    if !matches!(ty, Ty::U(_) | Ty::S(_) | Ty::Pred) {
        return float::function(parts, ty);
    }
    Some(match parts {
        ["mov", name] if *name != "pred" => plain(Fun::One(|a| a)),
        ["mov", "pred"] => plain(Fun::One(|a| a)),
        ["cvta", "to", "global", "u64"] | ["cvta", "global" | "param", "u64"] => {
            plain(Fun::One(|a| a))
        }
        ["add", _] => plain(Fun::Two(ints!(ty, add))),
        ["sub", _] => plain(Fun::Two(ints!(ty, sub))),
        ["mul", "lo", _] => plain(Fun::Two(ints!(ty, mul_lo))),
        ["mul", "hi", _] => plain(Fun::Two(ints!(ty, mul_hi))),
        ["mul", "wide", _] if ty.bits() < 64 => Typed {
            d: wide,
            ..plain(Fun::Two(ints!(ty, mul_wide)))
        },
        ["mad", "lo", _] => plain(Fun::Three(ints!(ty, mad_lo))),
        ["mad", "wide", _] if ty.bits() < 64 => Typed {
            d: wide,
            src: vec![ty, ty, wide],
            ..plain(Fun::Three(ints!(ty, mad_wide)))
        },
        ["div", _] => Typed {
            divides: true,
            ..plain(Fun::Two(ints!(ty, div)))
        },
        ["rem", _] => Typed {
            divides: true,
            ..plain(Fun::Two(ints!(ty, rem)))
        },
        ["min", _] => plain(Fun::Two(ints!(ty, min))),
        ["max", _] => plain(Fun::Two(ints!(ty, max))),
        ["neg", _] if signed => plain(Fun::One(ints!(ty, neg))),
        ["abs", _] if signed => plain(Fun::One(ints!(ty, abs))),
        ["and", "pred" | "b16" | "b32" | "b64"] => plain(Fun::Two(|a, b| a & b)),
        ["or", "pred" | "b16" | "b32" | "b64"] => plain(Fun::Two(|a, b| a | b)),
        ["xor", "pred" | "b16" | "b32" | "b64"] => plain(Fun::Two(|a, b| a ^ b)),
        ["not", "pred"] => plain(Fun::One(|a| a ^ 1)),
        ["not", "b16" | "b32" | "b64"] => plain(Fun::One(ints!(ty, not))),
        ["shl", "b16" | "b32" | "b64"] => shift(Fun::Two(ints!(ty, shl))),
        ["shr", _] => shift(Fun::Two(ints!(ty, shr))),
        ["bfe", "u32" | "s32" | "u64" | "s64"] => Typed {
            src: vec![ty, Ty::U(32), Ty::U(32)],
            ..plain(Fun::Three(ints!(ty, bfe)))
        },
        ["bfi", "b32"] => plain(Fun::Four(bfi)),
        ["lop3", "b32"] => plain(Fun::Four(lop3)),
        ["prmt", "b32"] => plain(Fun::Three(prmt)),
        ["shf", "l", "wrap", "b32"] => plain(Fun::Three(shf_l)),
        ["shf", "r", "wrap", "b32"] => plain(Fun::Three(shf_r)),
        ["popc", "b32"] if bits(32) => plain(Fun::One(|a| u64::from(a.count_ones()))),
        ["clz", "b32"] => plain(Fun::One(|a| u64::from((a as u32).leading_zeros()))),
        ["brev", "b32"] => plain(Fun::One(|a| u64::from((a as u32).reverse_bits()))),
        ["selp", _] if ty != Ty::Pred => select(ty),
        _ => return None,
    })
}

/// `selp`: the third source is the predicate.
pub fn select(ty: Ty) -> Typed {
    Typed {
        fun: Fun::Three(|a, b, p| if p == 0 { b } else { a }),
        d: ty,
        src: vec![ty, ty, Ty::Pred],
        divides: false,
    }
}

fn eq<T: Int>(a: u64, b: u64) -> bool {
    T::of(a) == T::of(b)
}
fn ne<T: Int>(a: u64, b: u64) -> bool {
    T::of(a) != T::of(b)
}
fn lt<T: Int>(a: u64, b: u64) -> bool {
    T::of(a) < T::of(b)
}
fn le<T: Int>(a: u64, b: u64) -> bool {
    T::of(a) <= T::of(b)
}
fn gt<T: Int>(a: u64, b: u64) -> bool {
    T::of(a) > T::of(b)
}
fn ge<T: Int>(a: u64, b: u64) -> bool {
    T::of(a) >= T::of(b)
}

/// The test of a `setp`, by the name of its comparison.
pub fn test(name: &str, ty: Ty, ftz: bool) -> Option<fn(u64, u64) -> bool> {
    match ty {
        Ty::F32 => return float::test(name, ftz),
        Ty::F64 if !ftz => return super::double::test(name),
        _ => {}
    }
    Some(match (name, ty) {
        (_, _) if ftz => return None,
        ("eq", _) => ints!(ty, eq),
        ("ne", _) => ints!(ty, ne),
        ("lt" | "lo", _) => ints!(ty, lt),
        ("le" | "ls", _) => ints!(ty, le),
        ("gt" | "hi", _) => ints!(ty, gt),
        ("ge" | "hs", _) => ints!(ty, ge),
        _ => return None,
    })
}

/// What an atomic stores, of the old value and its one or two operands.
pub fn atomic(name: &str, ty: Ty) -> Option<fn(u64, u64, u64) -> u64> {
    Some(match (name, ty) {
        ("add", Ty::U(32) | Ty::S(32)) => |old, b, _| add::<u32>(old, b),
        ("add", Ty::U(64)) => |old, b, _| add::<u64>(old, b),
        ("add", Ty::F32) => |old, b, _| float::put(float::get(old) + float::get(b)),
        ("min", Ty::U(32)) => |old, b, _| min::<u32>(old, b),
        ("max", Ty::U(32)) => |old, b, _| max::<u32>(old, b),
        ("min", Ty::S(32)) => |old, b, _| min::<i32>(old, b),
        ("max", Ty::S(32)) => |old, b, _| max::<i32>(old, b),
        ("and", Ty::U(_)) => |old, b, _| old & b,
        ("or", Ty::U(_)) => |old, b, _| old | b,
        ("exch", Ty::U(_)) => |_, b, _| b,
        ("cas", Ty::U(_)) => |old, b, c| if old == b { c } else { old },
        ("inc", Ty::U(32)) => |old, b, _| if old >= b { 0 } else { old + 1 },
        _ => return None,
    })
}

/// What `redux` folds with.
pub fn redux(name: &str, ty: Ty) -> Option<fn(u64, u64) -> u64> {
    Some(match (name, ty) {
        ("add", Ty::U(32) | Ty::S(32)) => add::<u32>,
        ("min", Ty::U(32)) => min::<u32>,
        ("max", Ty::U(32)) => max::<u32>,
        ("min", Ty::S(32)) => min::<i32>,
        ("max", Ty::S(32)) => max::<i32>,
        ("and", Ty::U(32)) => |a, b| a & b,
        ("or", Ty::U(32)) => |a, b| a | b,
        ("xor", Ty::U(32)) => |a, b| a ^ b,
        _ => return None,
    })
}
