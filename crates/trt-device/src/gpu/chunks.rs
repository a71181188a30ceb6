//! How a mapped file is cut for registration.
//!
//! Registration locks pages, so it happens by chunks, when one is first used. A chunk is either
//! registered as a whole or not at all, and no copy may cross the border of two registrations.

use std::ops::Range;

/// Bytes of a chunk; a multiple of every page size.
pub(crate) const CHUNK: usize = 32 << 20;

/// Chunks beyond the one in use whose pages are brought ahead.
pub(crate) const AHEAD: usize = 6;

/// How many chunks a file of `len` bytes has.
pub(crate) fn count(len: usize) -> usize {
    len.div_ceil(CHUNK)
}

/// The bytes of chunk `index` of a file of `len` bytes.
pub(crate) fn bytes(index: usize, len: usize) -> Range<usize> {
    let start = index.saturating_mul(CHUNK).min(len);
    start..start.saturating_add(CHUNK).min(len)
}

/// The chunks that a range of bytes touches.
pub(crate) fn touched(range: &Range<usize>) -> Range<usize> {
    match range.is_empty() {
        true => 0..0,
        false => range.start / CHUNK..range.end.div_ceil(CHUNK),
    }
}

/// A range of bytes cut where chunks end, each part with its chunk.
pub(crate) fn parts(range: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
    touched(&range).map(move |chunk| {
        let start = range.start.max(chunk * CHUNK);
        (chunk, start..range.end.min((chunk + 1) * CHUNK))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_chunk_ends_with_the_file() {
        let len = 2 * CHUNK + 5;
        assert_eq!(count(len), 3);
        assert_eq!(bytes(0, len), 0..CHUNK);
        assert_eq!(bytes(2, len), 2 * CHUNK..len);
        assert_eq!((count(0), count(CHUNK), count(CHUNK + 1)), (0, 1, 2));
    }

    #[test]
    fn a_range_is_cut_where_chunks_end() {
        let cut: Vec<_> = parts(CHUNK - 3..2 * CHUNK + 7).collect();
        assert_eq!(
            cut,
            [
                (0, CHUNK - 3..CHUNK),
                (1, CHUNK..2 * CHUNK),
                (2, 2 * CHUNK..2 * CHUNK + 7),
            ]
        );
        let inside: Vec<_> = parts(5..9).collect();
        assert_eq!(inside, [(0, 5..9)]);
        assert_eq!(parts(7..7).count(), 0);
    }

    #[test]
    fn a_range_that_ends_with_a_chunk_does_not_touch_the_next() {
        assert_eq!(touched(&(0..CHUNK)), 0..1);
        assert_eq!(touched(&(CHUNK..CHUNK + 1)), 1..2);
    }
}
