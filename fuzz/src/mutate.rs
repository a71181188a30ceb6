//! Inputs made from valid ones.
//!
//! A few changes each: of bits and bytes, of whole words that may be lengths or offsets, of numbers written in
//! digits, of pieces that are cut, doubled, moved, or put in from another input or from the format's own words.

use fastrand::Rng;

/// Words that lengths, counts and offsets are changed to.
const NUMBERS: [u64; 14] = [
    0,
    1,
    7,
    255,
    0xffff,
    1 << 31,
    (1 << 31) - 1,
    u32::MAX as u64,
    1 << 32,
    1 << 40,
    1 << 62,
    i64::MAX as u64,
    (1 << 63) + 8,
    u64::MAX,
];

/// Numbers in digits.
const DIGITS: [&str; 16] = [
    "0",
    "-1",
    "1",
    "3",
    "64.0",
    "0.5",
    "1e9",
    "1e309",
    "-0",
    "4294967296",
    "1000000000000",
    "9223372036854775807",
    "9223372036854775816",
    "18446744073709551615",
    "18446744073709551616",
    "123456789012345678901234567890",
];

/// Pieces of JSON.
const JSON: [&str; 14] = [
    "null", "true", "[]", "{}", "\"\"", "[", "]", "{", "}", ",", ":", "\"", "\\u0000", "\u{feff}",
];

pub(crate) fn mutated(corpus: &[Vec<u8>], words: &[&str], seed: u64, case: u64) -> Vec<u8> {
    let mut rng = Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ case);
    let bytes = corpus[rng.usize(..corpus.len())].clone();
    changed(bytes, corpus, words, &mut rng)
}

/// An input with one to four changes.
pub(crate) fn changed(
    mut bytes: Vec<u8>,
    corpus: &[Vec<u8>],
    words: &[&str],
    rng: &mut Rng,
) -> Vec<u8> {
    for _ in 0..1 + rng.u32(..4) {
        change(&mut bytes, corpus, words, rng);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], words: &[&str], rng: &mut Rng) {
    match rng.u32(..12) {
        0 if !bytes.is_empty() => {
            let at = rng.usize(..bytes.len());
            bytes[at] ^= 1 << rng.u32(..8);
        }
        1 if !bytes.is_empty() => {
            let at = rng.usize(..bytes.len());
            bytes[at] = rng.u8(..);
        }
        2 | 3 => word(bytes, rng),
        4..=6 => digits(bytes, rng),
        7 => {
            let piece = some(bytes, rng);
            bytes.drain(piece);
        }
        8 => {
            let piece = bytes[some(bytes, rng)].to_vec();
            put(bytes, &piece, rng);
        }
        9 => bytes.truncate(rng.usize(..=bytes.len())),
        10 => {
            let other = &corpus[rng.usize(..corpus.len())];
            let piece = other[some(other, rng)].to_vec();
            put(bytes, &piece, rng);
        }
        _ => {
            let at = rng.usize(..words.len() + JSON.len());
            let piece = words.get(at).copied().unwrap_or(JSON[at % JSON.len()]);
            put(bytes, piece.as_bytes(), rng);
        }
    }
}

/// A range, short more often than long.
fn some(bytes: &[u8], rng: &mut Rng) -> std::ops::Range<usize> {
    let begin = rng.usize(..=bytes.len());
    let most = match rng.u32(..4) {
        0 => bytes.len(),
        1 => 64,
        _ => 8,
    };
    begin..begin + rng.usize(..=most.min(bytes.len() - begin))
}

/// Puts a piece in, or over what is there.
fn put(bytes: &mut Vec<u8>, piece: &[u8], rng: &mut Rng) {
    let at = rng.usize(..=bytes.len());
    let over = if rng.bool() { 0 } else { piece.len() };
    let end = (at + over).min(bytes.len());
    bytes.splice(at..end, piece.iter().copied());
}

/// A little-endian word of 4 or 8 bytes, in the first bytes more often than later.
fn word(bytes: &mut [u8], rng: &mut Rng) {
    let width = if rng.bool() { 4 } else { 8 };
    if bytes.len() < width {
        return;
    }
    let places = bytes.len() - width + 1;
    let first = if rng.bool() { places.min(64) } else { places };
    let at = rng.usize(..first);
    let number = match rng.u32(..3) {
        0 => rng.u64(..),
        1 => bytes.len() as u64 + rng.u64(..16),
        _ => NUMBERS[rng.usize(..NUMBERS.len())],
    };
    bytes[at..at + width].copy_from_slice(&number.to_le_bytes()[..width]);
}

/// A run of digits becomes another number.
fn digits(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let start = rng.usize(..=bytes.len());
    let found = bytes[start..].iter().position(u8::is_ascii_digit);
    let Some(begin) = found.map(|at| start + at) else {
        return;
    };
    let run = bytes[begin..]
        .iter()
        .take_while(|b| b.is_ascii_digit())
        .count();
    let width = rng.u32(1..64);
    let number = match rng.bool() {
        true => DIGITS[rng.usize(..DIGITS.len())].to_string(),
        false => rng.u64(..1 << width).to_string(),
    };
    bytes.splice(begin..begin + run, number.bytes());
}
