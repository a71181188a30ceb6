//! Blocks of 32 values.

use super::{Beyond, fit, half};
use half::f16;

/// Puts codes of four bits where decoding finds them: the first half in the low bits of 16 bytes.
fn put_fours(codes: &[i32], out: &mut [u8]) {
    for (i, out) in out.iter_mut().enumerate() {
        *out = (codes[i] & 15) as u8 | ((codes[i + 16] & 15) as u8) << 4;
    }
}

/// The same of five bits: the fifth ones in four bytes ahead.
fn put_fives(codes: &[i32], out: &mut [u8]) {
    let fifths =
        (codes.iter().enumerate()).fold(0u32, |all, (i, q)| all | (*q as u32 >> 4 & 1) << i);
    out[..4].copy_from_slice(&fifths.to_le_bytes());
    put_fours(codes, &mut out[4..]);
}

fn put(scale: f16, out: &mut [u8]) {
    out.copy_from_slice(&scale.to_le_bytes());
}

/// Codes about the middle of `0..2 * middle`, and their scale.
fn about(values: &[f32], middle: i32) -> Result<(f16, [i32; 32]), Beyond> {
    let d = half(fit::symmetric(values, -middle, middle - 1))?;
    let code = |v: f32| fit::code(f64::from(v), d.to_f64(), -middle, middle - 1) + middle;
    Ok((d, std::array::from_fn(|i| code(values[i]))))
}

/// Codes from 0 to `most`, their scale and the least value.
fn above(values: &[f32], most: i32) -> Result<(f16, f16, [i32; 32]), Beyond> {
    let (d, least) = fit::line(values, most, false);
    let (d, least) = (half(d)?, half(least)?);
    let code = |v: f32| fit::code(f64::from(v) - least.to_f64(), d.to_f64(), 0, most);
    Ok((d, least, std::array::from_fn(|i| code(values[i]))))
}

pub(super) fn q4_0(values: &[f32], block: &mut [u8]) -> Result<(), Beyond> {
    let (d, codes) = about(values, 8)?;
    put(d, &mut block[..2]);
    put_fours(&codes, &mut block[2..]);
    Ok(())
}

pub(super) fn q5_0(values: &[f32], block: &mut [u8]) -> Result<(), Beyond> {
    let (d, codes) = about(values, 16)?;
    put(d, &mut block[..2]);
    put_fives(&codes, &mut block[2..]);
    Ok(())
}

pub(super) fn q4_1(values: &[f32], block: &mut [u8]) -> Result<(), Beyond> {
    let (d, least, codes) = above(values, 15)?;
    put(d, &mut block[..2]);
    put(least, &mut block[2..4]);
    put_fours(&codes, &mut block[4..]);
    Ok(())
}

pub(super) fn q5_1(values: &[f32], block: &mut [u8]) -> Result<(), Beyond> {
    let (d, least, codes) = above(values, 31)?;
    put(d, &mut block[..2]);
    put(least, &mut block[2..4]);
    put_fives(&codes, &mut block[4..]);
    Ok(())
}

pub(super) fn q8_0(values: &[f32], block: &mut [u8]) -> Result<(), Beyond> {
    let d = half(fit::symmetric(values, -127, 127))?;
    put(d, &mut block[..2]);
    for (out, v) in block[2..].iter_mut().zip(values) {
        *out = fit::code(f64::from(*v), d.to_f64(), -127, 127) as i8 as u8;
    }
    Ok(())
}
