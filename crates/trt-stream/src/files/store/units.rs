//! The table behind packed rows: for each unit where it ends, in 16 bytes from the first one's start, and its CRC-32 (u32 each,
//! little-endian).

use super::cut::Cut;

/// Bytes of one unit's numbers.
const ENTRY: usize = 8;
/// What units begin at multiples of.
pub(super) const STEP: usize = 16;

/// Where the units of a tensor lie, and what their bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Places {
    /// Where each begins and the last ends, from the first one's start.
    pub offsets: Vec<usize>,
    /// Their checksums.
    pub sums: Vec<u32>,
}

/// Bytes of the table of so many units.
pub(super) fn table_bytes(cut: &Cut) -> usize {
    ENTRY * cut.units()
}

impl Places {
    /// None yet.
    pub fn new() -> Places {
        Places {
            offsets: vec![0],
            sums: Vec::new(),
        }
    }

    /// Bytes of all.
    pub fn end(&self) -> usize {
        self.offsets.last().copied().unwrap_or(0)
    }

    /// One more.
    pub fn push(&mut self, bytes: usize, sum: u32) {
        self.offsets.push(self.end() + bytes);
        self.sums.push(sum);
    }

    /// The table.
    pub fn to_bytes(&self) -> Vec<u8> {
        let units = self.offsets.iter().skip(1).zip(&self.sums);
        let entry = |(end, sum): (&usize, &u32)| {
            let place = (end / STEP) as u32;
            [place.to_le_bytes(), sum.to_le_bytes()].concat()
        };
        units.flat_map(entry).collect()
    }

    /// What a table says of units that are so many bytes; nothing if they cannot lie so.
    pub fn of(table: &[u8], bytes: usize) -> Option<Places> {
        let mut places = Places::new();
        for entry in table.as_chunks::<ENTRY>().0 {
            let [a, b, c, d, sum @ ..] = *entry;
            let end = u32::from_le_bytes([a, b, c, d]) as usize * STEP;
            let len = end.checked_sub(places.end())?;
            places.push(len, u32::from_le_bytes(sum));
        }
        (places.end() == bytes).then_some(places)
    }
}
