//! What a GGUF file says of its model, as the `config.json` that Hugging Face's files would have.
//!
//! Nothing here decides what a model is: whoever reads a `config.json` does, with the same checks for both kinds of
//! files. Values that would change a result and that the named families have no words for are refused by name; one that
//! nobody knows is a warning, since converters add some with every year.

use super::super::WeightsError;
use super::metadata::Metadata;
use serde_json::{Map, Value, json};

/// What is known of a tensor: its shape, if it is there.
type Shape = Result<Option<Vec<usize>>, WeightsError>;

/// What the file holds beside its values.
pub(crate) struct Held<'a> {
    /// The shape of a tensor by its name in the file; nothing if there is none.
    pub shape: &'a dyn Fn(&str) -> Shape,
    /// The divisors of rope's frequencies, where they are stored.
    pub rope_factors: Option<Vec<f32>>,
}

/// Values of an architecture that are read, or that say nothing about results, without its name before them.
const KNOWN: [&str; 20] = [
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "vocab_size",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.finetuned",
];

/// Values that ask for what the families do not do, unless they are this number.
const REFUSED: [(&str, f64); 15] = [
    ("expert_count", 0.0),
    ("leading_dense_block_count", 0.0),
    ("attention.scale", 0.0),
    ("attention.clamp_kqv", 0.0),
    ("attention.max_alibi_bias", 0.0),
    ("attention.q_lora_rank", 0.0),
    ("attention.kv_lora_rank", 0.0),
    ("attn_logit_softcapping", 0.0),
    ("final_logit_softcapping", 0.0),
    ("logit_scale", 0.0),
    ("residual_scale", 0.0),
    ("embedding_scale", 0.0),
    ("rope.scale_linear", 1.0),
    ("rope.scaling.yarn_ext_factor", 1.0),
    ("rope.scaling.yarn_log_multiplier", 0.0),
];

/// Rope's frequencies of Llama 3.1 and later: the numbers that all of those models have.
const LOW_FREQ_FACTOR: f64 = 1.0;
const HIGH_FREQ_FACTOR: f64 = 4.0;
const ORIGINAL_POSITIONS: f64 = 8192.0;

/// The text of a `config.json`.
pub(crate) fn json(metadata: &Metadata, held: &Held<'_>) -> Result<String, WeightsError> {
    let config = Reader::new(metadata, held)?.config()?;
    Ok(format!("{:#}\n", Value::Object(config)))
}

struct Reader<'a> {
    metadata: &'a Metadata,
    held: &'a Held<'a>,
    architecture: String,
    family: &'static str,
}

impl<'a> Reader<'a> {
    fn new(metadata: &'a Metadata, held: &'a Held<'a>) -> Result<Self, WeightsError> {
        let key = "general.architecture";
        let architecture = metadata.text(key)?.ok_or_else(|| metadata.missing(key))?;
        let family = match architecture.as_str() {
            "llama" => "llama",
            "qwen2" => "qwen2",
            "qwen3" => "qwen3",
            other => {
                let shown: String = other.chars().take(80).collect();
                let reason = format!(
                    "it is '{shown}'; llama, qwen2 and qwen3 are those whose configuration is known"
                );
                return Err(metadata.bad(key, reason));
            }
        };
        Ok(Reader {
            metadata,
            held,
            architecture,
            family,
        })
    }

    /// A name with that of the architecture before it.
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    fn count(&self, name: &str) -> Result<Option<usize>, WeightsError> {
        self.metadata.count(&self.key(name))
    }

    fn needed(&self, name: &str) -> Result<usize, WeightsError> {
        let missing = || self.metadata.missing(&self.key(name));
        self.count(name)?.ok_or_else(missing)
    }

    fn number(&self, name: &str) -> Result<Option<f64>, WeightsError> {
        self.metadata.number(&self.key(name))
    }

    fn has(&self, tensor: &str) -> Result<bool, WeightsError> {
        Ok((self.held.shape)(tensor)?.is_some())
    }

    /// The class of transformers that such a model is.
    fn class(&self) -> &'static str {
        match self.family {
            "qwen2" => "Qwen2ForCausalLM",
            "qwen3" => "Qwen3ForCausalLM",
            _ => "LlamaForCausalLM",
        }
    }

    fn config(&self) -> Result<Map<String, Value>, WeightsError> {
        self.strange()?;
        let epsilon = "attention.layer_norm_rms_epsilon";
        let missing = || self.metadata.missing(&self.key(epsilon));
        let epsilon = self.number(epsilon)?.ok_or_else(missing)?;
        let (heads, kv_heads) = self.heads()?;
        let mut config = Map::new();
        let mut put = |name: &str, value: Value| config.insert(name.to_string(), value);
        put("architectures", json!([self.class()]));
        put("model_type", self.family.into());
        put("vocab_size", self.vocabulary()?.into());
        put("hidden_size", self.needed("embedding_length")?.into());
        put(
            "intermediate_size",
            self.needed("feed_forward_length")?.into(),
        );
        put("num_hidden_layers", self.needed("block_count")?.into());
        put("num_attention_heads", heads.into());
        put("num_key_value_heads", kv_heads.into());
        put("head_dim", self.head_width(heads)?.into());
        put(
            "max_position_embeddings",
            self.needed("context_length")?.into(),
        );
        put("rms_norm_eps", epsilon.into());
        let theta = self.number("rope.freq_base")?.unwrap_or(10_000.0);
        put("rope_theta", theta.into());
        if let Some(scaling) = self.scaling(theta)? {
            put("rope_scaling", scaling);
        }
        put("hidden_act", "silu".into());
        put("tie_word_embeddings", (!self.has("output.weight")?).into());
        for (name, on) in self.biases()? {
            put(name, on.into());
        }
        if let Some(window) = self.count("attention.sliding_window")?.filter(|w| *w > 0) {
            match self.family {
                // The family that has one in every layer.
                "llama" => {
                    put("architectures", json!(["MistralForCausalLM"]));
                    put("model_type", "mistral".into())
                }
                _ => put("use_sliding_window", true.into()),
            };
            put("sliding_window", window.into());
            put("max_window_layers", 0.into());
        }
        put("bos_token_id", json!(self.token("bos")?));
        put("eos_token_id", self.ends()?);
        Ok(config)
    }

    /// Refuses values that the families have no words for.
    fn strange(&self) -> Result<(), WeightsError> {
        for (name, off) in REFUSED {
            match self.number(name)? {
                Some(value) if value != off => {
                    let reason = format!("{value} is not supported; {off} is");
                    return Err(self.metadata.bad(&self.key(name), reason));
                }
                _ => {}
            }
        }
        let start = self.key("");
        for (key, _) in self.metadata.iter() {
            let Some(name) = key.strip_prefix(start.as_str()) else {
                continue;
            };
            if !KNOWN.contains(&name) && !REFUSED.iter().any(|(n, _)| *n == name) {
                tracing::warn!(
                    key,
                    "a value of the GGUF file that is not known is left aside"
                );
            }
        }
        Ok(())
    }

    fn vocabulary(&self) -> Result<usize, WeightsError> {
        let table = "token_embd.weight";
        let shape = (self.held.shape)(table)?;
        match shape.as_deref() {
            Some([rows, _]) => Ok(*rows),
            Some(_) | None => Err(self.metadata.bad(
                "general.architecture",
                format!("the file has no table '{table}'"),
            )),
        }
    }

    fn heads(&self) -> Result<(usize, usize), WeightsError> {
        let heads = self.needed("attention.head_count")?;
        let kv_heads = self.count("attention.head_count_kv")?.unwrap_or(heads);
        Ok((heads, kv_heads))
    }

    /// The width of a head; that of values and of what rope turns is the same.
    fn head_width(&self, heads: usize) -> Result<usize, WeightsError> {
        let hidden = self.needed("embedding_length")?;
        let width = match self.count("attention.key_length")? {
            Some(width) => width,
            None if heads > 0 && hidden.is_multiple_of(heads) => hidden / heads,
            None => {
                let reason = format!("{heads} heads do not divide a width of {hidden}");
                return Err(self.metadata.bad(&self.key("attention.head_count"), reason));
            }
        };
        for name in ["attention.value_length", "rope.dimension_count"] {
            match self.count(name)? {
                Some(other) if other != width => {
                    let reason = format!("it is {other}, and heads are {width} wide");
                    return Err(self.metadata.bad(&self.key(name), reason));
                }
                _ => {}
            }
        }
        Ok(width)
    }

    fn scaling(&self, theta: f64) -> Result<Option<Value>, WeightsError> {
        let kind = self.metadata.text(&self.key("rope.scaling.type"))?;
        let factor = self.number("rope.scaling.factor")?;
        let original = self.count("rope.scaling.original_context_length")?;
        let scaling = match (kind.as_deref(), factor) {
            (None | Some("none"), _) | (Some("linear" | "yarn"), None) => None,
            (Some("linear"), Some(factor)) => {
                Some(json!({"rope_type": "linear", "factor": factor}))
            }
            (Some("yarn"), Some(factor)) => {
                let mut yarn = json!({"rope_type": "yarn", "factor": factor});
                let mut put = |name: &str, value: Value| yarn[name] = value;
                if let Some(original) = original {
                    put("original_max_position_embeddings", original.into());
                }
                for (name, ours) in [
                    ("yarn_beta_fast", "beta_fast"),
                    ("yarn_beta_slow", "beta_slow"),
                ] {
                    if let Some(beta) = self.number(&format!("rope.scaling.{name}"))? {
                        put(ours, beta.into());
                    }
                }
                // A factor beside the one that follows from the stretch.
                if let Some(more) = self
                    .number("rope.scaling.attn_factor")?
                    .filter(|f| *f != 1.0)
                {
                    let reason = format!("{more} is not supported; 1 is");
                    return Err(self
                        .metadata
                        .bad(&self.key("rope.scaling.attn_factor"), reason));
                }
                Some(yarn)
            }
            (Some(other), _) => {
                let shown: String = other.chars().take(80).collect();
                let reason = format!("'{shown}' is not supported; none, linear and yarn are");
                return Err(self.metadata.bad(&self.key("rope.scaling.type"), reason));
            }
        };
        match (&self.held.rope_factors, scaling) {
            (None, scaling) => Ok(scaling),
            (Some(factors), None) => self.llama3(factors, theta),
            (Some(_), Some(_)) => Err(self.metadata.bad(
                &self.key("rope.scaling.type"),
                "the file has divisors of rope's frequencies, 'rope_freqs.weight', beside it",
            )),
        }
    }

    /// Stored divisors of the frequencies are those of Llama 3.1, which are told by their numbers.
    fn llama3(&self, factors: &[f32], theta: f64) -> Result<Option<Value>, WeightsError> {
        let factor = factors.iter().copied().fold(1.0f32, f32::max);
        if factors.iter().all(|f| *f == 1.0) {
            return Ok(None);
        }
        let pairs = factors.len() as f64;
        let divisor = |pair: usize| {
            let length = std::f64::consts::TAU * theta.powf(pair as f64 / pairs);
            let turns = ORIGINAL_POSITIONS / length;
            let kept = (turns - LOW_FREQ_FACTOR) / (HIGH_FREQ_FACTOR - LOW_FREQ_FACTOR);
            let kept = kept.clamp(0.0, 1.0);
            1.0 / ((1.0 - kept) / f64::from(factor) + kept)
        };
        let near = |(pair, stored): (usize, &f32)| {
            let expected = divisor(pair);
            (f64::from(*stored) - expected).abs() <= 1e-4 * expected
        };
        match factors.iter().enumerate().all(near) {
            true => Ok(Some(json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": LOW_FREQ_FACTOR,
                "high_freq_factor": HIGH_FREQ_FACTOR,
                "original_max_position_embeddings": ORIGINAL_POSITIONS as usize,
            }))),
            false => Err(self.metadata.bad(
                &self.key("rope.freq_base"),
                "the divisors of rope's frequencies in 'rope_freqs.weight' are not those of Llama 3.1",
            )),
        }
    }

    /// Which biases the tensors have, in the words of the family.
    fn biases(&self) -> Result<Vec<(&'static str, bool)>, WeightsError> {
        if self.family != "llama" {
            return Ok(Vec::new());
        }
        let (q, o) = (
            self.has("blk.0.attn_q.bias")?,
            self.has("blk.0.attn_output.bias")?,
        );
        if q != o {
            return Err(self.metadata.bad(
                "general.architecture",
                "it is 'llama', whose projections of attention all have biases or none",
            ));
        }
        let mlp = self.has("blk.0.ffn_gate.bias")?;
        Ok(vec![("attention_bias", q), ("mlp_bias", mlp)])
    }

    fn token(&self, name: &str) -> Result<Option<usize>, WeightsError> {
        self.metadata
            .count(&format!("tokenizer.ggml.{name}_token_id"))
    }

    /// One token that ends a text, or several.
    fn ends(&self) -> Result<Value, WeightsError> {
        let ends = self.metadata.end_tokens()?;
        Ok(match ends[..] {
            [] => Value::Null,
            [one] => one.into(),
            _ => json!(ends),
        })
    }
}
