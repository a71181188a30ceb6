//! What the order of sums means over rows in blocks: arithmetic that every lane can do alike.
//!
//! A *piece* is 64 values of a row, in *groups* that share a scale: two blocks of 32 values, or a quarter
//! of a block of 256. A group is summed over small numbers and scaled once: `scale * sum(q * x)`, and a
//! minimum is a product with `sum(x)`; so no value is ever made. How a number of some bits becomes a
//! float decides what the sum starts with and what it is multiplied by ([`Number`]): bits that are put
//! into the mantissa of a constant are a float without a conversion, which is larger by the constant, and
//! that much of `sum(x)` is what the sum starts with, with the other sign. Within 1e-6 of what summing
//! dequantised values gives, measured against the sum of the products' sizes.

use crate::BlockType;
use crate::encoding::{IQ4_VALUES, MXFP4_DOUBLED, exponent_of_half, scale_and_min};
use half::f16;

/// Values of a piece.
pub(crate) const PIECE: usize = 64;
/// The most groups of a piece.
const GROUPS: usize = 4;
/// What a half of a word adds to the other one in [`Number::Paired`].
pub(crate) const TAIL: f32 = 1.0 / 65536.0;
/// What the upper of a pair is above its number, in eighths: 128, and the lower one's constant behind it.
pub(crate) const UPPER: f32 = 128.0 + 17152.0 / 65536.0;

/// How numbers of a group become floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Number {
    /// Two numbers of 4 bits as the halves of one word, `0x4300 + 8 q` each: the lower one is moved up
    /// and is `128 + 8 q`; the upper one is taken as it stands, and has the lower one behind it as a tail.
    /// So the lower one meets `x / 8` less the tail's share of what the upper one meets.
    Paired,
    /// Numbers of up to 7 bits in the mantissa of 128, so many places up: `128 + (q << n)`.
    Shifted(u32),
    /// As they are.
    Exact,
}

/// In which order the values of a group are added. `Halves` are of groups whose bytes hold a value of the
/// first half of the group and one of the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// One after another.
    Ascending,
    /// Four of the first half, four of the second.
    HalvesByFour,
    /// One of the first half, one of the second.
    HalvesByOne,
}

/// How a type's pieces are summed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sums {
    /// Groups of a piece.
    pub groups: usize,
    pub number: Number,
    pub order: Order,
    /// What a number is when it stands for zero.
    pub zero: f32,
}

impl Sums {
    pub(crate) const fn of(block: BlockType) -> Sums {
        let (groups, number, order, zero) = match block {
            BlockType::Q4_0 => (2, Number::Paired, Order::HalvesByFour, 8.0),
            BlockType::Q4_1 => (2, Number::Paired, Order::HalvesByFour, 0.0),
            BlockType::Q5_0 => (2, Number::Shifted(2), Order::HalvesByFour, 16.0),
            BlockType::Q5_1 => (2, Number::Shifted(2), Order::HalvesByFour, 0.0),
            BlockType::Q8_0 => (2, Number::Exact, Order::Ascending, 0.0),
            BlockType::Q2K => (4, Number::Shifted(5), Order::Ascending, 0.0),
            BlockType::Q3K => (4, Number::Shifted(4), Order::Ascending, 4.0),
            BlockType::Q4K => (2, Number::Paired, Order::Ascending, 0.0),
            BlockType::Q5K => (2, Number::Shifted(2), Order::Ascending, 0.0),
            BlockType::Q6K => (4, Number::Shifted(0), Order::Ascending, 32.0),
            BlockType::Iq4Nl | BlockType::Iq4Xs | BlockType::Mxfp4 => {
                (2, Number::Exact, Order::HalvesByOne, 0.0)
            }
        };
        Sums {
            groups,
            number,
            order,
            zero,
        }
    }

    /// Values of a group.
    pub(crate) const fn each(&self) -> usize {
        PIECE / self.groups
    }

    /// The values of a group in the order in which they are added.
    pub(crate) fn added(&self) -> Vec<usize> {
        let (each, half) = (self.each(), self.each() / 2);
        match self.order {
            Order::Ascending => (0..each).collect(),
            Order::HalvesByFour => (0..half)
                .step_by(4)
                .flat_map(|i| (i..i + 4).chain(half + i..half + i + 4))
                .collect(),
            Order::HalvesByOne => (0..half).flat_map(|i| [i, half + i]).collect(),
        }
    }

    /// What `x` is multiplied by before it meets a number.
    pub(crate) fn factor(&self) -> f32 {
        match self.number {
            Number::Paired => 0.125,
            Number::Shifted(n) => 1.0 / (1 << n) as f32,
            Number::Exact => 1.0,
        }
    }

    /// What is taken off a sum for each 1 of `sum(x)`; in pairs it is what stands for zero alone.
    pub(crate) fn offset(&self) -> f32 {
        match self.number {
            Number::Paired | Number::Exact => self.zero,
            Number::Shifted(n) => 128.0 / (1 << n) as f32 + self.zero,
        }
    }

    /// What four neighbours of `x` are when they meet numbers, and their sums: of lower and upper ones, or
    /// of all.
    fn meet(&self, x: [f32; 4]) -> ([f32; 4], [f32; 2]) {
        let mut met = x.map(|x| x * self.factor());
        if let Number::Paired = self.number {
            met[0] = met[2].mul_add(-TAIL, met[0]);
            met[1] = met[3].mul_add(-TAIL, met[1]);
        }
        let [low, high] = [met[0] + met[1], met[2] + met[3]];
        match self.number {
            Number::Paired => (met, [low, high]),
            Number::Shifted(_) | Number::Exact => (met, [low + high, 0.0]),
        }
    }

    /// The sum of `x`, of those of what is met: of all, or of lower and upper ones.
    fn total(&self, totals: [f32; 2]) -> f32 {
        let [lower, upper] = totals;
        match self.number {
            Number::Paired => upper.mul_add(8.0 * (1.0 + TAIL), lower * 8.0),
            Number::Shifted(_) | Number::Exact => lower * (1.0 / self.factor()),
        }
    }

    /// What the sum of a group starts with.
    fn start(&self, totals: [f32; 2]) -> f32 {
        let [lower, upper] = totals;
        let paired = match self.number {
            Number::Paired => upper.mul_add(-UPPER, lower * -128.0),
            Number::Shifted(_) => return self.total(totals) * -self.offset(),
            Number::Exact => return 0.0,
        };
        match self.zero {
            0.0 => paired,
            zero => self.total(totals).mul_add(-zero, paired),
        }
    }

    /// The sum of a group's numbers, `q`, times what they meet.
    fn sum(&self, q: &[i32], x: &[f32]) -> (f32, f32) {
        let fours = x.chunks_exact(4).map(|x| [x[0], x[1], x[2], x[3]]);
        let (met, totals): (Vec<_>, Vec<_>) = fours.map(|x| self.meet(x)).unzip();
        let (met, totals) = (met.concat(), tree(totals));
        let value = |i: usize| match self.number {
            Number::Paired if i % 4 < 2 => (128 + 8 * q[i]) as f32,
            Number::Paired => {
                let half = |i: usize| (0x4300 + 8 * q[i]) as u32;
                f32::from_bits(half(i) << 16 | half(i - 2))
            }
            Number::Shifted(n) => (128 + (q[i] << n)) as f32,
            Number::Exact => q[i] as f32,
        };
        let start = self.start(totals);
        let added = self.added().into_iter();
        let sum = added.fold(start, |sum, i| value(i).mul_add(met[i], sum));
        (sum, self.total(totals))
    }
}

/// The sums of neighbours, of those, and so on: a power of two of them.
fn tree(mut totals: Vec<[f32; 2]>) -> [f32; 2] {
    while totals.len() > 1 {
        let pairs = totals.chunks(2);
        totals = pairs
            .map(|p| [p[0][0] + p[1][0], p[0][1] + p[1][1]])
            .collect();
    }
    totals.first().copied().unwrap_or_default()
}

impl BlockType {
    /// The column of the `i`-th value of a piece, in the order of its groups.
    pub(crate) const fn column(self, piece: usize, i: usize) -> usize {
        match self {
            // Four stripes of 16 in each half of a block share bytes.
            BlockType::Q2K | BlockType::Q3K | BlockType::Q6K => {
                let (block, half, part) = (piece / 4, piece / 2 % 2, piece % 2);
                block * 256 + half * 128 + i / 16 * 32 + part * 16 + i % 16
            }
            _ => piece * PIECE + i,
        }
    }
}

/// The sum of the products of a piece of a row with what it meets.
pub(super) fn piece(block: BlockType, row: &[u8], piece: usize, x: &dyn Fn(usize) -> f32) -> f32 {
    let sums = Sums::of(block);
    let numbers = Numbers::read(block, row, piece);
    let x = |i: usize| x(block.column(piece, i));
    let group = |g: usize| {
        let own = g * sums.each()..(g + 1) * sums.each();
        let x: Vec<f32> = own.clone().map(x).collect();
        sums.sum(&numbers.q[own], &x)
    };
    let groups: Vec<(f32, f32)> = (0..numbers.groups).map(group).collect();
    numbers.join(block, &groups)
}

/// The numbers of a piece: small ones, scales and minima of groups, and of the block.
struct Numbers {
    q: [i32; PIECE],
    groups: usize,
    scales: [f32; GROUPS],
    minima: [f32; GROUPS],
    d: f32,
    dmin: f32,
}

impl Numbers {
    /// Scales what groups sum to, and adds.
    fn join(&self, block: BlockType, groups: &[(f32, f32)]) -> f32 {
        let each = groups.iter().zip(&self.scales).zip(&self.minima);
        let mut each = each.map(|((sums, scale), min)| (*sums, *scale, *min));
        let Some((first, scale, min)) = each.next() else {
            return 0.0;
        };
        let mut t = scale * first.0;
        match block {
            BlockType::Q4_1 | BlockType::Q5_1 => {
                t = min.mul_add(first.1, t);
                for (sums, scale, min) in each {
                    t = min.mul_add(sums.1, scale.mul_add(sums.0, t));
                }
                t
            }
            BlockType::Q4_0
            | BlockType::Q5_0
            | BlockType::Q8_0
            | BlockType::Iq4Nl
            | BlockType::Mxfp4 => each.fold(t, |t, (sums, scale, _)| scale.mul_add(sums.0, t)),
            BlockType::Q3K | BlockType::Q6K | BlockType::Iq4Xs => {
                self.d * each.fold(t, |t, (sums, scale, _)| scale.mul_add(sums.0, t))
            }
            BlockType::Q2K | BlockType::Q4K | BlockType::Q5K => {
                let mut u = min * first.1;
                for (sums, scale, min) in each {
                    t = scale.mul_add(sums.0, t);
                    u = min.mul_add(sums.1, u);
                }
                self.d.mul_add(t, -(self.dmin * u))
            }
        }
    }

    fn read(block: BlockType, row: &[u8], piece: usize) -> Numbers {
        let mut n = Numbers {
            q: [0; PIECE],
            groups: Sums::of(block).groups,
            scales: [0.0; GROUPS],
            minima: [0.0; GROUPS],
            d: 0.0,
            dmin: 0.0,
        };
        match block.values() {
            32 => {
                let blocks = row.chunks_exact(block.bytes()).skip(2 * piece).take(2);
                n.groups = blocks.len();
                for (g, bytes) in blocks.enumerate() {
                    n.read_block(block, bytes, g);
                }
            }
            _ => {
                let bytes = &row[piece / 4 * block.bytes()..][..block.bytes()];
                n.read_quarter(block, bytes, piece % 4);
            }
        }
        n
    }

    /// Group `g` of a type with blocks of 32.
    fn read_block(&mut self, block: BlockType, b: &[u8], g: usize) {
        let high = |at: usize| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        let nibble = |at: usize, i: usize| i32::from(b[at + i % 16] >> (i / 16 * 4) & 15);
        self.scales[g] = match block {
            BlockType::Mxfp4 => exponent_of_half(b[0]),
            _ => half(b, 0),
        };
        if let BlockType::Q4_1 | BlockType::Q5_1 = block {
            self.minima[g] = half(b, 2);
        }
        for i in 0..32 {
            self.q[32 * g + i] = match block {
                BlockType::Q4_0 => nibble(2, i),
                BlockType::Q4_1 => nibble(4, i),
                BlockType::Q5_0 => nibble(6, i) | ((high(2) >> i & 1) << 4) as i32,
                BlockType::Q5_1 => nibble(8, i) | ((high(4) >> i & 1) << 4) as i32,
                BlockType::Q8_0 => i32::from(b[2 + i] as i8),
                BlockType::Iq4Nl => i32::from(IQ4_VALUES[nibble(2, i) as usize]),
                BlockType::Mxfp4 => i32::from(MXFP4_DOUBLED[nibble(1, i) as usize]),
                _ => 0,
            };
        }
    }

    /// Quarter `p` of a type with blocks of 256.
    fn read_quarter(&mut self, block: BlockType, b: &[u8], p: usize) {
        let (side, part) = (p / 2, p % 2);
        for i in 0..PIECE {
            let (g, e) = (i / 16, i % 16);
            let four = |at: usize| i32::from(b[at + 32 * p + i % 32] >> (i / 32 * 4) & 15);
            let two = |at: usize| i32::from(b[at + 32 * side + 16 * part + e] >> (2 * g) & 3);
            let bit = |at: usize, byte: usize, n: usize| i32::from(b[at + byte] >> n & 1);
            self.q[i] = match block {
                BlockType::Q2K => two(16),
                BlockType::Q3K => two(32) | bit(0, 16 * part + e, 4 * side + g) << 2,
                BlockType::Q4K => four(16),
                BlockType::Q5K => four(48) | bit(16, i % 32, 2 * p + i / 32) << 4,
                BlockType::Q6K => {
                    let low = b[64 * side + 32 * (g % 2) + 16 * part + e] >> (4 * (g / 2)) & 15;
                    i32::from(low) | two(128) << 4
                }
                BlockType::Iq4Xs => {
                    let byte = b[8 + 32 * p + 16 * (i / 32) + i % 16];
                    i32::from(IQ4_VALUES[usize::from(byte >> (i / 16 % 2 * 4) & 15)])
                }
                _ => 0,
            };
        }
        self.read_scales(block, b, p);
    }

    fn read_scales(&mut self, block: BlockType, b: &[u8], p: usize) {
        let (side, part) = (p / 2, p % 2);
        let stripe = |g: usize| 8 * side + 2 * g + part;
        match block {
            BlockType::Q2K => {
                for g in 0..4 {
                    self.scales[g] = f32::from(b[stripe(g)] & 15);
                    self.minima[g] = f32::from(b[stripe(g)] >> 4);
                }
                (self.d, self.dmin) = (half(b, 80), half(b, 82));
            }
            BlockType::Q3K => {
                for g in 0..4 {
                    let i = stripe(g);
                    let low = b[96 + i % 8] >> (4 * (i / 8)) & 15;
                    let top = b[104 + i % 4] >> (2 * (i / 4)) & 3;
                    self.scales[g] = f32::from(low | top << 4) - 32.0;
                }
                self.d = half(b, 108);
            }
            BlockType::Q4K | BlockType::Q5K => {
                for g in 0..2 {
                    let (scale, min) = scale_and_min(&b[4..16], 2 * p + g);
                    (self.scales[g], self.minima[g]) = (f32::from(scale), f32::from(min));
                }
                (self.d, self.dmin) = (half(b, 0), half(b, 2));
            }
            BlockType::Q6K => {
                for g in 0..4 {
                    self.scales[g] = f32::from(b[192 + stripe(g)] as i8);
                }
                self.d = half(b, 208);
            }
            BlockType::Iq4Xs => {
                let top = u16::from_le_bytes([b[2], b[3]]);
                for g in 0..2 {
                    let sub = 2 * p + g;
                    let low = b[4 + sub / 2] >> (4 * (sub % 2)) & 15;
                    let high = (top >> (2 * sub) & 3) as u8;
                    self.scales[g] = f32::from(low | high << 4) - 32.0;
                }
                self.d = half(b, 0);
            }
            _ => {}
        }
    }
}

fn half(b: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([b[at], b[at + 1]]).to_f32()
}
