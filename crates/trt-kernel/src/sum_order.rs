//! The order in which a product of few rows sums, as data.
//!
//! Floating point sums depend on their order, so whoever is to give the same bits (another lane,
//! another number of rows, another form of the same weight) sums in the very same one. The
//! invariant: a [`SumOrder`] is a function of `k` and of the right operand's encoding alone, never
//! of how many rows either operand has.
//!
//! A row of the right operand is cut into *pieces* of neighbouring values. In round `r`, lane `l`
//! of [`SumOrder::lanes`] takes piece `r * lanes + l`. Rounds are cut into as many *segments* of
//! equal length: within one, a lane adds product after product to a sum of its own that starts at
//! +0, each rounded once with its addition (fused). Then a lane adds the sums of its segments in
//! order, starting at +0; and last, lanes are added as a tree. So several threads may share a row
//! by lanes and by segments, and one alone may walk through all of it.

use crate::{BlockType, Encoding};
use std::fmt;

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
}

/// How the sums of lanes become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fold {
    /// The upper half of the lanes is added to the lower, lane by lane, until one is left.
    Halves,
}

impl Within {
    /// Values of a piece.
    pub const fn values(self) -> usize {
        match self {
            Within::Values(n) => n,
        }
    }
}

/// Bytes of a piece of a plain operand: what one load brings.
const PIECE: usize = 16;
/// From so many pieces on, a warp's lanes share a row; fewer pieces would leave some idle.
const WARP: usize = 128;
/// Rounds that a segment is a multiple of, so that as many loads may be in flight.
const ROUNDS: usize = 4;

impl SumOrder {
    /// The order for rows of `k` values; none where they are no whole number of pieces.
    pub fn new(k: usize, encoding: Encoding) -> Option<SumOrder> {
        let values = match encoding {
            Encoding::Plain(dtype) => PIECE / dtype.size(),
            Encoding::Blocks(block @ BlockType::Q8_0) => block.values(),
        };
        if k == 0 || !k.is_multiple_of(values) {
            return None;
        }
        let pieces = k / values;
        let lanes = if pieces < WARP { 8 } else { 32 };
        let even =
            |segments: &usize| lanes == 32 && pieces.is_multiple_of(lanes * ROUNDS * segments);
        Some(SumOrder {
            pieces,
            lanes,
            segments: [4, 2].into_iter().find(even).unwrap_or(1),
            within: Within::Values(values),
            fold: Fold::Halves,
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

    /// The sum of products, given the factors of each: the definition that back ends are held to.
    pub fn sum(&self, factors: impl Fn(usize) -> (f32, f32)) -> f32 {
        let mut lanes: Vec<f32> = (0..self.lanes).map(|l| self.lane(l, &factors)).collect();
        match self.fold {
            Fold::Halves => {
                while lanes.len() > 1 {
                    let upper = lanes.split_off(lanes.len() / 2);
                    lanes.iter_mut().zip(upper).for_each(|(l, u)| *l += u);
                }
            }
        }
        lanes.first().copied().unwrap_or(0.0)
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
        (0..self.segments).fold(0.0, |sum, s| sum + segment(s))
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;

    fn order(k: usize, encoding: impl Into<Encoding>) -> SumOrder {
        SumOrder::new(k, encoding.into()).unwrap()
    }

    #[test]
    fn segments_are_equal_and_long_enough_to_keep_loads_in_flight() {
        let lens = [
            (4096, 4),
            (14336, 2),
            (2048, 2),
            (1536, 1),
            (576, 1),
            (5120, 1),
        ];
        for (k, segments) in lens {
            let order = order(k, DType::BF16);
            assert_eq!(order.segments, segments, "{k}");
            assert_eq!(order.rounds(), segments * order.segment_rounds(), "{k}");
        }
        assert_eq!(order(576, DType::BF16).lanes, 8);
        assert_eq!(SumOrder::new(13, DType::F32.into()), None);
        assert_eq!(SumOrder::new(48, Encoding::Blocks(BlockType::Q8_0)), None);
    }

    #[test]
    fn every_product_is_added_once() {
        for (k, encoding) in [
            (8, Encoding::Plain(DType::BF16)),
            (1000, Encoding::Plain(DType::BF16)),
            (4096, Encoding::Plain(DType::F16)),
            (4 * 4096, Encoding::Plain(DType::F32)),
            (96, Encoding::Blocks(BlockType::Q8_0)),
        ] {
            // Small integers: every order gives the exact sum.
            let sum = order(k, encoding).sum(|i| ((i % 7) as f32, 1.0));
            let exact: usize = (0..k).map(|i| i % 7).sum();
            assert_eq!(sum, exact as f32, "{k} {encoding}");
        }
    }

    #[test]
    fn the_order_is_the_one_that_is_told() {
        // 16 pieces of 4 over 8 lanes: lane 0 takes pieces 0 and 8, lane 4 takes 4 and 12.
        let big = 1e8f32;
        let at = |i: usize| match i {
            0 => big,
            1 | 16 => 1.0,
            32 => -big,
            _ => 0.0,
        };
        // 1e8 + 1 is 1e8, and so is 1e8 - 1e8 + 1 once lane 4 took its part first.
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
