//! Tensor-core fragments of 16-bit floats: a warp multiplies a 16 x 16 matrix by a 16 x 8 one.
//!
//! With `g = lane / 4` and `t = lane % 4`, a lane holds of the left matrix rows `g` and `g + 8`,
//! of the right one column `g`, and of the result rows `g` and `g + 8`, columns `2t` and `2t + 1`;
//! along the contracted axis it holds `2t`, `2t + 1`, `2t + 8`, `2t + 9`. Any renaming of the
//! contracted axis is as good as long as both sides share it.

use crate::ptx::asm::{Asm, Class, R};
use crate::ptx::emitted::Target;
use crate::ptx::{access, attention::Plan};
use crate::{DType, Operand};

/// Widest query, key or value that has a variant on tensor cores.
const WIDEST: usize = 256;

/// Whether queries, keys and values can be read as fragments: of one 16-bit dtype, with heads
/// whose elements are neighbours and start at multiples of 16 bytes.
pub(super) fn fits(plan: &Plan) -> bool {
    let k = plan.k;
    let dtype = plan.dtype(&k.q);
    let aligned = |o: &Operand| match o.view.strides.split_last() {
        Some((last, outer)) => {
            last.is(1) && (outer.iter().chain([&o.view.offset])).all(|d| access::multiple(d, 8))
        }
        None => false,
    };
    plan.target >= Target::Sm80
        && dtype.size() == 2
        && [&k.q, &k.k, &k.v]
            .iter()
            .all(|o| plan.dtype(o) == dtype && aligned(o))
        && [k.head_dim, k.value_dim]
            .iter()
            .all(|d| d % 8 == 0 && (8..=WIDEST).contains(d))
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
