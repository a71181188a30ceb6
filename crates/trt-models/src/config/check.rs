//! From a file's fields to facts: each family's defaults are applied here.

use super::family::{self, Text};
use super::fields::{Fields, short};
use super::validate::LAYERS;
use super::{ConfigError, DecoderConfig, Family, refused, rope};
use serde_json::{Map, Value};

/// The facts that a file states and implies; sizes are not compared yet.
pub(super) fn config(file: &Map<String, Value>) -> Result<DecoderConfig, ConfigError> {
    let text = family::text(file)?;
    let Text { family, fields, .. } = text;
    refused::check(fields, family == Family::Qwen3)?;
    activation(fields)?;
    let sizes = Sizes::read(&text)?;
    let max_position_embeddings =
        fields
            .count("max_position_embeddings")?
            .unwrap_or(match family {
                Family::Llama => 2048,
                Family::Mistral => 131_072,
                Family::Qwen2 | Family::Qwen3 => 32_768,
            });
    let rope = rope::read(fields, max_position_embeddings)?;
    let biases = Biases::read(fields, family)?;
    let outside = |name: &str| -> Result<Vec<u32>, ConfigError> {
        match (fields.get(name), text.wrapper) {
            (None, Some(wrapper)) => wrapper.tokens(name),
            _ => fields.tokens(name),
        }
    };
    let tied = match (fields.flag("tie_word_embeddings")?, text.wrapper) {
        (None, Some(wrapper)) => wrapper.flag("tie_word_embeddings")?,
        (stated, _) => stated,
    };
    Ok(DecoderConfig {
        family,
        vocab_size: sizes.vocab,
        hidden_size: sizes.hidden,
        intermediate_size: sizes.inner,
        num_hidden_layers: sizes.layers,
        num_attention_heads: sizes.heads,
        num_key_value_heads: sizes.kv_heads,
        head_dim: sizes.head_dim,
        rms_norm_eps: fields.number("rms_norm_eps")?.unwrap_or(1e-6),
        rope_theta: rope.theta as f32,
        rope_scaling: rope.scaling,
        max_position_embeddings,
        layer_windows: layer_windows(fields, family, sizes.layers)?,
        tie_word_embeddings: tied,
        qkv_bias: biases.qkv,
        output_bias: biases.output,
        mlp_bias: biases.mlp,
        qk_norm: family == Family::Qwen3,
        bos_token_id: outside("bos_token_id")?.first().copied(),
        eos_token_ids: outside("eos_token_id")?,
    })
}

fn activation(fields: Fields<'_>) -> Result<(), ConfigError> {
    for name in ["hidden_act", "hidden_activation"] {
        match fields.text(name)? {
            None | Some("silu" | "swish") => {}
            Some(other) => {
                return Err(ConfigError::Unsupported {
                    field: fields.full(name),
                    value: short(&Value::from(other)),
                    supported: "silu",
                });
            }
        }
    }
    Ok(())
}

struct Sizes {
    vocab: usize,
    hidden: usize,
    inner: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl Sizes {
    fn read(text: &Text<'_>) -> Result<Sizes, ConfigError> {
        let (fields, family) = (text.fields, text.family);
        // A text model inside another lists only what differs from its family's defaults.
        let size = |name: &str, inside: usize| match (fields.count(name)?, text.wrapper) {
            (Some(size), _) => Ok(size),
            (None, Some(_)) => Ok(inside),
            (None, None) => Err(ConfigError::Inconsistent(format!("{name} is missing"))),
        };
        let (vocab, inner) = match family {
            Family::Llama => (32_000, 11_008),
            Family::Mistral => (32_000, 14_336),
            Family::Qwen2 | Family::Qwen3 => (151_936, 22_016),
        };
        let hidden = size("hidden_size", 4096)?;
        let heads = size("num_attention_heads", 32)?;
        // `null` stands for as many as there are query heads.
        let kv_heads = match fields.map.get("num_key_value_heads") {
            None => match family {
                Family::Llama => heads,
                Family::Mistral => 8,
                Family::Qwen2 | Family::Qwen3 => 32,
            },
            Some(_) => fields.count("num_key_value_heads")?.unwrap_or(heads),
        };
        Ok(Sizes {
            vocab: size("vocab_size", vocab)?,
            hidden,
            inner: size("intermediate_size", inner)?,
            layers: size("num_hidden_layers", 32)?,
            heads,
            kv_heads,
            head_dim: head_dim(fields, family, hidden, heads)?,
        })
    }
}

fn head_dim(
    fields: Fields<'_>,
    family: Family,
    hidden: usize,
    heads: usize,
) -> Result<usize, ConfigError> {
    match (fields.count("head_dim")?, family) {
        (Some(dim), _) => Ok(dim),
        (None, Family::Qwen3) => Ok(128),
        (None, _) if heads > 0 && hidden.is_multiple_of(heads) => Ok(hidden / heads),
        (None, _) => Err(ConfigError::Inconsistent(format!(
            "hidden_size {hidden} is not a multiple of num_attention_heads {heads}, and there is no head_dim"
        ))),
    }
}

struct Biases {
    qkv: bool,
    output: bool,
    mlp: bool,
}

impl Biases {
    /// Which biases a family's weights have. Mistral's and Qwen's code asks for no flag, so one that is on belongs to
    /// other code.
    fn read(fields: Fields<'_>, family: Family) -> Result<Biases, ConfigError> {
        let attention = fields.flag("attention_bias")?.unwrap_or(false);
        let mlp = fields.flag("mlp_bias")?.unwrap_or(false);
        let qkv = fields.flag("qkv_bias")?.unwrap_or(false);
        let refuse = |name: &str| ConfigError::Unsupported {
            field: fields.full(name),
            value: "true".into(),
            supported: "false: this family has none",
        };
        match family {
            Family::Mistral if attention => return Err(refuse("attention_bias")),
            Family::Mistral | Family::Qwen2 | Family::Qwen3 if mlp => {
                return Err(refuse("mlp_bias"));
            }
            Family::Llama | Family::Mistral | Family::Qwen3 if qkv && !attention => {
                return Err(refuse("qkv_bias"));
            }
            Family::Llama | Family::Mistral | Family::Qwen2 | Family::Qwen3 => {}
        }
        Ok(Biases {
            qkv: family == Family::Qwen2 || attention,
            output: family != Family::Qwen2 && attention,
            mlp,
        })
    }
}

/// The window of each layer: `layer_types` where the file lists them, else the family's rule.
fn layer_windows(
    fields: Fields<'_>,
    family: Family,
    layers: usize,
) -> Result<Vec<Option<usize>>, ConfigError> {
    super::validate::at_most("num_hidden_layers", layers, LAYERS)?;
    let stated = match fields.map.get("sliding_window") {
        // Absent is the family's default, `null` is none.
        None => Some(4096),
        Some(_) => fields.count("sliding_window")?,
    };
    let switched_on = fields.flag("use_sliding_window")?;
    let first = fields.count("max_window_layers")?.unwrap_or(28);
    let (window, first) = match family {
        Family::Llama => (None, 0),
        Family::Mistral => (stated, 0),
        Family::Qwen2 | Family::Qwen3 => (stated.filter(|_| switched_on == Some(true)), first),
    };
    let by_rule: Vec<Option<usize>> = (0..layers).map(|i| window.filter(|_| i >= first)).collect();
    let Some(types) = fields.texts("layer_types")? else {
        return Ok(by_rule);
    };
    if types.len() != layers {
        return Err(ConfigError::Inconsistent(format!(
            "layer_types has {} entries, num_hidden_layers is {layers}",
            types.len()
        )));
    }
    let by_type: Vec<Option<usize>> = types
        .iter()
        .map(|kind| of_type(fields, kind, window))
        .collect::<Result<_, _>>()?;
    // transformers' Mistral has one rule for all layers and does not look at the list.
    match family == Family::Mistral && by_type != by_rule {
        true => Err(ConfigError::Inconsistent(format!(
            "layer_types and sliding_window = {window:?} disagree: a Mistral has one window for all layers"
        ))),
        false => Ok(by_type),
    }
}

fn of_type(
    fields: Fields<'_>,
    kind: &str,
    window: Option<usize>,
) -> Result<Option<usize>, ConfigError> {
    match kind {
        "full_attention" | "attention" => Ok(None),
        "sliding_attention" => window.map(Some).ok_or_else(|| {
            ConfigError::Inconsistent(
                "layer_types has sliding_attention, but there is no sliding_window".into(),
            )
        }),
        other => Err(ConfigError::Unsupported {
            field: fields.full("layer_types"),
            value: short(&Value::from(other)),
            supported: "full_attention, sliding_attention",
        }),
    }
}
