//! Sound out of a WAV file: one channel, at the rate that is asked for.
//!
//! Whole numbers of 8, 16, 24 and 32 bits and floating point of 32 and 64 are read, of as many channels as there are, which are
//! averaged. Any rate becomes any other through a windowed sinc, which lets through what both can carry.

use std::f64::consts::PI;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

const INTEGER: u16 = 1;
const FLOAT: u16 = 3;
/// The kind is said further on in the file.
const EXTENDED: u16 = 0xfffe;
/// Rates that there are sounds of.
const RATES: std::ops::RangeInclusive<u32> = 1_000..=384_000;
/// Zeros of the sinc to each side.
const ZEROS: f64 = 24.0;

/// How values lie in a file.
#[derive(Clone, Copy)]
struct Format {
    kind: u16,
    channels: usize,
    rate: u32,
    bits: u16,
}

/// The samples of a file, from -1 to 1, as so many a second.
///
/// # Errors
///
/// If it cannot be read, or is of a kind that is not known.
pub fn read(path: &Path, rate: usize) -> Result<Vec<f32>> {
    let file = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (samples, from) = samples(&file).with_context(|| path.display().to_string())?;
    Ok(resampled(&samples, from as usize, rate))
}

fn samples(file: &[u8]) -> Result<(Vec<f32>, u32)> {
    let riff = |head: &[u8]| head.starts_with(b"RIFF") && head.ends_with(b"WAVE");
    let Some((_, mut left)) = file.split_at_checked(12).filter(|(head, _)| riff(head)) else {
        bail!("it is no WAV file");
    };
    let mut format = None;
    while let Some((head, rest)) = left.split_at_checked(8) {
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        // What was being written has a length that is not yet right, and its sound goes to the end.
        let (chunk, rest) = rest.split_at(length.min(rest.len()));
        match &head[..4] {
            b"fmt " => format = Some(format_of(chunk)?),
            b"data" => {
                let format = format.context("the sound comes before what says how it lies")?;
                return Ok((values(chunk, format)?, format.rate));
            }
            _ => {}
        }
        left = rest.get(length % 2..).unwrap_or(&[]);
    }
    bail!("there is no sound in it")
}

fn format_of(chunk: &[u8]) -> Result<Format> {
    let word = |at: usize| {
        let both = chunk.get(at..at + 2).context("it ends too early")?;
        Ok::<_, anyhow::Error>(u16::from_le_bytes([both[0], both[1]]))
    };
    let kind = match word(0)? {
        EXTENDED => word(24)?,
        kind => kind,
    };
    let format = Format {
        kind,
        channels: usize::from(word(2)?),
        rate: u32::from(word(4)?) | u32::from(word(6)?) << 16,
        bits: word(14)?,
    };
    ensure!(format.channels > 0, "it has no channels");
    let rate = format.rate;
    ensure!(
        RATES.contains(&rate),
        "{rate} samples a second, not {RATES:?}"
    );
    Ok(format)
}

/// The mean of the channels.
fn values(bytes: &[u8], format: Format) -> Result<Vec<f32>> {
    let Format {
        kind,
        channels,
        bits,
        ..
    } = format;
    let whole = |b: &[u8]| {
        // The highest bytes of 32 bits; those of 8 have no sign.
        let mut all = [0u8; 4];
        all[4 - b.len()..].copy_from_slice(b);
        let flip = if b.len() == 1 { i32::MIN } else { 0 };
        f64::from(i32::from_le_bytes(all) ^ flip) / 2f64.powi(31)
    };
    let value = |b: &[u8]| match (kind, b) {
        (FLOAT, [a, b, c, d]) => f64::from(f32::from_le_bytes([*a, *b, *c, *d])),
        (FLOAT, [a, b, c, d, e, f, g, h]) => f64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]),
        _ => whole(b),
    };
    match (kind, bits) {
        (INTEGER, 8 | 16 | 24 | 32) | (FLOAT, 32 | 64) => {}
        _ => bail!("samples of kind {kind} with {bits} bits"),
    }
    let size = usize::from(bits / 8);
    let mean = |frame: &[u8]| {
        let sum: f64 = frame.chunks_exact(size).map(value).sum();
        (sum / channels as f64) as f32
    };
    let values: Vec<f32> = bytes.chunks_exact(size * channels).map(mean).collect();
    ensure!(
        values.iter().all(|v| v.is_finite()),
        "not all of its samples are numbers"
    );
    Ok(values)
}

/// Samples at another rate.
fn resampled(samples: &[f32], from: usize, to: usize) -> Vec<f32> {
    if from == to {
        return samples.to_vec();
    }
    // Sample i is at the place i * step / phases of what there is.
    let shared = common(from, to);
    let (phases, step) = (to / shared, from / shared);
    let pass = (to as f64 / from as f64).min(1.0);
    let reach = (ZEROS / pass).ceil() as usize;
    let weight = |distance: f64| {
        let x = distance * pass;
        let sinc = if x == 0.0 {
            1.0
        } else {
            (PI * x).sin() / (PI * x)
        };
        let near = (distance / (reach as f64 + 1.0)).clamp(-1.0, 1.0);
        pass * sinc * (0.5 + 0.5 * (PI * near).cos())
    };
    let taps: Vec<Vec<f64>> = (0..phases)
        .map(|phase| {
            let after = phase as f64 / phases as f64;
            let tap = |i: usize| weight(i as f64 - reach as f64 - after);
            (0..=2 * reach + 1).map(tap).collect()
        })
        .collect();
    let count = (samples.len() as u64 * phases as u64).div_ceil(step as u64) as usize;
    let one = |i: usize| {
        let place = i as u64 * step as u64;
        let (at, phase) = (
            (place / phases as u64) as usize,
            (place % phases as u64) as usize,
        );
        let first = at.saturating_sub(reach);
        let skipped = first + reach - at;
        let near = samples[first..].iter().zip(&taps[phase][skipped..]);
        near.map(|(s, t)| f64::from(*s) * t).sum::<f64>() as f32
    };
    (0..count).map(one).collect()
}

/// The largest number that divides both.
fn common(a: usize, b: usize) -> usize {
    match b {
        0 => a,
        _ => common(b, a % b),
    }
}
