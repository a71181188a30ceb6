//! What this model code does not do, field by field: refused by name unless the file says that it is off.
//!
//! transformers' Llama, Mistral, Qwen2 and Qwen3 have these fields:
//!
//! | field | here |
//! |---|---|
//! | sizes, `rms_norm_eps`, rope, windows, biases, tying, tokens, `hidden_act` | read (`check.rs`, `rope.rs`) |
//! | `attention_dropout`, `initializer_range`, `use_cache`, `output_*`, `return_dict` | nothing to do with results |
//! | `pretraining_tp`, `chunk_size_feed_forward` | the same sums in pieces |
//! | `dtype`, `torch_dtype`, `transformers_version`, `_name_or_path`, `_attn_implementation`, `id2label`, ... | notes |
//! | `pad_token_id` | not asked for: nothing is padded |
//! | `is_encoder_decoder`, `add_cross_attention`, `per_layer_config`, `quantization_config` | refused |
//!
//! A file of these families may also carry fields of models that grew out of them. transformers ignores those; here
//! the ones known to change results in some model are refused, since such a file was made for other code.

use super::ConfigError;
use super::fields::{Fields, short};
use serde_json::Value;

/// When a field asks for nothing.
#[derive(Clone, Copy)]
enum Off {
    /// `false` (or not there, as always).
    False,
    /// Numbers: this one.
    Number(f64),
    /// A number of things: up to this one.
    AtMost(f64),
    /// A list of this number only, or an empty one.
    All(f64),
    /// Only where it is not there, or empty.
    Absent,
}

const NONE: &str = "this family has none";
const PLAIN: &str = "only plain rotary attention and MLPs";

/// Fields, when they ask for nothing, and what would be right.
const FIELDS: &[(&str, Off, &str)] = &[
    ("is_encoder_decoder", Off::False, "decoders"),
    ("add_cross_attention", Off::False, NONE),
    ("cross_attention_layers", Off::Absent, NONE),
    ("per_layer_config", Off::Absent, "layers that are all alike"),
    ("block_configs", Off::Absent, "layers that are all alike"),
    (
        "compression_config",
        Off::Absent,
        "plain f32, f16 or bf16 weights",
    ),
    // Factors: Granite, MiniCPM, Cohere, muP.
    ("attention_multiplier", Off::Absent, NONE),
    ("embedding_multiplier", Off::Number(1.0), NONE),
    ("residual_multiplier", Off::Number(1.0), NONE),
    ("logits_scaling", Off::Number(1.0), NONE),
    ("logit_scale", Off::Number(1.0), NONE),
    ("embedding_scale", Off::Number(1.0), NONE),
    ("scale_emb", Off::Number(1.0), NONE),
    ("scale_depth", Off::Absent, NONE),
    ("dim_model_base", Off::Absent, NONE),
    ("mup_width_scale", Off::Number(1.0), NONE),
    ("query_pre_attn_scalar", Off::Absent, NONE),
    // Bounds of scores and logits: Gemma, DBRX, OLMo.
    ("attn_logit_softcapping", Off::Absent, NONE),
    ("final_logit_softcapping", Off::Absent, NONE),
    ("logits_soft_cap", Off::Absent, NONE),
    ("clip_qkv", Off::Absent, NONE),
    // Positions: SmolLM3, Llama 4, Gemma 3, Falcon, GPT-NeoX.
    ("no_rope_layers", Off::All(1.0), "rope in every layer"),
    ("no_rope_layer_interval", Off::Absent, "rope in every layer"),
    ("nope_layer_interval", Off::Absent, "rope in every layer"),
    ("attention_chunk_size", Off::Absent, NONE),
    ("attn_temperature_tuning", Off::False, NONE),
    ("rope_local_base_freq", Off::Absent, "one base of rope"),
    ("rope_interleave", Off::False, "rope of two halves"),
    ("rope_interleaved", Off::False, "rope of two halves"),
    ("interleaved_rope", Off::False, "rope of two halves"),
    ("rotary_pct", Off::Number(1.0), "rope over the whole head"),
    ("rope_pct", Off::Number(1.0), "rope over the whole head"),
    ("alibi", Off::False, PLAIN),
    ("use_mrope", Off::False, "one position for a token"),
    ("use_dynamic_ntk", Off::False, NONE),
    ("use_logn_attn", Off::False, NONE),
    // Experts, shared and other layers: Mixtral, DeepSeek, Gemma 3n.
    ("num_local_experts", Off::AtMost(1.0), PLAIN),
    ("num_experts", Off::AtMost(1.0), PLAIN),
    ("n_routed_experts", Off::AtMost(1.0), PLAIN),
    ("num_kv_shared_layers", Off::AtMost(0.0), PLAIN),
    ("kv_lora_rank", Off::Absent, PLAIN),
    ("q_lora_rank", Off::Absent, PLAIN),
    ("parallel_attn", Off::False, PLAIN),
    ("use_parallel_residual", Off::False, PLAIN),
    // Biases and norms that these families' weights have no names for.
    ("use_bias", Off::False, NONE),
    ("bias", Off::False, NONE),
    ("lm_head_bias", Off::False, NONE),
    ("qk_layernorm", Off::False, NONE),
    ("qk_layer_norms", Off::False, NONE),
    ("use_post_norm", Off::False, NONE),
];

/// Fields that ask for norms of q and k, which Qwen3 has.
const HEAD_NORMS: [&str; 3] = ["qk_norm", "use_qk_norm", "add_qk_norm"];

/// Refuses what would change a result.
pub(super) fn check(fields: Fields<'_>, head_norms: bool) -> Result<(), ConfigError> {
    if let Some(quantised) = fields.get("quantization_config") {
        let method = quantised.get("quant_method").unwrap_or(quantised);
        return Err(refusal(
            fields,
            "quantization_config",
            method,
            "plain f32, f16 or bf16 weights",
        ));
    }
    for (name, off, supported) in FIELDS {
        match fields.get(name) {
            Some(value) if !is_off(value, *off) => {
                return Err(refusal(fields, name, value, supported));
            }
            _ => {}
        }
    }
    for name in HEAD_NORMS {
        match fields.get(name) {
            Some(value) if !head_norms && !is_off(value, Off::False) => {
                return Err(refusal(fields, name, value, NONE));
            }
            _ => {}
        }
    }
    let positions = fields.text("position_embedding_type")?;
    match positions.filter(|kind| !matches!(*kind, "rope" | "rotary")) {
        Some(kind) => Err(refusal(
            fields,
            "position_embedding_type",
            &Value::from(kind),
            "rope",
        )),
        None => Ok(()),
    }
}

fn is_off(value: &Value, off: Off) -> bool {
    let empty = match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    let is = |value: &Value, number: f64| value.as_f64() == Some(number);
    empty
        || match off {
            Off::Absent => false,
            Off::False => value == &Value::Bool(false),
            Off::Number(number) => is(value, number),
            Off::AtMost(number) => value.as_f64().is_some_and(|v| v <= number),
            Off::All(number) => value
                .as_array()
                .is_some_and(|list| list.iter().all(|value| is(value, number))),
        }
}

fn refusal(fields: Fields<'_>, name: &str, value: &Value, supported: &'static str) -> ConfigError {
    ConfigError::Unsupported {
        field: fields.full(name),
        value: short(value),
        supported,
    }
}
