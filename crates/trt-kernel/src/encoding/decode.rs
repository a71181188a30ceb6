//! What the bytes of a block mean: its values in f32, in the order of arithmetic that defines their
//! bits.
//!
//! Each function reads one whole block. A value is rounded as written here, an operation after another in f32, so
//! `scale * quant - minimum` is a rounded product and a rounded difference.

use super::BlockType;
use half::f16;

/// What numbers of 4 bits stand for in types with a table.
pub(crate) const IQ4_VALUES: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// Twice what numbers of 4 bits stand for in MXFP4: a sign, two bits of exponent, one of mantissa.
pub(crate) const MXFP4_DOUBLED: [i8; 16] =
    [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

impl BlockType {
    /// Writes the values of a block: what its bytes mean. Nothing is written unless there are as
    /// many bytes and places as a block has.
    pub fn decode(self, block: &[u8], values: &mut [f32]) {
        if block.len() < self.bytes() || values.len() < self.values() {
            return;
        }
        match self {
            BlockType::Q4_0 => {
                let d = half(block, 0);
                nibbles(&block[2..18], values, |q| (i32::from(q) - 8) as f32 * d);
            }
            BlockType::Q4_1 => {
                let (d, m) = (half(block, 0), half(block, 2));
                nibbles(&block[4..20], values, |q| f32::from(q) * d + m);
            }
            BlockType::Q5_0 => {
                let d = half(block, 0);
                fives(&block[2..22], values, |q| (i32::from(q) - 16) as f32 * d);
            }
            BlockType::Q5_1 => {
                let (d, m) = (half(block, 0), half(block, 2));
                fives(&block[4..24], values, |q| f32::from(q) * d + m);
            }
            BlockType::Q8_0 => {
                let d = half(block, 0);
                for (value, q) in values.iter_mut().zip(&block[2..34]) {
                    *value = f32::from(*q as i8) * d;
                }
            }
            BlockType::Q2K => q2k(block, values),
            BlockType::Q3K => q3k(block, values),
            BlockType::Q4K => q4k(block, values),
            BlockType::Q5K => q5k(block, values),
            BlockType::Q6K => q6k(block, values),
            BlockType::Iq4Nl => {
                let d = half(block, 0);
                nibbles(&block[2..18], values, |q| d * f32::from(iq4(q)));
            }
            BlockType::Iq4Xs => iq4xs(block, values),
            BlockType::Mxfp4 => {
                let d = exponent_of_half(block[0]);
                nibbles(&block[1..17], values, |q| {
                    f32::from(MXFP4_DOUBLED[usize::from(q & 15)]) * d
                });
            }
        }
    }
}

fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn iq4(q: u8) -> i8 {
    IQ4_VALUES[usize::from(q & 15)]
}

/// Half of the power of two that an exponent byte of MXFP4 stands for, since numbers are held doubled: 2^(e - 128).
/// The two least of them are no normal numbers of f32, but of f64 they are.
pub(crate) fn exponent_of_half(e: u8) -> f32 {
    f64::from_bits((u64::from(e) + 1023 - 128) << 52) as f32
}

/// 32 values of 4 bits: the low halves of 16 bytes, then the high ones.
fn nibbles(quants: &[u8], values: &mut [f32], value: impl Fn(u8) -> f32) {
    for (i, q) in quants.iter().enumerate() {
        values[i] = value(q & 15);
        values[i + 16] = value(q >> 4);
    }
}

/// As [`nibbles`], with a fifth bit for each in four bytes before them.
fn fives(bytes: &[u8], values: &mut [f32], value: impl Fn(u8) -> f32) {
    let high = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let fifth = |i: usize| ((high >> i & 1) as u8) << 4;
    for (i, q) in bytes[4..20].iter().enumerate() {
        values[i] = value(q & 15 | fifth(i));
        values[i + 16] = value(q >> 4 | fifth(i + 16));
    }
}

/// The scale and the minimum, of 6 bits each, of sub-block `i` of 8: the first four have six bits
/// of a byte, the others four and the two that those left over.
pub(crate) fn scale_and_min(packed: &[u8], i: usize) -> (u8, u8) {
    match i {
        0..4 => (packed[i] & 63, packed[i + 4] & 63),
        _ => {
            let (both, scale, min) = (packed[i + 4], packed[i - 4], packed[i]);
            (both & 15 | scale >> 6 << 4, both >> 4 | min >> 6 << 4)
        }
    }
}

fn q2k(block: &[u8], values: &mut [f32]) {
    let (scales, quants) = (&block[..16], &block[16..80]);
    let (d, dmin) = (half(block, 80), half(block, 82));
    for (i, value) in values[..256].iter_mut().enumerate() {
        let (side, pair, column) = (i / 128, i / 32 % 4, i % 32);
        let q = quants[32 * side + column] >> (2 * pair) & 3;
        let scale = scales[i / 16];
        *value = d * f32::from(scale & 15) * f32::from(q) - dmin * f32::from(scale >> 4);
    }
}

fn q3k(block: &[u8], values: &mut [f32]) {
    let (high, quants, packed) = (&block[..32], &block[32..96], &block[96..108]);
    let d = half(block, 108);
    let scale = |i: usize| {
        let low = packed[i % 8] >> (4 * (i / 8)) & 15;
        let top = packed[8 + i % 4] >> (2 * (i / 4)) & 3;
        i32::from(low | top << 4) - 32
    };
    for (i, value) in values[..256].iter_mut().enumerate() {
        let (side, pair, column) = (i / 128, i / 32 % 4, i % 32);
        let q = quants[32 * side + column] >> (2 * pair) & 3;
        let set = high[column] >> (i / 32) & 1;
        let q = i32::from(q) - if set == 1 { 0 } else { 4 };
        *value = d * scale(i / 16) as f32 * q as f32;
    }
}

fn q4k(block: &[u8], values: &mut [f32]) {
    let (d, dmin) = (half(block, 0), half(block, 2));
    let (packed, quants) = (&block[4..16], &block[16..144]);
    for (i, value) in values[..256].iter_mut().enumerate() {
        let (scale, min) = scale_and_min(packed, i / 32);
        let q = quants[i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15;
        *value = d * f32::from(scale) * f32::from(q) - dmin * f32::from(min);
    }
}

fn q5k(block: &[u8], values: &mut [f32]) {
    let (d, dmin) = (half(block, 0), half(block, 2));
    let (packed, high, quants) = (&block[4..16], &block[16..48], &block[48..176]);
    for (i, value) in values[..256].iter_mut().enumerate() {
        let (scale, min) = scale_and_min(packed, i / 32);
        let low = quants[i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4) & 15;
        let q = low | (high[i % 32] >> (i / 32) & 1) << 4;
        *value = d * f32::from(scale) * f32::from(q) - dmin * f32::from(min);
    }
}

fn q6k(block: &[u8], values: &mut [f32]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = half(block, 208);
    for (i, value) in values[..256].iter_mut().enumerate() {
        let (side, quarter, column) = (i / 128, i / 32 % 4, i % 32);
        let four = low[64 * side + 32 * (quarter % 2) + column] >> (4 * (quarter / 2)) & 15;
        let two = high[32 * side + column] >> (2 * quarter) & 3;
        let q = i32::from(four | two << 4) - 32;
        *value = d * f32::from(scales[i / 16] as i8) * q as f32;
    }
}

fn iq4xs(block: &[u8], values: &mut [f32]) {
    let d = half(block, 0);
    let top = u16::from_le_bytes([block[2], block[3]]);
    let (low, quants) = (&block[4..8], &block[8..136]);
    for (i, value) in values[..256].iter_mut().enumerate() {
        let sub = i / 32;
        let four = low[sub / 2] >> (4 * (sub % 2)) & 15;
        let two = (top >> (2 * sub) & 3) as u8;
        let scale = i32::from(four | two << 4) - 32;
        let q = quants[16 * sub + i % 16] >> (i / 16 % 2 * 4) & 15;
        *value = d * scale as f32 * f32::from(iq4(q));
    }
}
