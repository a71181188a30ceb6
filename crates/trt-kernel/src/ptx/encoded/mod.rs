//! Neighbouring values of rows in blocks: four of them, or 32, wherever in a row they stand.
//!
//! What [`BlockType::decode`] says, bit for bit. Quants come four to a word and stay bytes until each
//! becomes a float of its own: put under the exponent of 2^23 and less that (and less the middle, where
//! quants have a sign) it is exact. So is its product with the scale: 11 bits of an f16, up to 8 of a sub-block's
//! scale and up to 5 of a quant are no more than the 24 that an f32 holds. A value with a minimum is therefore one
//! `fma`, which rounds once, as product and difference do.
//!
//! About 4 instructions a value where 32 are made, and some 20 for the scales of all. The invariant: no byte behind
//! the block is read, none ahead of it but one or two of the same tile, and no address is taken for more aligned than the caller
//! says.

mod quants;
mod scales;

use super::access;
use super::asm::{Asm, Class, R, imm};
use crate::BlockType;

/// Values of a word of quants.
pub(super) const QUAD: usize = 4;
/// The most values that are made together: what one sub-block holds, or two of 16.
pub(super) const RUN: usize = 32;

/// Where the row lies that values are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lies {
    /// Anywhere, so that single numbers of it can be read.
    Anywhere,
    /// At a multiple of 16 bytes.
    Aligned,
    /// In a tile at a multiple of 16 bytes, behind rows of the same kind.
    InTile,
}

/// What the address of a block is a multiple of where that of its row, or of the first row, is one of 16 bytes.
pub(super) fn alignment(block: BlockType) -> usize {
    1 << block.bytes().trailing_zeros().min(4)
}

/// Neighbouring values of a block, [`QUAD`] or [`RUN`] of them.
pub(super) struct Run {
    block: BlockType,
    /// The address of the block.
    at: R,
    /// The first value in the block, a multiple of as many as there are; none for a whole block.
    within: Option<R>,
    values: usize,
    lies: Lies,
}

impl Run {
    /// Those from some column (of 32 bits) of the row that starts at an address on.
    pub fn of_row(
        asm: &mut Asm,
        block: BlockType,
        (row, column): (R, R),
        values: usize,
        lies: Lies,
    ) -> Run {
        let bits = block.values().trailing_zeros();
        let number = asm.op("shr.u32", Class::B32, &[&column, &bits]);
        let at = asm.op("mad.wide.s32", Class::B64, &[&number, &block.bytes(), &row]);
        let within = (values < block.values())
            .then(|| asm.op("and.b32", Class::B32, &[&column, &(block.values() - 1)]));
        Run {
            block,
            at,
            within,
            values,
            lies,
        }
    }

    /// What the address is a multiple of.
    fn align(&self) -> usize {
        match self.lies {
            Lies::Anywhere => self.block.alignment(),
            Lies::Aligned | Lies::InTile => alignment(self.block),
        }
    }

    /// The values.
    pub fn values(&self, asm: &mut Asm) -> Vec<R> {
        let words = self.quants(asm);
        let scales = self.scales(asm);
        let base = (1 << 23) as f32 + self.middle();
        let mut values = Vec::with_capacity(self.values);
        for (i, word) in words.iter().enumerate() {
            let (scale, add) = scales[i * scales.len() / words.len()];
            for byte in 0..4 {
                let pick = 0x7440 + byte;
                let large = asm.op("prmt.b32", Class::B32, &[word, &"0x4B000000", &pick]);
                let large = asm.op("mov.b32", Class::F32, &[&large]);
                let quant = asm.op("sub.rn.f32", Class::F32, &[&large, &imm(base)]);
                values.push(match add {
                    None => asm.op("mul.rn.f32", Class::F32, &[&scale, &quant]),
                    Some(add) => asm.op("fma.rn.f32", Class::F32, &[&scale, &quant, &add]),
                });
            }
        }
        values
    }

    /// What quants are counted from.
    fn middle(&self) -> f32 {
        match self.block {
            BlockType::Q4_1
            | BlockType::Q5_1
            | BlockType::Q2K
            | BlockType::Q4K
            | BlockType::Q5K => 0.0,
            BlockType::Q3K => 4.0,
            BlockType::Q4_0 => 8.0,
            BlockType::Q5_0 => 16.0,
            BlockType::Q6K => 32.0,
            BlockType::Q8_0 | BlockType::Iq4Nl | BlockType::Iq4Xs | BlockType::Mxfp4 => 128.0,
        }
    }

    /// Some bits of the place in the block.
    fn field(&self, asm: &mut Asm, from: u32, bits: u32) -> Option<R> {
        let within = self.within?;
        Some(asm.op("bfe.u32", Class::B32, &[&within, &from, &bits]))
    }

    /// The place in a run of 32 values; none where that is its start.
    fn in_run(&self, asm: &mut Asm) -> Option<R> {
        match self.values {
            RUN => None,
            _ => self.field(asm, 0, 5),
        }
    }

    /// The address so many bytes into the block.
    fn skip(&self, asm: &mut Asm, bytes: Option<R>) -> R {
        match bytes {
            None => self.at,
            Some(bytes) => asm.op("mad.wide.s32", Class::B64, &[&bytes, &1, &self.at]),
        }
    }

    /// Words at an address that is so many bytes, and a multiple of those of the quants, from the block's.
    fn words(&self, asm: &mut Asm, at: R, offset: usize, count: usize) -> Vec<R> {
        // Quants are skipped by 16 bytes or more, or by words.
        let skipped = if self.values == RUN { 16 } else { 4 };
        let align = self.align().min(skipped);
        let align = align.min(1 << offset.trailing_zeros().min(4));
        let wide = match align {
            1 | 2 => align,
            _ => align.min(4 * (1 << count.trailing_zeros())),
        };
        if (self.lies, wide) == (Lies::InTile, 2) && count > 1 {
            return astride(asm, at, offset, count);
        }
        let each = (0..4 * count / wide).map(|i| (offset + i * wide) as i64);
        match wide {
            1 => {
                let bytes: Vec<R> = each.map(|o| narrow(asm, "u8", at, o)).collect();
                bytes.chunks(4).map(|four| join(asm, four, 8)).collect()
            }
            2 => {
                let halves: Vec<R> = each.map(|o| narrow(asm, "u16", at, o)).collect();
                halves.chunks(2).map(|two| join(asm, two, 16)).collect()
            }
            _ => each
                .flat_map(|o| access::load(asm, at, o, wide, 4))
                .collect(),
        }
    }
}

/// Words at an even address in a tile. They are cut out of those that lie at multiples of four bytes, which begin up
/// to two bytes ahead; of the last of these only the half is read that is needed.
fn astride(asm: &mut Asm, at: R, offset: usize, count: usize) -> Vec<R> {
    let start = asm.op("add.s64", Class::B64, &[&at, &offset]);
    let low = asm.op("cvt.u32.u64", Class::B32, &[&start]);
    let odd = asm.op("and.b32", Class::B32, &[&low, &2]);
    let back = asm.op("cvt.u64.u32", Class::B64, &[&odd]);
    let start = asm.op("sub.s64", Class::B64, &[&start, &back]);
    let each = (0..count).map(|i| access::load(asm, start, 4 * i as i64, 4, 4)[0]);
    let mut whole: Vec<R> = each.collect();
    let between = asm.op("setp.ne.s32", Class::Pred, &[&odd, &0]);
    let last = asm.op("mov.b32", Class::B32, &[&0]);
    let end = 4 * count;
    asm.put(format_args!(
        "@{between} ld.global.u16 {last}, [{start}+{end}]"
    ));
    whole.push(last);
    let shift = asm.op("shl.b32", Class::B32, &[&odd, &3]);
    let pairs = whole.windows(2);
    let cut = |two: &[R]| asm.op("shf.r.wrap.b32", Class::B32, &[&two[0], &two[1], &shift]);
    pairs.map(cut).collect()
}

/// A number of one or two bytes.
fn narrow(asm: &mut Asm, ty: &str, at: R, offset: i64) -> R {
    let bits = asm.reg(Class::B32);
    asm.put(format_args!("ld.global.{ty} {bits}, [{at}+{offset}]"));
    bits
}

/// Numbers of `bits` bits side by side, the first lowest.
fn join(asm: &mut Asm, parts: &[R], bits: usize) -> R {
    let rest = parts.iter().enumerate().skip(1);
    rest.fold(parts[0], |word, (i, part)| {
        let from = bits * i;
        asm.op("bfi.b32", Class::B32, &[part, &word, &from, &bits])
    })
}
