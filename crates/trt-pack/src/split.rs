//! A 16-bit value as two bytes: a *symbol*, whose bits say little and are coded, and a *plain* byte, whose bits look random and
//! are stored as they are.
//!
//! The invariant: the pair of both bytes and the value say the same, for all 65536 values. Of bf16 the symbol is the exponent.
//! Of f16 it is the exponent and the three lowest bits of the significand: where a file was made from bf16 these are 0.
//!
//! Eight neighbouring values are a *piece*, which one thread unpacks. The plain bytes of a piece of bf16 lie such that two
//! values get theirs by one mask, the next two by a rotation and the same mask.

use std::fmt;

/// What the 16 bits of a value are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A sign, 8 bits of exponent, 7 of significand.
    Bf16,
    /// A sign, 5 bits of exponent, 10 of significand.
    F16,
}

/// Values of a piece.
pub const PIECE: usize = 8;

/// The plain bits of two values of bf16 in one word.
const PLAIN: u32 = 0x807f_807f;

impl Kind {
    /// Both kinds.
    pub const ALL: [Kind; 2] = [Kind::Bf16, Kind::F16];

    /// The number that stands for it in files.
    pub const fn tag(self) -> u8 {
        match self {
            Kind::Bf16 => 0,
            Kind::F16 => 1,
        }
    }

    /// The symbol of a value.
    #[inline(always)]
    pub const fn symbol(self, value: u16) -> u8 {
        match self {
            Kind::Bf16 => (value >> 7) as u8,
            Kind::F16 => (value >> 7) as u8 & 0xf8 | value as u8 & 7,
        }
    }

    /// The bits of a value that are its symbol's.
    #[inline(always)]
    pub const fn of_symbol(self, symbol: u8) -> u16 {
        match self {
            Kind::Bf16 => (symbol as u16) << 7,
            Kind::F16 => (symbol as u16 & 0xf8) << 7 | symbol as u16 & 7,
        }
    }

    /// The plain bytes of a piece.
    #[inline(always)]
    pub fn plain(self, piece: &[u16; PIECE]) -> [u8; PIECE] {
        match self {
            Kind::Bf16 => {
                let pair = |i: usize| u32::from(piece[i]) | u32::from(piece[i + 1]) << 16;
                let word = |i: usize| (pair(i) & PLAIN) | (pair(i + 2) & PLAIN).rotate_right(8);
                let both = u64::from(word(0)) | u64::from(word(4)) << 32;
                both.to_le_bytes()
            }
            Kind::F16 => piece.map(|v| (v >> 8) as u8 & 0x80 | (v >> 3) as u8 & 0x7f),
        }
    }

    /// The bits of a piece's values that are plain.
    #[inline(always)]
    pub fn of_plain(self, plain: [u8; PIECE]) -> [u16; PIECE] {
        match self {
            Kind::Bf16 => {
                let both = u64::from_le_bytes(plain);
                let words = [both as u32, (both >> 32) as u32];
                let pair = |i: usize| words[i / 2].rotate_left(8 * (i as u32 % 2)) & PLAIN;
                std::array::from_fn(|i| (pair(i / 2) >> (16 * (i % 2))) as u16)
            }
            Kind::F16 => plain.map(|b| (u16::from(b) & 0x80) << 8 | (u16::from(b) & 0x7f) << 3),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Bf16 => "bf16",
            Kind::F16 => "f16",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bytes_say_what_the_value_says() {
        for kind in Kind::ALL {
            for value in 0..=u16::MAX {
                // In each place of a piece, among other values.
                let piece: [u16; PIECE] =
                    std::array::from_fn(|i| value.wrapping_mul(2 * i as u16 + 1) ^ 0x55aa);
                let piece = std::array::from_fn(|i| match i == usize::from(value) % PIECE {
                    true => value,
                    false => piece[i],
                });
                let plain = kind.of_plain(kind.plain(&piece));
                let again: [u16; PIECE] =
                    std::array::from_fn(|i| plain[i] | kind.of_symbol(kind.symbol(piece[i])));
                assert_eq!(again, piece, "{kind} {value:#06x}");
            }
        }
    }

    #[test]
    fn what_was_bf16_has_few_symbols_as_f16() {
        // 1.5 and -0.0078125 have at most seven bits of significand.
        for (bits, symbol) in [(0x3e00, 0x78), (0xa000, 0x40)] {
            assert_eq!(Kind::F16.symbol(bits), symbol);
        }
    }
}
