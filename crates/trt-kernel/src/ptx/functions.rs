//! The functions of floats that take more than an instruction, without tables or calls.
//!
//! Bounds are those of the host (`host/math.rs`): `exp` and `tanh` within about 2 ulp, `erf`
//! within 2e-7; `sigmoid` inherits them. The hardware's approximations are used where they are
//! as good: `ex2` of a reduced argument, reciprocals. `log` is a polynomial; `sin` and `cos`
//! reduce their argument in f64, `pow` takes its logarithm there.

use super::asm::{Asm, Class, R, imm};
use std::fmt::Display;

/// A register or a constant.
pub(super) type Operand<'a> = &'a dyn Display;

pub(super) fn fma(asm: &mut Asm, a: Operand<'_>, b: Operand<'_>, c: Operand<'_>) -> R {
    asm.op("fma.rn.f32", Class::F32, &[a, b, c])
}

pub(super) fn mul(asm: &mut Asm, a: Operand<'_>, b: Operand<'_>) -> R {
    asm.op("mul.rn.f32", Class::F32, &[a, b])
}

pub(super) fn add(asm: &mut Asm, a: Operand<'_>, b: Operand<'_>) -> R {
    asm.op("add.rn.f32", Class::F32, &[a, b])
}

/// `coefficients` are from the highest power down.
fn poly(asm: &mut Asm, x: R, coefficients: &[f32]) -> R {
    let (first, rest) = coefficients.split_at(coefficients.len().min(1));
    let first = asm.f32(first.first().copied().unwrap_or(0.0));
    rest.iter().fold(first, |p, c| fma(asm, &p, &x, &imm(*c)))
}

/// `p ? a : b`.
pub(super) fn pick(asm: &mut Asm, p: R, a: Operand<'_>, b: Operand<'_>) -> R {
    asm.op("selp.f32", Class::F32, &[a, b, &p])
}

pub(super) fn test(asm: &mut Asm, compare: &str, a: R, b: Operand<'_>) -> R {
    asm.op(&format!("setp.{compare}.f32"), Class::Pred, &[&a, b])
}

fn recip(asm: &mut Asm, x: R) -> R {
    asm.op("rcp.approx.f32", Class::F32, &[&x])
}

/// `p * 2^n` for the integer `n`, in two factors so that neither over- nor underflows before the
/// product does.
fn scale(asm: &mut Asm, p: R, n: R) -> R {
    let half = asm.op("shr.s32", Class::B32, &[&n, &1]);
    let rest = asm.op("sub.s32", Class::B32, &[&n, &half]);
    [half, rest].iter().fold(p, |p, e| {
        let bits = asm.op("shl.b32", Class::B32, &[e, &23]);
        let bits = asm.op("add.s32", Class::B32, &[&bits, &"0x3F800000"]);
        let power = asm.op("mov.b32", Class::F32, &[&bits]);
        mul(asm, &p, &power)
    })
}

/// `e^x`: exact at the ends (0, infinity), NaN for NaN, gradual underflow.
pub(super) fn exp(asm: &mut Asm, x: R) -> R {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
    const LOG2_E_LOW: f32 = 1.925_963e-8;
    let log2_e = imm(std::f32::consts::LOG2_E);
    let high = test(asm, "gt", x, &imm(89.0));
    let t = pick(asm, high, &imm(89.0), &x);
    let low = test(asm, "lt", t, &imm(-104.0));
    let t = pick(asm, low, &imm(-104.0), &t);
    let z = fma(asm, &t, &log2_e, &imm(MAGIC));
    let n = add(asm, &z, &imm(-MAGIC));
    let minus = asm.op("neg.f32", Class::F32, &[&n]);
    let r = fma(asm, &t, &log2_e, &minus);
    let r = fma(asm, &t, &imm(LOG2_E_LOW), &r);
    let p = asm.op("ex2.approx.ftz.f32", Class::F32, &[&r]);
    let bits = asm.op("mov.b32", Class::B32, &[&z]);
    let n = asm.op("sub.s32", Class::B32, &[&bits, &MAGIC.to_bits()]);
    scale(asm, p, n)
}

/// `ln(x)`.
pub(super) fn log(asm: &mut Asm, x: R) -> R {
    // x = m * 2^e with m between 2/3 and 4/3; a subnormal x is scaled up first.
    let tiny = test(asm, "lt", x, &imm(f32::MIN_POSITIVE));
    let up = mul(asm, &x, &imm(8_388_608.0));
    let t = pick(asm, tiny, &up, &x);
    let bias = pick(asm, tiny, &imm(-23.0), &imm(0.0));
    let bits = asm.op("mov.b32", Class::B32, &[&t]);
    let above = asm.op("sub.s32", Class::B32, &[&bits, &"0x3F2AAAAB"]);
    let exponent = asm.op("and.b32", Class::B32, &[&above, &"0xFF800000"]);
    let m = asm.op("sub.s32", Class::B32, &[&bits, &exponent]);
    let m = asm.op("mov.b32", Class::F32, &[&m]);
    let e = asm.op("shr.s32", Class::B32, &[&exponent, &23]);
    let e = asm.op("cvt.rn.f32.s32", Class::F32, &[&e]);
    let e = add(asm, &e, &bias);
    // ln(1 + f) = f + f^2 (f q(f) - 1/2)
    let f = add(asm, &m, &imm(-1.0));
    let q = poly(
        asm,
        f,
        &[
            -0.121_255_81,
            0.134_257_5,
            -0.123_461_9,
            0.141_183_1,
            -0.166_701_4,
            0.200_037_8,
            -0.249_999_88,
            0.333_333_2,
            -0.5,
        ],
    );
    let square = mul(asm, &f, &f);
    let y = fma(asm, &q, &square, &f);
    let y = fma(asm, &e, &imm(std::f32::consts::LN_2), &y);
    // Zero, infinity, NaN and negative numbers are what the hardware makes of them.
    let special = asm.op("lg2.approx.f32", Class::F32, &[&x]);
    let positive = test(asm, "gt", x, &imm(0.0));
    let finite = test(asm, "lt", x, &imm(f32::INFINITY));
    let both = asm.op("and.pred", Class::Pred, &[&positive, &finite]);
    pick(asm, both, &y, &special)
}

/// 2/pi in pieces of 29 bits, so that the product of one with any f32 is exact in f64.
const FRAC_2_PI: [(i64, i32); 7] = [
    (341_782_637, 29),
    (423_170_132, 58),
    (352_195_499, 87),
    (488_592_205, 116),
    (461_485_765, 145),
    (90_590_992, 174),
    (478_285_810, 203),
];

/// `x = n pi/2 + r` with `r` between -pi/4 and pi/4: `r` (f32) and `n`, as far as its last two
/// bits go (u32).
fn quarters(asm: &mut Asm, x: R) -> (R, R) {
    let f64s = |asm: &mut Asm, name: &str, operands: &[Operand<'_>]| {
        asm.op(&format!("{name}.f64"), Class::B64, operands)
    };
    let d = asm.op("cvt.f64.f32", Class::B64, &[&x]);
    let n = f64s(asm, "mul.rn", &[&d, &f64(std::f64::consts::FRAC_2_PI)]);
    let n = f64s(asm, "cvt.rni.f64", &[&n]);
    // The first step is exact: the product's lowest bit and the difference's highest are 53 bits
    // apart.
    let half_pi = std::f64::consts::FRAC_PI_2;
    let r = f64s(asm, "fma.rn", &[&n, &f64(-half_pi), &d]);
    let r = f64s(asm, "fma.rn", &[&n, &f64(-6.123_233_995_736_766e-17), &r]);
    // Where `n` would not be exact: the sum of the pieces' products, each without whole turns.
    let size = asm.op("abs.f32", Class::F32, &[&x]);
    let far = test(asm, "ge", size, &imm(1.125_899_9e15));
    asm.when(far, true, |asm| {
        let mut sum: Option<R> = None;
        for (bits, shift) in FRAC_2_PI {
            let piece = f64(bits as f64 * 2f64.powi(-shift));
            let y = f64s(asm, "mul.rn", &[&d, &piece]);
            let turns = f64s(asm, "mul.rn", &[&y, &f64(0.25)]);
            let turns = f64s(asm, "cvt.rni.f64", &[&turns]);
            let rest = f64s(asm, "fma.rn", &[&turns, &f64(-4.0), &y]);
            sum = Some(match sum {
                None => rest,
                Some(sum) => f64s(asm, "add.rn", &[&sum, &rest]),
            });
        }
        if let Some(sum) = sum {
            asm.op_to("cvt.rni.f64.f64", n, &[&sum]);
            let rest = f64s(asm, "sub.rn", &[&sum, &n]);
            asm.op_to("mul.rn.f64", r, &[&rest, &f64(half_pi)]);
        }
    });
    let r = asm.op("cvt.rn.f32.f64", Class::F32, &[&r]);
    let n = asm.op("cvt.rzi.s64.f64", Class::B64, &[&n]);
    (r, asm.op("cvt.u32.u64", Class::B32, &[&n]))
}

/// `sin(x)`, or `cos(x)` if `turn` is 1: a quarter turn ahead.
pub(super) fn sin(asm: &mut Asm, x: R, turn: i32) -> R {
    let (r, quarter) = quarters(asm, x);
    let quarter = asm.op("add.s32", Class::B32, &[&quarter, &turn]);
    let z = mul(asm, &r, &r);
    let s = poly(asm, z, &[-1.958_738_7e-4, 0.008_332_746, -0.166_666_64]);
    let cube = mul(asm, &z, &r);
    let s = fma(asm, &s, &cube, &r);
    let c = poly(
        asm,
        z,
        &[2.454_743_7e-5, -0.001_388_83, 0.041_666_664, -0.5, 1.0],
    );
    let odd = asm.op("and.b32", Class::B32, &[&quarter, &1]);
    let odd = asm.op("setp.ne.s32", Class::Pred, &[&odd, &0]);
    let y = pick(asm, odd, &c, &s);
    let back = asm.op("and.b32", Class::B32, &[&quarter, &2]);
    let back = asm.op("setp.ne.s32", Class::Pred, &[&back, &0]);
    let minus = asm.op("neg.f32", Class::F32, &[&y]);
    pick(asm, back, &minus, &y)
}

/// `tanh(x)`.
pub(super) fn tanh(asm: &mut Asm, x: R) -> R {
    let z = mul(asm, &x, &x);
    let p = poly(
        asm,
        z,
        &[
            0.002_370_765_7,
            -0.008_410_07,
            0.021_788_322,
            -0.053_961_55,
            0.133_333_13,
            -0.333_333_34,
        ],
    );
    let cube = mul(asm, &x, &z);
    let small = fma(asm, &cube, &p, &x);
    let a = asm.op("abs.f32", Class::F32, &[&x]);
    let double = add(asm, &a, &a);
    let e = exp(asm, double);
    let e = add(asm, &e, &imm(1.0));
    let r = recip(asm, e);
    let large = fma(asm, &r, &imm(-2.0), &imm(1.0));
    let large = asm.op("copysign.f32", Class::F32, &[&x, &large]);
    let near = test(asm, "lt", a, &imm(0.6));
    pick(asm, near, &small, &large)
}

/// The error function.
pub(super) fn erf(asm: &mut Asm, x: R) -> R {
    let z = mul(asm, &x, &x);
    let p = poly(
        asm,
        z,
        &[
            7.875_875e-5,
            -8.016_864_3e-4,
            0.005_189_087_4,
            -0.026_854_212,
            0.112_835_95,
            -0.376_126_27,
            std::f32::consts::FRAC_2_SQRT_PI,
        ],
    );
    let small = mul(asm, &x, &p);
    // Beyond 1: ln(erfc) is smooth enough for a polynomial.
    let a = asm.op("abs.f32", Class::F32, &[&x]);
    let far = test(asm, "gt", a, &imm(4.0));
    let b = pick(asm, far, &imm(4.0), &a);
    let q = poly(
        asm,
        b,
        &[
            -1.327_236_2e-5,
            3.169_370_2e-4,
            -0.003_432_351_4,
            0.022_604_772,
            -0.103_281_12,
            -0.639_141_26,
            -1.125_893_7,
            -7.658_978e-4,
        ],
    );
    let e = exp(asm, q);
    let minus = asm.op("neg.f32", Class::F32, &[&e]);
    let large = add(asm, &minus, &imm(1.0));
    let large = asm.op("copysign.f32", Class::F32, &[&x, &large]);
    let near = test(asm, "lt", a, &imm(1.0));
    pick(asm, near, &small, &large)
}

/// `1 / (1 + e^-x)`.
pub(super) fn sigmoid(asm: &mut Asm, x: R) -> R {
    let minus = asm.op("neg.f32", Class::F32, &[&x]);
    let e = exp(asm, minus);
    let e = add(asm, &e, &imm(1.0));
    recip(asm, e)
}

/// Half away from zero: what is cut off decides, since adding a half would round twice.
pub(super) fn round(asm: &mut Asm, x: R) -> R {
    let whole = asm.op("cvt.rzi.f32.f32", Class::F32, &[&x]);
    let rest = asm.op("sub.rn.f32", Class::F32, &[&x, &whole]);
    let rest = asm.op("abs.f32", Class::F32, &[&rest]);
    let one = asm.f32(1.0);
    let one = asm.op("copysign.f32", Class::F32, &[&x, &one]);
    let further = add(asm, &whole, &one);
    let up = test(asm, "ge", rest, &imm(0.5));
    pick(asm, up, &further, &whole)
}

/// A double as PTX writes it, exactly.
fn f64(value: f64) -> String {
    format!("0d{:016X}", value.to_bits())
}

/// `x^y` as IEEE 754 defines it.
pub(super) fn pow(asm: &mut Asm, x: R, y: R) -> R {
    let size = asm.op("abs.f32", Class::F32, &[&x]);
    let log = log2_f64(asm, size);
    let wide = asm.op("cvt.f64.f32", Class::B64, &[&y]);
    let z = asm.op("mul.rn.f64", Class::B64, &[&log, &wide]);
    // Beyond these the result is 0 or infinite anyway; NaN stays.
    for (compare, bound) in [("gt", 160.0), ("lt", -160.0)] {
        let p = asm.op(
            &format!("setp.{compare}.f64"),
            Class::Pred,
            &[&z, &f64(bound)],
        );
        asm.op_to("selp.f64", z, &[&f64(bound), &z, &p]);
    }
    let n = asm.op("cvt.rni.f64.f64", Class::B64, &[&z]);
    let r = asm.op("sub.rn.f64", Class::B64, &[&z, &n]);
    let r = asm.op("cvt.rn.f32.f64", Class::F32, &[&r]);
    let p = asm.op("ex2.approx.ftz.f32", Class::F32, &[&r]);
    let n = asm.op("cvt.rzi.s32.f64", Class::B32, &[&n]);
    let power = scale(asm, p, n);
    // One to any power is one, also to infinite ones.
    let one = test(asm, "eq", size, &imm(1.0));
    let known = asm.op("setp.num.f32", Class::Pred, &[&y, &y]);
    let one = asm.op("and.pred", Class::Pred, &[&one, &known]);
    let power = pick(asm, one, &imm(1.0), &power);
    let power = pow_sign(asm, x, y, power);
    let one = test(asm, "eq", x, &imm(1.0));
    let zero = test(asm, "eq", y, &imm(0.0));
    let either = asm.op("or.pred", Class::Pred, &[&one, &zero]);
    pick(asm, either, &imm(1.0), &power)
}

/// The power of a number from that of its size: negative for odd powers of negative numbers, NaN
/// for powers that are not whole.
fn pow_sign(asm: &mut Asm, x: R, y: R, power: R) -> R {
    let whole = asm.op("cvt.rzi.f32.f32", Class::F32, &[&y]);
    let fraction = test(asm, "neu", whole, &y);
    let below = test(asm, "lt", x, &imm(0.0));
    let finite = test(asm, "gt", x, &imm(f32::NEG_INFINITY));
    let nan = asm.op("and.pred", Class::Pred, &[&fraction, &below]);
    let nan = asm.op("and.pred", Class::Pred, &[&nan, &finite]);
    let power = pick(asm, nan, &imm(f32::NAN), &power);
    // From 2^24 on all are even. Half of an odd number is not whole.
    let half = mul(asm, &y, &imm(0.5));
    let whole = asm.op("cvt.rzi.f32.f32", Class::F32, &[&half]);
    let odd = test(asm, "neu", whole, &half);
    let not = asm.op("not.pred", Class::Pred, &[&fraction]);
    let odd = asm.op("and.pred", Class::Pred, &[&odd, &not]);
    let bits = asm.op("mov.b32", Class::B32, &[&x]);
    let negative = asm.op("setp.lt.s32", Class::Pred, &[&bits, &0]);
    let flip = asm.op("and.pred", Class::Pred, &[&odd, &negative]);
    let minus = asm.op("neg.f32", Class::F32, &[&power]);
    pick(asm, flip, &minus, &power)
}

/// `log2(x)` in f64 for `x >= 0`, to about 40 bits: enough for any power of it.
fn log2_f64(asm: &mut Asm, x: R) -> R {
    let d = asm.op("cvt.f64.f32", Class::B64, &[&x]);
    // x = m * 2^e with m between sqrt(1/2) and sqrt(2).
    let above = asm.op("sub.s64", Class::B64, &[&d, &"0x3FE6A09E00000000"]);
    let exponent = asm.op("and.b64", Class::B64, &[&above, &"0xFFF0000000000000"]);
    let m = asm.op("sub.s64", Class::B64, &[&d, &exponent]);
    let e = asm.op("shr.s64", Class::B64, &[&exponent, &52]);
    let e = asm.op("cvt.rn.f64.s64", Class::B64, &[&e]);
    // log2(m) = s (c0 + c1 s^2 + ...), the series of atanh.
    let low = asm.op("add.rn.f64", Class::B64, &[&m, &f64(-1.0)]);
    let high = asm.op("add.rn.f64", Class::B64, &[&m, &f64(1.0)]);
    let s = asm.op("div.rn.f64", Class::B64, &[&low, &high]);
    let t = asm.op("mul.rn.f64", Class::B64, &[&s, &s]);
    let coefficient = |k: u32| f64(2.0 * std::f64::consts::LOG2_E / f64::from(2 * k + 1));
    let first = asm.op("mov.f64", Class::B64, &[&coefficient(7)]);
    let p = (0..7).rev().fold(first, |p, k| {
        asm.op("fma.rn.f64", Class::B64, &[&p, &t, &coefficient(k)])
    });
    let y = asm.op("fma.rn.f64", Class::B64, &[&s, &p, &e]);
    // The logarithm of 0 is -infinity; those of infinity and NaN are themselves.
    let finite = test(asm, "lt", x, &imm(f32::INFINITY));
    let y = asm.op("selp.f64", Class::B64, &[&y, &d, &finite]);
    let zero = test(asm, "eq", x, &imm(0.0));
    asm.op(
        "selp.f64",
        Class::B64,
        &[&f64(f64::NEG_INFINITY), &y, &zero],
    )
}
