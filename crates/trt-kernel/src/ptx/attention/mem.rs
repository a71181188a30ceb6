//! Elements of a float dtype as f32, tiles in shared memory, and reductions over lanes.

use crate::DType;
use crate::ptx::access;
use crate::ptx::asm::{Asm, Class, Int, R, imm};
use crate::ptx::emitted::Target;

/// Reads a float where `when` holds; zero elsewhere.
pub(super) fn load(asm: &mut Asm, dtype: DType, address: R, when: R) -> R {
    let (class, kind) = match dtype.size() {
        2 => (Class::B16, "b16"),
        _ => (Class::B32, "b32"),
    };
    let bits = asm.op(&format!("mov.{kind}"), class, &[&0]);
    asm.put(format_args!("@{when} ld.global.{kind} {bits}, [{address}]"));
    access::decode(asm, dtype, &[bits], 1)[0]
}

/// Rounds and writes a float.
pub(super) fn store(asm: &mut Asm, target: Target, dtype: DType, address: R, value: R) {
    let bits = access::encode(asm, target, dtype, &[value]);
    access::store(asm, address, 0, dtype.size(), dtype.size(), &bits);
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

/// `2 ^ (x - reference)`; zero for minus infinity, and below the smallest normal number.
pub(super) fn weight(asm: &mut Asm, x: R, reference: R) -> R {
    let d = asm.op("sub.f32", Class::F32, &[&x, &reference]);
    asm.op("ex2.approx.ftz.f32", Class::F32, &[&d])
}

/// `1 / sum`, or zero where nothing was summed.
pub(super) fn inverse(asm: &mut Asm, sum: R) -> R {
    let none = asm.op("setp.eq.f32", Class::Pred, &[&sum, &imm(0.0)]);
    let inverse = asm.op("rcp.rn.f32", Class::F32, &[&sum]);
    asm.op("selp.f32", Class::F32, &[&imm(0.0), &inverse, &none])
}
