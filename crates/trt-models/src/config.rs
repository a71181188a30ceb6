//! What a Hugging Face `config.json` says about a Llama-family model, checked once.
//!
//! The four families differ in a handful of facts (biases, q/k norms, windows, an explicit head width).
//! This file turns the family name and its defaults into those facts, so that the model code only ever
//! asks about facts. A [`Config`] that exists is consistent: every division in the model is exact.

mod check;

use std::path::Path;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file asked for.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The text is not the JSON of a model configuration.
    #[error("config.json does not parse: {0}")]
    Parse(#[from] serde_json::Error),
    /// Neither `model_type` nor `architectures` names a supported family.
    #[error("model family {found} is not supported (supported: llama, mistral, qwen2, qwen3)")]
    Family {
        /// `model_type`, or the architecture name where that is missing.
        found: String,
    },
    /// A field is there, but asks for something this model code does not do.
    #[error("config.json: {field} = {value} is not supported ({supported})")]
    Unsupported {
        /// The field's name.
        field: &'static str,
        /// What it says.
        value: String,
        /// What would be.
        supported: &'static str,
    },
    /// A field is missing or its number contradicts another one.
    #[error("config.json: {0}")]
    Inconsistent(String),
}

/// The families that share this model code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Llama 2 and 3, SmolLM2, and everything saved as `LlamaForCausalLM`.
    Llama,
    /// Mistral: a sliding window over every layer.
    Mistral,
    /// Qwen2 and Qwen2.5: biases on q, k and v.
    Qwen2,
    /// Qwen3: an RMS norm over each head of q and k.
    Qwen3,
}

impl Family {
    fn from_model_type(name: &str) -> Option<Self> {
        match name {
            "llama" => Some(Family::Llama),
            "mistral" => Some(Family::Mistral),
            "qwen2" => Some(Family::Qwen2),
            "qwen3" => Some(Family::Qwen3),
            _ => None,
        }
    }

    fn from_architecture(name: &str) -> Option<Self> {
        Self::from_model_type(&name.strip_suffix("ForCausalLM")?.to_lowercase())
    }
}

/// How rope's frequencies are stretched for contexts longer than the training context.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Frequencies as they are.
    None,
    /// Every frequency divided by `factor`.
    Linear {
        /// The divisor.
        factor: f32,
    },
    /// Llama 3.1: long wavelengths divided by `factor`, short ones kept, a smooth step between.
    Llama3 {
        /// The divisor of long wavelengths.
        factor: f32,
        /// Wavelengths above `original_max_positions / low_freq_factor` are long.
        low_freq_factor: f32,
        /// Wavelengths below `original_max_positions / high_freq_factor` are short.
        high_freq_factor: f32,
        /// The context length of pre-training.
        original_max_positions: usize,
    },
}

/// A checked model configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
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
    /// Key and value heads; divides [`Config::num_attention_heads`].
    pub num_key_value_heads: usize,
    /// Width of one head; even. Not always `hidden_size / num_attention_heads`.
    pub head_dim: usize,
    /// Added to the mean square in every RMS norm.
    pub rms_norm_eps: f64,
    /// Base of the rope frequencies.
    pub rope_theta: f32,
    /// How they are stretched.
    pub rope_scaling: RopeScaling,
    /// Longest context the model was made for.
    pub max_position_embeddings: usize,
    /// Per layer: query `i` sees key `j` only where `i - j < window`; `None` sees everything before it.
    pub layer_windows: Vec<Option<usize>>,
    /// The output head is the embedding table.
    pub tie_word_embeddings: bool,
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

impl Config {
    /// Reads and checks a `config.json`.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.display().to_string(),
            source,
        })?;
        Self::from_json(&text)
    }

    /// Checks the text of a `config.json`.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        Self::check(serde_json::from_str(text)?)
    }

    /// Query heads that share one key and value head.
    pub fn heads_per_kv_head(&self) -> usize {
        self.num_attention_heads / self.num_key_value_heads
    }
}

#[cfg(test)]
mod tests;
