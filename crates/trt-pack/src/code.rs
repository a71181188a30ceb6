//! The code of a weight: which symbols are common, and the words for one of them or for two neighbours together.
//!
//! Common symbols are numbered from 0; all others share the next number, the *escape*, and are written out behind the words of
//! their step. So any value can be packed with any code: a code made of a part of a weight, or of another weight, is only worse.
//! Two symbols at a time cost less than half of a bit each where one would cost a whole one; that needs few common ones, since
//! a word has at most 12 bits.

use crate::lengths::{self, LONGEST};
use crate::split::Kind;
use thiserror::Error;

/// The most common symbols of a code of two at a time.
const MOST_OF_TWO: usize = 15;
/// The most common symbols of a code of one at a time.
const MOST_OF_ONE: usize = 255;

/// How many symbols a word stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arity {
    /// One.
    One,
    /// Two neighbours.
    Two,
}

/// How often each symbol is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    kind: Kind,
    of: [u64; 256],
}

impl Counts {
    /// None yet.
    pub fn new(kind: Kind) -> Counts {
        Counts { kind, of: [0; 256] }
    }

    /// Counts values.
    pub fn add(&mut self, values: &[u16]) {
        // Four tables, so that equal neighbours do not wait for each other.
        let mut tables = [[0u32; 256]; 4];
        for part in values.chunks(1 << 30) {
            let (fours, rest) = part.as_chunks::<4>();
            for four in fours {
                for (table, value) in tables.iter_mut().zip(four) {
                    table[usize::from(self.kind.symbol(*value))] += 1;
                }
            }
            for value in rest {
                tables[0][usize::from(self.kind.symbol(*value))] += 1;
            }
            for table in &mut tables {
                for (sum, part) in self.of.iter_mut().zip(table) {
                    *sum += u64::from(std::mem::take(part));
                }
            }
        }
    }

    /// Counts what others counted of values of the same kind.
    pub fn join(&mut self, other: &Counts) {
        for (sum, part) in self.of.iter_mut().zip(&other.of) {
            *sum += part;
        }
    }

    /// All values.
    pub fn total(&self) -> u64 {
        self.of.iter().sum()
    }
}

/// Which symbols are common, and the words for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    kind: Kind,
    arity: Arity,
    common: Vec<u8>,
    lengths: Vec<u8>,
}

/// A word of a code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Word {
    /// Its bits: so many of the highest of `first`.
    pub length: u8,
    /// The first pattern of 12 bits that begins with it; all that do follow.
    pub first: usize,
    /// Its symbols, none for one that is not common; the second counts only where a word stands for two.
    pub symbols: [Option<u8>; 2],
}

/// Why bytes are no code.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CodeError {
    /// They end before the code does.
    #[error("a code takes {wanted} bytes, there are {found}")]
    Short {
        /// Bytes of the code.
        wanted: usize,
        /// Bytes that there are.
        found: usize,
    },
    /// A number that says what follows is none of those that are known.
    #[error("a code says {what} {found}")]
    Unknown {
        /// What the number is of.
        what: &'static str,
        /// The number.
        found: u8,
    },
    /// A symbol is common twice.
    #[error("symbol {0} is there twice")]
    Twice(u8),
    /// There are bit patterns without a word, or with two.
    #[error("the {0} lengths of words are of no complete code of words of 1 to 12 bits")]
    Incomplete(usize),
}

impl Code {
    /// The better of the codes of one and of two symbols at a time for values that were counted; none if there are none. Two at a
    /// time, which is unpacked with half of the look-ups, unless one saves a fiftieth of all bits.
    pub fn best(counts: &Counts) -> Option<Code> {
        let [two, one] = [Arity::Two, Arity::One].map(|arity| Code::of(counts, arity));
        let (two, one) = (two?, one?);
        // The plain byte beside a symbol.
        let bits = |code: &Code| 8.0 + code.bits(counts);
        match bits(&one) < 0.98 * bits(&two) {
            true => Some(one),
            false => Some(two),
        }
    }

    /// The best code of an arity for values that were counted; none if there are none.
    pub fn of(counts: &Counts, arity: Arity) -> Option<Code> {
        let mut symbols: Vec<u8> = (0..=255)
            .filter(|s| counts.of[usize::from(*s)] > 0)
            .collect();
        if symbols.is_empty() {
            return None;
        }
        symbols.sort_by_key(|s| std::cmp::Reverse(counts.of[usize::from(*s)]));
        symbols.truncate(match arity {
            Arity::One => MOST_OF_ONE,
            Arity::Two => MOST_OF_TWO,
        });
        let each = shares(counts, &symbols);
        let weight = |share: f64| (share * 1e12) as u64;
        let weights: Vec<u64> = match arity {
            Arity::One => each.iter().map(|s| weight(*s)).collect(),
            // Neighbours are as good as independent.
            Arity::Two => each
                .iter()
                .flat_map(|a| each.iter().map(move |b| weight(a * b)))
                .collect(),
        };
        Some(Code {
            kind: counts.kind,
            arity,
            common: symbols,
            lengths: lengths::of(&weights),
        })
    }

    /// About the bits that a value's symbol takes of values that were counted.
    pub fn bits(&self, counts: &Counts) -> f64 {
        let each = shares(counts, &self.common);
        let escaped = 8.0 * each.last().copied().unwrap_or(0.0);
        let length = |i: usize| f64::from(self.lengths[i]);
        let n = each.len();
        escaped
            + match self.arity {
                Arity::One => (0..n).map(|i| each[i] * length(i)).sum::<f64>(),
                Arity::Two => {
                    let row = |a: usize| (0..n).map(move |b| (a, b));
                    let pairs = (0..n).flat_map(row);
                    pairs
                        .map(|(a, b)| each[a] * each[b] * length(a * n + b))
                        .sum::<f64>()
                        / 2.0
                }
            }
    }

    /// What its values are.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Symbols of a word.
    pub fn arity(&self) -> Arity {
        self.arity
    }

    /// The symbols that have numbers, in their order.
    pub fn common(&self) -> &[u8] {
        &self.common
    }

    /// The number of each symbol that has one.
    pub(crate) fn ranks(&self) -> [Option<u8>; 256] {
        let mut ranks = [None; 256];
        for (rank, symbol) in self.common.iter().enumerate() {
            ranks[usize::from(*symbol)] = Some(rank as u8);
        }
        ranks
    }

    /// Tells all words, shorter ones first, equal ones in the order of their symbols.
    pub(crate) fn each(&self, mut told: impl FnMut(Word)) {
        let n = self.common.len() + 1;
        let symbol = |rank: usize| self.common.get(rank).copied();
        let mut first = 0usize;
        for length in 1..=LONGEST as u8 {
            let of_length = self
                .lengths
                .iter()
                .enumerate()
                .filter(|(_, l)| **l == length);
            for (i, _) in of_length {
                let symbols = match self.arity {
                    Arity::One => [symbol(i), None],
                    Arity::Two => [symbol(i / n), symbol(i % n)],
                };
                told(Word {
                    length,
                    first,
                    symbols,
                });
                first += 1 << (LONGEST - u32::from(length));
            }
        }
    }

    /// The code as bytes of a file: kind, arity, the number of common symbols, these, and the lengths of words, two in a byte.
    pub fn to_bytes(&self) -> Vec<u8> {
        let arity = match self.arity {
            Arity::One => 1,
            Arity::Two => 2,
        };
        let mut bytes = vec![self.kind.tag(), arity, self.common.len() as u8];
        bytes.extend_from_slice(&self.common);
        let twos = self.lengths.chunks(2);
        bytes.extend(twos.map(|two| two[0] | two.get(1).copied().unwrap_or(0) << 4));
        bytes
    }

    /// The code that bytes begin with, and how many of them it takes.
    ///
    /// # Errors
    ///
    /// A [`CodeError`] if they begin with none.
    pub fn from_bytes(bytes: &[u8]) -> Result<(Code, usize), CodeError> {
        let short = |wanted| CodeError::Short {
            wanted,
            found: bytes.len(),
        };
        let unknown = |what, found| CodeError::Unknown { what, found };
        let [kind, arity, count] = *bytes.first_chunk().ok_or(short(3))?;
        let kind = Kind::ALL
            .into_iter()
            .find(|k| k.tag() == kind)
            .ok_or(unknown("kind", kind))?;
        let (arity, most) = match arity {
            1 => (Arity::One, MOST_OF_ONE),
            2 => (Arity::Two, MOST_OF_TWO),
            other => return Err(unknown("arity", other)),
        };
        let n = usize::from(count);
        if !(1..=most).contains(&n) {
            return Err(unknown("a number of common symbols, which is", count));
        }
        let words = match arity {
            Arity::One => n + 1,
            Arity::Two => (n + 1) * (n + 1),
        };
        let end = 3 + n + words.div_ceil(2);
        let common = bytes.get(3..3 + n).ok_or(short(end))?.to_vec();
        let packed = bytes.get(3 + n..end).ok_or(short(end))?;
        if let Some(twice) = (1..n).find(|i| common[..*i].contains(&common[*i])) {
            return Err(CodeError::Twice(common[twice]));
        }
        let mut lengths: Vec<u8> = packed.iter().flat_map(|b| [b & 15, b >> 4]).collect();
        lengths.truncate(words);
        if !lengths::complete(&lengths) {
            return Err(CodeError::Incomplete(words));
        }
        Ok((
            Code {
                kind,
                arity,
                common,
                lengths,
            },
            end,
        ))
    }
}

/// The share of each common symbol, and of all others.
fn shares(counts: &Counts, common: &[u8]) -> Vec<f64> {
    let total = counts.total().max(1) as f64;
    let known = common.iter().map(|s| counts.of[usize::from(*s)]);
    let others = counts.total() - known.clone().sum::<u64>();
    known.chain([others]).map(|n| n as f64 / total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(values: impl IntoIterator<Item = u16>) -> Counts {
        let mut counts = Counts::new(Kind::Bf16);
        counts.add(&values.into_iter().collect::<Vec<_>>());
        counts
    }

    #[test]
    fn codes_are_read_back() {
        let all = [
            counted([0x3f80]),
            counted(0..=u16::MAX),
            counted([1 << 7, 2 << 7, 2 << 7]),
        ];
        for counts in all {
            for arity in [Arity::One, Arity::Two] {
                let code = Code::of(&counts, arity).unwrap();
                let mut bytes = code.to_bytes();
                let end = bytes.len();
                bytes.extend([7; 3]);
                assert_eq!(Code::from_bytes(&bytes), Ok((code, end)));
                for cut in 0..end {
                    assert!(matches!(
                        Code::from_bytes(&bytes[..cut]),
                        Err(CodeError::Short { .. })
                    ));
                }
            }
        }
        assert_eq!(Code::best(&Counts::new(Kind::F16)), None);
    }

    #[test]
    fn what_is_no_code_is_refused() {
        let good = Code::of(&counted(0..2000), Arity::Two).unwrap().to_bytes();
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Code::from_bytes(&bytes)
        };
        assert!(matches!(
            with(0, 9),
            Err(CodeError::Unknown {
                what: "kind",
                found: 9
            })
        ));
        assert!(matches!(
            with(1, 0),
            Err(CodeError::Unknown { what: "arity", .. })
        ));
        assert!(matches!(with(2, 16), Err(CodeError::Unknown { .. })));
        assert_eq!(with(4, good[3]), Err(CodeError::Twice(good[3])));
        assert!(matches!(
            with(good.len() - 1, 0),
            Err(CodeError::Incomplete(_))
        ));
    }
}
