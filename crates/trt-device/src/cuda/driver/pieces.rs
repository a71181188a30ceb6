//! How reserved addresses are cut into pieces of memory.

const MIB: usize = 1 << 20;

/// Bytes of memory that are made at once, at most: 16 GB are a few hundred of them.
const PIECE: usize = 64 * MIB;

/// A range has at least so many pieces, if the granularity allows: to shorten one, as much as it
/// keeps must be free for a moment, and where that is not to be had a whole piece stays or goes.
const PIECES: usize = 64;

/// How large pieces of a range are.
pub(super) fn piece(size: usize, granularity: usize) -> usize {
    (size / PIECES)
        .next_multiple_of(granularity)
        .min(PIECE.next_multiple_of(granularity))
        .max(granularity)
}

/// The lengths of new pieces that add up to `bytes`.
pub(super) fn lengths(bytes: usize, piece: usize) -> impl Iterator<Item = usize> {
    (0..bytes)
        .step_by(piece)
        .map(move |start| piece.min(bytes - start))
}

/// How many pieces of these lengths are wholly within `bytes`, and what the next one keeps.
pub(super) fn kept(lengths: impl Iterator<Item = usize>, bytes: usize) -> (usize, usize) {
    let (mut count, mut end) = (0, 0);
    for len in lengths {
        if end + len > bytes {
            break;
        }
        count += 1;
        end += len;
    }
    (count, bytes - end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_memory_comes_in_few_pieces_that_add_up() {
        assert_eq!(lengths(0, PIECE).count(), 0);
        assert!(lengths(2 * MIB, PIECE).eq([2 * MIB]));
        assert!(lengths(2 * PIECE + 6 * MIB, PIECE).eq([PIECE, PIECE, 6 * MIB]));
        assert_eq!(lengths(16 << 30, PIECE).count(), 256);
    }

    #[test]
    fn pieces_of_a_small_range_are_small() {
        assert_eq!(piece(16 << 30, 2 * MIB), PIECE);
        assert_eq!(piece(270 * MIB, 2 * MIB), 6 * MIB);
        assert_eq!(piece(54 * MIB, 2 * MIB), 2 * MIB);
        assert_eq!(piece(1, 2 * MIB), 2 * MIB);
        assert_eq!(piece(16 << 30, 48 * MIB), 96 * MIB, "whole granules");
    }

    #[test]
    fn whole_pieces_stay_and_the_one_under_the_end_is_cut() {
        let pieces = || [64, 6, 64].into_iter();
        for (bytes, expected) in [
            (0, (0, 0)),
            (2, (0, 2)),
            (64, (1, 0)),
            (66, (1, 2)),
            (70, (2, 0)),
            (132, (2, 62)),
            (134, (3, 0)),
        ] {
            assert_eq!(kept(pieces(), bytes), expected, "{bytes}");
        }
    }
}
