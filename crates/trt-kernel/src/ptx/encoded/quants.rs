//! Quants of neighbouring values: bytes, four to a word, of which the middle is still to be taken.

use super::{RUN, Run};
use crate::BlockType;
use crate::encoding::{IQ4_VALUES, MXFP4_DOUBLED};
use crate::ptx::asm::{Asm, Class, R};

/// Some bits of the quants of a block of 256 values, which lie in bytes of their own.
struct Plane {
    /// Where the bytes start.
    offset: usize,
    /// Bytes skipped for each of these bits of the place in the block: (first bit, bits, bytes).
    skips: &'static [(u32, u32, usize)],
    /// The bits of the place that say how far a byte is shifted, and by how much each: (first bit, bits,
    /// distance).
    shift: (u32, u32, u32),
    /// What is left of each byte.
    mask: u32,
    /// Where in the quant it belongs.
    up: u32,
}

/// Two bits of each of 128 values in 32 bytes.
const fn twos(offset: usize, up: u32) -> Plane {
    Plane {
        offset,
        skips: &[(7, 1, 32)],
        shift: (5, 2, 2),
        mask: 0x0303_0303,
        up,
    }
}

/// A bit of each of 256 values in 32 bytes.
const fn ones(offset: usize, up: u32) -> Plane {
    Plane {
        offset,
        skips: &[],
        shift: (5, 3, 1),
        mask: 0x0101_0101,
        up,
    }
}

/// Four bits of each of 64 values in 32 bytes.
const fn fours(offset: usize) -> Plane {
    Plane {
        offset,
        skips: &[(6, 2, 32)],
        shift: (5, 1, 4),
        mask: 0x0F0F_0F0F,
        up: 0,
    }
}

/// Four bits of each of 128 values in 64 bytes.
const SIXES: Plane = Plane {
    offset: 0,
    skips: &[(7, 1, 64), (5, 1, 32)],
    shift: (6, 1, 4),
    mask: 0x0F0F_0F0F,
    up: 0,
};

impl Run {
    /// The quants.
    pub fn quants(&self, asm: &mut Asm) -> Vec<R> {
        match self.block {
            BlockType::Q4_0 => self.nibbles(asm, 2),
            BlockType::Q4_1 => self.nibbles(asm, 4),
            BlockType::Q5_0 => self.fives(asm, 2),
            BlockType::Q5_1 => self.fives(asm, 4),
            BlockType::Q8_0 => {
                let place = self.in_run(asm);
                let at = self.skip(asm, place);
                let words = self.words(asm, at, 2, self.values / 4);
                // They have a sign.
                let flip = |w: &R| asm.op("xor.b32", Class::B32, &[w, &"0x80808080"]);
                words.iter().map(flip).collect()
            }
            BlockType::Q2K => self.planes(asm, &[twos(16, 0)]),
            BlockType::Q3K => self.planes(asm, &[twos(32, 0), ones(0, 2)]),
            BlockType::Q4K => self.planes(asm, &[fours(16)]),
            BlockType::Q5K => self.planes(asm, &[fours(48), ones(16, 4)]),
            BlockType::Q6K => self.planes(asm, &[SIXES, twos(128, 4)]),
            BlockType::Iq4Nl => self.listed(asm, 2, IQ4_VALUES),
            BlockType::Iq4Xs => self.listed(asm, 8, IQ4_VALUES),
            BlockType::Mxfp4 => self.listed(asm, 1, MXFP4_DOUBLED),
        }
    }

    /// 4 bits of each of 32 values: the low halves of 16 bytes, then the high ones; 16 bytes for each 32 values of a
    /// larger block.
    fn nibbles(&self, asm: &mut Asm, offset: usize) -> Vec<R> {
        let run = match self.block.values() {
            RUN => None,
            _ => self.field(asm, 5, 3),
        };
        let skip = run.map(|run| asm.op("shl.b32", Class::B32, &[&run, &4]));
        let mask = "0x0F0F0F0F";
        if self.values == RUN {
            let at = self.skip(asm, skip);
            let words = self.words(asm, at, offset, 4);
            let low = |w: &R| asm.op("and.b32", Class::B32, &[w, &mask]);
            let mut all: Vec<R> = words.iter().map(low).collect();
            all.extend(words.iter().map(|w| {
                let high = asm.op("shr.u32", Class::B32, &[w, &4]);
                asm.op("and.b32", Class::B32, &[&high, &mask])
            }));
            return all;
        }
        let byte = self.field(asm, 0, 4);
        let byte = match (byte, skip) {
            (Some(byte), Some(skip)) => Some(asm.op("add.s32", Class::B32, &[&byte, &skip])),
            (byte, _) => byte,
        };
        let at = self.skip(asm, byte);
        let words = self.words(asm, at, offset, 1);
        let high = self.field(asm, 4, 1);
        let words = words.iter().map(|w| {
            let w = shifted(asm, *w, high, 4);
            asm.op("and.b32", Class::B32, &[&w, &mask])
        });
        words.collect()
    }

    /// As [`Run::nibbles`], with a fifth bit for each in four bytes before them.
    fn fives(&self, asm: &mut Asm, offset: usize) -> Vec<R> {
        let fifth = self.words_of_head(asm, offset, 1)[0];
        let place = self.in_run(asm);
        let fifth = shifted(asm, fifth, place, 1);
        let words = self.nibbles(asm, offset + 4);
        let each = words.iter().enumerate().map(|(i, w)| {
            let four = asm.op("bfe.u32", Class::B32, &[&fifth, &(4 * i), &4]);
            // Bit i to bit 8 i + 4.
            let spread = asm.op("mul.lo.u32", Class::B32, &[&four, &"0x02040810"]);
            let bits = asm.op("and.b32", Class::B32, &[&spread, &"0x10101010"]);
            asm.op("or.b32", Class::B32, &[w, &bits])
        });
        each.collect()
    }

    /// As [`Run::nibbles`], each of which stands for a number of a list: that number and 128.
    fn listed(&self, asm: &mut Asm, offset: usize, list: [i8; 16]) -> Vec<R> {
        let byte = |i: usize| u32::from(list[i].cast_unsigned() ^ 0x80) << (8 * (i % 4));
        let word = |i: usize| (i..i + 4).map(byte).sum::<u32>();
        let words = self.nibbles(asm, offset);
        let each = words.iter().map(|w| {
            // The four numbers side by side, in 16 bits.
            let next = asm.op("shr.u32", Class::B32, &[w, &4]);
            let pairs = asm.op("or.b32", Class::B32, &[w, &next]);
            let four = asm.op("prmt.b32", Class::B32, &[&pairs, &0, &"0x4420"]);
            let low = asm.op("and.b32", Class::B32, &[&four, &"0x7777"]);
            let [a, b] = [0, 8].map(|i| {
                let (one, other) = (word(i), word(i + 4));
                let one = asm.op("mov.b32", Class::B32, &[&one]);
                asm.op("prmt.b32", Class::B32, &[&one, &other, &low])
            });
            // Which of both halves of the list it is.
            let half = asm.op("shr.u32", Class::B32, &[&four, &1]);
            let half = asm.op("and.b32", Class::B32, &[&half, &"0x4444"]);
            let pick = asm.op("or.b32", Class::B32, &[&half, &"0x3210"]);
            asm.op("prmt.b32", Class::B32, &[&a, &b, &pick])
        });
        each.collect()
    }

    /// Bits from several planes, together.
    fn planes(&self, asm: &mut Asm, planes: &[Plane]) -> Vec<R> {
        let each = planes.iter().map(|plane| self.plane(asm, plane));
        let mut each: Vec<Vec<R>> = each.collect();
        let first = each.remove(0);
        each.into_iter().fold(first, |all, more| {
            let both = all.iter().zip(more);
            let or = |(a, b): (&R, R)| asm.op("or.b32", Class::B32, &[a, &b]);
            both.map(or).collect()
        })
    }

    fn plane(&self, asm: &mut Asm, plane: &Plane) -> Vec<R> {
        let mut skip = self.in_run(asm);
        for (from, bits, bytes) in plane.skips {
            let Some(number) = self.field(asm, *from, *bits) else {
                continue;
            };
            skip = Some(match skip {
                None => asm.op("mul.lo.u32", Class::B32, &[&number, bytes]),
                Some(skip) => asm.op("mad.lo.s32", Class::B32, &[&number, bytes, &skip]),
            });
        }
        let at = self.skip(asm, skip);
        let words = self.words(asm, at, plane.offset, self.values / 4);
        let (from, bits, distance) = plane.shift;
        let shift = self.field(asm, from, bits);
        let shift = shift.map(|s| asm.op("mul.lo.u32", Class::B32, &[&s, &distance]));
        let each = words.iter().map(|w| {
            let w = shifted(asm, *w, shift, 1);
            let w = asm.op("and.b32", Class::B32, &[&w, &plane.mask]);
            match plane.up {
                0 => w,
                up => asm.op("shl.b32", Class::B32, &[&w, &up]),
            }
        });
        each.collect()
    }
}

/// A word shifted right by so many times a distance.
fn shifted(asm: &mut Asm, word: R, times: Option<R>, distance: u32) -> R {
    let Some(times) = times else { return word };
    let by = match distance {
        1 => times,
        _ => asm.op("mul.lo.u32", Class::B32, &[&times, &distance]),
    };
    asm.op("shr.u32", Class::B32, &[&word, &by])
}
