//! What a Hugging Face `config.json` says about a Llama-family model, checked once.
//!
//! The four families differ in a handful of facts (biases, q/k norms, windows, an explicit head width).
//! This file turns the family name and its defaults into those facts, so that the model code only ever
//! asks about facts. A [`Config`] that exists is consistent: every division in the model is exact.

use std::path::Path;

use serde::Deserialize;

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

/// One number or a list of them, as `eos_token_id` comes.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

/// `rope_scaling`, and `rope_parameters` in newer files; older files say `type` for `rope_type`.
#[derive(Debug, Default, Deserialize)]
struct RawRope {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<usize>,
    partial_rotary_factor: Option<f64>,
}

/// The file as it is; every default is applied in [`Config::check`].
#[derive(Debug, Deserialize)]
struct Raw {
    model_type: Option<String>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<RawRope>,
    rope_parameters: Option<RawRope>,
    partial_rotary_factor: Option<f64>,
    max_position_embeddings: Option<usize>,
    #[serde(default, deserialize_with = "present")]
    sliding_window: Option<Option<usize>>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    hidden_act: Option<String>,
    bos_token_id: Option<u32>,
    eos_token_id: Option<OneOrMany>,
    quantization_config: Option<serde_json::Value>,
}

/// Tells `null` (no window) from a missing key (the family's default).
fn present<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Option<usize>>, D::Error> {
    Option::<usize>::deserialize(d).map(Some)
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

    fn check(raw: Raw) -> Result<Self, ConfigError> {
        let family = family(&raw)?;
        refuse_unsupported(&raw)?;
        let head_dim = head_dim(&raw, family)?;
        let num_key_value_heads = raw.num_key_value_heads.unwrap_or(raw.num_attention_heads);
        check_numbers(&raw, num_key_value_heads, head_dim)?;
        let rope = raw.rope_parameters.as_ref().or(raw.rope_scaling.as_ref());
        let rope_theta = raw.rope_theta.or(rope.and_then(|r| r.rope_theta));
        let max_position_embeddings = raw.max_position_embeddings.unwrap_or(match family {
            Family::Llama => 2048,
            Family::Mistral => 131_072,
            Family::Qwen2 | Family::Qwen3 => 32_768,
        });
        let attention_bias = raw.attention_bias.unwrap_or(false);
        let config = Config {
            family,
            vocab_size: raw.vocab_size,
            hidden_size: raw.hidden_size,
            intermediate_size: raw.intermediate_size,
            num_hidden_layers: raw.num_hidden_layers,
            num_attention_heads: raw.num_attention_heads,
            num_key_value_heads,
            head_dim,
            rms_norm_eps: raw.rms_norm_eps.unwrap_or(1e-6),
            rope_theta: rope_theta.unwrap_or(10_000.0) as f32,
            rope_scaling: rope_scaling(rope, max_position_embeddings)?,
            max_position_embeddings,
            layer_windows: layer_windows(&raw, family)?,
            tie_word_embeddings: raw.tie_word_embeddings.unwrap_or(false),
            qkv_bias: family == Family::Qwen2 || attention_bias,
            output_bias: family != Family::Qwen2 && attention_bias,
            mlp_bias: raw.mlp_bias.unwrap_or(false),
            qk_norm: family == Family::Qwen3,
            bos_token_id: raw.bos_token_id,
            eos_token_ids: match raw.eos_token_id {
                None => Vec::new(),
                Some(OneOrMany::One(id)) => vec![id],
                Some(OneOrMany::Many(ids)) => ids,
            },
        };
        Ok(config)
    }

    /// Query heads that share one key and value head.
    pub fn heads_per_kv_head(&self) -> usize {
        self.num_attention_heads / self.num_key_value_heads
    }
}

fn family(raw: &Raw) -> Result<Family, ConfigError> {
    let architecture = raw.architectures.iter().flatten().next();
    match (&raw.model_type, architecture) {
        (Some(name), _) => Family::from_model_type(name),
        (None, Some(name)) => Family::from_architecture(name),
        (None, None) => None,
    }
    .ok_or_else(|| ConfigError::Family {
        found: match (&raw.model_type, architecture) {
            (Some(name), _) | (None, Some(name)) => format!("{name:?}"),
            (None, None) => "(no model_type, no architectures)".into(),
        },
    })
}

fn refuse_unsupported(raw: &Raw) -> Result<(), ConfigError> {
    if let Some(q) = &raw.quantization_config {
        let method = q.get("quant_method").unwrap_or(q);
        return Err(ConfigError::Unsupported {
            field: "quantization_config",
            value: method.to_string(),
            supported: "plain f32, f16 or bf16 weights",
        });
    }
    let act = raw.hidden_act.as_deref().unwrap_or("silu");
    if !matches!(act, "silu" | "swish") {
        return Err(ConfigError::Unsupported {
            field: "hidden_act",
            value: act.into(),
            supported: "silu",
        });
    }
    let rope = raw.rope_parameters.as_ref().or(raw.rope_scaling.as_ref());
    let partial = raw
        .partial_rotary_factor
        .or(rope.and_then(|r| r.partial_rotary_factor));
    match partial {
        Some(f) if f != 1.0 => Err(ConfigError::Unsupported {
            field: "partial_rotary_factor",
            value: f.to_string(),
            supported: "1, rope over the whole head",
        }),
        _ => Ok(()),
    }
}

fn head_dim(raw: &Raw, family: Family) -> Result<usize, ConfigError> {
    let (hidden, heads) = (raw.hidden_size, raw.num_attention_heads);
    match (raw.head_dim, family) {
        (Some(dim), _) => Ok(dim),
        (None, Family::Qwen3) => Ok(128),
        (None, _) if heads > 0 && hidden.is_multiple_of(heads) => Ok(hidden / heads),
        (None, _) => Err(ConfigError::Inconsistent(format!(
            "hidden_size {hidden} is not a multiple of num_attention_heads {heads}, and there is no head_dim"
        ))),
    }
}

fn check_numbers(raw: &Raw, kv_heads: usize, head_dim: usize) -> Result<(), ConfigError> {
    let sizes = [
        ("vocab_size", raw.vocab_size),
        ("hidden_size", raw.hidden_size),
        ("intermediate_size", raw.intermediate_size),
        ("num_hidden_layers", raw.num_hidden_layers),
        ("num_attention_heads", raw.num_attention_heads),
        ("num_key_value_heads", kv_heads),
        ("head_dim", head_dim),
    ];
    if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
        return Err(ConfigError::Inconsistent(format!("{name} is 0")));
    }
    if !raw.num_attention_heads.is_multiple_of(kv_heads) {
        return Err(ConfigError::Inconsistent(format!(
            "num_attention_heads {} is not a multiple of num_key_value_heads {kv_heads}",
            raw.num_attention_heads
        )));
    }
    if !head_dim.is_multiple_of(2) {
        return Err(ConfigError::Inconsistent(format!(
            "head_dim {head_dim} is odd: rope turns pairs"
        )));
    }
    Ok(())
}

fn rope_scaling(raw: Option<&RawRope>, max_positions: usize) -> Result<RopeScaling, ConfigError> {
    let Some(raw) = raw else {
        return Ok(RopeScaling::None);
    };
    let number = |name: &str, value: Option<f64>| match value {
        Some(v) if v.is_finite() && v > 0.0 => Ok(v as f32),
        Some(v) => Err(ConfigError::Inconsistent(format!(
            "rope_scaling.{name} is {v}"
        ))),
        None => Err(ConfigError::Inconsistent(format!(
            "rope_scaling.{name} is missing"
        ))),
    };
    match raw.rope_type.as_deref().unwrap_or("default") {
        "default" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear {
            factor: number("factor", raw.factor)?,
        }),
        "llama3" => {
            let low_freq_factor = number("low_freq_factor", raw.low_freq_factor)?;
            let high_freq_factor = number("high_freq_factor", raw.high_freq_factor)?;
            if high_freq_factor <= low_freq_factor {
                return Err(ConfigError::Inconsistent(format!(
                    "rope_scaling: high_freq_factor {high_freq_factor} is not above low_freq_factor {low_freq_factor}"
                )));
            }
            Ok(RopeScaling::Llama3 {
                factor: number("factor", raw.factor)?,
                low_freq_factor,
                high_freq_factor,
                original_max_positions: raw
                    .original_max_position_embeddings
                    .unwrap_or(max_positions),
            })
        }
        other => Err(ConfigError::Unsupported {
            field: "rope_scaling.rope_type",
            value: other.into(),
            supported: "default, linear, llama3",
        }),
    }
}

/// The window of each layer: `layer_types` where the file lists them, else the family's rule.
fn layer_windows(raw: &Raw, family: Family) -> Result<Vec<Option<usize>>, ConfigError> {
    let layers = raw.num_hidden_layers;
    let window = match family {
        Family::Llama => None,
        Family::Mistral => raw.sliding_window.unwrap_or(Some(4096)),
        Family::Qwen2 | Family::Qwen3 if raw.use_sliding_window == Some(true) => {
            raw.sliding_window.unwrap_or(Some(4096))
        }
        Family::Qwen2 | Family::Qwen3 => None,
    };
    if window == Some(0) {
        return Err(ConfigError::Inconsistent("sliding_window is 0".into()));
    }
    let first_windowed = match family {
        Family::Llama | Family::Mistral => 0,
        Family::Qwen2 | Family::Qwen3 => raw.max_window_layers.unwrap_or(28),
    };
    let Some(types) = &raw.layer_types else {
        return Ok((0..layers)
            .map(|i| window.filter(|_| i >= first_windowed))
            .collect());
    };
    if types.len() != layers {
        return Err(ConfigError::Inconsistent(format!(
            "layer_types has {} entries, num_hidden_layers is {layers}",
            types.len()
        )));
    }
    types
        .iter()
        .map(|kind| match kind.as_str() {
            "full_attention" => Ok(None),
            "sliding_attention" => window.map(Some).ok_or_else(|| {
                ConfigError::Inconsistent(
                    "layer_types has sliding_attention, but there is no sliding_window".into(),
                )
            }),
            other => Err(ConfigError::Unsupported {
                field: "layer_types",
                value: other.into(),
                supported: "full_attention, sliding_attention",
            }),
        })
        .collect()
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
