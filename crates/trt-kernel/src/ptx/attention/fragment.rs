//! Tensor-core fragments of 16-bit floats: a warp multiplies a 16 x 16 matrix by a 16 x 8 one.
//!
//! With `g = lane / 4` and `t = lane % 4`, a lane holds of the left matrix rows `g` and `g + 8`,
//! of the right one column `g`, and of the result rows `g` and `g + 8`, columns `2t` and `2t + 1`;
//! along the contracted axis it holds `2t`, `2t + 1`, `2t + 8`, `2t + 9`. Any renaming of the
//! contracted axis is as good as long as both sides share it.

use crate::DType;
use crate::fusible::HeadLimits;
use crate::ptx::asm::{Asm, Class, R};
use crate::ptx::attention::AttentionPlan;
use crate::ptx::emitted::Target;

/// Queries, keys and values that can be read as fragments: of one 16-bit dtype, with heads that
/// start at multiples of 16 bytes.
const FRAGMENTS: HeadLimits = HeadLimits {
    element: 2,
    step: 8,
    widest: 256,
};

/// Whether queries, keys and values can be read as fragments.
pub(super) fn fits(plan: &AttentionPlan) -> bool {
    plan.target >= Target::Sm80 && FRAGMENTS.hold(plan.k)
}

/// `sums += a * b`, with sums in f32.
pub(super) fn multiply(asm: &mut Asm, dtype: DType, sums: &[R; 4], a: [R; 4], b: [R; 2]) {
    let [s0, s1, s2, s3] = sums;
    let [a0, a1, a2, a3] = a;
    let [b0, b1] = b;
    asm.put(format_args!(
        "mma.sync.aligned.m16n8k16.row.col.f32.{dtype}.{dtype}.f32 {{{s0}, {s1}, {s2}, {s3}}}, \
         {{{a0}, {a1}, {a2}, {a3}}}, {{{b0}, {b1}}}, {{{s0}, {s1}, {s2}, {s3}}}"
    ));
}

/// Four zeros to add to.
pub(super) fn zeros(asm: &mut Asm) -> [R; 4] {
    std::array::from_fn(|_| asm.f32(0.0))
}

/// The lower (or upper) halves of two registers.
pub(super) fn halves(asm: &mut Asm, a: R, b: R, upper: bool) -> R {
    let pick = if upper { "0x7632" } else { "0x5410" };
    asm.op("prmt.b32", Class::B32, &[&a, &b, &pick])
}

/// The value of another lane.
pub(super) fn from_lane(asm: &mut Asm, value: R, lane: R) -> R {
    let operands: [&dyn std::fmt::Display; 4] = [&value, &lane, &"0x1f", &"0xffffffff"];
    asm.op("shfl.sync.idx.b32", value.class, &operands)
}

/// Four 8 x 8 matrices from shared memory, whose rows the lanes name; with `turned`, transposed.
pub(super) fn load4x(asm: &mut Asm, turned: bool, at: R, offset: usize) -> [R; 4] {
    let r: [R; 4] = std::array::from_fn(|_| asm.reg(Class::B32));
    let [a, b, c, d] = r;
    let turned = if turned { ".trans" } else { "" };
    asm.put(format_args!(
        "ldmatrix.sync.aligned.m8n8.x4{turned}.shared.b16 {{{a}, {b}, {c}, {d}}}, [{at}+{offset}]"
    ));
    r
}
