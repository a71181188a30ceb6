//! Elements in memory: accesses of up to 16 bytes, and conversions between elements and registers.
//!
//! Neighbouring elements are read and written together where [`widths`] says so. No read is through
//! the read-only cache, because a kernel may work in place.

use super::asm::{Asm, Class, Int, R};
use super::emitted::Target;
use crate::launch::widths;
pub(super) use crate::launch::widths::{WIDEST, lanes};
use crate::{DType, Dim, View};

/// Whether every value of `dim` is a multiple of `n`.
pub(super) fn multiple(dim: &Dim, n: usize) -> bool {
    dim.is_multiple_of(n)
}

/// [`widths::width`] where the index is known as far as it is a number in `at`.
pub(super) fn width(view: &View, at: Option<&[Int]>, lanes: usize, size: usize) -> usize {
    let known = |axis: usize| match at.and_then(|at| at.get(axis)) {
        Some(Int::Imm(i)) => Some(*i),
        Some(Int::Reg(_)) | None => None,
    };
    widths::width(view, known, lanes, size)
}

/// Reads `bytes` (1, 2, 4, 8 or 16) at `address + offset`: registers of 64 bits for elements of
/// 8 bytes, else of 32 bits, or one of 16 bits for 2 bytes. A single byte is widened to 32 bits.
pub(super) fn load(asm: &mut Asm, address: R, offset: i64, bytes: usize, size: usize) -> Vec<R> {
    let (kind, regs) = registers(asm, bytes, size);
    let vector = braces(&regs);
    asm.put(format_args!(
        "ld.global{kind} {vector}, [{address}+{offset}]"
    ));
    regs
}

/// As [`load`] where `p` holds, else zeros, and nothing is read.
pub(super) fn load_if(
    asm: &mut Asm,
    p: R,
    address: R,
    offset: i64,
    bytes: usize,
    size: usize,
) -> Vec<R> {
    let (kind, regs) = registers(asm, bytes, size);
    let vector = braces(&regs);
    for r in &regs {
        asm.op_to(r.class.mov(), *r, &[&0]);
    }
    asm.put(format_args!(
        "@{p} ld.global{kind} {vector}, [{address}+{offset}]"
    ));
    regs
}

/// Writes what [`load`] would read.
pub(super) fn store(asm: &mut Asm, address: R, offset: i64, bytes: usize, size: usize, bits: &[R]) {
    store_to(asm, "global", (address, offset), bytes, size, bits);
}

/// As [`store`], to memory of the space with this name.
pub(super) fn store_to(
    asm: &mut Asm,
    space: &str,
    (address, offset): (R, i64),
    bytes: usize,
    size: usize,
    bits: &[R],
) {
    let kind = kind(bytes, size);
    let vector = braces(bits);
    asm.put(format_args!(
        "st.{space}{kind} [{address}+{offset}], {vector}"
    ));
}

fn kind(bytes: usize, size: usize) -> &'static str {
    match (bytes, size) {
        (16, 8) => ".v2.b64",
        (8, 8) => ".b64",
        (16, _) => ".v4.b32",
        (8, _) => ".v2.b32",
        (4, _) => ".b32",
        (2, _) => ".b16",
        _ => ".u8",
    }
}

fn registers(asm: &mut Asm, bytes: usize, size: usize) -> (&'static str, Vec<R>) {
    let (class, n) = match (bytes, size) {
        (_, 8) => (Class::B64, bytes / 8),
        (2, _) => (Class::B16, 1),
        _ => (Class::B32, bytes.div_ceil(4)),
    };
    (kind(bytes, size), asm.regs(class, n))
}

fn braces(regs: &[R]) -> String {
    let names: Vec<String> = regs.iter().map(R::to_string).collect();
    match names.as_slice() {
        [one] => one.clone(),
        many => format!("{{{}}}", many.join(", ")),
    }
}

/// The values of `n` elements in the registers that [`load`] filled: f32 for floats, else s64.
pub(super) fn decode(asm: &mut Asm, dtype: DType, bits: &[R], n: usize) -> Vec<R> {
    match dtype {
        DType::I64 => bits.to_vec(),
        DType::F32 => (bits.iter())
            .map(|r| asm.op("mov.b32", Class::F32, &[r]))
            .collect(),
        DType::U32 => (bits.iter())
            .map(|r| asm.op("cvt.u64.u32", Class::B64, &[r]))
            .collect(),
        DType::U8 => decode_u8(asm, bits, n),
        DType::BF16 => bits.iter().flat_map(|r| decode_bf16(asm, *r)).collect(),
        DType::F16 => bits.iter().flat_map(|r| decode_f16(asm, *r)).collect(),
    }
}

fn decode_u8(asm: &mut Asm, bits: &[R], n: usize) -> Vec<R> {
    if n == 1 {
        return vec![asm.op("cvt.u64.u32", Class::B64, &[&bits[0]])];
    }
    let word = |asm: &mut Asm, r: R| match r.class {
        Class::B16 => asm.op("cvt.u32.u16", Class::B32, &[&r]),
        _ => r,
    };
    let words: Vec<R> = bits.iter().map(|r| word(asm, *r)).collect();
    (0..n)
        .map(|i| {
            let byte = asm.op("bfe.u32", Class::B32, &[&words[i / 4], &(i % 4 * 8), &8]);
            asm.op("cvt.u64.u32", Class::B64, &[&byte])
        })
        .collect()
}

/// A bf16 is the upper half of an f32.
fn decode_bf16(asm: &mut Asm, r: R) -> Vec<R> {
    let wide = match r.class {
        Class::B16 => {
            let word = asm.op("cvt.u32.u16", Class::B32, &[&r]);
            vec![asm.op("shl.b32", Class::B32, &[&word, &16])]
        }
        _ => vec![
            asm.op("shl.b32", Class::B32, &[&r, &16]),
            asm.op("and.b32", Class::B32, &[&r, &"0xFFFF0000"]),
        ],
    };
    (wide.iter())
        .map(|w| asm.op("mov.b32", Class::F32, &[w]))
        .collect()
}

fn decode_f16(asm: &mut Asm, r: R) -> Vec<R> {
    let halves = match r.class {
        Class::B16 => vec![r],
        _ => {
            let halves = asm.regs(Class::B16, 2);
            asm.put(format_args!("mov.b32 {}, {r}", braces(&halves)));
            halves
        }
    };
    (halves.iter())
        .map(|h| asm.op("cvt.f32.f16", Class::F32, &[h]))
        .collect()
}

/// The registers that [`store`] writes for these values (f32 for floats, else s64), which are
/// rounded to nearest even, or cut to the integer's low bits.
pub(super) fn encode(asm: &mut Asm, target: Target, dtype: DType, values: &[R]) -> Vec<R> {
    match dtype {
        DType::I64 => values.to_vec(),
        DType::F32 => (values.iter())
            .map(|r| asm.op("mov.b32", Class::B32, &[r]))
            .collect(),
        DType::U32 => (values.iter())
            .map(|r| asm.op("cvt.u32.u64", Class::B32, &[r]))
            .collect(),
        DType::U8 => encode_u8(asm, values),
        DType::BF16 | DType::F16 => match values {
            [one] => vec![encode_half(asm, target, dtype, *one)],
            many => (many.chunks_exact(2))
                .map(|pair| encode_halves(asm, target, dtype, [pair[0], pair[1]]))
                .collect(),
        },
    }
}

fn encode_u8(asm: &mut Asm, values: &[R]) -> Vec<R> {
    let low: Vec<R> = (values.iter())
        .map(|r| asm.op("cvt.u32.u64", Class::B32, &[r]))
        .collect();
    let join = |asm: &mut Asm, bytes: &[R]| {
        (bytes.iter().enumerate().skip(1)).fold(bytes[0], |word, (i, b)| {
            asm.op("bfi.b32", Class::B32, &[b, &word, &(8 * i), &8])
        })
    };
    match low.len() {
        1 => low,
        2 => {
            let word = join(asm, &low);
            vec![asm.op("cvt.u16.u32", Class::B16, &[&word])]
        }
        _ => low.chunks_exact(4).map(|b| join(asm, b)).collect(),
    }
}

/// One half-precision float (16 bits).
pub(super) fn encode_half(asm: &mut Asm, target: Target, dtype: DType, x: R) -> R {
    match dtype {
        DType::BF16 if target < Target::Sm80 => {
            let wide = rounded(asm, x);
            let word = asm.op("shr.u32", Class::B32, &[&wide, &16]);
            asm.op("cvt.u16.u32", Class::B16, &[&word])
        }
        DType::BF16 => asm.op("cvt.rn.bf16.f32", Class::B16, &[&x]),
        _ => asm.op("cvt.rn.f16.f32", Class::B16, &[&x]),
    }
}

/// Two half-precision floats, the first in the lower half (32 bits).
pub(super) fn encode_halves(asm: &mut Asm, target: Target, dtype: DType, [lo, hi]: [R; 2]) -> R {
    match (dtype, target < Target::Sm80) {
        (DType::BF16, true) => {
            let (lo, hi) = (rounded(asm, lo), rounded(asm, hi));
            asm.op("prmt.b32", Class::B32, &[&lo, &hi, &"0x7632"])
        }
        (DType::BF16, false) => asm.op("cvt.rn.bf16x2.f32", Class::B32, &[&hi, &lo]),
        (_, true) => {
            let lo = asm.op("cvt.rn.f16.f32", Class::B16, &[&lo]);
            let hi = asm.op("cvt.rn.f16.f32", Class::B16, &[&hi]);
            asm.op("mov.b32", Class::B32, &[&braces(&[lo, hi])])
        }
        (_, false) => asm.op("cvt.rn.f16x2.f32", Class::B32, &[&hi, &lo]),
    }
}

/// The bits of a float, rounded so that the upper half is its bf16; NaN stays NaN.
fn rounded(asm: &mut Asm, x: R) -> R {
    let bits = asm.op("mov.b32", Class::B32, &[&x]);
    let odd = asm.op("bfe.u32", Class::B32, &[&bits, &16, &1]);
    let up = asm.op("add.u32", Class::B32, &[&bits, &odd]);
    let up = asm.op("add.u32", Class::B32, &[&up, &"0x7FFF"]);
    let nan = asm.op("setp.nan.f32", Class::Pred, &[&x, &x]);
    asm.op("selp.b32", Class::B32, &[&"0x7FFF0000", &up, &nan])
}
