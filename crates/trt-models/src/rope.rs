//! Rotary positions: cos and sin tables of `(max_positions, head_dim / 2)`, made once when a model loads.
//!
//! A step reads rows `index_pos .. index_pos + seq` and nothing else, so one table serves every position.

use super::backend::{candle, candle_nn};
use super::config::{Config, RopeScaling};
use candle::{DType, Device, Result, Tensor};

/// The tables, in the dtype the model runs in.
#[derive(Debug, Clone)]
pub struct RotaryEmbedding {
    cos: Tensor,
    sin: Tensor,
}

impl RotaryEmbedding {
    /// Tables for positions `0 .. max_positions`.
    pub fn new(
        config: &Config,
        max_positions: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let inv_freq = inverse_frequencies(config);
        let table = |f: fn(f32) -> f32| {
            let values: Vec<f32> = (0..max_positions)
                .flat_map(|position| inv_freq.iter().map(move |freq| f(position as f32 * freq)))
                .collect();
            Tensor::from_vec(values, (max_positions, inv_freq.len()), device)?.to_dtype(dtype)
        };
        Ok(Self {
            cos: table(f32::cos)?,
            sin: table(f32::sin)?,
        })
    }

    /// Turns `x` of shape `(batch, heads, seq, head_dim)` whose first position is `index_pos`.
    pub fn apply(&self, x: &Tensor, index_pos: usize) -> Result<Tensor> {
        let (_batch, _heads, seq_len, _head_dim) = x.dims4()?;
        let cos = self.cos.narrow(0, index_pos, seq_len)?;
        let sin = self.sin.narrow(0, index_pos, seq_len)?;
        candle_nn::rotary_emb::rope(&x.contiguous()?, &cos, &sin)
    }
}

/// Radians per position for each of the `head_dim / 2` pairs.
fn inverse_frequencies(config: &Config) -> Vec<f32> {
    let dim = config.head_dim;
    (0..dim)
        .step_by(2)
        .map(|i| 1.0 / config.rope_theta.powf(i as f32 / dim as f32))
        .map(|freq| scaled(freq, config.rope_scaling))
        .collect()
}

fn scaled(freq: f32, scaling: RopeScaling) -> f32 {
    match scaling {
        RopeScaling::None => freq,
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
