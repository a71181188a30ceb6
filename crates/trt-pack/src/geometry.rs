//! Which values a stream has: the places of a block.
//!
//! A row is cut into pieces of 8 values, and a few-row product gives piece `r * lanes + l` to lane `l` in round `r`. A *block* is some rows
//! of a *stretch* of rounds, and has 32 streams: one for each lane, or with 8 lanes one for each lane of every fourth row. So who
//! sums a row in that order reads one stream from its start to its end. The invariant: each piece of a unit is in exactly one
//! stream of one block, and no block has values of two units.

use crate::split::PIECE;
use std::ops::Range;
use thiserror::Error;

/// Streams of a block.
pub const STREAMS: usize = 32;
/// About the values of a block.
const VALUES: usize = 16384;
/// Rows of a block are at most this many, which is what units are multiples of.
const MOST_ROWS: usize = 64;
/// Rounds of a stretch where a row takes all lanes of a warp: so many values of the other operand stay in registers.
const ROUNDS: usize = 4;

/// The longest row of 8 lanes.
const SHORT: usize = 1024;

/// How rows of one length are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    columns: usize,
    lanes: usize,
    block_rows: usize,
    /// Pieces of a stretch but the last.
    stretch: usize,
}

/// Why rows cannot be packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum GeometryError {
    /// A row is no whole number of pieces.
    #[error("a row of {0} values is no whole number of pieces of 8")]
    Columns(usize),
    /// Streams are for 8 or 32 lanes.
    #[error("{0} lanes share a row, which are neither 8 nor 32")]
    Lanes(usize),
    /// So long rows are for 32 lanes: a block has whole rows where 8 share one.
    #[error("8 lanes share a row of {0} values, where 1024 are the most")]
    Shared(usize),
    /// A block of so long rows would have more bytes than can be counted.
    #[error("a row of {0} values is longer than 2^24")]
    Long(usize),
}

/// A block of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub rows: Range<usize>,
    /// Pieces of each row.
    pub pieces: Range<usize>,
    lanes: usize,
}

impl Geometry {
    /// For rows of `columns` values that `lanes` lanes share.
    ///
    /// # Errors
    ///
    /// A [`GeometryError`] if such rows cannot be cut.
    pub fn new(columns: usize, lanes: usize) -> Result<Geometry, GeometryError> {
        if columns == 0 || !columns.is_multiple_of(PIECE) {
            return Err(GeometryError::Columns(columns));
        }
        if columns > 1 << 24 {
            return Err(GeometryError::Long(columns));
        }
        let (block_rows, stretch) = match lanes {
            32 => (VALUES / (ROUNDS * 32 * PIECE), ROUNDS * 32),
            8 if columns > SHORT => return Err(GeometryError::Shared(columns)),
            8 => {
                // A whole row lies in a block.
                let rows = VALUES / columns / 4 * 4;
                (rows.clamp(4, MOST_ROWS), columns / PIECE)
            }
            other => return Err(GeometryError::Lanes(other)),
        };
        Ok(Geometry {
            columns,
            lanes,
            block_rows,
            stretch,
        })
    }

    /// Values of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Lanes that share a row.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// Rows of a block but the last of a unit.
    pub fn block_rows(&self) -> usize {
        self.block_rows
    }

    /// Pieces of a row in a stretch but its last.
    pub fn stretch(&self) -> usize {
        self.stretch
    }

    /// Stretches of a row.
    pub fn stretches(&self) -> usize {
        (self.columns / PIECE).div_ceil(self.stretch)
    }

    /// Blocks of a unit of so many rows.
    pub fn blocks(&self, rows: usize) -> usize {
        rows.div_ceil(self.block_rows) * self.stretches()
    }

    /// A block of a unit of so many rows, by its number: all stretches of the first rows, then those of the next.
    pub(crate) fn block(&self, rows: usize, number: usize) -> Block {
        let (group, stretch) = (number / self.stretches(), number % self.stretches());
        let cut = |n: usize, each: usize, end: usize| n * each..((n + 1) * each).min(end);
        Block {
            rows: cut(group, self.block_rows, rows),
            pieces: cut(stretch, self.stretch, self.columns / PIECE),
            lanes: self.lanes,
        }
    }
}

/// A piece of a block: its row, its number there, and where its plain bytes lie among the block's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub row: usize,
    pub number: usize,
    pub plain: usize,
}

impl Block {
    /// Pieces of a row.
    pub fn width(&self) -> usize {
        self.pieces.len()
    }

    /// Values of the block.
    pub fn values(&self) -> usize {
        self.rows.len() * self.width() * PIECE
    }

    /// Tells all steps with their streams, row after row, and those of one stream in its order: a piece, and the one `lanes` further
    /// if the row has it.
    #[inline(always)]
    pub fn each_row(&self, mut told: impl FnMut(usize, Piece, Option<Piece>)) {
        let groups = STREAMS / self.lanes;
        for row in 0..self.rows.len() {
            for pair in (0..self.width()).step_by(2 * self.lanes) {
                for lane in 0..self.lanes.min(self.width() - pair) {
                    let (first, second) = self.step(row, pair, lane);
                    told(row % groups * self.lanes + lane, first, second);
                }
            }
        }
    }

    /// Tells the steps of a stream in their order: the row, the number of the first piece there, and how much further the second is,
    /// if the row has it.
    #[inline(always)]
    pub fn each_of(&self, stream: usize, mut told: impl FnMut(usize, usize, Option<usize>)) {
        let (groups, lane) = (STREAMS / self.lanes, stream % self.lanes);
        for row in (stream / self.lanes..self.rows.len()).step_by(groups) {
            for number in (lane..self.width()).step_by(2 * self.lanes) {
                let second = number + self.lanes < self.width();
                told(row, number, second.then_some(self.lanes));
            }
        }
    }

    /// A lane's piece of the first of two rounds that begin with piece `pair`, and of the second if it is there.
    #[inline(always)]
    fn step(&self, row: usize, pair: usize, lane: usize) -> (Piece, Option<Piece>) {
        let (lanes, width) = (self.lanes, self.width());
        // Where both rounds are there for all lanes, each has its two pieces side by side.
        let (at, apart) = match pair + 2 * lanes <= width {
            true => (pair + 2 * lane, 1),
            false => (pair + lane, lanes),
        };
        let piece = |number: usize, at: usize| Piece {
            row,
            number,
            plain: (row * width + at) * PIECE,
        };
        let second = piece(pair + lane + lanes, at + apart);
        (
            piece(pair + lane, at),
            Some(second).filter(|p| p.number < width),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams(block: &Block) -> Vec<Vec<Piece>> {
        let mut streams = vec![Vec::new(); STREAMS];
        block.each_row(|stream, first, second| {
            streams[stream].push(first);
            streams[stream].extend(second);
        });
        streams
    }

    #[test]
    fn each_piece_is_in_one_stream_and_has_bytes_of_its_own() {
        for (columns, lanes) in [
            (4096, 32),
            (5128, 32),
            (1024, 32),
            (576, 8),
            (8, 8),
            (1016, 8),
            (14336, 32),
        ] {
            let geometry = Geometry::new(columns, lanes).unwrap();
            for rows in [1, 7, 64, 70] {
                let mut seen = vec![0; rows * columns / PIECE];
                for number in 0..geometry.blocks(rows) {
                    let block = geometry.block(rows, number);
                    let mut bytes = vec![0; block.values()];
                    for piece in streams(&block).into_iter().flatten() {
                        let row = block.rows.start + piece.row;
                        seen[row * columns / PIECE + block.pieces.start + piece.number] += 1;
                        let bytes = &mut bytes[piece.plain..][..PIECE];
                        bytes.iter_mut().for_each(|b| *b += 1);
                    }
                    assert!(
                        bytes.iter().all(|n| *n == 1),
                        "{geometry:?} {rows} {number}"
                    );
                }
                assert!(seen.iter().all(|n| *n == 1), "{geometry:?} {rows}");
            }
        }
    }

    #[test]
    fn a_stream_is_what_a_lane_sums() {
        let geometry = Geometry::new(4096, 32).unwrap();
        let block = geometry.block(64, 1);
        assert_eq!(
            (block.rows.clone(), block.pieces.clone()),
            (0..16, 128..256)
        );
        let streams = streams(&block);
        let told = streams[5].iter().take(5);
        let told: Vec<_> = told.map(|p| (p.row, p.number, p.plain)).collect();
        assert_eq!(
            told,
            [
                (0, 5, 80),
                (0, 37, 88),
                (0, 69, 592),
                (0, 101, 600),
                (1, 5, 1104)
            ]
        );
    }

    #[test]
    fn rows_that_cannot_be_cut_are_refused() {
        assert_eq!(Geometry::new(12, 8), Err(GeometryError::Columns(12)));
        assert_eq!(Geometry::new(0, 8), Err(GeometryError::Columns(0)));
        assert_eq!(Geometry::new(1032, 8), Err(GeometryError::Shared(1032)));
        assert_eq!(Geometry::new(64, 16), Err(GeometryError::Lanes(16)));
        assert_eq!(
            Geometry::new(1 << 25, 32),
            Err(GeometryError::Long(1 << 25))
        );
    }
}
