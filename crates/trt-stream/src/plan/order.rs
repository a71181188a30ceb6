//! The fixed order in which tiles become resident as the budget grows.
//!
//! The resident set at any budget is a prefix of this one order. So a larger budget's set
//! contains a smaller one's: a budget change moves only the difference, and streamed bytes
//! never grow with the budget. Tiles used more often in a cycle come first, as each saves
//! more. Otherwise the order visits execution order, measured in bytes on the device, at the points
//! of van der Corput's sequence (0, 1/2, 1/4, 3/4, 1/8, …): every prefix is spread evenly, so the copies that remain are
//! spread evenly over the computing that hides them. The packed tiles of a group that turns plain
//! together follow each other, and are spread so among themselves: groups then go from the end of
//! what is packed, each whole. A large group has one of the first points, so what is last are small
//! ones, which a ring brings while others are computed.

use super::turning::Group;
use super::{TileId, Tiling, Use, WeightId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};

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

/// What becomes resident before anything else does: a tile, or the packed tiles of a group.
#[derive(Default)]
struct Batch {
    tiles: Vec<TileId>,
    bytes: u64,
    /// The most uses of a tile in it.
    uses: u32,
    group: Option<usize>,
}

/// The order in which tiles become resident.
pub(super) struct Order {
    /// All tiles but plain ones of weights that have two forms, each with how often a cycle uses it.
    pub tiles: Vec<(TileId, u32)>,
    /// The groups, by number, in the order of their packed tiles.
    pub groups: Vec<usize>,
}

/// All tiles in the order in which they become resident, given the programs' use lists.
pub(super) fn nested(tiling: &Tiling, lists: &[Vec<Use>], groups: &[Group]) -> Order {
    let (uses, mut executed) = used(tiling, lists);
    let streaming = tiling.weights().flat_map(|w| tiling.of(w.into()));
    executed.extend(streaming.filter(|t| uses[t.0 as usize] == 0));
    let batches = batches(tiling, &executed, &uses, groups);
    let sizes = batches.iter().map(|b| b.bytes);
    let mut keyed: Vec<_> = batches
        .iter()
        .zip(points(sizes))
        .map(|(batch, point)| (Reverse(batch.uses), point, batch.tiles.first(), batch))
        .collect();
    keyed.sort_unstable_by_key(|(uses, point, first, _)| (*uses, *point, *first));
    let mut order = Order {
        tiles: Vec::with_capacity(executed.len()),
        groups: Vec::with_capacity(groups.len()),
    };
    for (_, _, _, batch) in keyed {
        let sizes = batch.tiles.iter().map(|t| tiling.tile(*t).held_bytes());
        let mut within: Vec<_> = points(sizes).into_iter().zip(&batch.tiles).collect();
        within.sort_unstable();
        let with_uses = within.into_iter().map(|(_, t)| (*t, uses[t.0 as usize]));
        order.tiles.extend(with_uses);
        order.groups.extend(batch.group);
    }
    order
}

/// The tiles in batches, in the order of the first tile of each.
fn batches(tiling: &Tiling, executed: &[TileId], uses: &[u32], groups: &[Group]) -> Vec<Batch> {
    let members = groups.iter().enumerate();
    let group_of: BTreeMap<WeightId, usize> = members
        .flat_map(|(i, group)| group.weights.iter().map(move |w| (*w, i)))
        .collect();
    let mut batches: Vec<Batch> = Vec::new();
    let mut batch_of: BTreeMap<usize, usize> = BTreeMap::new();
    for &id in executed {
        let tile = tiling.tile(id);
        let group = group_of.get(&tile.weight).copied();
        let next = batches.len();
        let at = group.map_or(next, |group| *batch_of.entry(group).or_insert(next));
        if at == next {
            batches.push(Batch {
                group,
                ..Batch::default()
            });
        }
        let batch = &mut batches[at];
        batch.tiles.push(id);
        batch.bytes += tile.held_bytes();
        batch.uses = batch.uses.max(uses[id.0 as usize]);
    }
    batches
}

/// Of parts of these sizes that lie one after another, the first point of van der Corput's sequence in
/// each.
fn points(sizes: impl Iterator<Item = u64> + Clone) -> Vec<u128> {
    let total = sizes.clone().sum();
    let mut start = 0;
    let point = |size: u64| {
        let end = start + size;
        let point = first_point(start, end, total);
        start = end;
        point
    };
    sizes.map(point).collect()
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
        let order = nested(&tiling, &[list], &[]).tiles;
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
        let order = nested(&tiling, &[list], &[]).tiles;
        assert_eq!(order, [(0, 2), (2, 1), (1, 1)].map(|(t, n)| (TileId(t), n)));
    }
}
