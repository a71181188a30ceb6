//! The table of a code in shared memory, as streams look into it.

use super::Layout;
use crate::ptx::asm::{Asm, Class, Int, R};
use crate::ptx::scope::Scope;
use trt_pack::{Kind, TABLE_BYTES};

/// The bits of a value, and of its neighbour, in which an entry has a symbol or a mark.
const OF_BF16: &str = "0xffffff80";

/// Brings the table to a shared address (u32) with all threads; the barrier after that is the caller's.
///
/// Entries of bf16 get their length at the lowest bits, below which a symbol has none: so an entry is a count to shift by as it is.
pub(in crate::ptx) fn table(
    asm: &mut Asm,
    layout: &Layout,
    scope: &Scope,
    (tid, threads): (R, usize),
    base: R,
) {
    const EACH: usize = 16;
    let from = asm.op(
        "mad.wide.u32",
        Class::B64,
        &[&tid, &EACH, &scope.arg(layout.code)],
    );
    let to = asm.op("mad.lo.u32", Class::B32, &[&tid, &EACH, &base]);
    let at = asm.op("mul.lo.u32", Class::B32, &[&tid, &EACH]);
    let step = EACH * threads;
    asm.count(
        at,
        Int::Imm(TABLE_BYTES as i64),
        Int::Imm(step as i64),
        |asm| {
            let mut four = asm.regs(Class::B32, 4);
            let list = |four: &[R]| four.iter().map(R::to_string).collect::<Vec<_>>().join(", ");
            asm.put(format_args!(
                "ld.global.nc.v4.b32 {{{}}}, [{from}]",
                list(&four)
            ));
            if layout.packed.kind() == Kind::Bf16 {
                for entry in &mut four {
                    let length = asm.op("bfe.u32", Class::B32, &[entry, &3, &4]);
                    let symbols = asm.op("and.b32", Class::B32, &[entry, &OF_BF16]);
                    *entry = asm.op("or.b32", Class::B32, &[&symbols, &length]);
                }
            }
            asm.put(format_args!("st.shared.v4.b32 [{to}], {{{}}}", list(&four)));
            asm.op_to("add.s64", from, &[&from, &step]);
            asm.op_to("add.s32", to, &[&to, &step]);
        },
    );
}
