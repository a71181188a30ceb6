//! A code as tables: what packing puts for a piece of values, and what unpacking finds in a stream.

use crate::bits::{Put, Reader};
use crate::code::{Arity, Code};
use crate::lengths::LONGEST;
use crate::split::{Kind, PIECE, fours};

/// Says of a word that one of its symbols is not common.
const ESCAPED: u32 = 1 << 7;
/// Pairs of two bytes.
const PAIRS: usize = 1 << 16;
/// The bits of a word's length, below its own, and those of the sum of two.
const LENGTHS: u32 = 31;

/// The words for symbols.
pub(crate) struct Words {
    pub kind: Kind,
    arity: Arity,
    common: [bool; 256],
    /// For one symbol, or for two as `a | b << 8`: the bits, which are above the lowest 8, and their number.
    of: Box<[u32; PAIRS]>,
}

/// The symbols of words.
pub(crate) struct Symbols {
    pub kind: Kind,
    arity: Arity,
    /// For each pattern of 12 bits: where the values of a kind have the bits of a symbol, those of two neighbours; and beside
    /// them, the word's length and which of its symbols are not common.
    of: Box<[u32; 1 << LONGEST]>,
}

/// Where the length is in an entry of [`Symbols`]: these bits are plain in values of every kind.
const LENGTH: u32 = 3;
/// Marks of the two symbols.
const FIRST: u32 = 1 << 15;
const SECOND: u32 = 1 << 31;

impl Words {
    pub fn new(code: &Code) -> Words {
        let ranks = code.ranks();
        let n = code.common().len();
        let mut by_rank = vec![0; (n + 1) * (n + 1)];
        let rank = |symbol: Option<u8>| {
            let rank = symbol.and_then(|s| ranks[usize::from(s)]);
            rank.map_or(n, usize::from)
        };
        code.each(|word| {
            let length = u32::from(word.length);
            let bits = word.first as u32 >> (LONGEST - length);
            let [a, b] = word.symbols;
            let escaped = match code.arity() {
                Arity::One => a.is_none(),
                Arity::Two => a.is_none() || b.is_none(),
            };
            let escaped = if escaped { ESCAPED } else { 0 };
            let at = match code.arity() {
                Arity::One => rank(a),
                Arity::Two => rank(b) * (n + 1) + rank(a),
            };
            by_rank[at] = bits << 8 | length | escaped;
        });
        let symbols = || 0..=u8::MAX;
        let mut of = Box::new([0; PAIRS]);
        let row = |b: u8| match code.arity() {
            Arity::One => 0,
            Arity::Two => rank(Some(b)) * (n + 1),
        };
        let places = symbols().flat_map(|b| symbols().map(move |a| (a, b)));
        for (word, (a, b)) in of.iter_mut().zip(places) {
            *word = by_rank[row(b) + rank(Some(a))];
        }
        Words {
            kind: code.kind(),
            arity: code.arity(),
            common: ranks.map(|r| r.is_some()),
            of,
        }
    }

    /// Puts the words of a piece; whether one is of a symbol that is not common.
    #[inline(always)]
    pub fn put(&self, piece: &[u16; PIECE], streams: &mut Put<'_>) -> bool {
        let mut all = 0;
        let mut two = |first: usize, second: usize| {
            let (first, second) = (self.of[first % PAIRS], self.of[second % PAIRS]);
            all |= first | second;
            let bits = first >> 8 << (second & LENGTHS) | second >> 8;
            streams.put(bits, (first + second) & LENGTHS);
        };
        for four in fours(piece) {
            let [first, second] = self.kind.symbols(four);
            match self.arity {
                Arity::One => {
                    two(first & 0xff, first >> 8);
                    two(second & 0xff, second >> 8);
                }
                Arity::Two => two(first, second),
            }
        }
        all & ESCAPED != 0
    }

    /// Puts the symbols of a piece that are not common.
    pub fn put_escaped(&self, piece: &[u16; PIECE], streams: &mut Put<'_>) {
        for symbol in piece.map(|v| self.kind.symbol(v)) {
            if !self.common[usize::from(symbol)] {
                streams.put(u32::from(symbol), 8);
            }
        }
    }
}

impl Symbols {
    pub fn new(code: &Code) -> Symbols {
        let kind = code.kind();
        let bits = |symbol: Option<u8>| symbol.map(|s| u32::from(kind.of_symbol(s)));
        let mut of = Box::new([0; 1 << LONGEST]);
        code.each(|word| {
            let [a, b] = word.symbols;
            let first = bits(a).unwrap_or(FIRST);
            let second = match code.arity() {
                Arity::One => 0,
                Arity::Two => bits(b).map_or(SECOND, |b| b << 16),
            };
            let count = 1 << (LONGEST - u32::from(word.length));
            of[word.first..word.first + count]
                .fill(first | second | u32::from(word.length) << LENGTH);
        });
        Symbols {
            kind,
            arity: code.arity(),
            of,
        }
    }

    /// From the bytes of a table.
    pub fn of_bytes(kind: Kind, arity: Arity, bytes: &[u8]) -> Option<Symbols> {
        let mut of = Box::new([0; 1 << LONGEST]);
        let bytes = bytes.get(..4 * of.len())?;
        for (entry, bytes) in of.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *entry = u32::from_le_bytes(*bytes);
        }
        Some(Symbols { kind, arity, of })
    }

    /// All entries.
    pub fn table(&self) -> &[u32] {
        &self.of[..]
    }

    /// A piece with these plain bits, whose symbols are next in a stream of these words, and a bit for each of its values whose symbol is not
    /// among the words.
    #[inline(always)]
    pub fn read(
        &self,
        plain: [u16; PIECE],
        reader: &mut Reader,
        words: &[u8],
    ) -> ([u16; PIECE], u32) {
        let mask = u32::from(self.kind.of_symbol(0xff)) * 0x1_0001;
        // Two words are at most 24 bits of the 32 that are there.
        let mut two = || {
            let mut ahead = reader.ahead(words);
            let first = self.of[ahead.peek(LONGEST) as usize % (1 << LONGEST)];
            ahead.skip(first >> LENGTH & 15);
            let second = self.of[ahead.peek(LONGEST) as usize % (1 << LONGEST)];
            reader.skip((first >> LENGTH & 15) + (second >> LENGTH & 15));
            (first, second)
        };
        let entries: [u32; PIECE / 2] = match self.arity {
            Arity::Two => {
                let ((a, b), (c, d)) = (two(), two());
                [a, b, c, d]
            }
            Arity::One => {
                let mut joined = || {
                    let (a, b) = two();
                    a & 0xffff | b << 16
                };
                [joined(), joined(), joined(), joined()]
            }
        };
        let mut piece = plain;
        for (two, entry) in piece.as_chunks_mut::<2>().0.iter_mut().zip(entries) {
            two[0] |= (entry & mask) as u16;
            two[1] |= ((entry & mask) >> 16) as u16;
        }
        let mut escaped = 0;
        if entries.iter().fold(0, |all, e| all | e) & (FIRST | SECOND) != 0 {
            for (i, entry) in entries.into_iter().enumerate() {
                escaped |= (entry >> 15 & 1 | entry >> 31 << 1) << (2 * i);
            }
        }
        (piece, escaped)
    }
}
