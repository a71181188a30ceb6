//! Which family a file is of, and which part of it describes the text model.
//!
//! The family is looked at before any field: what another family's file lacks is no fault of its own. A model with
//! vision wraps the configuration of its text model; that one counts, if its family is supported.

use super::ConfigError;
use super::fields::{Fields, short};
use serde_json::{Map, Value};

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

/// Where a wrapped text model's configuration stands, in the order of preference.
const INNER: [(&str, &str); 3] = [
    ("text_config", "text_config."),
    ("language_config", "language_config."),
    ("llm_config", "llm_config."),
];

/// The text model's part of a file.
pub(super) struct Text<'a> {
    pub family: Family,
    pub fields: Fields<'a>,
    /// The whole file, where the text model is a part of it: tokens and tying may stand there.
    pub wrapper: Option<Fields<'a>>,
}

/// Finds the text model.
pub(super) fn text(file: &Map<String, Value>) -> Result<Text<'_>, ConfigError> {
    let outer = Fields {
        map: file,
        path: "",
    };
    let named = name(outer)?;
    if let Some(family) = named.family {
        decoder(outer)?;
        return Ok(Text {
            family,
            fields: outer,
            wrapper: None,
        });
    }
    for (field, path) in INNER {
        let Some(map) = file.get(field).and_then(Value::as_object) else {
            continue;
        };
        let inner = Fields { map, path };
        let text = name(inner)?;
        let family = text.family.or_else(|| match text.found {
            Some(_) => None,
            None => implied(outer.text("model_type").ok()??),
        });
        let Some(family) = family else {
            let (outer, inner) = (or_none(named.found), or_none(text.found));
            return Err(ConfigError::Family {
                found: format!("{outer} with a text model {inner}"),
            });
        };
        return Ok(Text {
            family,
            fields: inner,
            wrapper: Some(outer),
        });
    }
    Err(ConfigError::Family {
        found: or_none(named.found),
    })
}

/// What a part calls itself.
struct Name {
    family: Option<Family>,
    found: Option<String>,
}

fn name(fields: Fields<'_>) -> Result<Name, ConfigError> {
    let model_type = fields.text("model_type")?;
    let architectures = fields.texts("architectures")?.unwrap_or_default();
    let architecture = architectures.first().copied();
    let family = match (model_type, architecture) {
        (Some(name), _) => Family::from_model_type(name),
        (None, Some(name)) => Family::from_architecture(name),
        (None, None) => None,
    };
    let found = model_type.or(architecture);
    let found = found.map(|name| short(&Value::from(name)));
    Ok(Name { family, found })
}

fn or_none(found: Option<String>) -> String {
    found.unwrap_or_else(|| "(no model_type, no architectures)".into())
}

/// The family of a text model that does not say it, by what wraps it: transformers' defaults.
fn implied(wrapper: &str) -> Option<Family> {
    match wrapper {
        "llava" | "llava_next" | "vipllava" | "video_llava" => Some(Family::Llama),
        "mistral3" => Some(Family::Mistral),
        "internvl" | "llava_onevision" => Some(Family::Qwen2),
        _ => None,
    }
}

/// Refuses other models of a family: classifiers and bare encoders have no head that gives logits of tokens.
fn decoder(fields: Fields<'_>) -> Result<(), ConfigError> {
    let architectures = fields.texts("architectures")?.unwrap_or_default();
    let Some(name) = architectures.first() else {
        return Ok(());
    };
    let other = [
        "Model",
        "Classification",
        "QuestionAnswering",
        "RewardModel",
    ];
    match other.iter().any(|end| name.ends_with(end)) {
        true => Err(ConfigError::Unsupported {
            field: fields.full("architectures"),
            value: short(&Value::from(*name)),
            supported: "models for causal language modelling, such as LlamaForCausalLM",
        }),
        false => Ok(()),
    }
}
