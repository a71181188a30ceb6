//! Blocks of 256 values: sub-blocks, whose scales are whole numbers of the block's.
//!
//! A sub-block's scale and minimum are the pair of whole numbers next to what fits it best with which its values, rounded
//! to codes, are nearest.

use super::{Beyond, fit, half};
use half::f16;

/// Codes of a block.
type Codes = [i32; 256];

/// Sub-blocks with a scale and a minimum each: `d * scale * code - dmin * min`.
struct Lines<const N: usize> {
    d: f16,
    dmin: f16,
    scales: [u8; N],
    mins: [u8; N],
    codes: Codes,
}

/// `most` is the greatest code, `limit` the greatest scale or minimum.
fn lines<const N: usize>(values: &[f32], most: i32, limit: i32) -> Result<Lines<N>, Beyond> {
    let size = 256 / N;
    let mut fits = [(0f64, 0f64); N];
    for (fit, values) in fits.iter_mut().zip(values.chunks_exact(size)) {
        let (scale, least) = fit::line(values, most, true);
        *fit = (scale, -least);
    }
    let greatest = |of: fn(&(f64, f64)) -> f64| fits.iter().map(of).fold(0.0, f64::max);
    let d = half(greatest(|f| f.0) / f64::from(limit))?;
    let dmin = half(greatest(|f| f.1) / f64::from(limit))?;
    let mut out = Lines {
        d,
        dmin,
        scales: [0; N],
        mins: [0; N],
        codes: [0; 256],
    };
    for (i, values) in values.chunks_exact(size).enumerate() {
        let first = fit::code(fits[i].0, d.to_f64(), 0, limit);
        let second = fit::code(fits[i].1, dmin.to_f64(), 0, limit);
        let mut best = f64::INFINITY;
        for scale in (first - 1).max(0)..=(first + 1).min(limit) {
            for min in (second - 1).max(0)..=(second + 1).min(limit) {
                let step = d.to_f64() * f64::from(scale);
                let below = dmin.to_f64() * f64::from(min);
                let mut codes = [0i32; 32];
                let mut error = 0.0;
                for (q, v) in codes.iter_mut().zip(values) {
                    *q = fit::code(f64::from(*v) + below, step, 0, most);
                    let off = f64::from(*v) + below - step * f64::from(*q);
                    error += off * off;
                }
                if error < best {
                    best = error;
                    (out.scales[i], out.mins[i]) = (scale as u8, min as u8);
                    out.codes[i * size..][..size].copy_from_slice(&codes[..size]);
                }
            }
        }
    }
    Ok(out)
}

/// Sub-blocks of 16 with a signed scale each: `d * scale * code`, codes from `-middle` on, scales from `-limit` on.
fn scales(values: &[f32], middle: i32, limit: i32) -> Result<(f16, [i32; 16], Codes), Beyond> {
    let mut fits = [0f64; 16];
    for (fit, values) in fits.iter_mut().zip(values.chunks_exact(16)) {
        *fit = fit::symmetric(values, -middle, middle - 1);
    }
    let top = (fits.iter().copied()).fold(0f64, |a, b| if b.abs() > a.abs() { b } else { a });
    let d = half(top / f64::from(-limit))?;
    let (mut scales, mut codes) = ([0; 16], [0; 256]);
    for (i, values) in values.chunks_exact(16).enumerate() {
        let first = fit::code(fits[i], d.to_f64(), -limit, limit - 1);
        let mut best = f64::INFINITY;
        for scale in (first - 1).max(-limit)..=(first + 1).min(limit - 1) {
            let step = d.to_f64() * f64::from(scale);
            let mut own = [0i32; 16];
            let mut error = 0.0;
            for (q, v) in own.iter_mut().zip(values) {
                *q = fit::code(f64::from(*v), step, -middle, middle - 1);
                let off = f64::from(*v) - step * f64::from(*q);
                error += off * off;
            }
            if error < best {
                (best, scales[i]) = (error, scale);
                codes[i * 16..][..16].copy_from_slice(&own);
            }
        }
    }
    Ok((d, scales, codes))
}

fn put(scale: f16, out: &mut [u8]) {
    out.copy_from_slice(&scale.to_le_bytes());
}

/// Scales and minima of 6 bits of eight sub-blocks in 12 bytes.
fn put_six_bits(scales: &[u8; 8], mins: &[u8; 8], out: &mut [u8]) {
    for i in 0..4 {
        out[i] = scales[i] | scales[i + 4] >> 4 << 6;
        out[i + 4] = mins[i] | mins[i + 4] >> 4 << 6;
        out[i + 8] = scales[i + 4] & 15 | (mins[i + 4] & 15) << 4;
    }
}

pub(super) fn q2k(values: &[f32], block: &mut [u8]) -> Result<(), Beyond> {
    let lines: Lines<16> = lines(values, 3, 15)?;
    for (i, out) in block[..16].iter_mut().enumerate() {
        *out = lines.scales[i] | lines.mins[i] << 4;
    }
    for (i, q) in lines.codes.iter().enumerate() {
        block[16 + i / 128 * 32 + i % 32] |= (*q as u8) << (2 * (i / 32 % 4));
    }
    put(lines.d, &mut block[80..82]);
    put(lines.dmin, &mut block[82..84]);
    Ok(())
}

pub(super) fn q3k(values: &[f32], block: &mut [u8]) -> Result<(), Beyond> {
    let (d, scales, codes) = scales(values, 4, 32)?;
    for (i, scale) in scales.iter().enumerate() {
        let six = (scale + 32) as u8;
        block[96 + i % 8] |= (six & 15) << (4 * (i / 8));
        block[104 + i % 4] |= (six >> 4) << (2 * (i / 4));
    }
    for (i, q) in codes.iter().enumerate() {
        let q = (q + 4) as u8;
        block[32 + i / 128 * 32 + i % 32] |= (q & 3) << (2 * (i / 32 % 4));
        block[i % 32] |= (q >> 2) << (i / 32);
    }
    put(d, &mut block[108..110]);
    Ok(())
}

pub(super) fn q4k(values: &[f32], block: &mut [u8]) -> Result<(), Beyond> {
    let lines: Lines<8> = lines(values, 15, 63)?;
    put(lines.d, &mut block[..2]);
    put(lines.dmin, &mut block[2..4]);
    put_six_bits(&lines.scales, &lines.mins, &mut block[4..16]);
    for (i, q) in lines.codes.iter().enumerate() {
        block[16 + i / 64 * 32 + i % 32] |= (*q as u8) << (i / 32 % 2 * 4);
    }
    Ok(())
}

pub(super) fn q5k(values: &[f32], block: &mut [u8]) -> Result<(), Beyond> {
    let lines: Lines<8> = lines(values, 31, 63)?;
    put(lines.d, &mut block[..2]);
    put(lines.dmin, &mut block[2..4]);
    put_six_bits(&lines.scales, &lines.mins, &mut block[4..16]);
    for (i, q) in lines.codes.iter().enumerate() {
        block[48 + i / 64 * 32 + i % 32] |= (*q as u8 & 15) << (i / 32 % 2 * 4);
        block[16 + i % 32] |= (*q as u8 >> 4) << (i / 32);
    }
    Ok(())
}

pub(super) fn q6k(values: &[f32], block: &mut [u8]) -> Result<(), Beyond> {
    let (d, scales, codes) = scales(values, 32, 128)?;
    for (i, q) in codes.iter().enumerate() {
        let (q, quarter) = ((q + 32) as u8, i / 32 % 4);
        block[i / 128 * 64 + i % 64] |= (q & 15) << (4 * (quarter / 2));
        block[128 + i / 128 * 32 + i % 32] |= (q >> 4) << (2 * quarter);
    }
    for (out, scale) in block[192..208].iter_mut().zip(scales) {
        *out = scale as i8 as u8;
    }
    put(d, &mut block[208..210]);
    Ok(())
}
