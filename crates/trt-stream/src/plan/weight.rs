//! What a plan knows of a weight: how it may be cut, and what its bytes are on their way.
//!
//! A weight has one meaning, its values, and lies in one or more forms. Which form rows are read
//! from is settled before a plan is made, so a plan sees one [`Sheet`] for each weight: rows,
//! the bytes of each in the file and on the device, and how they arrive. `stored` is what crosses
//! the link, `held` is what fills the budget; where nothing is packed they are equal.

use super::Runs;
use std::ops::Range;
use std::sync::Arc;
use trt_kernel::ROW_PANEL;

/// A weight, by its position among those that a streamer was told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightId(pub u32);

/// What of a weight a use reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// All of its rows; those of experts one expert after another.
    All,
    /// The rows of one expert, counted from its first.
    Expert(u32),
}

/// A use of a weight by a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Use {
    /// The weight.
    pub weight: WeightId,
    /// What of it.
    pub part: Part,
}

impl Use {
    /// The use of one expert.
    pub const fn expert(weight: WeightId, expert: u32) -> Use {
        let part = Part::Expert(expert);
        Use { weight, part }
    }
}

impl From<WeightId> for Use {
    fn from(weight: WeightId) -> Use {
        let part = Part::All;
        Use { weight, part }
    }
}

/// How a tile comes to where kernels read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arrive {
    /// Copied as it is into memory of its own.
    Upload,
    /// Read in place: the pages of its file are made resident.
    Populate,
    /// Copied as it is into staging memory, and unpacked from there into memory of its own.
    Unpack,
}

impl Arrive {
    /// Which of a weight's tiles one launch may cover.
    pub const fn runs(self) -> Runs {
        match self {
            Arrive::Upload | Arrive::Unpack => Runs::Apart,
            Arrive::Populate => Runs::Adjacent,
        }
    }
}

/// The units that a packed form is written in: so many rows each, but for the last of an expert,
/// in any number of bytes. A unit needs nothing but itself, so tiles are runs of units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Units {
    rows: usize,
    offsets: Vec<usize>,
}

/// A weight, or a form of one, that cannot be cut.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SheetError {
    /// Units that end where kernels cannot begin.
    #[error("units of {rows} rows are no whole panels of {ROW_PANEL}")]
    Ragged {
        /// Rows of a unit.
        rows: usize,
    },
    /// Offsets that lead back, or none.
    #[error("offset {at} of the units is before the one before it, or there is none")]
    Backwards {
        /// The offset's number.
        at: usize,
    },
    /// Units that are not as many as the rows need.
    #[error("weight {}: {found} offsets of units where the rows need {needed}", weight.0)]
    Count {
        /// The weight.
        weight: WeightId,
        /// Offsets that there are.
        found: usize,
        /// One for each unit, and one more.
        needed: usize,
    },
    /// A form beside the plain one that kernels do not read as it is stored.
    #[error("weight {}: what rows are read from beside the plain form must be held in its units", weight.0)]
    NotHeld {
        /// The weight.
        weight: WeightId,
    },
    /// A form to be unpacked of which nobody knows where its units are.
    #[error("weight {}: what is unpacked must be in units", weight.0)]
    NoUnits {
        /// The weight.
        weight: WeightId,
    },
    /// More bytes, rows or tiles than can be counted.
    #[error("weight {}: {experts} x {rows} rows of {row_bytes} bytes are too many", weight.0)]
    TooLarge {
        /// The weight.
        weight: WeightId,
        /// Its experts.
        experts: usize,
        /// Rows of each.
        rows: usize,
        /// Bytes of a row.
        row_bytes: usize,
    },
}

impl Units {
    /// Units of so many rows, which lie between these offsets: one more than there are units, each
    /// counted from the form's first byte.
    ///
    /// # Errors
    /// If units do not end at panels of rows, or offsets fall.
    pub fn new(rows: usize, offsets: Vec<usize>) -> Result<Units, SheetError> {
        if rows == 0 || !rows.is_multiple_of(ROW_PANEL) {
            return Err(SheetError::Ragged { rows });
        }
        if offsets.is_empty() {
            return Err(SheetError::Backwards { at: 0 });
        }
        match offsets.windows(2).position(|pair| pair[0] > pair[1]) {
            Some(before) => Err(SheetError::Backwards { at: before + 1 }),
            None => Ok(Units { rows, offsets }),
        }
    }

    /// Rows of a unit.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Where the last unit ends, from the form's first byte.
    pub fn end(&self) -> usize {
        self.offsets.last().copied().unwrap_or(0)
    }

    /// The offsets of the units that hold these rows of a weight with so many rows for each expert:
    /// one more than there are units. Nothing for rows that it does not have.
    pub fn around(&self, rows: Range<usize>, of_expert: usize) -> &[usize] {
        let unit = |row: usize| {
            let expert = row / of_expert.max(1);
            expert * of_expert.div_ceil(self.rows) + (row - expert * of_expert) / self.rows
        };
        let first = unit(rows.start);
        let last = match rows.is_empty() {
            true => first,
            false => unit(rows.end - 1) + 1,
        };
        self.offsets.get(first..=last).unwrap_or_default()
    }
}

/// A weight to be cut, in the form that its rows are read from while anything streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sheet {
    /// The weight.
    pub weight: WeightId,
    /// How many matrices of as many rows lie one after another; 1 for a weight without experts.
    pub experts: usize,
    /// Rows of each.
    pub rows: usize,
    /// Bytes of a row on the device.
    pub row_bytes: usize,
    /// How the file packs the rows, if not one after another as they are on the device.
    pub units: Option<Arc<Units>>,
    /// How its tiles arrive. What is packed and not unpacked is held as it is stored.
    pub arrive: Arrive,
    /// Whether its rows may be read plain too, with the same values: `row_bytes` each, one after
    /// another, which arrive in the same way.
    pub turns: bool,
}

impl Sheet {
    /// A weight without experts that is uploaded as it lies in its file.
    pub fn plain(weight: WeightId, rows: usize, row_bytes: usize) -> Sheet {
        Sheet {
            weight,
            experts: 1,
            rows,
            row_bytes,
            units: None,
            arrive: Arrive::Upload,
            turns: false,
        }
    }

    /// The rows of all experts and their bytes on the device, if they were not packed there.
    ///
    /// # Errors
    /// If they cannot be counted, or the units are not those of the rows.
    pub(super) fn check(&self) -> Result<u64, SheetError> {
        let weight = self.weight;
        let rows = self.experts.checked_mul(self.rows);
        let bytes = rows.and_then(|rows| rows.checked_mul(self.row_bytes));
        let (Some(_), Some(bytes)) = (rows, bytes) else {
            return Err(self.too_large());
        };
        match &self.units {
            Some(units) => {
                // No more than the rows, which were counted.
                let needed = self.experts * self.rows.div_ceil(units.rows) + 1;
                if units.offsets.len() != needed {
                    let found = units.offsets.len();
                    return Err(SheetError::Count {
                        weight,
                        found,
                        needed,
                    });
                }
            }
            None if self.arrive == Arrive::Unpack => return Err(SheetError::NoUnits { weight }),
            None => {}
        }
        let held_as_stored = self.units.is_some() && self.arrive != Arrive::Unpack;
        if self.turns && !held_as_stored {
            return Err(SheetError::NotHeld { weight });
        }
        Ok(bytes as u64)
    }

    pub(super) fn too_large(&self) -> SheetError {
        SheetError::TooLarge {
            weight: self.weight,
            experts: self.experts,
            rows: self.rows,
            row_bytes: self.row_bytes,
        }
    }

    /// The bytes of these rows in the file, from the form's first; of checked sheets.
    pub(super) fn stored(&self, rows: Range<usize>) -> Range<usize> {
        match &self.units {
            None => rows.start * self.row_bytes..rows.end * self.row_bytes,
            Some(units) => match units.around(rows, self.rows) {
                [only] => *only..*only,
                [first, .., last] => *first..*last,
                [] => 0..0,
            },
        }
    }

    /// Bytes of these rows on the device, of which the file has `stored`.
    pub(super) fn held(&self, rows: &Range<usize>, stored: &Range<usize>) -> usize {
        match (&self.units, self.arrive) {
            (None, _) | (Some(_), Arrive::Unpack) => rows.len() * self.row_bytes,
            (Some(_), Arrive::Upload | Arrive::Populate) => stored.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_begin_anew_with_each_expert() {
        // Two experts of 100 rows, in units of 64: 64, 36, 64, 36.
        let units = Units::new(64, vec![0, 10, 15, 30, 32]).unwrap();
        let of = |rows| units.around(rows, 100);
        assert_eq!(of(0..64), [0, 10]);
        assert_eq!(of(0..100), [0, 10, 15]);
        assert_eq!(of(64..100), [10, 15]);
        assert_eq!(of(100..164), [15, 30]);
        assert_eq!(of(100..200), [15, 30, 32]);
        assert_eq!(of(164..200), [30, 32]);
        assert_eq!(of(200..264), [] as [usize; 0]);
    }

    #[test]
    fn units_that_cannot_be_are_refused() {
        let ragged = Units::new(65, vec![0, 1]);
        assert_eq!(ragged, Err(SheetError::Ragged { rows: 65 }));
        assert!(Units::new(0, vec![0, 1]).is_err());
        let back = Units::new(64, vec![0, 5, 4]);
        assert_eq!(back, Err(SheetError::Backwards { at: 2 }));
        assert!(Units::new(64, Vec::new()).is_err());
    }
}
