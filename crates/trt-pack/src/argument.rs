//! What a kernel is given beside the units of a weight: the code as a table, and where units are.
//!
//! `u32 table[4096], u32 place[units + 1]`, little-endian, and zeros up to a multiple of 16 bytes. The table has an entry for each pattern of 12
//! bits, of the word that it begins with: the bits of its symbol where a value has them, those of two neighbours in both halves; the
//! word's length at bits 3 to 6, which no symbol has; at bits 15 and 31 that the first and the second symbol is none of the common
//! ones. Places are where each unit begins and the last one ends, in 16 bytes from the weight's first unit.
//!
//! Who makes it has checked the places; so a kernel relies on them, and on nothing that lies in a unit.

use crate::code::Code;
use crate::lengths::LONGEST;
use crate::unit::ALIGNMENT;
use crate::words::Symbols;

/// Bytes of the table.
pub const TABLE_BYTES: usize = 4 << LONGEST;

/// About the bytes of a unit's values.
const UNIT: usize = 1 << 20;
/// What the rows of a unit are a multiple of.
const PANEL: usize = 64;

/// Rows of a unit of rows of so many values: as many as are 1 MiB in 64s, and 64 at least.
pub const fn unit_rows(columns: usize) -> usize {
    let row = match columns.checked_mul(2) {
        Some(0) | None => UNIT,
        Some(row) => row,
    };
    let panels = UNIT / PANEL / row;
    match panels {
        0 => PANEL,
        panels => panels * PANEL,
    }
}

/// Bytes of what a kernel is given for so many units, if they can be counted.
pub fn argument_bytes(units: usize) -> Option<usize> {
    let places = units.checked_add(1)?.checked_mul(4)?;
    places
        .checked_add(TABLE_BYTES)?
        .checked_next_multiple_of(ALIGNMENT)
}

/// What a kernel is given: of the code, and of where units begin and the last one ends, in 16 bytes.
pub fn argument(code: &Code, places: &[u32]) -> Vec<u8> {
    let symbols = Symbols::new(code);
    let words = symbols.table().iter().chain(places);
    let mut bytes: Vec<u8> = words.flat_map(|w| w.to_le_bytes()).collect();
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    bytes
}

/// Where a unit begins, in bytes from the weight's first; none if the argument has no such place.
pub fn place(argument: &[u8], unit: usize) -> Option<usize> {
    let at = unit.checked_mul(4)?.checked_add(TABLE_BYTES)?;
    let word = argument.get(at..)?.first_chunk()?;
    (u32::from_le_bytes(*word) as usize).checked_mul(ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Counts, Kind};

    #[test]
    fn units_are_about_a_mebibyte() {
        let rows = [8, 576, 1536, 4096, 14336, 1 << 20].map(unit_rows);
        assert_eq!(rows, [65536, 896, 320, 128, 64, 64]);
        assert_eq!([0, usize::MAX].map(unit_rows), [64, 64]);
    }

    #[test]
    fn places_are_behind_the_table() {
        let mut counts = Counts::new(Kind::Bf16);
        counts.add(&[0x3f80; 16]);
        let code = Code::best(&counts).unwrap();
        let bytes = argument(&code, &[0, 7, 9]);
        assert_eq!(Some(bytes.len()), argument_bytes(2));
        let places = [0, 1, 2, 3, 4].map(|unit| place(&bytes, unit));
        assert_eq!(places, [Some(0), Some(112), Some(144), Some(0), None]);
        assert_eq!(place(&bytes, usize::MAX), None);
    }
}
