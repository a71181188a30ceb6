//! Weights cut into row tiles: the unit that is resident or streamed.
//!
//! A weight used as a ranged matmul operand `[n, k]` is cut at multiples of
//! [`ROW_PANEL`] rows, so by the row-range law any mixture of places gives the same bits. What is
//! packed is cut between its units, and no tile has rows of two experts. Tiles of a weight are
//! numbered in row order and cover it exactly. A weight that may be read in two forms has tiles of
//! the same rows in each: those that are packed stream or stay, those that are plain only stay.

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

/// Which of a weight's forms a tile is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TileForm {
    /// The only one that its rows are read from.
    Only,
    /// The packed one of two.
    Packed,
    /// The plain one of two, which never streams.
    Plain,
}

impl TileForm {
    /// All of them.
    pub const ALL: [TileForm; 3] = [TileForm::Only, TileForm::Packed, TileForm::Plain];
}

/// Some rows of a weight, in a form that they are read from.
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
    /// The form that it is in.
    pub form: TileForm,
    /// The bytes by which computing on it is measured: in both of two forms those of the plain one,
    /// else what is held.
    pub measure: usize,
}

impl Tile {
    /// What its bytes are of.
    pub fn source(&self) -> (WeightId, TileForm) {
        (self.weight, self.form)
    }

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
    /// Of each weight its only tiles, or its packed ones.
    by_weight: BTreeMap<WeightId, Cut>,
    /// The plain tiles of weights that have two forms, which come after all others.
    plain: BTreeMap<WeightId, Cut>,
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
        for sheet in distinct.values() {
            let form = match sheet.turns {
                true => TileForm::Packed,
                false => TileForm::Only,
            };
            let cut = tiling.add(sheet, target, form)?;
            tiling.by_weight.insert(sheet.weight, cut);
        }
        for sheet in distinct.values().filter(|sheet| sheet.turns) {
            let cut = tiling.add(sheet, target, TileForm::Plain)?;
            tiling.plain.insert(sheet.weight, cut);
        }
        Ok(tiling)
    }

    fn add(&mut self, sheet: &Sheet, target: u64, form: TileForm) -> Result<Cut, SheetError> {
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
                let tile = sheet.tile(base + start..base + end, expert, form);
                self.tiles.push(tile);
            }
        }
        let tiles = first..self.tiles.len() as u32;
        Ok(Cut { tiles, experts })
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

    /// The tiles of a use in row order, in the form that streams; none for a weight that was not cut,
    /// or an expert that it does not have.
    pub fn of(&self, what: Use) -> impl Iterator<Item = TileId> + use<> {
        Cut::part(self.by_weight.get(&what.weight), what.part)
    }

    /// The plain tiles of a use in row order, as many as the others; none for a weight that has but
    /// one form.
    pub fn plain_of(&self, what: Use) -> impl Iterator<Item = TileId> + use<> {
        Cut::part(self.plain.get(&what.weight), what.part)
    }

    /// Whether a weight has a plain form beside the one that streams.
    pub fn turns(&self, weight: WeightId) -> bool {
        self.plain.contains_key(&weight)
    }

    /// The weights that have a plain form beside the one that streams.
    pub fn turning(&self) -> impl Iterator<Item = WeightId> + '_ {
        self.plain.keys().copied()
    }

    /// The weights that were cut.
    pub fn weights(&self) -> impl Iterator<Item = WeightId> + '_ {
        self.by_weight.keys().copied()
    }

    /// Whether the weight was cut.
    pub fn contains(&self, weight: WeightId) -> bool {
        self.by_weight.contains_key(&weight)
    }

    /// Tiles that may stream: all but the plain ones of weights that have two forms.
    fn streaming(&self) -> impl Iterator<Item = &Tile> {
        self.tiles.iter().filter(|t| t.form != TileForm::Plain)
    }

    /// Bytes of all tiles on the device, in the form that streams.
    pub fn total(&self) -> u64 {
        self.streaming().map(Tile::held_bytes).sum()
    }

    /// Bytes of the largest of these tiles on the device.
    pub fn largest(&self) -> u64 {
        self.streaming().map(Tile::held_bytes).max().unwrap_or(0)
    }

    /// What a slot of the ring needs.
    pub fn slot(&self) -> SlotBytes {
        let mut slot = SlotBytes::default();
        for tile in self.streaming() {
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
        let unpacked = self.streaming().filter(|t| t.arrive == Arrive::Unpack);
        unpacked.map(|t| t.stored_bytes().max(1)).max().unwrap_or(0)
    }
}

impl Cut {
    /// The tiles of a part of a weight that was cut.
    fn part(cut: Option<&Cut>, part: Part) -> impl Iterator<Item = TileId> + use<> {
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
}

impl Sheet {
    /// These rows in a form; of a checked sheet.
    fn tile(&self, rows: Range<usize>, expert: u32, form: TileForm) -> Tile {
        let plain = rows.start * self.row_bytes..rows.end * self.row_bytes;
        let stored = match form {
            TileForm::Only | TileForm::Packed => self.stored(rows.clone()),
            TileForm::Plain => plain.clone(),
        };
        let held = match form {
            TileForm::Only | TileForm::Packed => self.held(&rows, &stored),
            TileForm::Plain => plain.len(),
        };
        Tile {
            weight: self.weight,
            expert,
            rows,
            stored,
            held,
            arrive: self.arrive,
            form,
            measure: match form {
                TileForm::Only => held,
                TileForm::Packed | TileForm::Plain => plain.len(),
            },
        }
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
mod tests;
