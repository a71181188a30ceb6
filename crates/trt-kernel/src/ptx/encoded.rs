//! Single values of rows that are not plain, wherever in a row they stand.
//!
//! The slow way that is always right: what [`BlockType::decode`] says, value by value.

use super::asm::{Asm, Class, R};
use crate::BlockType;

/// The numbers that a value is made of, on their way.
pub(super) struct Parts {
    block: BlockType,
    scale: R,
    quant: R,
}

/// Starts to load the value in some column (of 32 bits) of the row that starts at an address; where
/// the guard does not hold, it is zero.
pub(super) fn load(asm: &mut Asm, block: BlockType, row: R, column: R, guard: Option<R>) -> Parts {
    let when = guard.map_or_else(String::new, |p| format!("@{p} "));
    match block {
        BlockType::Q8_0 => {
            let bits = block.values().trailing_zeros();
            let number = asm.op("shr.u32", Class::B32, &[&column, &bits]);
            let within = asm.op("and.b32", Class::B32, &[&column, &(block.values() - 1)]);
            let at = asm.op("mad.wide.s32", Class::B64, &[&number, &block.bytes(), &row]);
            let scale = asm.op("mov.b16", Class::B16, &[&0]);
            asm.put(format_args!("{when}ld.global.b16 {scale}, [{at}]"));
            let at = asm.op("mad.wide.s32", Class::B64, &[&within, &1, &at]);
            let quant = asm.op("mov.b32", Class::B32, &[&0]);
            asm.put(format_args!("{when}ld.global.u8 {quant}, [{at}+2]"));
            Parts {
                block,
                scale,
                quant,
            }
        }
    }
}

impl Parts {
    /// The value.
    pub fn value(&self, asm: &mut Asm) -> R {
        match self.block {
            BlockType::Q8_0 => {
                let scale = asm.op("cvt.f32.f16", Class::F32, &[&self.scale]);
                q8_0(asm, scale, self.quant)
            }
        }
    }
}

/// A value of [`BlockType::Q8_0`] from its scale and the eight bits of its quant.
pub(super) fn q8_0(asm: &mut Asm, scale: R, quant: R) -> R {
    // They have a sign.
    let flipped = asm.op("xor.b32", Class::B32, &[&quant, &128]);
    let signed = asm.op("add.s32", Class::B32, &[&flipped, &-128]);
    let quant = asm.op("cvt.rn.f32.s32", Class::F32, &[&signed]);
    asm.op("mul.rn.f32", Class::F32, &[&scale, &quant])
}
