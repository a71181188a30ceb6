//! From the file as it is to the facts: defaults by family, and the checks that make every
//! [`Config`] consistent.

use super::{Config, ConfigError, Family, RopeScaling};
use serde::Deserialize;

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
pub(super) struct Raw {
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
    /// The facts that a file states and implies.
    pub(super) fn check(raw: Raw) -> Result<Self, ConfigError> {
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
