//! Weights cut into row tiles: the unit that is resident or streamed.
//!
//! A weight used as a ranged matmul operand `[n, k]` is cut at multiples of
//! [`ROW_PANEL`] rows, so by the row-range law any mixture of places gives the same bits. What is
//! packed is cut between its units, and no tile has rows of two experts. Tiles of a weight are
//! numbered in row order and cover it exactly.

use super::weight::{Arrive, Part, Sheet, SheetError, Use, WeightId};
use std::collections::BTreeMap;
use std::ops::Range;
use trt_kernel::ROW_PANEL;

/// The most bytes of all weights: more than any device has, and few enough that no sum of a few such
/// numbers overflows.
const MOST: u64 = 1 << 56;

/// How large tiles should be, in bytes on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TileTarget {
    /// A 128th of all streamed bytes, between 512 KiB and 16 MiB: small enough that the ring is
    /// a few percent of the weights, large enough that copies run at the link's speed.
    #[default]
    Automatic,
    /// About this many bytes.
    Bytes(u64),
}

impl TileTarget {
    /// The target for this many streamed bytes, at least 1.
    pub fn resolve(self, total: u64) -> u64 {
        match self {
            TileTarget::Automatic => (total / 128).clamp(512 << 10, 16 << 20),
            TileTarget::Bytes(bytes) => bytes.max(1),
        }
    }
}

/// A tile, by its position in a [`Tiling`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TileId(pub u32);

/// Some rows of a weight, in the form that they are read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    /// The weight.
    pub weight: WeightId,
    /// The expert that all of its rows are of; 0 for a weight without experts.
    pub expert: u32,
    /// Its rows, counted from the weight's first.
    pub rows: Range<usize>,
    /// Its bytes in the file, from the form's first.
    pub stored: Range<usize>,
    /// Its bytes on the device.
    pub held: usize,
    /// How it comes there.
    pub arrive: Arrive,
}

impl Tile {
    /// Bytes that cross the link.
    pub fn stored_bytes(&self) -> u64 {
        self.stored.len() as u64
    }

    /// Bytes that fill the budget.
    pub fn held_bytes(&self) -> u64 {
        self.held as u64
    }
}

/// What a slot of the ring needs: as much as the largest tile of either kind. Pages that were read
/// in place can go when something else comes into the slot, memory of its own cannot, so the two
/// add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotBytes {
    /// Pages of a mapping.
    pub pages: u64,
    /// Memory of its own.
    pub own: u64,
}

impl SlotBytes {
    /// All bytes of a slot.
    pub fn total(&self) -> u64 {
        self.pages + self.own
    }
}

/// The tiles of one weight.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cut {
    tiles: Range<u32>,
    experts: u32,
}

/// All tiles of a set of weights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tiling {
    tiles: Vec<Tile>,
    by_weight: BTreeMap<WeightId, Cut>,
}

impl Tiling {
    /// Cuts weights; one that is given twice is cut once, as it is given first.
    ///
    /// # Errors
    /// A weight whose sizes cannot be counted, or whose units are not those of its rows.
    pub fn cut(sheets: &[Sheet], target: TileTarget) -> Result<Tiling, SheetError> {
        let mut distinct: BTreeMap<WeightId, &Sheet> = BTreeMap::new();
        for sheet in sheets {
            distinct.entry(sheet.weight).or_insert(sheet);
        }
        let mut total = 0u64;
        for sheet in distinct.values() {
            let sum = total.checked_add(sheet.check()?);
            let sum = sum.filter(|sum| *sum <= MOST);
            total = sum.ok_or_else(|| sheet.too_large())?;
        }
        let target = target.resolve(total);
        let mut tiling = Tiling::default();
        for sheet in distinct.into_values() {
            tiling.add(sheet, target)?;
        }
        Ok(tiling)
    }

    fn add(&mut self, sheet: &Sheet, target: u64) -> Result<(), SheetError> {
        let number = |n: usize| u32::try_from(n).map_err(|_| sheet.too_large());
        let experts = number(sheet.experts)?;
        let first = number(self.tiles.len())?;
        let step = rows_per_tile(sheet, target);
        let more = sheet.rows.div_ceil(step).checked_mul(sheet.experts);
        number(self.tiles.len().saturating_add(more.unwrap_or(usize::MAX)))?;
        for expert in 0..experts {
            let base = expert as usize * sheet.rows;
            for start in (0..sheet.rows).step_by(step) {
                let end = start.saturating_add(step).min(sheet.rows);
                let rows = base + start..base + end;
                let stored = sheet.stored(rows.clone());
                self.tiles.push(Tile {
                    weight: sheet.weight,
                    expert,
                    held: sheet.held(&rows, &stored),
                    rows,
                    stored,
                    arrive: sheet.arrive,
                });
            }
        }
        let tiles = first..self.tiles.len() as u32;
        self.by_weight.insert(sheet.weight, Cut { tiles, experts });
        Ok(())
    }

    /// How many tiles there are.
    pub fn len(&self) -> usize {
        self.tiles.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tiles.is_empty()
    }

    /// All tiles.
    pub fn ids(&self) -> impl Iterator<Item = TileId> + use<> {
        (0..self.tiles.len() as u32).map(TileId)
    }

    /// A tile.
    ///
    /// # Panics
    /// If `id` is not of this tiling.
    pub fn tile(&self, id: TileId) -> &Tile {
        &self.tiles[id.0 as usize]
    }

    /// The tiles of a use in row order; none for a weight that was not cut, or an expert that it
    /// does not have.
    pub fn of(&self, what: Use) -> impl Iterator<Item = TileId> + use<> {
        let Use { weight, part } = what;
        let cut = self.by_weight.get(&weight);
        let range = cut.map_or(0..0, |cut| match part {
            Part::All => cut.tiles.clone(),
            Part::Expert(expert) if expert < cut.experts => {
                // All experts have as many rows, and so as many tiles.
                let each = cut.tiles.len() as u32 / cut.experts;
                let first = cut.tiles.start + expert * each;
                first..first + each
            }
            Part::Expert(_) => 0..0,
        });
        range.map(TileId)
    }

    /// The weights that were cut.
    pub fn weights(&self) -> impl Iterator<Item = WeightId> + '_ {
        self.by_weight.keys().copied()
    }

    /// Whether the weight was cut.
    pub fn contains(&self, weight: WeightId) -> bool {
        self.by_weight.contains_key(&weight)
    }

    /// Bytes of all tiles on the device.
    pub fn total(&self) -> u64 {
        self.tiles.iter().map(Tile::held_bytes).sum()
    }

    /// Bytes of the largest tile on the device.
    pub fn largest(&self) -> u64 {
        self.tiles.iter().map(Tile::held_bytes).max().unwrap_or(0)
    }

    /// What a slot of the ring needs.
    pub fn slot(&self) -> SlotBytes {
        let mut slot = SlotBytes::default();
        for tile in &self.tiles {
            let part = match tile.arrive {
                Arrive::Populate => &mut slot.pages,
                Arrive::Upload | Arrive::Unpack => &mut slot.own,
            };
            *part = tile.held_bytes().max(*part);
        }
        slot
    }

    /// Bytes that the largest tile which is unpacked takes before it is, and at least 1; 0 if none is.
    pub fn stage(&self) -> u64 {
        let unpacked = self.tiles.iter().filter(|t| t.arrive == Arrive::Unpack);
        unpacked.map(|t| t.stored_bytes().max(1)).max().unwrap_or(0)
    }
}

/// Rows per tile so that tiles of an expert are nearly equal, at most a panel, or a unit, above the
/// target.
fn rows_per_tile(sheet: &Sheet, target: u64) -> usize {
    // The sheet was checked.
    let bytes = (sheet.rows * sheet.row_bytes) as u64;
    if bytes <= target {
        return sheet.rows.max(1);
    }
    let panel = sheet.units.as_ref().map_or(ROW_PANEL, |u| u.rows());
    let tiles = usize::try_from(bytes.div_ceil(target)).unwrap_or(usize::MAX);
    let rows = sheet.rows.div_ceil(tiles);
    rows.checked_next_multiple_of(panel).unwrap_or(sheet.rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Units;
    use std::sync::Arc;

    fn sheet(weight: u32, rows: usize, row_bytes: usize) -> Sheet {
        Sheet::plain(WeightId(weight), rows, row_bytes)
    }

    fn cut(sheets: &[Sheet], target: u64) -> Tiling {
        Tiling::cut(sheets, TileTarget::Bytes(target)).unwrap()
    }

    #[test]
    fn tiles_cover_a_weight_and_cut_at_panels() {
        let tiling = cut(&[sheet(3, 1000, 100)], 30_000);
        let mut next = 0;
        for id in tiling.of(WeightId(3).into()) {
            let tile = tiling.tile(id);
            assert_eq!(tile.rows.start, next);
            assert_eq!(tile.stored, tile.rows.start * 100..tile.rows.end * 100);
            assert_eq!(tile.held, tile.stored.len());
            assert!(tile.rows.end.is_multiple_of(ROW_PANEL) || tile.rows.end == 1000);
            assert!(tile.held_bytes() <= 30_000 + (ROW_PANEL * 100) as u64);
            next = tile.rows.end;
        }
        assert_eq!(next, 1000);
        assert_eq!(tiling.len(), 4);
        assert_eq!(tiling.total(), 100_000);
    }

    #[test]
    fn no_tile_is_smaller_than_a_panel_unless_the_weight_is() {
        let tiling = cut(&[sheet(0, 10, 8), sheet(1, 256, 8)], 1);
        let rows: Vec<_> = tiling
            .ids()
            .map(|id| tiling.tile(id).rows.clone())
            .collect();
        assert_eq!(rows, [0..10, 0..64, 64..128, 128..192, 192..256]);
    }

    #[test]
    fn no_tile_has_rows_of_two_experts() {
        let experts = Sheet {
            experts: 3,
            ..sheet(1, 100, 8)
        };
        let tiling = cut(&[sheet(0, 64, 8), experts], 1);
        let rows = |part| {
            let weight = WeightId(1);
            let tiles = tiling.of(Use { weight, part });
            tiles
                .map(|t| tiling.tile(t).rows.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(rows(Part::Expert(0)), [0..64, 64..100]);
        assert_eq!(rows(Part::Expert(2)), [200..264, 264..300]);
        assert_eq!(rows(Part::Expert(3)), []);
        assert_eq!(rows(Part::All).len(), 6);
    }

    #[test]
    fn packed_tiles_are_runs_of_units_and_differ_in_what_is_stored() {
        let units = Units::new(128, vec![0, 70, 75, 200]).unwrap();
        let packed = |arrive| Sheet {
            units: Some(Arc::new(units.clone())),
            arrive,
            ..sheet(0, 300, 10)
        };
        let bytes = |arrive| {
            let tiling = cut(&[packed(arrive)], 1);
            let tiles = tiling.ids().map(|t| tiling.tile(t).clone());
            let bytes: Vec<_> = tiles.map(|t| (t.stored, t.held)).collect();
            (bytes, tiling.slot(), tiling.stage())
        };
        let (unpacked, slot, stage) = bytes(Arrive::Unpack);
        assert_eq!(unpacked, [(0..70, 1280), (70..75, 1280), (75..200, 440)]);
        assert_eq!((slot.pages, slot.own, stage), (0, 1280, 125));
        let (as_it_is, slot, stage) = bytes(Arrive::Populate);
        assert_eq!(as_it_is, [(0..70, 70), (70..75, 5), (75..200, 125)]);
        assert_eq!((slot.pages, slot.own, stage), (125, 0, 0));
    }

    #[test]
    fn sizes_that_cannot_be_counted_are_refused() {
        let refused = |sheets: &[Sheet]| Tiling::cut(sheets, TileTarget::Automatic).unwrap_err();
        let huge = [
            sheet(0, usize::MAX, 2),
            Sheet {
                experts: usize::MAX,
                ..sheet(0, 2, 1)
            },
            // More tiles than there are numbers.
            sheet(0, usize::MAX, 1),
            Sheet {
                experts: 1 << 33,
                ..sheet(0, 1, 1)
            },
        ];
        for sheet in huge {
            assert!(matches!(refused(&[sheet]), SheetError::TooLarge { .. }));
        }
        let half = |weight| sheet(weight, 1, (1 << 55) + 1);
        assert!(matches!(
            refused(&[half(0), half(1)]),
            SheetError::TooLarge { .. }
        ));
        let units = Units::new(64, vec![0, 1, 2]).unwrap();
        let short = Sheet {
            units: Some(Arc::new(units)),
            ..sheet(0, 129, 1)
        };
        assert!(matches!(
            refused(&[short]),
            SheetError::Count {
                found: 3,
                needed: 4,
                ..
            }
        ));
        let nowhere = Sheet {
            arrive: Arrive::Unpack,
            ..sheet(0, 129, 1)
        };
        assert!(matches!(refused(&[nowhere]), SheetError::NoUnits { .. }));
    }

    #[test]
    fn the_automatic_target_follows_the_total() {
        assert_eq!(TileTarget::Automatic.resolve(1 << 20), 512 << 10);
        assert_eq!(TileTarget::Automatic.resolve(256 << 20), 2 << 20);
        assert_eq!(TileTarget::Automatic.resolve(16 << 30), 16 << 20);
    }
}
