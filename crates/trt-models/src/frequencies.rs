//! Rope's frequencies, in the arithmetic of transformers: f32 where it holds tensors, f64 where it holds numbers.
//!
//! At position 100 000 a relative error of 1e-6 turns a pair by a tenth of a radian, so the order of roundings
//! matters: what is computed here equals transformers' buffers within a unit in the last place.

use crate::config::{ConfigError, DecoderConfig, RopeScaling};

/// Radians per position of each pair of a head's elements.
#[derive(Debug, Clone, PartialEq)]
pub struct Frequencies {
    /// One for each of the `head_dim / 2` pairs.
    pub inverse: Vec<f32>,
    /// What cosines and sines are multiplied with: 1 unless the rope type is yarn.
    pub attention_factor: f32,
}

impl Frequencies {
    /// Those of a text that is no longer than the model's original context; of any text, unless the rope type is
    /// dynamic.
    ///
    /// # Errors
    ///
    /// A configuration that [`DecoderConfig::validate`] refuses.
    pub fn new(config: &DecoderConfig) -> Result<Self, ConfigError> {
        Self::at(config, 0)
    }

    /// Those of a call after which a text has `length` positions. Only dynamic rope depends on it.
    ///
    /// # Errors
    ///
    /// A configuration that [`DecoderConfig::validate`] refuses.
    pub fn at(config: &DecoderConfig, length: usize) -> Result<Self, ConfigError> {
        config.validate()?;
        let (theta, dim) = (config.rope_theta, config.head_dim);
        let attention_factor = match config.rope_scaling {
            RopeScaling::Yarn {
                attention_factor, ..
            } => attention_factor as f32,
            _ => 1.0,
        };
        let inverse = match config.rope_scaling {
            RopeScaling::Dynamic { .. } => {
                let base = (f64::from(theta) * stretch(config, length)) as f32;
                pairs(dim).map(|p| 1.0 / base.powf(p)).collect()
            }
            RopeScaling::Yarn { .. } => yarn(config),
            scaling => pairs(dim)
                .map(|p| scaled(1.0 / theta.powf(p), scaling))
                .collect(),
        };
        Ok(Frequencies {
            inverse,
            attention_factor,
        })
    }
}

/// `2i / head_dim` for each pair `i`.
fn pairs(dim: usize) -> impl Iterator<Item = f32> {
    (0..dim).step_by(2).map(move |i| i as f32 / dim as f32)
}

fn scaled(freq: f32, scaling: RopeScaling) -> f32 {
    match scaling {
        RopeScaling::None | RopeScaling::Dynamic { .. } | RopeScaling::Yarn { .. } => freq,
        RopeScaling::Linear { factor } => freq / factor,
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_positions,
        } => {
            let wavelength = 2.0 * std::f32::consts::PI / freq;
            // How many turns a pair makes within the original context decides how much it is stretched.
            let turns = original_max_positions as f32 / wavelength;
            let keep =
                ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
            (1.0 - keep) * freq / factor + keep * freq
        }
    }
}

/// What dynamic rope multiplies `rope_theta` with, once a text has `length` positions.
fn stretch(config: &DecoderConfig, length: usize) -> f64 {
    let RopeScaling::Dynamic {
        factor,
        original_max_positions,
    } = config.rope_scaling
    else {
        return 1.0;
    };
    let (factor, original) = (f64::from(factor), original_max_positions as f64);
    let dim = config.head_dim as f64;
    let length = (length as f64).max(original);
    (factor * length / original - (factor - 1.0)).powf(dim / (dim - 2.0))
}

/// Pairs that turn often within the original context keep their frequency, pairs that turn rarely have it divided,
/// and between two pairs there is a ramp.
fn yarn(config: &DecoderConfig) -> Vec<f32> {
    let RopeScaling::Yarn {
        factor,
        beta_fast,
        beta_slow,
        original_max_positions,
        truncate,
        ..
    } = config.rope_scaling
    else {
        return Vec::new();
    };
    let (theta, dim) = (config.rope_theta, config.head_dim);
    // The pair that makes so many turns within the original context.
    let pair = |turns: f64| {
        let length = original_max_positions as f64 / (turns * 2.0 * std::f64::consts::PI);
        dim as f64 * length.ln() / (2.0 * f64::from(theta).ln())
    };
    let (low, high) = match truncate {
        true => (pair(beta_fast).floor(), pair(beta_slow).ceil()),
        false => (pair(beta_fast), pair(beta_slow)),
    };
    let (low, mut high) = (low.max(0.0), high.min(dim as f64 - 1.0));
    if low == high {
        high += 0.001;
    }
    let (start, length) = (low as f32, (high - low) as f32);
    pairs(dim)
        .zip(0u16..)
        .map(|(p, i)| {
            let wave = theta.powf(p);
            let keep = 1.0 - ((f32::from(i) - start) / length).clamp(0.0, 1.0);
            1.0 / (factor as f32 * wave) * (1.0 - keep) + 1.0 / wave * keep
        })
        .collect()
}
