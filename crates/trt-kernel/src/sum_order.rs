//! The order in which a product of few rows sums, as data.
//!
//! Floating point sums depend on their order, so whoever is to give the same bits (another lane,
//! another number of rows, another form of the same weight) sums in the very same one. The
//! invariant: a [`SumOrder`] is a function of `k` and of the right operand's encoding alone, never
//! of how many rows either operand has.
//!
//! A row of the right operand is cut into *pieces* of neighbouring values. In round `r`, lane `l`
//! of [`SumOrder::lanes`] takes piece `r * lanes + l`. Rounds are cut into *segments* of equal
//! length: within one, a lane adds product after product to a sum of its own that starts at +0,
//! each rounded once with its addition (fused). Then a lane adds the sums of its segments in
//! order; and last, lanes are added as a tree. So several threads may share a row by lanes and by
//! segments, and one alone may walk through all of it.
//!
//! More segments than four would give a weight with few rows more threads than it needs, and each
//! costs whoever walks through all of them an addition for each sum.

pub(crate) mod blocks;

use crate::{BlockType, Encoding, PackedType};
use std::fmt;
use trt_pack::Geometry;

/// In what order the products of one output are summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SumOrder {
    /// Pieces of a row.
    pub pieces: usize,
    /// Lanes that take pieces in turn; a power of two.
    pub lanes: usize,
    /// Stretches that the rounds are cut into.
    pub segments: usize,
    /// The order inside of a piece.
    pub within: Within,
    /// How lanes are added.
    pub fold: Fold,
}

/// The order inside of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Within {
    /// So many neighbouring values, one after another.
    Values(usize),
    /// 64 values in blocks, in groups that share a scale, which is applied to a group's sum.
    Blocks(BlockType),
}

/// How the sums of lanes become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fold {
    /// The upper half of the lanes is added to the lower, lane by lane, until one is left.
    Halves,
    /// The same in each segment by itself; then segments are added in order.
    HalvesOfSegments,
}

impl Within {
    /// Values of a piece.
    pub const fn values(self) -> usize {
        match self {
            Within::Values(n) => n,
            Within::Blocks(_) => blocks::PIECE,
        }
    }
}

/// Bytes of a piece of a plain operand: what one load brings.
const PIECE: usize = 16;
/// Rounds that a segment of plain values is a multiple of, so that as many loads may be in flight.
const ROUNDS: usize = 4;
/// The longest row of blocks that a block of threads sums, a warp for each segment.
const LONGEST: usize = 16 * 32 * blocks::PIECE;
/// From so many pieces on, a warp's lanes share a row; fewer pieces would leave some idle.
const WARP: usize = 128;
impl SumOrder {
    /// The order for rows of `k` values; none where they are no whole number of pieces.
    pub fn new(k: usize, encoding: Encoding) -> Option<SumOrder> {
        let dtype = match encoding {
            Encoding::Plain(dtype) => dtype,
            // A form of the same weight gives the same bits.
            Encoding::Packed(packed) => packed.dtype(),
            Encoding::Code => return None,
            Encoding::Blocks(block) => return SumOrder::of_blocks(k, block),
        };
        let values = PIECE / dtype.size();
        if k == 0 || !k.is_multiple_of(values) {
            return None;
        }
        let pieces = k / values;
        let lanes = if pieces < WARP { 8 } else { 32 };
        let even = |segments: &usize| pieces.is_multiple_of(32 * ROUNDS * segments);
        Some(SumOrder {
            pieces,
            lanes,
            segments: match lanes {
                32 => [4, 2].into_iter().find(even).unwrap_or(1),
                _ => 1,
            },
            within: Within::Values(values),
            fold: Fold::Halves,
        })
    }

    /// A segment is a piece for each lane: so many values of the left operand stay in registers.
    fn of_blocks(k: usize, block: BlockType) -> Option<SumOrder> {
        let pieces = k.div_ceil(blocks::PIECE);
        let lanes = pieces.next_power_of_two().clamp(8, 32);
        let whole = k > 0 && k.is_multiple_of(block.values()) && k <= LONGEST;
        whole.then(|| SumOrder {
            pieces,
            lanes,
            segments: pieces.div_ceil(lanes),
            within: Within::Blocks(block),
            fold: Fold::HalvesOfSegments,
        })
    }

    /// Rounds in which lanes take pieces; in the last one some lanes may have none.
    pub const fn rounds(&self) -> usize {
        self.pieces.div_ceil(self.lanes)
    }

    /// Rounds of a segment.
    pub const fn segment_rounds(&self) -> usize {
        self.rounds() / self.segments
    }

    /// The sum of products with a plain row, given the factors of each: the definition that back ends
    /// are held to.
    pub fn sum(&self, factors: impl Fn(usize) -> (f32, f32)) -> f32 {
        halves((0..self.lanes).map(|l| self.lane(l, &factors)).collect())
    }

    /// The sum of the products of what is met with a row in blocks: the same definition for these. Rows
    /// of another order are plain, and give 0.
    pub fn sum_of_blocks(&self, x: impl Fn(usize) -> f32, row: &[u8]) -> f32 {
        let Within::Blocks(block) = self.within else {
            return 0.0;
        };
        let lane = |piece: usize| match piece < self.pieces {
            true => blocks::piece(block, row, piece, &x),
            false => 0.0,
        };
        let segment =
            |s: usize| halves((0..self.lanes).map(|l| lane(s * self.lanes + l)).collect());
        let sums = (0..self.segments).map(segment);
        sums.reduce(|sum, next| sum + next).unwrap_or(0.0)
    }

    fn lane(&self, lane: usize, factors: &impl Fn(usize) -> (f32, f32)) -> f32 {
        let (each, values) = (self.segment_rounds(), self.within.values());
        let segment = |segment: usize| {
            let rounds = segment * each..(segment + 1) * each;
            let pieces = rounds.map(|round| round * self.lanes + lane);
            let own = pieces.filter(|piece| *piece < self.pieces);
            own.flat_map(|piece| piece * values..(piece + 1) * values)
                .fold(0.0f32, |sum, i| {
                    let (a, b) = factors(i);
                    a.mul_add(b, sum)
                })
        };
        let sums = (0..self.segments).map(segment);
        sums.reduce(|sum, next| sum + next).unwrap_or(0.0)
    }
}

/// Adds the upper half to the lower until one is left.
fn halves(mut lanes: Vec<f32>) -> f32 {
    while lanes.len() > 1 {
        let upper = lanes.split_off(lanes.len() / 2);
        lanes.iter_mut().zip(upper).for_each(|(l, u)| *l += u);
    }
    lanes.first().copied().unwrap_or(0.0)
}

impl fmt::Display for SumOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} pieces of {} over {} lanes in {} segments",
            self.pieces,
            self.within.values(),
            self.lanes,
            self.segments
        )
    }
}

impl PackedType {
    /// How rows of so many values are cut: as a product of few rows sums them; none where that cannot be.
    pub fn geometry(self, columns: usize) -> Option<Geometry> {
        let order = SumOrder::new(columns, self.dtype().into())?;
        Geometry::new(columns, order.lanes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BlockType, DType};

    fn order(k: usize, encoding: impl Into<Encoding>) -> SumOrder {
        SumOrder::new(k, encoding.into()).unwrap()
    }

    #[test]
    fn rows_are_whole_pieces_in_equal_segments() {
        let q8 = Encoding::Blocks(BlockType::Q8_0);
        for (k, encoding, lanes, segments) in [
            (576, Encoding::Plain(DType::BF16), 8, 1),
            (1000, Encoding::Plain(DType::BF16), 8, 1),
            (4096, Encoding::Plain(DType::BF16), 32, 4),
            (14336, Encoding::Plain(DType::BF16), 32, 2),
            (5120, Encoding::Plain(DType::BF16), 32, 1),
            (96, q8, 8, 1),
            (576, q8, 16, 1),
            (4096, q8, 32, 2),
            (5120, q8, 32, 3),
        ] {
            let order = order(k, encoding);
            assert_eq!((order.lanes, order.segments), (lanes, segments), "{k}");
            assert_eq!(order.rounds(), segments * order.segment_rounds(), "{k}");
        }
        assert_eq!(SumOrder::new(13, DType::F32.into()), None);
        assert_eq!(SumOrder::new(48, q8), None);
    }

    #[test]
    fn every_product_is_added_once() {
        for (k, encoding) in [
            (8, Encoding::Plain(DType::BF16)),
            (1000, Encoding::Plain(DType::BF16)),
            (4096, Encoding::Plain(DType::F16)),
            (4 * 4096, Encoding::Plain(DType::F32)),
        ] {
            // Small integers: every order gives the exact sum.
            let sum = order(k, encoding).sum(|i| ((i % 7) as f32, 1.0));
            let exact: usize = (0..k).map(|i| i % 7).sum();
            assert_eq!(sum, exact as f32, "{k} {encoding}");
        }
    }

    /// Bytes like those of files: any, but for halves, which are small.
    fn rows(block: BlockType, k: usize, seed: u32) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            (state >> 24) as u8
        };
        let mut row: Vec<u8> = (0..k / block.values() * block.bytes())
            .map(|_| next())
            .collect();
        for b in row.chunks_exact_mut(block.bytes()) {
            let halves: &[usize] = match block {
                BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q4K | BlockType::Q5K => &[0, 2],
                BlockType::Q2K => &[80, 82],
                BlockType::Q3K => &[108],
                BlockType::Q6K => &[208],
                BlockType::Mxfp4 => &[],
                _ => &[0],
            };
            for at in halves {
                b[at + 1] = b[at + 1] & 0x83 | 0x20;
            }
            if block == BlockType::Mxfp4 {
                b[0] = 120 + b[0] % 8;
            }
        }
        row
    }

    #[test]
    fn rows_in_blocks_are_summed_to_their_dequantised_products() {
        for block in BlockType::ALL {
            let mut worst = 0.0f64;
            for k in [block.values(), 3 * block.values(), 4096, 5120] {
                for seed in 0..8 {
                    let row = rows(block, k, seed);
                    let mut w = vec![0.0; k];
                    let each = row.chunks_exact(block.bytes());
                    for (b, w) in each.zip(w.chunks_exact_mut(block.values())) {
                        block.decode(b, w);
                    }
                    let x = |i: usize| ((i * 7919 + 13) % 1000) as f32 / 500.0 - 1.0;
                    let products = || {
                        w.iter()
                            .enumerate()
                            .map(|(i, w)| f64::from(*w) * f64::from(x(i)))
                    };
                    let (exact, size) = (
                        products().sum::<f64>(),
                        products().map(f64::abs).sum::<f64>(),
                    );
                    let sum = order(k, Encoding::Blocks(block)).sum_of_blocks(x, &row);
                    worst = worst.max((f64::from(sum) - exact).abs() / size);
                }
            }
            println!("{}: {worst:e}", block.name());
            assert!(worst < 1e-6, "{}: {worst:e}", block.name());
        }
    }

    #[test]
    fn the_order_is_the_one_that_is_told() {
        // 16 pieces of 4 over 8 lanes: lane 0 takes pieces 0 and 8, lane 4 takes 4 and 12.
        let big = 1e8f32;
        let at = |i: usize| match i {
            0 => big,
            1 => 1.0,
            32 => -big,
            _ => 0.0,
        };
        // 1e8 + 1 is 1e8.
        assert_eq!(order(64, DType::F32).sum(|i| (at(i), 1.0)), 0.0);
        let apart = |i: usize| match i {
            0 => big,
            16 => -big,
            20 => 1.0,
            _ => 0.0,
        };
        assert_eq!(order(64, DType::F32).sum(|i| (apart(i), 1.0)), 1.0);
    }
}
