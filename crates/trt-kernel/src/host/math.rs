//! The scalar functions of a body, written so that a loop over them vectorises.
//!
//! `exp`, `tanh` and `erf` are range reductions to short polynomials in f32 without branches.
//! Bounds, tested against f64 over their whole ranges: `exp` and `tanh` within 2 ulp, `erf`
//! within 2e-7 absolute; `silu`, `sigmoid` and the gelus inherit them. The other functions are
//! the standard library's.

use super::simd::Simd;
use crate::{Binary, Compare, Unary};

/// `e^x`: exact at the ends (0, infinity), NaN for NaN, gradual underflow.
#[inline(always)]
pub(super) fn exp<S: Simd>(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let t = if x > 89.0 { 89.0 } else { x };
    let t = if t < -104.0 { -104.0 } else { t };
    let z = S::mul_add(t, std::f32::consts::LOG2_E, MAGIC);
    let n = z - MAGIC;
    let r = S::mul_add(n, -LN2_LOW, S::mul_add(n, -LN2_HIGH, t));
    let p = S::mul_add(r, 0.001_392_620_3, 0.008_363_195);
    let p = S::mul_add(r, p, 0.041_666_556);
    let p = S::mul_add(r, p, 0.166_665_77);
    let p = S::mul_add(r, p, 0.5);
    let p = S::mul_add(r * r, p, r) + 1.0;
    // 2^n in two factors, so that neither over- nor underflows before the product does.
    let n = (z.to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32);
    let half = n >> 1;
    let power = |e: i32| f32::from_bits((e.wrapping_add(127) as u32) << 23);
    p * power(half) * power(n.wrapping_sub(half))
}

/// `tanh(x)`.
#[inline(always)]
pub(super) fn tanh<S: Simd>(x: f32) -> f32 {
    let z = x * x;
    let p = S::mul_add(z, 0.002_370_765_7, -0.008_410_07);
    let p = S::mul_add(z, p, 0.021_788_322);
    let p = S::mul_add(z, p, -0.053_961_55);
    let p = S::mul_add(z, p, 0.133_333_13);
    let p = S::mul_add(z, p, -0.333_333_34);
    let small = S::mul_add(x * z, p, x);
    let large = (1.0 - 2.0 / (exp::<S>(2.0 * x.abs()) + 1.0)).copysign(x);
    if x.abs() < 0.6 { small } else { large }
}

/// The error function.
#[inline(always)]
pub(super) fn erf<S: Simd>(x: f32) -> f32 {
    let z = x * x;
    let p = S::mul_add(z, 7.875_875e-5, -8.016_864_3e-4);
    let p = S::mul_add(z, p, 0.005_189_087_4);
    let p = S::mul_add(z, p, -0.026_854_212);
    let p = S::mul_add(z, p, 0.112_835_95);
    let p = S::mul_add(z, p, -0.376_126_27);
    let p = S::mul_add(z, p, std::f32::consts::FRAC_2_SQRT_PI);
    let small = x * p;
    // Beyond 1: ln(erfc) is smooth enough for a polynomial.
    let a = x.abs();
    let a = if a > 4.0 { 4.0 } else { a };
    let q = S::mul_add(a, -1.327_236_2e-5, 3.169_370_2e-4);
    let q = S::mul_add(a, q, -0.003_432_351_4);
    let q = S::mul_add(a, q, 0.022_604_772);
    let q = S::mul_add(a, q, -0.103_281_12);
    let q = S::mul_add(a, q, -0.639_141_26);
    let q = S::mul_add(a, q, -1.125_893_7);
    let q = S::mul_add(a, q, -7.658_978e-4);
    let large = (1.0 - exp::<S>(q)).copysign(x);
    if x.abs() < 1.0 { small } else { large }
}

#[inline(always)]
fn sigmoid<S: Simd>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<S>(-x))
}

#[inline(always)]
fn map<A: Copy, B>(x: &[A], out: &mut [B], f: impl Fn(A) -> B) {
    for (o, x) in out.iter_mut().zip(x) {
        *o = f(*x);
    }
}

#[inline(always)]
fn zip<A: Copy, B>(x: &[A], y: &[A], out: &mut [B], f: impl Fn(A, A) -> B) {
    for ((o, x), y) in out.iter_mut().zip(x).zip(y) {
        *o = f(*x, *y);
    }
}

/// A function of one float over lanes, with candle's definitions.
#[inline(always)]
pub(super) fn unary_f32<S: Simd>(f: Unary, x: &[f32], out: &mut [f32]) {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    match f {
        Unary::Neg => map(x, out, |x: f32| -x),
        Unary::Abs => map(x, out, |x: f32| x.abs()),
        Unary::Exp => map(x, out, |x| exp::<S>(x)),
        Unary::Log => map(x, out, f32::ln),
        Unary::Sin => map(x, out, f32::sin),
        Unary::Cos => map(x, out, f32::cos),
        Unary::Tanh => map(x, out, |x| tanh::<S>(x)),
        Unary::Sqr => map(x, out, |x: f32| x * x),
        Unary::Sqrt => map(x, out, |x: f32| x.sqrt()),
        Unary::Recip => map(x, out, |x: f32| 1.0 / x),
        Unary::Erf => map(x, out, |x| erf::<S>(x)),
        Unary::Relu => map(x, out, |x: f32| if x > 0.0 { x } else { 0.0 }),
        Unary::Silu => map(x, out, |x: f32| x / (1.0 + exp::<S>(-x))),
        Unary::Gelu => map(x, out, |x: f32| {
            let inner = SQRT_2_OVER_PI * x * (1.0 + 0.044715 * x * x);
            0.5 * x * (1.0 + tanh::<S>(inner))
        }),
        Unary::GeluErf => map(x, out, |x: f32| {
            0.5 * x * (1.0 + erf::<S>(x * std::f32::consts::FRAC_1_SQRT_2))
        }),
        Unary::Sigmoid => map(x, out, |x| sigmoid::<S>(x)),
        Unary::Floor => map(x, out, f32::floor),
        Unary::Ceil => map(x, out, f32::ceil),
        Unary::Round => map(x, out, f32::round),
        Unary::Sign => map(x, out, |x: f32| {
            f32::from(u8::from(x > 0.0)) - f32::from(u8::from(x < 0.0))
        }),
    }
}

/// A function of two floats over lanes.
#[inline(always)]
pub(super) fn binary_f32(f: Binary, x: &[f32], y: &[f32], out: &mut [f32]) {
    match f {
        Binary::Add => zip(x, y, out, |x, y| x + y),
        Binary::Sub => zip(x, y, out, |x, y| x - y),
        Binary::Mul => zip(x, y, out, |x, y| x * y),
        Binary::Div => zip(x, y, out, |x, y| x / y),
        Binary::Maximum => zip(x, y, out, |x, y| if x < y { y } else { x }),
        Binary::Minimum => zip(x, y, out, |x, y| if x > y { y } else { x }),
        Binary::Pow => zip(x, y, out, f32::powf),
    }
}

/// A function of one integer over lanes. Overflow wraps; functions that integers lack are not
/// let through by the check of the body and give the value back.
#[inline(always)]
pub(super) fn unary_i64(f: Unary, x: &[i64], out: &mut [i64]) {
    match f {
        Unary::Neg => map(x, out, i64::wrapping_neg),
        Unary::Abs => map(x, out, i64::wrapping_abs),
        Unary::Sqr => map(x, out, |x: i64| x.wrapping_mul(x)),
        Unary::Sign => map(x, out, i64::signum),
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
        | Unary::Round => out.copy_from_slice(x),
    }
}

/// A function of two integers over lanes. Overflow wraps; a quotient by zero is zero.
#[inline(always)]
pub(super) fn binary_i64(f: Binary, x: &[i64], y: &[i64], out: &mut [i64]) {
    match f {
        Binary::Add => zip(x, y, out, i64::wrapping_add),
        Binary::Sub => zip(x, y, out, i64::wrapping_sub),
        Binary::Mul => zip(x, y, out, i64::wrapping_mul),
        Binary::Div => zip(x, y, out, |x, y| if y == 0 { 0 } else { x.wrapping_div(y) }),
        Binary::Maximum => zip(x, y, out, i64::max),
        Binary::Minimum => zip(x, y, out, i64::min),
        Binary::Pow => out.copy_from_slice(x),
    }
}

/// A comparison over lanes; true is 1.
#[inline(always)]
pub(super) fn compare<T: Copy + PartialOrd>(f: Compare, x: &[T], y: &[T], out: &mut [u32]) {
    match f {
        Compare::Eq => zip(x, y, out, |x, y| u32::from(x == y)),
        Compare::Ne => zip(x, y, out, |x, y| u32::from(x != y)),
        Compare::Lt => zip(x, y, out, |x, y| u32::from(x < y)),
        Compare::Le => zip(x, y, out, |x, y| u32::from(x <= y)),
        Compare::Gt => zip(x, y, out, |x, y| u32::from(x > y)),
        Compare::Ge => zip(x, y, out, |x, y| u32::from(x >= y)),
    }
}

/// `if c { a } else { b }` over lanes.
#[inline(always)]
pub(super) fn select<T: Copy>(c: &[u32], a: &[T], b: &[T], out: &mut [T]) {
    for (((o, c), a), b) in out.iter_mut().zip(c).zip(a).zip(b) {
        *o = if *c != 0 { *a } else { *b };
    }
}

/// A conversion over lanes.
#[inline(always)]
pub(super) fn cast<A: Copy, B>(x: &[A], out: &mut [B], f: impl Fn(A) -> B) {
    map(x, out, f);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::simd::{Isa, Job, run_on};

    struct Apply<'a>(Unary, &'a [f32], &'a mut [f32]);
    impl Job for Apply<'_> {
        type Out = ();
        #[inline(always)]
        fn run<S: Simd>(self) {
            unary_f32::<S>(self.0, self.1, self.2);
        }
    }

    /// The worst error of `f` against `exact`, in units given by `unit(exact)`.
    fn worst(f: Unary, low: f32, high: f32, exact: fn(f64) -> f64, unit: fn(f64) -> f64) -> f64 {
        let xs: Vec<f32> = (0..200_001)
            .map(|i| low + (high - low) * i as f32 / 200_000.0)
            .collect();
        let mut worst = 0f64;
        for isa in Isa::available() {
            let mut out = vec![0.0; xs.len()];
            run_on(isa, Apply(f, &xs, &mut out));
            for (x, y) in xs.iter().zip(&out) {
                let e = exact(f64::from(*x));
                worst = worst.max((f64::from(*y) - e).abs() / unit(e));
            }
        }
        worst
    }

    fn ulp(x: f64) -> f64 {
        let x = (x.abs() as f32).max(f32::MIN_POSITIVE);
        f64::from(f32::from_bits(x.to_bits() + 1) - x)
    }

    #[test]
    fn exp_is_within_2_ulp() {
        assert!(worst(Unary::Exp, -103.0, 88.7, f64::exp, ulp) < 2.0);
        assert!(worst(Unary::Exp, -1.0, 1.0, f64::exp, ulp) < 2.0);
    }

    #[test]
    fn tanh_is_within_2_ulp() {
        assert!(worst(Unary::Tanh, -12.0, 12.0, f64::tanh, ulp) < 2.0);
        assert!(worst(Unary::Tanh, -0.7, 0.7, f64::tanh, ulp) < 2.0);
    }

    #[test]
    fn silu_is_close() {
        let silu = |x: f64| x / (1.0 + (-x).exp());
        assert!(worst(Unary::Silu, -60.0, 60.0, silu, ulp) < 4.0);
    }

    #[test]
    fn erf_is_within_2e_7() {
        // erf by its series in f64, good for |x| <= 4.
        fn series(x: f64) -> f64 {
            let (mut term, mut sum) = (x, x);
            for n in 1..120 {
                term *= -x * x / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            sum * 2.0 / std::f64::consts::PI.sqrt()
        }
        assert!(worst(Unary::Erf, -4.0, 4.0, series, |_| 1.0) < 2e-7);
    }

    #[test]
    fn special_values_keep_their_meaning() {
        for isa in Isa::available() {
            let xs = [
                f32::NAN,
                f32::INFINITY,
                f32::NEG_INFINITY,
                0.0,
                1000.0,
                -1000.0,
            ];
            let mut out = [0.0; 6];
            run_on(isa, Apply(Unary::Exp, &xs, &mut out));
            assert!(out[0].is_nan());
            assert_eq!(out[1..], [f32::INFINITY, 0.0, 1.0, f32::INFINITY, 0.0]);
            run_on(isa, Apply(Unary::Tanh, &xs, &mut out));
            assert!(out[0].is_nan());
            assert_eq!(out[1..], [1.0, -1.0, 0.0, 1.0, -1.0]);
            run_on(isa, Apply(Unary::Erf, &xs, &mut out));
            assert!(out[0].is_nan());
            assert_eq!(out[1..], [1.0, -1.0, 0.0, 1.0, -1.0]);
            run_on(isa, Apply(Unary::Silu, &xs, &mut out));
            assert_eq!(out[1], f32::INFINITY);
            assert_eq!(out[3], 0.0);
        }
    }
}
