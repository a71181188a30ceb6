//! What a `tokenizer.json` may ask for, looked at before `tokenizers` reads it.
//!
//! Its steps come one after another, and each may make a text longer: thirty replacements of `a` by `aa` make one letter a
//! gigabyte. So the product of what the steps can do is bounded; those of real models stay far below.

use serde::Deserialize;
use serde_json::Value;

use crate::Error;

/// How many times longer a text may become on its way through all steps.
const LONGER: u64 = 4096;

/// The parts with steps; whatever else there is, such as the vocabulary, is passed over.
#[derive(Deserialize)]
struct Steps {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
}

/// Refuses what would take memory without bound.
pub(crate) fn check(json: &[u8]) -> Result<(), Error> {
    let file = "tokenizer.json";
    let steps: Steps = serde_json::from_slice(json).map_err(|e| Error::malformed(file, e))?;
    let before = longer(&steps.normalizer).saturating_mul(longer(&steps.pre_tokenizer));
    for (part, times) in [
        ("normalizer and pre_tokenizer", before),
        ("decoder", longer(&steps.decoder)),
    ] {
        if times > LONGER {
            let why =
                format!("{part} could make a text {times} times as long; the most is {LONGER}");
            return Err(Error::malformed(file, why));
        }
    }
    Ok(())
}

/// How many times longer the steps under a value can make a text.
fn longer(value: &Value) -> u64 {
    let inner: u64 = match value {
        Value::Array(items) => items.iter().map(longer).fold(1, u64::saturating_mul),
        Value::Object(fields) => fields.values().map(longer).fold(1, u64::saturating_mul),
        _ => return 1,
    };
    let own = match value["type"].as_str() {
        // One more, since an empty match replaces nothing.
        Some("Replace") => match value["content"].as_str().map_or(0, str::len) as u64 {
            0 | 1 => 1,
            length => length + 1,
        },
        // Each byte becomes a letter of one or two bytes.
        Some("ByteLevel") => 2,
        _ => 1,
    };
    inner.saturating_mul(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_replacements_that_doubles_a_text_each_time_is_refused() {
        let double = r#"{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}"#;
        let json = |count: usize| {
            let all = vec![double; count].join(",");
            format!(
                r#"{{"normalizer": {{"type": "Sequence", "normalizers": [{all}]}}, "model": {{}}}}"#
            )
        };
        assert!(check(json(5).as_bytes()).is_ok());
        let why = check(json(30).as_bytes()).unwrap_err().to_string();
        assert!(
            why.contains("normalizer and pre_tokenizer could make a text"),
            "{why}"
        );
    }

    #[test]
    fn the_steps_of_real_models_pass() {
        let llama = r#"{"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}, "decoder": {"type": "ByteLevel"}}"#;
        assert!(check(llama.as_bytes()).is_ok());
    }
}
