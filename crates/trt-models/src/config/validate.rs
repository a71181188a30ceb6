//! What every configuration keeps, whether it was read or made: stated maxima, and numbers that fit each other.
//!
//! Nothing is allocated by a number before it has passed here.

use super::{ConfigError, DecoderConfig, RopeScaling};

/// Positions of a text at most: rope counts them in f32, which tells them apart up to here.
pub const MAX_POSITIONS: usize = 1 << 24;

/// Layers at most; the largest models have 126.
pub(super) const LAYERS: usize = 4096;
const VOCABULARY: usize = 1 << 24;
const WIDTH: usize = 1 << 20;
const INNER: usize = 1 << 22;
const HEADS: usize = 1 << 14;
const HEAD: usize = 1 << 14;
/// `num_attention_heads * head_dim` at most.
const HEADS_WIDTH: usize = 1 << 22;
/// Factors by which rope is stretched.
const FACTORS: std::ops::RangeInclusive<f64> = 1e-3..=1e6;

pub(super) fn at_most(field: &'static str, value: usize, most: usize) -> Result<(), ConfigError> {
    match value > most {
        true => Err(ConfigError::TooLarge {
            field,
            value: value as u64,
            most: most as u64,
        }),
        false => Ok(()),
    }
}

impl DecoderConfig {
    /// Whether the numbers are within their maxima and fit each other. Loading a model begins with it.
    ///
    /// Maxima: 2^24 entries of the vocabulary and positions, 2^20 elements of a position, 2^22 inside the MLP and over
    /// all query heads, 2^14 heads and elements of one, 4096 layers.
    ///
    /// # Errors
    ///
    /// [`ConfigError::TooLarge`] and [`ConfigError::Inconsistent`], with the field and its number.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.sizes()?;
        self.heads()?;
        self.windows()?;
        self.numbers()?;
        self.scaling()
    }

    fn sizes(&self) -> Result<(), ConfigError> {
        let sizes = [
            ("vocab_size", self.vocab_size, VOCABULARY),
            ("hidden_size", self.hidden_size, WIDTH),
            ("intermediate_size", self.intermediate_size, INNER),
            ("num_hidden_layers", self.num_hidden_layers, LAYERS),
            ("num_attention_heads", self.num_attention_heads, HEADS),
            ("num_key_value_heads", self.num_key_value_heads, HEADS),
            ("head_dim", self.head_dim, HEAD),
            (
                "max_position_embeddings",
                self.max_position_embeddings,
                MAX_POSITIONS,
            ),
        ];
        for (field, value, most) in sizes {
            if value == 0 {
                return Err(ConfigError::Inconsistent(format!("{field} is 0")));
            }
            at_most(field, value, most)?;
        }
        // Both factors are at most 2^14.
        let wide = self.num_attention_heads * self.head_dim;
        at_most("num_attention_heads * head_dim", wide, HEADS_WIDTH)
    }

    fn heads(&self) -> Result<(), ConfigError> {
        let (heads, kv_heads) = (self.num_attention_heads, self.num_key_value_heads);
        if !heads.is_multiple_of(kv_heads) {
            return Err(ConfigError::Inconsistent(format!(
                "num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}"
            )));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(ConfigError::Inconsistent(format!(
                "head_dim {} is odd: rope turns pairs",
                self.head_dim
            )));
        }
        Ok(())
    }

    fn windows(&self) -> Result<(), ConfigError> {
        if self.layer_windows.len() != self.num_hidden_layers {
            return Err(ConfigError::Inconsistent(format!(
                "there are windows of {} layers, and num_hidden_layers is {}",
                self.layer_windows.len(),
                self.num_hidden_layers
            )));
        }
        for window in self.layer_windows.iter().copied().flatten() {
            if window == 0 {
                return Err(ConfigError::Inconsistent("sliding_window is 0".into()));
            }
            at_most("sliding_window", window, MAX_POSITIONS)?;
        }
        Ok(())
    }

    fn numbers(&self) -> Result<(), ConfigError> {
        let (eps, theta) = (self.rms_norm_eps, self.rope_theta);
        if !(0.0..=1.0).contains(&eps) {
            return Err(ConfigError::Inconsistent(format!(
                "rms_norm_eps is {eps}, not a number from 0 to 1"
            )));
        }
        if !(theta.is_finite() && theta >= 1.0) {
            return Err(ConfigError::Inconsistent(format!(
                "rope_theta is {theta}, not a finite number of 1 or more"
            )));
        }
        Ok(())
    }

    fn scaling(&self) -> Result<(), ConfigError> {
        let factor = |value: f64| within("factor", value, FACTORS);
        match self.rope_scaling {
            RopeScaling::None => Ok(()),
            RopeScaling::Linear { factor: by } => factor(f64::from(by)),
            RopeScaling::Llama3 {
                factor: by,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_positions,
            } => {
                factor(f64::from(by))?;
                within("low_freq_factor", f64::from(low), FACTORS)?;
                within("high_freq_factor", f64::from(high), FACTORS)?;
                if high <= low {
                    return Err(ConfigError::Inconsistent(format!(
                        "rope_scaling: high_freq_factor {high} is not above low_freq_factor {low}"
                    )));
                }
                original(original_max_positions)
            }
            RopeScaling::Dynamic {
                factor: by,
                original_max_positions,
            } => {
                factor(f64::from(by))?;
                if self.head_dim == 2 {
                    return Err(ConfigError::Inconsistent(
                        "head_dim is 2, which dynamic rope cannot stretch".into(),
                    ));
                }
                original(original_max_positions)
            }
            RopeScaling::Yarn {
                factor: by,
                beta_fast,
                beta_slow,
                attention_factor,
                original_max_positions,
                truncate: _,
            } => {
                factor(by)?;
                within("beta_fast", beta_fast, FACTORS)?;
                within("beta_slow", beta_slow, FACTORS)?;
                within("attention_factor", attention_factor, FACTORS)?;
                if beta_fast < beta_slow {
                    return Err(ConfigError::Inconsistent(format!(
                        "rope_scaling: beta_fast {beta_fast} is below beta_slow {beta_slow}"
                    )));
                }
                if self.rope_theta <= 1.0 {
                    return Err(ConfigError::Inconsistent(
                        "rope_theta is 1, whose pairs yarn cannot tell apart".into(),
                    ));
                }
                original(original_max_positions)
            }
        }
    }
}

fn within(name: &str, value: f64, range: std::ops::RangeInclusive<f64>) -> Result<(), ConfigError> {
    match range.contains(&value) {
        true => Ok(()),
        false => Err(ConfigError::Inconsistent(format!(
            "rope_scaling.{name} is {value}, not between {} and {}",
            range.start(),
            range.end()
        ))),
    }
}

fn original(positions: usize) -> Result<(), ConfigError> {
    if positions == 0 {
        return Err(ConfigError::Inconsistent(
            "rope_scaling.original_max_position_embeddings is 0".into(),
        ));
    }
    at_most("original_max_position_embeddings", positions, MAX_POSITIONS)
}
