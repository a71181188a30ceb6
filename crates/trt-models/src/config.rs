//! What a Hugging Face `config.json` says about a Llama-family model, checked once.
//!
//! The four families differ in a handful of facts (biases, q/k norms, windows, an explicit head width).
//! This file turns the family name and its defaults into those facts, so that the model code only ever
//! asks about facts. A [`DecoderConfig`] that [`DecoderConfig::validate`] accepts is consistent: every division in the model is
//! exact, and no number is beyond its stated maximum. Reading a file ends with it, and so begins loading a model.
//!
//! Files are other people's: what they say in a way that transformers understands is understood (`config/fields.rs`),
//! each field that would change a result and that no family here has is refused by name (`config/refused.rs`), and a
//! model with vision is read as the text model inside it (`config/family.rs`).

mod check;
mod family;
mod fields;
mod read;
mod refused;
mod rope;
mod validate;

pub use family::Family;
pub use rope::RopeScaling;
pub use validate::MAX_POSITIONS;

use std::path::Path;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {path}: {reason}")]
    Read {
        /// The file asked for.
        path: String,
        /// What the system said. It is in the message, so it is no source that would be told again.
        reason: std::io::Error,
    },
    /// A folder, a pipe or a device in place of a file.
    #[error("cannot read {path}: it is {found}, not a regular file")]
    NotAFile {
        /// The path asked for.
        path: String,
        /// What is there.
        found: &'static str,
    },
    /// More text than any configuration has.
    #[error("config.json is larger than {most} bytes")]
    TooLong {
        /// Bytes that are read at most.
        most: usize,
    },
    /// The text is not the JSON of a model configuration.
    #[error("config.json does not parse: {0}")]
    Parse(serde_json::Error),
    /// Neither `model_type` nor `architectures` names a supported family.
    #[error("model family {found} is not one of llama, mistral, qwen2, qwen3")]
    Family {
        /// `model_type`, or the architecture name where that is missing.
        found: String,
    },
    /// A field is there, but asks for something this model code does not do.
    #[error("config.json: {field} = {value} is not supported ({supported})")]
    Unsupported {
        /// The field's name.
        field: String,
        /// What it says.
        value: String,
        /// What would be.
        supported: &'static str,
    },
    /// A field is there, but is no value of its kind.
    #[error("config.json: {field} = {value} is not {expected}")]
    Wrong {
        /// The field's name.
        field: String,
        /// What it says.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A number beyond its stated maximum.
    #[error("config.json: {field} = {value} is more than {most}, the largest that is supported")]
    TooLarge {
        /// The field, or the product of fields.
        field: &'static str,
        /// What it says.
        value: u64,
        /// The maximum.
        most: u64,
    },
    /// A field is missing or its number contradicts another one.
    #[error("config.json: {0}")]
    Inconsistent(String),
}

/// The configuration of a decoder of the Llama family: sizes, and the facts in which families differ.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// Which family it was saved as.
    pub family: Family,
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides [`DecoderConfig::num_attention_heads`].
    pub num_key_value_heads: usize,
    /// Width of one head; even. Not always `hidden_size / num_attention_heads`.
    pub head_dim: usize,
    /// Added to the mean square in every RMS norm.
    pub rms_norm_eps: f64,
    /// Base of the rope frequencies, 1 or more.
    pub rope_theta: f32,
    /// How they are stretched.
    pub rope_scaling: RopeScaling,
    /// Longest context that the file states. Stretched rope may reach further: [`DecoderConfig::max_positions`].
    pub max_position_embeddings: usize,
    /// Per layer: query `i` sees key `j` only where `i - j < window`; `None` sees everything before it.
    pub layer_windows: Vec<Option<usize>>,
    /// Whether the output head is the embedding table; `None` where the file does not say. What the weights hold
    /// decides first: see [`Llama::load`](crate::Llama::load).
    pub tie_word_embeddings: Option<bool>,
    /// Biases on the q, k and v projections.
    pub qkv_bias: bool,
    /// A bias on the attention's output projection.
    pub output_bias: bool,
    /// Biases in the MLP.
    pub mlp_bias: bool,
    /// RMS norms over each head of q and k.
    pub qk_norm: bool,
    /// First token of a text, where the model has one.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text; may be empty.
    pub eos_token_ids: Vec<u32>,
}

impl DecoderConfig {
    /// Reads and checks a `config.json` of at most 4 MiB.
    ///
    /// # Errors
    ///
    /// What cannot be read or is no regular file, and as [`DecoderConfig::from_json`].
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        Self::from_json(&read::text(path.as_ref())?)
    }

    /// Checks the text of a `config.json`.
    ///
    /// # Errors
    ///
    /// Text that is no configuration of a supported family, with the field and what it says.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let value = fields::parse(text)?;
        let config = check::config(&value)?;
        config.validate()?;
        Ok(config)
    }

    /// Query heads that share one key and value head; 0 in a configuration without such heads, which
    /// [`DecoderConfig::validate`] refuses.
    pub fn heads_per_kv_head(&self) -> usize {
        self.num_attention_heads
            .checked_div(self.num_key_value_heads)
            .unwrap_or(0)
    }

    /// The longest context that the model is made for: `max_position_embeddings`, or what its rope is stretched to
    /// where that is more (files of stretched models state either).
    pub fn max_positions(&self) -> usize {
        let stated = self.max_position_embeddings;
        let stretched = |factor: f64, original: usize| (factor * original as f64).floor() as usize;
        let reached = match self.rope_scaling {
            RopeScaling::None | RopeScaling::Llama3 { .. } => stated,
            RopeScaling::Linear { factor } => stretched(f64::from(factor), stated),
            RopeScaling::Dynamic {
                factor,
                original_max_positions,
            } => stretched(f64::from(factor), original_max_positions),
            RopeScaling::Yarn {
                factor,
                original_max_positions,
                ..
            } => stretched(factor, original_max_positions),
        };
        reached.max(stated).min(MAX_POSITIONS)
    }
}

#[cfg(test)]
mod tests;
