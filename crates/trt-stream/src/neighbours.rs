//! What lies around a tile in its file.
//!
//! A fault makes more pages resident than were touched: the kernel maps what the page cache
//! holds in one piece, up to [`REACH`]. So that what the process holds follows the budget, the
//! executor lets go of the gaps around a tile that was fetched, and of the whole hole that a
//! released tile leaves. Both end where a wanted tile begins: gaps never touch a page that a
//! wanted tile shares, since faulting it in again would bring its surroundings back.

use crate::{FileId, TileId, Tiling, Weights};
use std::ops::Range;

/// Most that one fault maps.
const REACH: usize = 2 << 20;
/// Gaps start on a multiple of this after a wanted tile. Where pages are larger, one that a
/// wanted tile shares is faulted in again: slower, not wrong.
const PAGE: usize = 4096;

/// Tiles by their position in each file.
#[derive(Debug)]
pub(crate) struct Neighbours {
    files: Vec<Vec<(Range<usize>, TileId)>>,
    /// Where each tile is in `files`.
    places: Vec<(FileId, usize)>,
}

impl Neighbours {
    pub fn new(weights: &Weights, tiling: &Tiling) -> Neighbours {
        let mut files = vec![Vec::new(); weights.files().len()];
        for id in tiling.ids() {
            let tile = tiling.tile(id);
            let info = weights.info(tile.weight);
            let start = info.range.start;
            let range = start + tile.span.start..start + tile.span.end;
            files[info.file.0 as usize].push((range, id));
        }
        let mut places = vec![(FileId(0), 0); tiling.len()];
        for (file, tiles) in files.iter_mut().enumerate() {
            tiles.sort_by_key(|(range, _)| (range.start, range.end));
            for (position, (_, id)) in tiles.iter().enumerate() {
                places[id.0 as usize] = (FileId(file as u32), position);
            }
        }
        Neighbours { files, places }
    }

    /// The gaps on both sides of a wanted tile.
    pub fn around(
        &self,
        tile: TileId,
        wanted: impl Fn(TileId) -> bool,
    ) -> (FileId, [Range<usize>; 2]) {
        let (file, position) = self.places[tile.0 as usize];
        let (range, _) = &self.files[file.0 as usize][position];
        let left = self.left(file, position, &wanted)..range.start;
        let right = range.end.next_multiple_of(PAGE)..self.right(file, position, &wanted);
        (file, [left, right])
    }

    /// The hole that a tile leaves which is no longer wanted.
    pub fn hole(&self, tile: TileId, wanted: impl Fn(TileId) -> bool) -> (FileId, Range<usize>) {
        let (file, position) = self.places[tile.0 as usize];
        let left = self.left(file, position, &wanted);
        (file, left..self.right(file, position, &wanted))
    }

    /// The parts of a range of a file that no wanted tile lies in.
    pub fn unwanted(
        &self,
        file: FileId,
        range: Range<usize>,
        wanted: impl Fn(TileId) -> bool,
    ) -> Vec<Range<usize>> {
        let mut parts = Vec::new();
        let mut start = range.start;
        let inside = |r: &Range<usize>| r.start < range.end && r.end > range.start;
        for (tile, id) in &self.files[file.0 as usize] {
            if inside(tile) && wanted(*id) {
                parts.push(start..tile.start);
                start = tile.end.next_multiple_of(PAGE);
            }
        }
        parts.push(start..range.end);
        parts.retain(|p| p.start < p.end);
        parts
    }

    /// Where the gap to the left of a tile begins.
    fn left(&self, file: FileId, position: usize, wanted: impl Fn(TileId) -> bool) -> usize {
        let tiles = &self.files[file.0 as usize];
        let reach = tiles[position].0.start.saturating_sub(REACH);
        let near = tiles[..position]
            .iter()
            .rev()
            .take_while(|(range, _)| range.end > reach);
        let held = near.map(|(range, id)| (range.end, *id));
        match held.into_iter().find(|(_, id)| wanted(*id)) {
            Some((end, _)) => end.next_multiple_of(PAGE),
            None => reach,
        }
    }

    /// Where the gap to the right of a tile ends.
    fn right(&self, file: FileId, position: usize, wanted: impl Fn(TileId) -> bool) -> usize {
        let tiles = &self.files[file.0 as usize];
        let reach = tiles[position].0.end.saturating_add(REACH);
        let near = tiles[position + 1..]
            .iter()
            .take_while(|(range, _)| range.start < reach);
        let held = near.map(|(range, id)| (range.start, *id));
        match held.into_iter().find(|(_, id)| wanted(*id)) {
            Some((start, _)) => start,
            None => reach,
        }
    }
}
