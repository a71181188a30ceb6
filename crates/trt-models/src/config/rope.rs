//! Rope's part of a file: `rope_theta`, `rope_scaling`, and `rope_parameters`, which holds both since transformers 5.
//!
//! Which of several places counts is as in transformers: `rope_scaling` before `rope_parameters`, what stands inside
//! them before what stands beside them, `rope_type` before `type`.

use super::ConfigError;
use super::fields::{Fields, short};
use serde_json::Value;

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
    /// Dynamic NTK: beyond the original context the base of the frequencies grows with the length of the text.
    ///
    /// The frequencies of a call are those of the length at which it ends, and keys that are cached keep theirs, as in
    /// transformers. So a prompt beyond the original context that is given in several calls has other keys than one
    /// that is given in a single call; within the original context nothing depends on that.
    Dynamic {
        /// How many times longer than the original context a text may be.
        factor: f32,
        /// `max_position_embeddings`.
        original_max_positions: usize,
    },
    /// YaRN: pairs that turn rarely within the original context divided by `factor`, pairs that turn often kept, a ramp
    /// between, and cosines and sines multiplied with a factor.
    Yarn {
        /// The divisor.
        factor: f64,
        /// Pairs with more turns are kept.
        beta_fast: f64,
        /// Pairs with fewer turns are divided.
        beta_slow: f64,
        /// What cosines and sines are multiplied with: stated, or what follows from `factor`, `mscale` and
        /// `mscale_all_dim`.
        attention_factor: f64,
        /// The context length of pre-training.
        original_max_positions: usize,
        /// Whether the ramp begins and ends at whole pairs.
        truncate: bool,
    },
}

/// What a file says of rope.
pub(super) struct Rope {
    pub theta: f64,
    pub scaling: RopeScaling,
}

/// `max_positions` is `max_position_embeddings`.
pub(super) fn read(fields: Fields<'_>, max_positions: usize) -> Result<Rope, ConfigError> {
    let old = fields.object("rope_scaling")?;
    let map = match old {
        Some(map) => Some((map, "rope_scaling.")),
        None => fields
            .object("rope_parameters")?
            .map(|map| (map, "rope_parameters.")),
    };
    let beside = fields.number("rope_theta")?;
    let partial = fields.number("partial_rotary_factor")?;
    let whole = |fields: Fields<'_>, factor: Option<f64>| match factor {
        Some(factor) if factor != 1.0 => Err(ConfigError::Unsupported {
            field: fields.full("partial_rotary_factor"),
            value: factor.to_string(),
            supported: "1, rope over the whole head",
        }),
        _ => Ok(()),
    };
    let Some((map, path)) = map else {
        whole(fields, partial)?;
        return Ok(Rope {
            theta: beside.unwrap_or(10_000.0),
            scaling: RopeScaling::None,
        });
    };
    let path = fields.full(path);
    let rope = Fields { map, path: &path };
    let kind = kind(rope)?;
    known(rope, kind)?;
    match rope.number("partial_rotary_factor")? {
        Some(inside) => whole(rope, Some(inside))?,
        None => whole(fields, partial)?,
    }
    let theta = rope.number("rope_theta")?.or(beside).unwrap_or(10_000.0);
    let original = match fields.count("original_max_position_embeddings")? {
        Some(beside) => beside,
        None => rope
            .count("original_max_position_embeddings")?
            .unwrap_or(max_positions),
    };
    let scaling = match kind {
        Kind::Default => RopeScaling::None,
        Kind::Linear => RopeScaling::Linear {
            factor: needed(rope, "factor")? as f32,
        },
        Kind::Llama3 => RopeScaling::Llama3 {
            factor: needed(rope, "factor")? as f32,
            low_freq_factor: needed(rope, "low_freq_factor")? as f32,
            high_freq_factor: needed(rope, "high_freq_factor")? as f32,
            original_max_positions: original,
        },
        Kind::Dynamic => RopeScaling::Dynamic {
            factor: needed(rope, "factor")? as f32,
            original_max_positions: max_positions,
        },
        Kind::Yarn => yarn(rope, max_positions, original)?,
    };
    Ok(Rope { theta, scaling })
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Default,
    Linear,
    Llama3,
    Dynamic,
    Yarn,
}

fn kind(rope: Fields<'_>) -> Result<Kind, ConfigError> {
    // Several positions for one token, which images have.
    if let Some(sections) = rope.get("mrope_section") {
        return Err(ConfigError::Unsupported {
            field: rope.full("mrope_section"),
            value: short(sections),
            supported: "one position for a token, no mrope",
        });
    }
    let (new, old) = (rope.text("rope_type")?, rope.text("type")?);
    if let (Some(new), Some(old)) = (new, old)
        && new != old
    {
        return Err(ConfigError::Inconsistent(format!(
            "{} = {} and {} = {} disagree",
            rope.full("rope_type"),
            short(&Value::from(new)),
            rope.full("type"),
            short(&Value::from(old)),
        )));
    }
    let name = if new.is_some() { "rope_type" } else { "type" };
    match new.or(old).unwrap_or("default") {
        "default" => Ok(Kind::Default),
        "linear" => Ok(Kind::Linear),
        "llama3" => Ok(Kind::Llama3),
        "dynamic" => Ok(Kind::Dynamic),
        "yarn" => Ok(Kind::Yarn),
        other => Err(ConfigError::Unsupported {
            field: rope.full(name),
            value: short(&Value::from(other)),
            supported: "default, linear, llama3, dynamic, yarn",
        }),
    }
}

/// Refuses fields that the type does not have: they would change frequencies in other code.
fn known(rope: Fields<'_>, kind: Kind) -> Result<(), ConfigError> {
    // Which training a model had, and what each type ignores in transformers.
    const ALWAYS: [&str; 7] = [
        "rope_type",
        "type",
        "rope_theta",
        "partial_rotary_factor",
        "original_max_position_embeddings",
        "max_position_embeddings",
        "finetuned",
    ];
    let own: &[&str] = match kind {
        Kind::Default => &[],
        Kind::Linear | Kind::Dynamic => &["factor"],
        Kind::Llama3 => &["factor", "low_freq_factor", "high_freq_factor"],
        Kind::Yarn => &[
            "factor",
            "attention_factor",
            "beta_fast",
            "beta_slow",
            "mscale",
            "mscale_all_dim",
            "truncate",
        ],
    };
    let one = |name: &str, value: &Value| {
        // Factors of other code, 1 where they do nothing.
        let factors = ["factor", "attn_factor", "extrapolation_factor", "alpha"];
        factors.contains(&name) && value.as_f64() == Some(1.0)
    };
    let strange = rope.map.iter().find(|(name, value)| {
        let name = name.as_str();
        !value.is_null() && !ALWAYS.contains(&name) && !own.contains(&name) && !one(name, value)
    });
    let Some((name, value)) = strange else {
        return Ok(());
    };
    Err(ConfigError::Unsupported {
        field: rope.full(&name.chars().take(80).collect::<String>()),
        value: short(value),
        supported: "the fields of transformers' rope type",
    })
}

fn needed(rope: Fields<'_>, name: &'static str) -> Result<f64, ConfigError> {
    let missing = || ConfigError::Inconsistent(format!("{} is missing", rope.full(name)));
    rope.number(name)?.ok_or_else(missing)
}

fn yarn(
    rope: Fields<'_>,
    max_positions: usize,
    original: usize,
) -> Result<RopeScaling, ConfigError> {
    // `null` stands for the ratio of the two lengths; a file without the field is one that lost it.
    let factor = match rope.map.get("factor") {
        Some(Value::Null) => max_positions as f64 / original.max(1) as f64,
        _ => needed(rope, "factor")?,
    };
    // Numbers that transformers takes for absent where they are 0.
    let non_zero = |name: &str| -> Result<Option<f64>, ConfigError> {
        Ok(rope.number(name)?.filter(|v| *v != 0.0))
    };
    let scale = |mscale: f64| match factor <= 1.0 {
        true => 1.0,
        false => 0.1 * mscale * factor.ln() + 1.0,
    };
    let mscales = (non_zero("mscale")?, non_zero("mscale_all_dim")?);
    let attention_factor = match (rope.number("attention_factor")?, mscales) {
        (Some(stated), _) => stated,
        (None, (Some(mscale), Some(all))) => scale(mscale) / scale(all),
        (None, _) => scale(1.0),
    };
    Ok(RopeScaling::Yarn {
        factor,
        beta_fast: non_zero("beta_fast")?.unwrap_or(32.0),
        beta_slow: non_zero("beta_slow")?.unwrap_or(1.0),
        attention_factor,
        original_max_positions: original,
        truncate: rope.flag("truncate")?.unwrap_or(true),
    })
}
