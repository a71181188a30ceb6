//! What quants are multiplied by, and what is added to that.

use super::{RUN, Run, join, narrow};
use crate::BlockType;
use crate::ptx::asm::{Asm, Class, R};

/// A scale, and minus the minimum of values that have one.
type Scale = (R, Option<R>);

impl Run {
    /// The scale of all values, or one for each half of them.
    pub fn scales(&self, asm: &mut Asm) -> Vec<Scale> {
        match self.block {
            BlockType::Q4_0 | BlockType::Q5_0 | BlockType::Q8_0 | BlockType::Iq4Nl => {
                vec![(self.half(asm, 0), None)]
            }
            BlockType::Q4_1 | BlockType::Q5_1 => {
                let [scale, add] = self.halves(asm, 0);
                vec![(scale, Some(add))]
            }
            BlockType::Q2K => self.fours(asm),
            BlockType::Q3K => self.sixes(asm),
            BlockType::Q4K | BlockType::Q5K => self.sixes_and_minima(asm),
            BlockType::Q6K => {
                let scale = self.half(asm, 208);
                let place = self.field(asm, 4, 4);
                let own = self.bytes(asm, place, 192);
                let own = own.into_iter().map(|byte| {
                    let signed = asm.op("bfe.s32", Class::B32, &[&byte, &0, &8]);
                    (times(asm, scale, signed), None)
                });
                own.collect()
            }
            BlockType::Iq4Xs => self.iq4xs(asm),
            BlockType::Mxfp4 => {
                let e = narrow(asm, "u8", self.at, 0);
                let less = asm.op("add.s32", Class::B32, &[&e, &-1]);
                let normal = asm.op("shl.b32", Class::B32, &[&less, &23]);
                let one = asm.op("mov.b32", Class::B32, &[&"0x00200000"]);
                let least = asm.op("and.b32", Class::B32, &[&e, &1]);
                let least = asm.op("shl.b32", Class::B32, &[&one, &least]);
                let small = asm.op("setp.lt.u32", Class::Pred, &[&e, &2]);
                let bits = asm.op("selp.b32", Class::B32, &[&least, &normal, &small]);
                vec![(asm.op("mov.b32", Class::F32, &[&bits]), None)]
            }
        }
    }

    /// An f16 of the block.
    fn half(&self, asm: &mut Asm, offset: i64) -> R {
        let bits = asm.reg(Class::B16);
        asm.put(format_args!("ld.global.b16 {bits}, [{}+{offset}]", self.at));
        asm.op("cvt.f32.f16", Class::F32, &[&bits])
    }

    /// Two of them.
    fn halves(&self, asm: &mut Asm, offset: usize) -> [R; 2] {
        let word = self.words_of_head(asm, offset, 1)[0];
        both(asm, word)
    }

    /// Words whose place does not depend on that of the values.
    pub fn words_of_head(&self, asm: &mut Asm, offset: usize, count: usize) -> Vec<R> {
        let whole = Run {
            values: RUN,
            within: None,
            ..*self
        };
        whole.words(asm, self.at, offset, count)
    }

    /// Bytes from a place on, each widened to 32 bits: one for each 16 values, but at least one.
    fn bytes(&self, asm: &mut Asm, place: Option<R>, offset: i64) -> Vec<R> {
        let at = self.skip(asm, place);
        if self.values < RUN {
            return vec![narrow(asm, "u8", at, offset)];
        }
        // Two sub-blocks start at an even place.
        match self.align() {
            1 => (0..2).map(|i| narrow(asm, "u8", at, offset + i)).collect(),
            _ => {
                let two = narrow(asm, "u16", at, offset);
                let byte = |i: u32| asm.op("bfe.u32", Class::B32, &[&two, &(8 * i), &8]);
                (0..2).map(byte).collect()
            }
        }
    }

    /// Scales and minima of 4 bits for each 16 values.
    fn fours(&self, asm: &mut Asm) -> Vec<Scale> {
        let [scale, min] = self.halves(asm, 80);
        let min = asm.op("neg.f32", Class::F32, &[&min]);
        let place = self.field(asm, 4, 4);
        let own = self.bytes(asm, place, 0);
        let own = own.into_iter().map(|byte| {
            let low = asm.op("and.b32", Class::B32, &[&byte, &15]);
            let high = asm.op("shr.u32", Class::B32, &[&byte, &4]);
            (times(asm, scale, low), Some(times(asm, min, high)))
        });
        own.collect()
    }

    /// Scales of 6 bits about 32 for each 16 values: four bits of all, then two of all.
    fn sixes(&self, asm: &mut Asm) -> Vec<Scale> {
        let scale = self.half(asm, 108);
        let [low, top] = [(3, 96, 4), (2, 104, 2)].map(|(bits, offset, wide)| {
            let place = self.field(asm, 4, bits);
            let bytes = self.bytes(asm, place, offset);
            let part = self.field(asm, 4 + bits, 4 - bits);
            let shift = part.map(|p| asm.op("mul.lo.u32", Class::B32, &[&p, &wide]));
            let each = bytes.into_iter().map(|byte| {
                let byte = match shift {
                    None => byte,
                    Some(by) => asm.op("shr.u32", Class::B32, &[&byte, &by]),
                };
                asm.op("and.b32", Class::B32, &[&byte, &((1 << wide) - 1)])
            });
            each.collect::<Vec<R>>()
        });
        let each = low.iter().zip(&top).map(|(low, top)| {
            let own = join(asm, &[*low, *top], 4);
            let own = asm.op("add.s32", Class::B32, &[&own, &-32]);
            (times(asm, scale, own), None)
        });
        each.collect()
    }

    /// Scales and minima of 6 bits for each 32 values: six bits of a byte for the first four, for the others four
    /// and the two that those left over.
    fn sixes_and_minima(&self, asm: &mut Asm) -> Vec<Scale> {
        let head = self.words_of_head(asm, 0, 4);
        let [scale, min] = both(asm, head[0]);
        let min = asm.op("neg.f32", Class::F32, &[&min]);
        let Some(run) = self.field(asm, 5, 3) else {
            return Vec::new();
        };
        let column = asm.op("and.b32", Class::B32, &[&run, &3]);
        let from = asm.op("shl.b32", Class::B32, &[&column, &3]);
        let first = asm.op("setp.lt.u32", Class::Pred, &[&run, &4]);
        let [one, other, last] = [1, 2, 3].map(|i| {
            let w = asm.op("shr.u32", Class::B32, &[&head[i], &from]);
            asm.op("and.b32", Class::B32, &[&w, &255])
        });
        let [own, least] = [(one, 0), (other, 4)].map(|(byte, shift)| {
            let six = asm.op("and.b32", Class::B32, &[&byte, &63]);
            let four = asm.op("bfe.u32", Class::B32, &[&last, &shift, &4]);
            let two = asm.op("shr.u32", Class::B32, &[&byte, &6]);
            let both = join(asm, &[four, two], 4);
            asm.op("selp.b32", Class::B32, &[&six, &both, &first])
        });
        vec![(times(asm, scale, own), Some(times(asm, min, least)))]
    }

    /// Scales of 6 bits about 32 for each 32 values: two bits of all, then four of all.
    fn iq4xs(&self, asm: &mut Asm) -> Vec<Scale> {
        let head = self.words_of_head(asm, 0, 2);
        let halves = asm.regs(Class::B16, 2);
        asm.put(format_args!(
            "mov.b32 {{{}, {}}}, {}",
            halves[0], halves[1], head[0]
        ));
        let scale = asm.op("cvt.f32.f16", Class::F32, &[&halves[0]]);
        let top = asm.op("shr.u32", Class::B32, &[&head[0], &16]);
        let Some(run) = self.field(asm, 5, 3) else {
            return Vec::new();
        };
        let [four, two] = [(head[1], 2, 15), (top, 1, 3)].map(|(word, up, mask)| {
            let from = asm.op("shl.b32", Class::B32, &[&run, &up]);
            let word = asm.op("shr.u32", Class::B32, &[&word, &from]);
            asm.op("and.b32", Class::B32, &[&word, &mask])
        });
        let own = join(asm, &[four, two], 4);
        let own = asm.op("add.s32", Class::B32, &[&own, &-32]);
        vec![(times(asm, scale, own), None)]
    }
}

/// A scale times a small number with a sign.
fn times(asm: &mut Asm, scale: R, number: R) -> R {
    let number = asm.op("cvt.rn.f32.s32", Class::F32, &[&number]);
    asm.op("mul.rn.f32", Class::F32, &[&scale, &number])
}

/// Both f16 of a word.
fn both(asm: &mut Asm, word: R) -> [R; 2] {
    let halves = asm.regs(Class::B16, 2);
    let [low, high] = [halves[0], halves[1]];
    asm.put(format_args!("mov.b32 {{{low}, {high}}}, {word}"));
    [low, high].map(|h| asm.op("cvt.f32.f16", Class::F32, &[&h]))
}
