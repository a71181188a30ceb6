//! The fixed order in which tiles become resident as the budget grows.
//!
//! The resident set at any budget is a prefix of this one order. So a larger budget's set
//! contains a smaller one's: a budget change moves only the difference, and streamed bytes
//! never grow with the budget. Tiles used more often in a cycle come first, as each saves
//! more. Otherwise the order visits execution order, measured in bytes on the device, at the points
//! of van der Corput's sequence (0, 1/2, 1/4, 3/4, 1/8, …): every prefix is spread evenly, so the copies that remain are
//! spread evenly over the computing that hides them.

use super::{TileId, Tiling, Use};
use std::cmp::Reverse;
use std::collections::HashSet;

/// How often a cycle uses each tile, and the tiles in the order of first use. Programs with equal
/// lists of uses count once.
fn used(tiling: &Tiling, lists: &[Vec<Use>]) -> (Vec<u32>, Vec<TileId>) {
    let mut uses = vec![0u32; tiling.len()];
    let mut executed = Vec::with_capacity(tiling.len());
    let mut distinct = HashSet::new();
    for list in lists.iter().filter(|list| distinct.insert(*list)) {
        for tile in list.iter().flat_map(|&u| tiling.of(u)) {
            let count = &mut uses[tile.0 as usize];
            if *count == 0 {
                executed.push(tile);
            }
            *count += 1;
        }
    }
    (uses, executed)
}

/// All tiles in the order in which they become resident, given the programs' use lists, each with
/// how often a cycle uses it.
pub(super) fn nested(tiling: &Tiling, lists: &[Vec<Use>]) -> Vec<(TileId, u32)> {
    let (uses, mut executed) = used(tiling, lists);
    executed.extend(tiling.ids().filter(|t| uses[t.0 as usize] == 0));
    let total = tiling.total();
    let mut start = 0;
    let mut keyed: Vec<(Reverse<u32>, u128, TileId)> = Vec::with_capacity(executed.len());
    for tile in executed {
        let end = start + tiling.tile(tile).held_bytes();
        let point = first_point(start, end, total);
        keyed.push((Reverse(uses[tile.0 as usize]), point, tile));
        start = end;
    }
    keyed.sort_unstable();
    let uses = keyed.into_iter().map(|(Reverse(n), _, tile)| (tile, n));
    uses.collect()
}

/// The index of the first point of van der Corput's sequence in `[start, end) / total`.
fn first_point(start: u64, end: u64, total: u64) -> u128 {
    let (start, end, total) = (u128::from(start), u128::from(end), u128::from(total));
    // An interval of one byte holds a multiple of 2^-64; an empty one costs nothing: first.
    for level in 0..=64u32 {
        let numerator = (start << level).div_ceil(total.max(1));
        if start < end && numerator * total < end << level {
            return match level {
                0 => 0,
                _ => numerator.reverse_bits() >> (128 - level),
            };
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Sheet, TileTarget, WeightId};

    #[test]
    fn equal_parts_are_visited_in_bit_reversed_order() {
        let points: Vec<_> = (0..8).map(|i| first_point(i, i + 1, 8)).collect();
        assert_eq!(points, [0, 4, 2, 6, 1, 5, 3, 7]);
    }

    #[test]
    fn every_prefix_is_spread_evenly() {
        let sheets: Vec<_> = (0..100)
            .map(|w| Sheet::plain(WeightId(w), 64 + (w as usize * 37) % 64, 10))
            .collect();
        let tiling = Tiling::cut(&sheets, TileTarget::Automatic).unwrap();
        let list: Vec<Use> = sheets.iter().map(|s| s.weight.into()).collect();
        let order = nested(&tiling, &[list]);
        for half in [25, 50] {
            let first = order[..half].iter().filter(|(t, _)| t.0 < 50).count();
            assert!(first.abs_diff(half / 2) <= 2, "{first} of {half}");
        }
    }

    #[test]
    fn tiles_used_twice_come_first() {
        let sheets = [0, 1, 2].map(|w| Sheet::plain(WeightId(w), 1, 8));
        let tiling = Tiling::cut(&sheets, TileTarget::Automatic).unwrap();
        let list = [2, 0, 1, 0].map(|w| WeightId(w).into()).to_vec();
        let order = nested(&tiling, &[list]);
        assert_eq!(order, [(0, 2), (2, 1), (1, 1)].map(|(t, n)| (TileId(t), n)));
    }
}
