//! Sound as whisper takes it: the logarithms of how loud it is in bands of frequencies, a hundred times a second.
//!
//! A frame is 400 samples under a Hann window, around its place; bands are as wide as the ear's (Slaney's scale: even up to
//! 1 kHz, by ratios above), triangles of area 1 that overlap by half.

use std::f64::consts::PI;

/// Samples a second.
pub const RATE: usize = 16_000;
/// Samples between two frames.
pub const HOP: usize = 160;
/// Samples of a frame.
const FRAME: usize = 400;
/// Frequencies of a frame.
const BINS: usize = FRAME / 2 + 1;
/// The least power that is told from silence.
const LEAST: f64 = 1e-10;
/// How far below the loudest band quieter ones are told apart, in powers of ten.
const RANGE: f64 = 8.0;

/// Frames of bands.
pub struct Mel {
    pub bands: usize,
    /// A row of `frames` for each band.
    values: Vec<f32>,
    pub frames: usize,
}

impl Mel {
    /// Of samples from -1 to 1, at [`RATE`]. What comes after them is taken for silence.
    pub fn new(samples: &[f32], bands: usize) -> Mel {
        let frames = samples.len() / HOP;
        let filters = filters(bands);
        let fourier = Fourier::new(FRAME);
        let window: Vec<f64> = (0..FRAME)
            .map(|i| 0.5 - 0.5 * (2.0 * PI * i as f64 / FRAME as f64).cos())
            .collect();
        let mut values = vec![0f64; bands * frames];
        let mut loudest = LEAST.log10();
        // Frames that begin in the sound and are not kept may be the loudest.
        for frame in 0..frames + FRAME.div_ceil(2 * HOP) {
            let at = |i: usize| {
                let place = (frame * HOP + i) as i64 - (FRAME / 2) as i64;
                let sample = samples.get(place.unsigned_abs() as usize);
                window[i] * f64::from(sample.copied().unwrap_or(0.0))
            };
            let wave: Vec<[f64; 2]> = (0..FRAME).map(|i| [at(i), 0.0]).collect();
            let heard = fourier.of(&wave);
            let power: Vec<f64> = heard[..BINS].iter().map(|[a, b]| a * a + b * b).collect();
            for (band, filter) in filters.iter().enumerate() {
                let sum: f64 = filter.iter().zip(&power).map(|(f, p)| f * p).sum();
                let log = sum.max(LEAST).log10();
                loudest = loudest.max(log);
                if frame < frames {
                    values[band * frames + frame] = log;
                }
            }
        }
        let scaled = |v: f64| ((v.max(loudest - RANGE) + 4.0) / 4.0) as f32;
        Mel {
            bands,
            values: values.into_iter().map(scaled).collect(),
            frames,
        }
    }

    /// How long the sound is.
    pub fn seconds(&self) -> f64 {
        (self.frames * HOP) as f64 / RATE as f64
    }

    /// `count` frames from one on, a row for each band, of which those behind the end are 0.
    pub fn window(&self, from: usize, count: usize) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.bands * count);
        for row in self.values.chunks_exact(self.frames.max(1)) {
            let there = row.iter().skip(from).take(count);
            let end = out.len() + count;
            out.extend(there);
            out.resize(end, 0.0);
        }
        out
    }
}

/// What each band takes of each frequency.
fn filters(bands: usize) -> Vec<Vec<f64>> {
    let highest = to_mel(RATE as f64 / 2.0);
    let edge = |i: usize| to_hertz(highest * i as f64 / (bands + 1) as f64);
    let filter = |band: usize| {
        let [low, middle, high] = [band, band + 1, band + 2].map(edge);
        let take = |bin: usize| {
            let hertz = (bin * RATE) as f64 / FRAME as f64;
            let up = (hertz - low) / (middle - low);
            let down = (high - hertz) / (high - middle);
            up.min(down).max(0.0) * 2.0 / (high - low)
        };
        (0..BINS).map(take).collect()
    };
    (0..bands).map(filter).collect()
}

/// Hertz of a step of the even part of the scale.
const STEP: f64 = 200.0 / 3.0;
/// Where the scale goes on by ratios.
const EVEN: f64 = 1000.0;

/// The logarithm of the ratio of a step above [`EVEN`].
fn ratio() -> f64 {
    6.4f64.ln() / 27.0
}

fn to_mel(hertz: f64) -> f64 {
    match hertz < EVEN {
        true => hertz / STEP,
        false => EVEN / STEP + (hertz / EVEN).ln() / ratio(),
    }
}

fn to_hertz(mel: f64) -> f64 {
    match mel < EVEN / STEP {
        true => mel * STEP,
        false => EVEN * ((mel - EVEN / STEP) * ratio()).exp(),
    }
}

/// The discrete Fourier transform of so many complex numbers, by the factors of that number.
struct Fourier {
    /// The powers of the root of 1.
    roots: Vec<[f64; 2]>,
}

impl Fourier {
    fn new(length: usize) -> Self {
        let root = |i: usize| {
            let angle = -2.0 * PI * i as f64 / length as f64;
            [angle.cos(), angle.sin()]
        };
        Fourier {
            roots: (0..length).map(root).collect(),
        }
    }

    fn of(&self, wave: &[[f64; 2]]) -> Vec<[f64; 2]> {
        let length = wave.len();
        let Some(parts) = (2..=length).find(|f| length.is_multiple_of(*f)) else {
            return wave.to_vec();
        };
        // Each `parts`-th number, from each of the first on.
        let part = |first: usize| {
            let some: Vec<_> = wave.iter().copied().skip(first).step_by(parts).collect();
            self.of(&some)
        };
        let each: Vec<Vec<[f64; 2]>> = (0..parts).map(part).collect();
        let step = self.roots.len() / length;
        let sum = |k: usize| {
            let term = |(first, part): (usize, &Vec<[f64; 2]>)| {
                let [a, b] = part[k % part.len()];
                let [c, d] = self.roots[first * k % length * step];
                [a * c - b * d, a * d + b * c]
            };
            let terms = each.iter().enumerate().map(term);
            terms.fold([0.0, 0.0], |[a, b], [c, d]| [a + c, b + d])
        };
        (0..length).map(sum).collect()
    }
}
