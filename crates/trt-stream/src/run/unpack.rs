//! The seam to codes: whoever knows how a form is packed says how it is unpacked.

use super::Error;
use std::fmt;
use std::ops::Range;
use trt_device::{Slice, Work};

/// A tile that has arrived as its file stores it.
#[derive(Clone, Debug)]
pub struct Packed<'a> {
    /// Its rows, counted from the weight's first.
    pub rows: Range<usize>,
    /// Where each of its units begins, and where the last one ends, from the form's first byte:
    /// `stored` begins where the first one does.
    pub offsets: &'a [usize],
    /// The units, in staging memory.
    pub stored: Slice,
    /// Where its rows are to be, one after another as kernels read them.
    pub held: Slice,
}

impl Packed<'_> {
    /// The part of `stored` that each unit is.
    pub fn units(&self) -> impl Iterator<Item = Range<usize>> {
        let first = self.offsets.first().copied().unwrap_or(0);
        let pairs = self.offsets.windows(2);
        pairs.map(move |pair| pair[0] - first..pair[1] - first)
    }
}

/// How a form is unpacked. It knows the code; a streamer knows none.
pub trait Unpack: fmt::Debug + Send + Sync {
    /// The works that turn what is stored of a tile into what is held of it. They run in order on
    /// one stream, read nothing of the tile but `stored`, and write every byte of `held`.
    ///
    /// # Errors
    /// If there are none for such a tile.
    fn works(&self, packed: &Packed<'_>) -> Result<Vec<Work>, Error>;
}
