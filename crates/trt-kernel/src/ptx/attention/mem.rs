//! Elements of a float dtype as f32, tiles in shared memory, and reductions over lanes.

use crate::DType;
use crate::ptx::asm::{Asm, Class, Int, R, imm};
use crate::ptx::emitted::Target;

/// The instruction set's conversion to bf16 starts with Ampere.
fn rounds_bf16(target: Target) -> bool {
    target >= Target::Sm80
}

/// Reads a float into `to` where `when` holds.
pub(super) fn load(asm: &mut Asm, dtype: DType, to: R, address: R, when: R) {
    if dtype == DType::F32 {
        asm.put(format_args!("@{when} ld.global.f32 {to}, [{address}]"));
        return;
    }
    let half = asm.op("mov.b16", Class::B16, &[&0]);
    asm.put(format_args!("@{when} ld.global.b16 {half}, [{address}]"));
    match dtype {
        DType::F16 => asm.op_to("cvt.f32.f16", to, &[&half]),
        _ => {
            let zero = asm.op("mov.b16", Class::B16, &[&0]);
            asm.put(format_args!("mov.b32 {to}, {{{zero}, {half}}}"));
        }
    }
}

/// Rounds and writes a float.
pub(super) fn store(asm: &mut Asm, target: Target, dtype: DType, address: R, value: R) {
    let half = match dtype {
        DType::F16 => asm.op("cvt.rn.f16.f32", Class::B16, &[&value]),
        DType::BF16 if rounds_bf16(target) => asm.op("cvt.rn.bf16.f32", Class::B16, &[&value]),
        DType::BF16 => bf16(asm, value),
        _ => return asm.put(format_args!("st.global.f32 [{address}], {value}")),
    };
    asm.put(format_args!("st.global.b16 [{address}], {half}"));
}

/// Rounds to bf16 by integers: to nearest, ties to even; a NaN stays one.
fn bf16(asm: &mut Asm, value: R) -> R {
    let bits = asm.op("mov.b32", Class::B32, &[&value]);
    let odd = asm.op("bfe.u32", Class::B32, &[&bits, &16, &1]);
    let bias = asm.op("add.u32", Class::B32, &[&odd, &0x7fff]);
    let sum = asm.op("add.u32", Class::B32, &[&bits, &bias]);
    let nan = asm.op("setp.nan.f32", Class::Pred, &[&value, &value]);
    let sum = asm.op("selp.b32", Class::B32, &[&0x7fff_0000, &sum, &nan]);
    let high = asm.op("shr.u32", Class::B32, &[&sum, &16]);
    asm.op("cvt.u16.u32", Class::B16, &[&high])
}

/// Two floats as neighbours of a 16-bit dtype; the first is the lower half.
pub(super) fn pack(asm: &mut Asm, dtype: DType, low: R, high: R) -> R {
    let name = match dtype {
        DType::F16 => "cvt.rn.f16x2.f32",
        _ => "cvt.rn.bf16x2.f32",
    };
    asm.op(name, Class::B32, &[&high, &low])
}

/// `base + index * stride` bytes, in shared memory.
pub(super) fn cell(asm: &mut Asm, base: impl Into<Int>, index: R, stride: usize) -> R {
    let base = base.into();
    asm.op("mad.lo.u32", Class::B32, &[&index, &stride, &base])
}

/// The address of a shared array in a register.
pub(super) fn array(asm: &mut Asm, bytes: usize) -> R {
    let name = asm.shared(bytes, 16);
    asm.op("mov.u32", Class::B32, &[&name])
}

/// Four floats from shared memory.
pub(super) fn load4(asm: &mut Asm, address: R, offset: usize) -> [R; 4] {
    let r: [R; 4] = std::array::from_fn(|_| asm.reg(Class::F32));
    let [a, b, c, d] = r;
    asm.put(format_args!(
        "ld.shared.v4.f32 {{{a}, {b}, {c}, {d}}}, [{address}+{offset}]"
    ));
    r
}

/// Folds a float over the lanes that differ in the bits of `lanes` (1, 2, 4, …); all of them get
/// the result.
pub(super) fn over_lanes(asm: &mut Asm, name: &str, value: R, lanes: &[u32]) -> R {
    lanes.iter().fold(value, |value, lane| {
        let other = asm.op(
            "shfl.sync.bfly.b32",
            Class::F32,
            &[&value, lane, &"0x1f", &"0xffffffff"],
        );
        asm.op(name, Class::F32, &[&value, &other])
    })
}

/// What to subtract from scores with this maximum: zero instead of minus infinity, so that
/// nothing becomes a NaN where no key was seen.
pub(super) fn reference(asm: &mut Asm, max: R) -> R {
    let low = imm(f32::NEG_INFINITY);
    let none = asm.op("setp.eq.f32", Class::Pred, &[&max, &low]);
    asm.op("selp.f32", Class::F32, &[&imm(0.0), &max, &none])
}

/// `2 ^ (x - reference)`; zero for minus infinity.
pub(super) fn weight(asm: &mut Asm, x: R, reference: R) -> R {
    let d = asm.op("sub.f32", Class::F32, &[&x, &reference]);
    asm.op("ex2.approx.f32", Class::F32, &[&d])
}

/// `1 / sum`, or zero where nothing was summed.
pub(super) fn inverse(asm: &mut Asm, sum: R) -> R {
    let none = asm.op("setp.eq.f32", Class::Pred, &[&sum, &imm(0.0)]);
    let inverse = asm.op("rcp.rn.f32", Class::F32, &[&sum]);
    asm.op("selp.f32", Class::F32, &[&imm(0.0), &inverse, &none])
}
