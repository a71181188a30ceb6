//! A unit: some rows, packed by themselves.
//!
//! First where each block begins and where the last ends, in 16 bytes from the unit's start, a little-endian 32-bit number each, filled
//! up to 16 bytes; the highest bit says that a block is stored as its values are. Then the blocks:
//!
//! - packed: where each of the 32 streams begins (16-bit, in bytes), the plain bytes, and the words of the streams;
//! - stored: the values of each row.
//!
//! Each begins at a multiple of 16 bytes. A step of a stream is the words of its one or two pieces, then 8 bits for each symbol that
//! they only said to be none of the common ones.

use crate::bits::{Reader, Writer};
use crate::code::{Arity, Code};
use crate::geometry::{Block, Geometry, Piece, STREAMS};
use crate::split::{Kind, PIECE};
use crate::words::{Symbols, Words};
use thiserror::Error;

/// What blocks and units begin at multiples of.
pub const ALIGNMENT: usize = 16;
/// Bytes of the streams' starts.
const STARTS: usize = 2 * STREAMS;
/// Says that a block is stored.
const STORED: u32 = 1 << 31;

/// Why bytes are no unit of so many rows.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UnitError {
    /// They end before the blocks' places do.
    #[error("the places of {blocks} blocks take {wanted} bytes, the unit has {found}")]
    Short {
        /// Blocks of such a unit.
        blocks: usize,
        /// Bytes of their places.
        wanted: usize,
        /// Bytes of the unit.
        found: usize,
    },
    /// A block's place is not where one can be.
    #[error(
        "block {block} lies at bytes {start} to {end} of a unit of {len}, where at least {least} are its own"
    )]
    Place {
        /// Its number.
        block: usize,
        /// Its first byte.
        start: usize,
        /// The next one's first.
        end: usize,
        /// Bytes of the unit.
        len: usize,
        /// What it takes at least.
        least: usize,
    },
    /// The values are not those of whole rows.
    #[error("{found} values are not {rows} rows of {columns}")]
    Values {
        /// Values that there are.
        found: usize,
        /// Rows of the unit.
        rows: usize,
        /// Values of each.
        columns: usize,
    },
}

/// Packs units of one weight.
pub struct Packer {
    geometry: Geometry,
    words: Words,
    streams: Writer,
    /// The values of a block, row after row.
    rows: Vec<u16>,
}

/// Unpacks units of one weight.
pub struct Unpacker {
    geometry: Geometry,
    symbols: Symbols,
}

impl Packer {
    /// For rows that are cut so, by a code.
    pub fn new(geometry: Geometry, code: &Code) -> Packer {
        Packer {
            geometry,
            words: Words::new(code),
            streams: Writer::default(),
            rows: Vec::new(),
        }
    }

    /// Appends a unit of the rows to `out`, whose length is a multiple of 16.
    ///
    /// # Errors
    ///
    /// If the values are not whole rows.
    pub fn pack(&mut self, values: &[u16], out: &mut Vec<u8>) -> Result<(), UnitError> {
        let rows = whole_rows(&self.geometry, values.len())?;
        let unit = out.len();
        let blocks = self.geometry.blocks(rows);
        out.resize(unit + places(blocks), 0);
        for number in 0..=blocks {
            let place = ((out.len() - unit) / ALIGNMENT) as u32;
            let stored = match number < blocks {
                true => self.block(&self.geometry.block(rows, number), values, out),
                false => false,
            };
            let place = if stored { place | STORED } else { place };
            out[unit + 4 * number..][..4].copy_from_slice(&place.to_le_bytes());
        }
        Ok(())
    }

    /// Appends a block; whether it is stored.
    fn block(&mut self, block: &Block, values: &[u16], out: &mut Vec<u8>) -> bool {
        let start = out.len();
        out.resize(
            start + STARTS + block.values().next_multiple_of(ALIGNMENT),
            0,
        );
        // A word for each value and an escape is the most that there is.
        self.streams.clear(block.values() * 20 + STREAMS * 8);
        let columns = self.geometry.columns();
        let row =
            |row: usize| &values[(block.rows.start + row) * columns + block.pieces.start * PIECE..];
        let plain = start + STARTS;
        // Rows are read one after another, since those of a block may be apart by what a cache has one place for.
        let width = block.width() * PIECE;
        self.rows.clear();
        (0..block.rows.len()).for_each(|r| self.rows.extend_from_slice(&row(r)[..width]));
        let piece = |at: usize| {
            let values = self.rows[at..].first_chunk::<PIECE>();
            values.copied().unwrap_or_default()
        };
        block.each_row(|_, first, second| {
            for piece_of in [Some(first), second].into_iter().flatten() {
                let values = piece(piece_of.row * width + piece_of.number * PIECE);
                let plain = &mut out[plain + piece_of.plain..][..PIECE];
                plain.copy_from_slice(&self.words.kind.plain(&values));
            }
        });
        for stream in 0..STREAMS {
            let words = &self.words;
            let first = self.streams.stream(|put| {
                block.each_of(stream, |row, number, apart| {
                    let at = row * width + number * PIECE;
                    let first = piece(at);
                    let mut escaped = words.put(&first, put);
                    let second = apart.map(|apart| piece(at + apart * PIECE));
                    if let Some(second) = &second {
                        escaped |= words.put(second, put);
                    }
                    if escaped {
                        words.put_escaped(&first, put);
                        second.iter().for_each(|p| words.put_escaped(p, put));
                    }
                });
            });
            // Longer streams than 2^16 bytes do not pay, and are not kept.
            out[start + 2 * stream..][..2].copy_from_slice(&(first as u16).to_le_bytes());
        }
        let words = self.streams.finish();
        let packed = out.len() + 4 * words.len();
        if packed - start >= 2 * block.values() {
            out.truncate(start);
            for row in (0..block.rows.len()).map(row) {
                let values = &row[..block.width() * PIECE];
                out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
            }
            return true;
        }
        out.extend(words.iter().flat_map(|w| w.to_le_bytes()));
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        false
    }
}

impl Unpacker {
    /// For rows that are cut so, by a code.
    pub fn new(geometry: Geometry, code: &Code) -> Unpacker {
        Unpacker {
            geometry,
            symbols: Symbols::new(code),
        }
    }

    /// For rows that are cut so, by the table that an [`argument`](crate::argument()) begins with; none if there is no whole one.
    pub fn of_argument(
        geometry: Geometry,
        (kind, arity): (Kind, Arity),
        argument: &[u8],
    ) -> Option<Unpacker> {
        let symbols = Symbols::of_bytes(kind, arity, argument)?;
        Some(Unpacker { geometry, symbols })
    }

    /// Writes the values of a unit, which are so many whole rows. Bytes that are no unit give values of some kind or an
    /// error; nothing outside of them is read.
    ///
    /// # Errors
    ///
    /// If a block does not lie inside of the unit, or the values are not whole rows.
    pub fn unpack(&self, unit: &[u8], values: &mut [u16]) -> Result<(), UnitError> {
        let rows = whole_rows(&self.geometry, values.len())?;
        for (number, place) in blocks(&self.geometry, unit, rows)?.into_iter().enumerate() {
            let block = self.geometry.block(rows, number);
            match place {
                Place::Stored(bytes) => self.stored(&block, bytes, values),
                Place::Packed(bytes) => self.packed(&block, bytes, values),
            }
        }
        Ok(())
    }

    fn stored(&self, block: &Block, bytes: &[u8], values: &mut [u16]) {
        let columns = self.geometry.columns();
        let width = block.width() * PIECE;
        for (row, bytes) in bytes
            .chunks_exact(2 * width)
            .enumerate()
            .take(block.rows.len())
        {
            let at = (block.rows.start + row) * columns + block.pieces.start * PIECE;
            let pairs = bytes.as_chunks::<2>().0.iter();
            for (value, pair) in values[at..][..width].iter_mut().zip(pairs) {
                *value = u16::from_le_bytes(*pair);
            }
        }
    }

    fn packed(&self, block: &Block, bytes: &[u8], values: &mut [u16]) {
        let columns = self.geometry.columns();
        let plain = &bytes[STARTS..];
        let words = &plain[block.values().next_multiple_of(ALIGNMENT)..];
        let kind = self.symbols.kind;
        let start = |stream: usize| u16::from_le_bytes([bytes[2 * stream], bytes[2 * stream + 1]]);
        let mut readers: [Reader; STREAMS] =
            std::array::from_fn(|stream| Reader::new(usize::from(start(stream))));
        // Row by row: what one stream waits for does not hold up the next.
        block.each_row(|stream, first, second| {
            let reader = &mut readers[stream];
            let mut read = |piece: Piece| {
                let plain = plain[piece.plain..].first_chunk::<PIECE>();
                let plain = kind.of_plain(*plain.unwrap_or(&[0; PIECE]));
                let (read, escaped) = self.symbols.read(plain, reader, words);
                let row = (block.rows.start + piece.row) * columns;
                let at = row + (block.pieces.start + piece.number) * PIECE;
                values[at..at + PIECE].copy_from_slice(&read);
                (at, escaped)
            };
            let pieces = [Some(read(first)), second.map(&mut read)];
            for (at, mut escaped) in pieces.into_iter().flatten() {
                while escaped != 0 {
                    let value = &mut values[at + escaped.trailing_zeros() as usize];
                    *value |= kind.of_symbol(reader.byte(words));
                    escaped &= escaped - 1;
                }
            }
        });
    }
}

/// The rows that so many values are.
fn whole_rows(geometry: &Geometry, found: usize) -> Result<usize, UnitError> {
    let columns = geometry.columns();
    let rows = found / columns;
    match rows * columns == found {
        true => Ok(rows),
        false => Err(UnitError::Values {
            found,
            rows,
            columns,
        }),
    }
}

/// The bytes of a block.
enum Place<'a> {
    Stored(&'a [u8]),
    Packed(&'a [u8]),
}

/// Bytes of the places of so many blocks.
fn places(blocks: usize) -> usize {
    (4 * (blocks + 1)).next_multiple_of(ALIGNMENT)
}

/// Checks the places of all blocks of a unit of so many rows: each lies inside of the unit, behind the one before, and has room
/// for its plain bytes.
///
/// # Errors
///
/// If one does not.
pub fn check(geometry: &Geometry, unit: &[u8], rows: usize) -> Result<(), UnitError> {
    blocks(geometry, unit, rows).map(drop)
}

fn blocks<'a>(
    geometry: &Geometry,
    unit: &'a [u8],
    rows: usize,
) -> Result<Vec<Place<'a>>, UnitError> {
    let count = geometry.blocks(rows);
    let wanted = places(count);
    let found = unit.len();
    let table = unit.get(..wanted).ok_or(UnitError::Short {
        blocks: count,
        wanted,
        found,
    })?;
    let place = |i: usize| {
        let word = table[4 * i..]
            .first_chunk()
            .map_or(0, |w| u32::from_le_bytes(*w));
        ((word & !STORED) as usize * ALIGNMENT, word & STORED != 0)
    };
    let block = |number: usize| {
        let ((start, stored), (end, _)) = (place(number), place(number + 1));
        let values = geometry.block(rows, number).values();
        let least = match stored {
            true => 2 * values,
            false => STARTS + values.next_multiple_of(ALIGNMENT),
        };
        let fits = wanted <= start && start.checked_add(least).is_some_and(|least| least <= end);
        match unit.get(start..end).filter(|_| fits) {
            Some(bytes) if stored => Ok(Place::Stored(bytes)),
            Some(bytes) => Ok(Place::Packed(bytes)),
            None => Err(UnitError::Place {
                block: number,
                start,
                end,
                len: found,
                least,
            }),
        }
    };
    (0..count).map(block).collect()
}
