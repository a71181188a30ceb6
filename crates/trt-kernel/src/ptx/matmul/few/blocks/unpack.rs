//! From the bytes of a piece to its numbers as floats, in registers.
//!
//! Numbers of up to 7 bits become floats by one byte permute each, which puts them into the mantissa of
//! 128; those of 4 bits two at a time by a shift and one logical instruction, as halves of a word, and one
//! shift for each lower half. A byte is put into the mantissa of 2^23, which an addition takes off. So a
//! weight costs 2.5 instructions in Q4_K, 3 in Q6_K and Q8_0, beside scales.

use super::bytes::{Bytes, BytesAt};
use super::lane::{Constants, places};
use super::plan::RingPlan;
use super::scales::{self, Scales, and_or, bias};
use crate::BlockType;
use crate::ptx::asm::{Asm, Class, R};

/// Unpacks a lane's piece.
pub(super) struct Unpacker {
    plan: RingPlan,
    places: Vec<BytesAt>,
    constants: Constants,
    /// Whether the lane's piece has a second block, if not all have.
    second: Option<R>,
}

impl Unpacker {
    /// For the lane's piece in its segment.
    pub fn begin(asm: &mut Asm, plan: RingPlan, piece: R, second: Option<R>) -> Unpacker {
        let constants = Constants::new(asm, plan.block, piece);
        let places = places(asm, plan, piece, second);
        Unpacker {
            plan,
            places,
            constants,
            second,
        }
    }

    /// Loads what there is of the lane's piece of a row, whose segment begins so many bytes behind a
    /// shared address.
    pub fn load(&self, asm: &mut Asm, at: (R, usize), misplaced: Option<R>) -> Loaded {
        let each = self.places.iter();
        let bytes: Vec<Bytes> = each.map(|p| p.at(asm, at, misplaced)).collect();
        let whole = |asm: &mut Asm, i: usize, n: usize, last: bool| {
            bytes[i].words(asm, 0, n, last).whole(asm)
        };
        // Nothing may follow the second block, nor the first where it is the only one.
        let ends = [self.second.is_some(), true];
        let (mut skips, mut more) = ([0; 2], Vec::new());
        let words = match self.plan.block {
            BlockType::Q4_0 | BlockType::Q4_1 | BlockType::Iq4Nl | BlockType::Mxfp4 => {
                [0, 1].map(|g| whole(asm, 2 + g, 4, ends[g])).concat()
            }
            BlockType::Q5_0 | BlockType::Q5_1 => {
                more = [0, 1].map(|g| whole(asm, 2 + g, 1, false)).concat();
                [0, 1]
                    .map(|g| bytes[2 + g].words(asm, 4, 4, ends[g]).whole(asm))
                    .concat()
            }
            BlockType::Q8_0 => {
                let blocks = [0, 1].map(|g| bytes[2 + g].words(asm, 0, 8, ends[g]));
                skips = [blocks[0].skip, blocks[0].words.len() * 4 + blocks[1].skip];
                let words = blocks.into_iter().flat_map(|b| b.words);
                // Numbers with a sign, less by 128 than without.
                let flip = |w: R| asm.op("xor.b32", Class::B32, &[&w, &0x8080_8080u32]);
                words.map(flip).collect()
            }
            BlockType::Q2K => whole(asm, 0, 4, false),
            BlockType::Q3K => {
                let thirds = whole(asm, 1, 4, false);
                let side = &self.constants.side_bits;
                let down = |w: &R| asm.op("shr.u32", Class::B32, &[w, side]);
                more = thirds.iter().map(down).collect();
                whole(asm, 0, 4, false)
            }
            BlockType::Q4K | BlockType::Iq4Xs => whole(asm, 1, 8, true),
            BlockType::Q5K => {
                let fifths = whole(asm, 2, 8, false);
                // The lane's two bits, so that the first is the seventh of its byte.
                let up = |w: &R| asm.op("shl.b32", Class::B32, &[w, &self.constants.fifth]);
                more = fifths.iter().map(up).collect();
                whole(asm, 1, 8, true)
            }
            BlockType::Q6K => {
                more = whole(asm, 1, 4, false);
                let other = bytes[0].words(asm, 32, 4, false).whole(asm);
                [whole(asm, 0, 4, false), other].concat()
            }
        };
        Loaded {
            bytes,
            words,
            more,
            skips,
        }
    }

    /// Parts that a piece is unpacked in.
    pub fn units(&self) -> usize {
        match self.plan.block {
            BlockType::Q2K | BlockType::Q3K | BlockType::Q6K | BlockType::Q8_0 => 16,
            BlockType::Q5_0 | BlockType::Q5_1 | BlockType::Q5K => 16,
            BlockType::Q4_0
            | BlockType::Q4_1
            | BlockType::Q4K
            | BlockType::Iq4Nl
            | BlockType::Iq4Xs
            | BlockType::Mxfp4 => 8,
        }
    }

    /// Numbers of a part, and which of the piece they are, in the order in which they are added.
    pub fn unit(&self, asm: &mut Asm, loaded: &Loaded, unit: usize) -> Vec<(usize, R)> {
        let c = &self.constants;
        let numbered = |first: usize, values: [R; 4]| {
            values
                .into_iter()
                .enumerate()
                .map(move |(i, v)| (first + i, v))
        };
        // Blocks of 32 in 16 bytes: the first of each word.
        let first = unit / 4 * 32 + unit % 4 * 4;
        let (word, half, quarter) = (unit / 2, unit % 2, unit % 4);
        match self.plan.block {
            BlockType::Q4_0 | BlockType::Q4_1 => {
                let [low, high] = paired(asm, c, loaded.words[unit]);
                numbered(first, low)
                    .chain(numbered(first + 16, high))
                    .collect()
            }
            BlockType::Q4K => {
                let [low, high] = paired(asm, c, loaded.words[unit]);
                let first = 4 * unit;
                numbered(first, low)
                    .chain(numbered(first + 32, high))
                    .collect()
            }
            BlockType::Iq4Nl | BlockType::Iq4Xs | BlockType::Mxfp4 => {
                looked_up(asm, c, loaded.words[unit], first)
            }
            BlockType::Q5_0 | BlockType::Q5_1 => {
                let within = word % 4 * 4 + 16 * half;
                let fifth = spread(asm, loaded.more[word / 4], within);
                let low = four_of(asm, loaded.words[word], half);
                let both = and_or(asm, fifth, 0x4040_4040, low);
                numbered(word / 4 * 32 + within, in_128(asm, c, both)).collect()
            }
            BlockType::Q5K => {
                let fifth = moved(asm, loaded.more[word], -(half as i32));
                let low = four_of(asm, loaded.words[word], half);
                let both = and_or(asm, fifth, 0x4040_4040, low);
                numbered(32 * half + 4 * word, in_128(asm, c, both)).collect()
            }
            BlockType::Q6K => {
                let j = unit / 4;
                let low = moved(asm, loaded.words[j + 4 * half], -4 * (quarter as i32 / 2));
                let low = asm.op("and.b32", Class::B32, &[&low, &0x0f0f_0f0f]);
                let high = moved(asm, loaded.more[j], 4 - 2 * quarter as i32);
                let both = and_or(asm, high, 0x3030_3030, low);
                numbered(16 * quarter + 4 * j, in_128(asm, c, both)).collect()
            }
            BlockType::Q2K | BlockType::Q3K => {
                let three = self.plan.block == BlockType::Q3K;
                let j = unit / 4;
                // Where the two bits of a byte are to be.
                let place = if three { 4 } else { 5 };
                let mut both = moved(asm, loaded.words[j], place - 2 * quarter as i32);
                both = asm.op("and.b32", Class::B32, &[&both, &(0x0303_0303u32 << place)]);
                if three {
                    let third = moved(asm, loaded.more[j], 6 - quarter as i32);
                    both = and_or(asm, third, 0x4040_4040, both);
                }
                numbered(16 * quarter + 4 * j, in_128(asm, c, both)).collect()
            }
            BlockType::Q8_0 => {
                let (block, first) = (unit / 8, unit % 8 * 4);
                let value = |i: usize| {
                    let at = loaded.skips[block] + first + i;
                    (
                        4 * unit + i,
                        float(asm, c, loaded.words[at / 4], at % 4, 128),
                    )
                };
                (0..4).map(value).collect()
            }
        }
    }

    /// Scales and minima of a row's groups.
    pub fn scales(&self, asm: &mut Asm, loaded: &Loaded) -> Scales {
        let (c, bytes) = (&self.constants, &loaded.bytes);
        let whole = |asm: &mut Asm, i: usize, n: usize, last: bool| {
            bytes[i].words(asm, 0, n, last).whole(asm)
        };
        match self.plan.block {
            BlockType::Q2K => {
                let eight = whole(asm, 2, 2, false);
                let all = vec![bytes[3].half(asm, 0), bytes[3].half(asm, 2)];
                scales::of_nibbles(asm, c, &eight, all)
            }
            BlockType::Q3K => {
                let twelve = whole(asm, 2, 3, true);
                let d = bytes[3].half(asm, 0);
                scales::of_split_sixes(asm, c, &twelve, d)
            }
            BlockType::Q4K | BlockType::Q5K => {
                let head = whole(asm, 0, 4, false);
                scales::of_sixes(asm, c, &head)
            }
            BlockType::Q6K => {
                let eight = whole(asm, 2, 2, false);
                let d = bytes[3].half(asm, 0);
                scales::of_bytes(asm, c, &eight, d)
            }
            BlockType::Iq4Xs => {
                let head = whole(asm, 0, 1, false)[0];
                let byte = bytes[2].byte(asm, 0);
                scales::of_quarters(asm, c, head, byte)
            }
            block => scales::of_blocks(asm, block, &[&bytes[0], &bytes[1]]),
        }
    }

    /// Scales what the groups of a row sum to, and adds; `met` is what each group met.
    pub fn join(&self, asm: &mut Asm, scales: &Scales, sums: &[R], met: &[R]) -> R {
        scales.join(asm, self.plan.block, sums, met, self.second)
    }
}

/// What a lane has of a row.
pub(super) struct Loaded {
    bytes: Vec<Bytes>,
    words: Vec<R>,
    /// Words with further bits.
    more: Vec<R>,
    /// Bytes before the numbers of each of two blocks, where words are not moved to begin with them.
    skips: [usize; 2],
}

/// The low and the high halves of four bytes: see [`crate::sum_order::blocks::Number::Paired`].
fn paired(asm: &mut Asm, c: &Constants, w: R) -> [[R; 4]; 2] {
    let mut pair = |by: i32| {
        let w = match by {
            3 => asm.op("mul.lo.u32", Class::B32, &[&w, &c.up[1]]),
            _ => moved(asm, w, by),
        };
        let both = and_or(asm, w, 0x0078_0078, c.pair);
        [asm.op("mul.lo.u32", Class::B32, &[&both, &c.up[0]]), both]
    };
    let [a, b, c, d] = [3, -1, -5, -9].map(&mut pair);
    [[a[0], c[0], a[1], c[1]], [b[0], d[0], b[1], d[1]]]
}

/// The low or the high halves of four bytes, four times each.
fn four_of(asm: &mut Asm, w: R, half: usize) -> R {
    let w = moved(asm, w, if half == 0 { 2 } else { -2 });
    asm.op("and.b32", Class::B32, &[&w, &0x3c3c_3c3c])
}

/// Four bits of a word from the `first`-th on, each the seventh of a byte; other bits too.
fn spread(asm: &mut Asm, word: R, first: usize) -> R {
    let four = asm.op("bfe.u32", Class::B32, &[&word, &first, &4]);
    asm.op("mul.lo.u32", Class::B32, &[&four, &0x0810_2040])
}

/// Moves bits up, or down.
pub(super) fn moved(asm: &mut Asm, w: R, by: i32) -> R {
    match by {
        0 => w,
        1.. => asm.op("shl.b32", Class::B32, &[&w, &by]),
        _ => asm.op("shr.u32", Class::B32, &[&w, &-by]),
    }
}

/// 128 and the bytes of a word.
fn in_128(asm: &mut Asm, c: &Constants, word: R) -> [R; 4] {
    [0, 1, 2, 3].map(|i| {
        let select = format!("{:#x}", 0x7044 | i << 8);
        asm.op("prmt.b32", Class::B32, &[&word, &c.at_128, &select])
    })
}

/// A byte of a word as a float, less `zero`.
pub(super) fn float(asm: &mut Asm, c: &Constants, word: R, byte: usize, zero: usize) -> R {
    let select = format!("{:#x}", 0x7440 | byte);
    let above = asm.op("prmt.b32", Class::B32, &[&word, &c.at_23, &select]);
    asm.op("add.rn.f32", Class::F32, &[&above, &bias(zero)])
}

/// What the eight numbers of four bytes stand for in a table.
fn looked_up(asm: &mut Asm, c: &Constants, w: R, first: usize) -> Vec<(usize, R)> {
    let [t0, t1, t2, t3] = c.table;
    let low = asm.op("and.b32", Class::B32, &[&w, &0x7777_7777]);
    let upper = asm.op("shr.u32", Class::B32, &[&w, &1]);
    // The fourth bit says from which half of the table.
    let from = and_or(asm, upper, 0x4444_4444, c.every_other);
    let mut values = Vec::new();
    for (i, by) in [0, -16].into_iter().enumerate() {
        let (low, from) = (moved(asm, low, by), moved(asm, from, by));
        let lower = asm.op("prmt.b32", Class::B32, &[&t0, &t1, &low]);
        let upper = asm.op("prmt.b32", Class::B32, &[&t2, &t3, &low]);
        let bytes = asm.op("prmt.b32", Class::B32, &[&lower, &upper, &from]);
        for b in 0..4 {
            let value = float(asm, c, bytes, b, 128);
            values.push((first + 2 * i + b / 2 + b % 2 * 16, value));
        }
    }
    values
}
