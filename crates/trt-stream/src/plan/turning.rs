//! Which weights of two forms are plain at the same time, and in which order they become it.
//!
//! A weight that has a packed and a plain form is read packed until everything is resident. What
//! is left of a budget then lets weights turn plain, by *groups*: the weights that share a launch
//! in any program, since no launch reads two forms. The groups turn one after another, from the end
//! of the order in which tiles become resident, so that what goes is always the end of the packed
//! tiles and what comes the next of the plain ones. So a budget's state is a number of groups, and
//! a larger budget's number is never smaller.

use super::{TileId, Tiling, Use, WeightId};
use std::collections::BTreeMap;

/// How weights of two forms turn plain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turning {
    /// Weights that are read in one launch, for each such launch of any program. Weights of one
    /// form may be among them: they stay as they are.
    pub together: Vec<Vec<WeightId>>,
    /// Whether weights turn plain where the budget has room for it: then kernels are taken to be
    /// faster that read them plain.
    pub prefer_plain: bool,
}

impl Default for Turning {
    /// No two weights share a launch, and plain is preferred.
    fn default() -> Turning {
        Turning {
            together: Vec::new(),
            prefer_plain: true,
        }
    }
}

/// Weights of two forms that are always read in the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The weights, in their order.
    pub weights: Vec<WeightId>,
    /// Bytes of their packed tiles on the device.
    pub packed: u64,
    /// Bytes of their plain tiles.
    pub plain: u64,
}

impl Group {
    fn new(tiling: &Tiling, weights: Vec<WeightId>) -> Group {
        let bytes = |tiles: &mut dyn Iterator<Item = TileId>| {
            let held = tiles.map(|t| tiling.tile(t).held_bytes());
            held.sum::<u64>()
        };
        let uses = || weights.iter().map(|w| Use::from(*w));
        Group {
            packed: bytes(&mut uses().flat_map(|u| tiling.of(u))),
            plain: bytes(&mut uses().flat_map(|u| tiling.plain_of(u))),
            weights,
        }
    }

    /// Its plain tiles in the order in which they lie.
    pub fn plain_tiles<'a>(&'a self, tiling: &'a Tiling) -> impl Iterator<Item = TileId> + 'a {
        let uses = self.weights.iter().map(|w| Use::from(*w));
        uses.flat_map(|u| tiling.plain_of(u))
    }
}

/// The groups of weights that are read together, in the order of their first weights: each weight of
/// two forms is in one.
pub(super) fn groups(tiling: &Tiling, together: &[Vec<WeightId>]) -> Vec<Group> {
    let weights: Vec<WeightId> = tiling.turning().collect();
    let number: BTreeMap<WeightId, usize> = weights.iter().copied().zip(0..).collect();
    // Each weight points to one of its group that comes before it, or to itself.
    let mut leader: Vec<usize> = (0..weights.len()).collect();
    let find = |leader: &[usize], mut of: usize| {
        while leader[of] != of {
            of = leader[of];
        }
        of
    };
    for launch in together {
        let mut known = launch.iter().filter_map(|w| number.get(w).copied());
        let Some(first) = known.next() else {
            continue;
        };
        for other in known {
            let (a, b) = (find(&leader, first), find(&leader, other));
            leader[a.max(b)] = a.min(b);
        }
    }
    let mut members: BTreeMap<usize, Vec<WeightId>> = BTreeMap::new();
    for (i, &weight) in weights.iter().enumerate() {
        members.entry(find(&leader, i)).or_default().push(weight);
    }
    let groups = members.into_values();
    groups.map(|weights| Group::new(tiling, weights)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Sheet, TileTarget, Units};
    use std::sync::Arc;

    /// Weights of 128 rows of 10 bytes, of which those of odd numbers have two forms.
    fn tiling(count: u32) -> Tiling {
        let sheet = |w: u32| {
            let plain = Sheet::plain(WeightId(w), 128, 10);
            match w % 2 {
                0 => plain,
                _ => Sheet {
                    units: Some(Arc::new(Units::new(64, vec![0, 300, 700]).unwrap())),
                    turns: true,
                    ..plain
                },
            }
        };
        let sheets: Vec<Sheet> = (0..count).map(sheet).collect();
        Tiling::cut(&sheets, TileTarget::Bytes(1)).unwrap()
    }

    #[test]
    fn launches_that_share_a_weight_are_one_group() {
        let tiling = tiling(12);
        let launches = [vec![3, 9], vec![0, 5, 2, 7], vec![9, 11], vec![4], vec![]];
        let launches = launches.map(|l| l.into_iter().map(WeightId).collect());
        let found = groups(&tiling, &launches);
        let weights = |g: &Group| g.weights.iter().map(|w| w.0).collect::<Vec<_>>();
        let all: Vec<_> = found.iter().map(weights).collect();
        assert_eq!(all, [vec![1], vec![3, 9, 11], vec![5, 7]]);
        assert_eq!((found[1].packed, found[1].plain), (2100, 3840));
        // 12 weights of two tiles each, then the plain tiles of 1, 3, 5, 7, 9 and 11.
        let plain = found[2].plain_tiles(&tiling);
        assert!(plain.eq([28, 29, 30, 31].map(TileId)));
    }
}
