//! Weights cut into row tiles: the unit that is resident or streamed.
//!
//! A weight used as a ranged matmul operand `[n, k]` is cut at multiples of
//! [`ROW_PANEL`] rows, so by the row-range law any mixture of places gives the same bits. A
//! weight that a kernel needs in one piece is one tile. Tiles of a weight are numbered in row
//! order and cover it exactly.

use crate::files::TensorId;
use std::collections::BTreeMap;
use std::ops::Range;
use trt_kernel::ROW_PANEL;

/// How large tiles should be.
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

/// A weight to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sheet {
    /// The weight.
    pub weight: TensorId,
    /// Its rows.
    pub rows: usize,
    /// Bytes of a row.
    pub row_bytes: usize,
    /// Whether it must stay in one piece.
    pub whole: bool,
}

/// Some rows of a weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    /// The weight.
    pub weight: TensorId,
    /// Its rows.
    pub rows: Range<usize>,
    /// Its bytes, from the weight's first.
    pub span: Range<usize>,
}

impl Tile {
    /// Bytes.
    pub fn bytes(&self) -> u64 {
        self.span.len() as u64
    }
}

/// All tiles of a set of weights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tiling {
    tiles: Vec<Tile>,
    by_weight: BTreeMap<TensorId, Range<u32>>,
}

impl Tiling {
    /// Cuts weights; a weight given twice is cut once, in one piece if either says so.
    pub fn cut(sheets: &[Sheet], target: TileTarget) -> Tiling {
        let mut distinct: BTreeMap<TensorId, Sheet> = BTreeMap::new();
        for sheet in sheets {
            let kept = distinct.entry(sheet.weight).or_insert(*sheet);
            kept.whole |= sheet.whole;
        }
        let total = distinct.values().map(|s| (s.rows * s.row_bytes) as u64);
        let target = target.resolve(total.sum());
        let mut tiling = Tiling::default();
        for sheet in distinct.values() {
            let first = tiling.tiles.len() as u32;
            let step = rows_per_tile(sheet, target);
            for start in (0..sheet.rows).step_by(step) {
                let end = (start + step).min(sheet.rows);
                tiling.tiles.push(Tile {
                    weight: sheet.weight,
                    rows: start..end,
                    span: start * sheet.row_bytes..end * sheet.row_bytes,
                });
            }
            let last = tiling.tiles.len() as u32;
            tiling.by_weight.insert(sheet.weight, first..last);
        }
        tiling
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

    /// The tiles of a weight in row order; none for a weight that was not cut.
    pub fn of(&self, weight: TensorId) -> impl Iterator<Item = TileId> + use<> {
        let range = self.by_weight.get(&weight).cloned().unwrap_or(0..0);
        range.map(TileId)
    }

    /// The weights that were cut.
    pub fn weights(&self) -> impl Iterator<Item = TensorId> + '_ {
        self.by_weight.keys().copied()
    }

    /// Whether the weight was cut.
    pub fn contains(&self, weight: TensorId) -> bool {
        self.by_weight.contains_key(&weight)
    }

    /// Bytes of all tiles.
    pub fn total(&self) -> u64 {
        self.tiles.iter().map(Tile::bytes).sum()
    }

    /// Bytes of the largest tile.
    pub fn largest(&self) -> u64 {
        self.tiles.iter().map(Tile::bytes).max().unwrap_or(0)
    }
}

/// Rows per tile so that tiles of a weight are nearly equal, at most a panel above the target.
fn rows_per_tile(sheet: &Sheet, target: u64) -> usize {
    let bytes = (sheet.rows * sheet.row_bytes) as u64;
    if sheet.whole || bytes <= target {
        return sheet.rows.max(1);
    }
    let tiles = usize::try_from(bytes.div_ceil(target)).unwrap_or(usize::MAX);
    sheet.rows.div_ceil(tiles).next_multiple_of(ROW_PANEL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet(weight: u32, rows: usize, row_bytes: usize) -> Sheet {
        Sheet {
            weight: TensorId(weight),
            rows,
            row_bytes,
            whole: false,
        }
    }

    #[test]
    fn tiles_cover_a_weight_and_cut_at_panels() {
        let tiling = Tiling::cut(&[sheet(3, 1000, 100)], TileTarget::Bytes(30_000));
        let mut next = 0;
        for id in tiling.of(TensorId(3)) {
            let tile = tiling.tile(id);
            assert_eq!(tile.rows.start, next);
            assert_eq!(tile.span, tile.rows.start * 100..tile.rows.end * 100);
            assert!(tile.rows.end.is_multiple_of(ROW_PANEL) || tile.rows.end == 1000);
            assert!(tile.bytes() <= 30_000 + (ROW_PANEL * 100) as u64);
            next = tile.rows.end;
        }
        assert_eq!(next, 1000);
        assert_eq!(tiling.len(), 4);
        assert_eq!(tiling.total(), 100_000);
    }

    #[test]
    fn a_weight_used_whole_is_one_tile() {
        let whole = Sheet {
            whole: true,
            ..sheet(0, 1000, 100)
        };
        let tiling = Tiling::cut(&[sheet(0, 1000, 100), whole], TileTarget::Bytes(1));
        assert_eq!(tiling.len(), 1);
        assert_eq!(tiling.largest(), 100_000);
    }

    #[test]
    fn no_tile_is_smaller_than_a_panel_unless_the_weight_is() {
        let tiling = Tiling::cut(&[sheet(0, 10, 8), sheet(1, 256, 8)], TileTarget::Bytes(1));
        let rows: Vec<_> = tiling
            .ids()
            .map(|id| tiling.tile(id).rows.clone())
            .collect();
        assert_eq!(rows, [0..10, 0..64, 64..128, 128..192, 192..256]);
    }

    #[test]
    fn the_automatic_target_follows_the_total() {
        assert_eq!(TileTarget::Automatic.resolve(1 << 20), 512 << 10);
        assert_eq!(TileTarget::Automatic.resolve(256 << 20), 2 << 20);
        assert_eq!(TileTarget::Automatic.resolve(16 << 30), 16 << 20);
    }
}
