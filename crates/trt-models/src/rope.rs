//! Rotary positions: what turns queries and keys, by cosines and sines of position times frequency.
//!
//! Rows for positions `0 .. max_positions` are spelled as operations on a range of positions, as candle's models
//! spell them, and a step reads rows `index_pos .. index_pos + seq` and nothing else. So one table serves every
//! position, and the compiler computes only the rows that its profile can reach, however long the model's own
//! context is. Dynamic rope has no table: its frequencies depend on the length of the text, so each call makes the
//! rows of its own positions.

use super::backend::{candle, candle_nn};
use super::config::{DecoderConfig, MAX_POSITIONS, RopeScaling};
use super::frequencies::Frequencies;
use candle::{DType, Device, Result, Tensor, bail};

/// Where rows come from, in the dtype the model runs in.
#[derive(Debug, Clone)]
pub struct RotaryEmbedding {
    rows: Rows,
    max_positions: usize,
}

#[derive(Debug, Clone)]
enum Rows {
    /// `(max_positions, head_dim / 2)` each.
    Table { cos: Tensor, sin: Tensor },
    /// Frequencies are `inverse * exp(exponents * ln(1 + slope * (length - original)))`.
    PerCall {
        inverse: Tensor,
        exponents: Tensor,
        slope: f64,
        original: usize,
        dtype: DType,
    },
}

/// The cosines and sines of one call's positions, each `(seq, head_dim / 2)`.
#[derive(Debug, Clone)]
pub struct RotaryRows {
    cos: Tensor,
    sin: Tensor,
}

impl RotaryEmbedding {
    /// Rows for positions `0 .. max_positions`.
    ///
    /// # Errors
    ///
    /// A configuration that [`DecoderConfig::validate`] refuses, and more positions than [`MAX_POSITIONS`].
    pub fn new(
        config: &DecoderConfig,
        max_positions: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        if max_positions > MAX_POSITIONS {
            bail!("{max_positions} positions are too many: {MAX_POSITIONS} are supported");
        }
        let frequencies = Frequencies::new(config).map_err(candle::Error::wrap)?;
        let half = frequencies.inverse.len();
        let row = |values: Vec<f32>| Tensor::from_vec(values, (1, half), device);
        let rows = match config.rope_scaling {
            RopeScaling::Dynamic {
                factor,
                original_max_positions,
            } => Rows::PerCall {
                inverse: row(frequencies.inverse)?,
                exponents: row((0..half).map(|i| exponent(i, config.head_dim)).collect())?,
                slope: f64::from(factor) / original_max_positions as f64,
                original: original_max_positions,
                dtype,
            },
            RopeScaling::None
            | RopeScaling::Linear { .. }
            | RopeScaling::Llama3 { .. }
            | RopeScaling::Yarn { .. } => {
                let positions = column(0, max_positions, device)?;
                let angles = positions.broadcast_mul(&row(frequencies.inverse)?)?;
                let scaled = |x: Tensor| match frequencies.attention_factor {
                    1.0 => x.to_dtype(dtype),
                    factor => (x * f64::from(factor))?.to_dtype(dtype),
                };
                Rows::Table {
                    cos: scaled(angles.cos()?)?,
                    sin: scaled(angles.sin()?)?,
                }
            }
        };
        Ok(Self {
            rows,
            max_positions,
        })
    }

    /// The rows of `seq_len` positions from `index_pos` on. With dynamic rope, those of a text that ends there.
    ///
    /// # Errors
    ///
    /// Positions beyond those that this was made for.
    pub fn rows(&self, index_pos: usize, seq_len: usize) -> Result<RotaryRows> {
        let end = index_pos.saturating_add(seq_len);
        if end > self.max_positions {
            bail!(
                "position {} is beyond the {} positions that the model was made for",
                end.saturating_sub(1),
                self.max_positions
            );
        }
        match &self.rows {
            Rows::Table { cos, sin } => Ok(RotaryRows {
                cos: cos.narrow(0, index_pos, seq_len)?,
                sin: sin.narrow(0, index_pos, seq_len)?,
            }),
            Rows::PerCall {
                inverse,
                exponents,
                slope,
                original,
                dtype,
            } => {
                let device = inverse.device();
                // One number, negative as long as the text is within the original context.
                let beyond = end as f32 - *original as f32;
                let beyond = Tensor::arange(beyond, beyond + 1.0, device)?.reshape((1, 1))?;
                let stretch = beyond.relu()?.affine(*slope, 1.0)?.log()?;
                let frequencies = stretch.broadcast_mul(exponents)?.exp()?.mul(inverse)?;
                let angles = column(index_pos, end, device)?.broadcast_mul(&frequencies)?;
                Ok(RotaryRows {
                    cos: angles.cos()?.to_dtype(*dtype)?,
                    sin: angles.sin()?.to_dtype(*dtype)?,
                })
            }
        }
    }

    /// The length beyond which frequencies depend on the length of the text, if there is one.
    pub fn dynamic_beyond(&self) -> Option<usize> {
        match &self.rows {
            Rows::Table { .. } => None,
            Rows::PerCall { original, .. } => Some(*original),
        }
    }
}

impl RotaryRows {
    /// Turns `x` of shape `(batch, heads, seq, head_dim)`.
    ///
    /// # Errors
    ///
    /// Another shape than the rows were made for.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        candle_nn::rotary_emb::rope(&x.contiguous()?, &self.cos, &self.sin)
    }
}

/// Positions as f32, `(end - start, 1)`. Up to [`MAX_POSITIONS`] each is exact.
fn column(start: usize, end: usize, device: &Device) -> Result<Tensor> {
    Tensor::arange(start as f32, end as f32, device)?.reshape((end - start, 1))
}

/// How the frequency of a pair depends on the factor that stretches the base: `theta` grows with its power
/// `dim / (dim - 2)`, and a frequency is `theta` to the `-2 pair / dim`.
fn exponent(pair: usize, dim: usize) -> f32 {
    -(2.0 * pair as f64 / (dim as f64 - 2.0)) as f32
}
