//! The lengths of a prefix code that is optimal among those whose words have at most [`LONGEST`] bits, by package-merge.

/// The longest word in bits: a table of all words has an entry for each of 4096 bit patterns.
pub const LONGEST: u32 = 12;

/// A coin of package-merge: a symbol, or two coins of the level below.
enum Coin {
    Symbol(usize),
    Pair(usize, usize),
}

/// The length of each symbol's word; weights that are 0 count as 1, so each symbol has a word. The code is complete: no bit
/// pattern is left without a word.
///
/// There are 2 to 4096 weights; of another number there is no such code, and the result is empty.
pub(crate) fn of(weights: &[u64]) -> Vec<u8> {
    let n = weights.len();
    if !(2..=1 << LONGEST).contains(&n) {
        return Vec::new();
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by_key(|i| weights[*i]);
    let mut levels: Vec<Vec<(u64, Coin)>> = Vec::new();
    for _ in 0..LONGEST {
        let below = levels.last().map_or(&[][..], Vec::as_slice);
        let pairs = below.chunks_exact(2).enumerate();
        let pairs = pairs.map(|(i, two)| {
            let value = two[0].0.saturating_add(two[1].0);
            (value, Coin::Pair(2 * i, 2 * i + 1))
        });
        let symbols = order.iter().map(|s| (weights[*s].max(1), Coin::Symbol(*s)));
        // Both are in the order of their values; of equal ones symbols come first.
        let mut all: Vec<(u64, Coin)> = symbols.chain(pairs).collect();
        all.sort_by_key(|(value, _)| *value);
        levels.push(all);
    }
    let mut lengths = vec![0u8; n];
    // The cheapest 2n - 2 coins of the last level, and what they are made of.
    let mut taken: Vec<usize> = (0..2 * n - 2).collect();
    for level in levels.iter().rev() {
        let mut below = Vec::new();
        for i in taken {
            match level[i].1 {
                Coin::Symbol(symbol) => lengths[symbol] += 1,
                Coin::Pair(a, b) => below.extend([a, b]),
            }
        }
        taken = below;
    }
    lengths
}

/// Whether lengths are those of a complete prefix code of words of 1 to [`LONGEST`] bits.
pub(crate) fn complete(lengths: &[u8]) -> bool {
    let space = |length: &u8| match u32::from(*length) {
        length @ 1..=LONGEST => Some(1u32 << (LONGEST - length)),
        _ => None,
    };
    let sum = lengths
        .iter()
        .map(space)
        .try_fold(0u32, |sum, part| sum.checked_add(part?));
    sum == Some(1 << LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bits(weights: &[u64], lengths: &[u8]) -> u64 {
        let pairs = weights.iter().zip(lengths);
        pairs.map(|(w, l)| w.max(&1) * u64::from(*l)).sum()
    }

    #[test]
    fn words_of_a_known_code() {
        assert_eq!(of(&[5, 1, 1, 2]), [1, 3, 3, 2]);
        assert_eq!(of(&[1, 1]), [1, 1]);
        assert!(of(&[1]).is_empty() && of(&[1; 4097]).is_empty());
    }

    #[test]
    fn no_word_is_longer_than_the_longest() {
        let fibonacci = (0..40).scan((1u64, 1u64), |s, _| {
            *s = (s.1, s.0 + s.1);
            Some(s.0)
        });
        let lengths = of(&fibonacci.collect::<Vec<_>>());
        assert!(complete(&lengths));
        assert_eq!(lengths.iter().max(), Some(&(LONGEST as u8)));
        assert!(complete(&of(&[1; 4096])));
    }

    #[test]
    fn what_is_no_code_is_not_complete() {
        for lengths in [&[1, 2][..], &[1, 1, 1], &[0, 1], &[13, 1], &[], &[1]] {
            assert!(!complete(lengths), "{lengths:?}");
        }
    }

    proptest! {
        /// No exchange of two lengths, and no Huffman code that is short enough, is better.
        #[test]
        fn codes_are_complete_and_as_good_as_huffman(weights in prop::collection::vec(0u64..1000, 2..300)) {
            let lengths = of(&weights);
            prop_assert!(complete(&lengths));
            let huffman = huffman(&weights);
            if huffman.iter().all(|l| u32::from(*l) <= LONGEST) {
                prop_assert_eq!(bits(&weights, &lengths), bits(&weights, &huffman));
            } else {
                prop_assert!(bits(&weights, &lengths) >= bits(&weights, &huffman));
            }
        }
    }

    /// Huffman's own way: the two smallest become one, again and again.
    fn huffman(weights: &[u64]) -> Vec<u8> {
        let mut sets: Vec<(u64, Vec<usize>)> = weights
            .iter()
            .enumerate()
            .map(|(i, w)| (*w.max(&1), vec![i]))
            .collect();
        let mut lengths = vec![0; weights.len()];
        while sets.len() > 1 {
            sets.sort_by_key(|s| std::cmp::Reverse(s.0));
            let (a, b) = (sets.pop().unwrap(), sets.pop().unwrap());
            let both = [a.1, b.1].concat();
            both.iter().for_each(|i| lengths[*i] += 1);
            sets.push((a.0 + b.0, both));
        }
        lengths
    }
}
