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

/// A piece as two numbers, the first value lowest.
#[inline(always)]
pub(crate) fn fours(piece: &[u16; PIECE]) -> [u64; 2] {
    let four = |i: usize| {
        let value = |j: usize| u64::from(piece[i + j]) << (16 * j);
        value(0) | value(1) | value(2) | value(3)
    };
    [four(0), four(4)]
}

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

    /// The symbols of four values: of the first two in the lower half, each pair as `first | second << 8`.
    #[inline(always)]
    pub const fn symbols(self, four: u64) -> [usize; 2] {
        // One in the low byte of each 16 bits.
        let apart = match self {
            Kind::Bf16 => four >> 7 & 0x00ff_00ff_00ff_00ff,
            Kind::F16 => four >> 7 & 0x00f8_00f8_00f8_00f8 | four & 0x0007_0007_0007_0007,
        };
        let pairs = apart | apart >> 8;
        [(pairs & 0xffff) as usize, (pairs >> 32 & 0xffff) as usize]
    }

    /// The plain bytes of a piece.
    #[inline(always)]
    pub fn plain(self, piece: &[u16; PIECE]) -> [u8; PIECE] {
        let [low, high] = fours(piece);
        let both = match self {
            Kind::Bf16 => {
                let word = |four: u64| {
                    (four as u32 & PLAIN) | ((four >> 32) as u32 & PLAIN).rotate_right(8)
                };
                u64::from(word(low)) | u64::from(word(high)) << 32
            }
            Kind::F16 => {
                let word = |four: u64| {
                    let apart =
                        four >> 8 & 0x0080_0080_0080_0080 | four >> 3 & 0x007f_007f_007f_007f;
                    let pairs = (apart | apart >> 8) & 0x0000_ffff_0000_ffff;
                    (pairs | pairs >> 16) & 0xffff_ffff
                };
                word(low) | word(high) << 32
            }
        };
        both.to_le_bytes()
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
