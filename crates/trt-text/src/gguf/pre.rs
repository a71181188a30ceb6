//! How words are cut out of a text, by the names that GGUF files have for it.
//!
//! A name stands for what the tokenizers of some models do before merging: the expressions here are those of their
//! `tokenizer.json`.

use serde_json::{Value, json};

/// What a name stands for.
pub(super) struct Pre {
    pub normalizer: Value,
    /// The `pre_tokenizer`.
    pub split: Value,
    /// Whether a word that is a token is never merged from its bytes.
    pub whole_words: bool,
    /// Whether a text begins with a token, where the file does not say.
    pub add_bos: bool,
}

#[derive(Clone, Copy)]
enum Rule {
    /// GPT-2's.
    Gpt2,
    /// GPT-2's, with each digit alone.
    Digits,
    /// Llama 3's: up to three digits together.
    Llama3,
    /// Qwen2's: each digit alone, text in normal form C.
    Qwen2,
    /// The same without the normal form.
    Qwen2AsWritten,
    /// Mistral's since Nemo.
    Tekken,
    /// GPT-4o's and Llama 4's.
    Gpt4o,
    /// What llama.cpp does with files that do not say: that of no model.
    Unsaid,
}

const NAMES: [(&str, Rule); 13] = [
    ("gpt-2", Rule::Gpt2),
    ("phi-2", Rule::Gpt2),
    ("smollm", Rule::Digits),
    ("starcoder", Rule::Digits),
    ("refact", Rule::Digits),
    ("llama-bpe", Rule::Llama3),
    ("llama3", Rule::Llama3),
    ("llama-v3", Rule::Llama3),
    ("qwen2", Rule::Qwen2),
    ("deepseek-r1-qwen", Rule::Qwen2AsWritten),
    ("tekken", Rule::Tekken),
    ("gpt-4o", Rule::Gpt4o),
    ("llama4", Rule::Gpt4o),
];

/// The names that are known.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    NAMES.iter().map(|(name, _)| *name).chain(["default"])
}

/// What a name stands for; nothing if it is not known.
pub(super) fn named(name: Option<&str>) -> Option<Pre> {
    let rule = match name {
        None | Some("default") => {
            tracing::warn!(
                "the GGUF file does not say how its tokenizer cuts words: tokens may be others than the model's"
            );
            Rule::Unsaid
        }
        Some(name) => NAMES.iter().find(|(n, _)| *n == name)?.1,
    };
    let split = |expressions: &[&str]| {
        let parts = expressions.iter().map(|e| {
            json!({"type": "Split", "pattern": {"Regex": e}, "behavior": "Isolated", "invert": false})
        });
        let mut parts: Vec<Value> = parts.collect();
        parts.push(bytes(false));
        json!({"type": "Sequence", "pretokenizers": parts})
    };
    Some(Pre {
        normalizer: match rule {
            Rule::Qwen2 => json!({"type": "NFC"}),
            _ => Value::Null,
        },
        split: match rule {
            Rule::Gpt2 => bytes(true),
            Rule::Digits => {
                let digits = json!({"type": "Digits", "individual_digits": true});
                json!({"type": "Sequence", "pretokenizers": [digits, bytes(true)]})
            }
            Rule::Llama3 => split(&[&modern(r"\p{N}{1,3}")]),
            Rule::Qwen2 | Rule::Qwen2AsWritten => split(&[&modern(r"\p{N}")]),
            Rule::Tekken => split(&[&cased("", r"\p{N}")]),
            Rule::Gpt4o => split(&[&cased(&format!("({ENGLISH})?"), r"\p{N}{1,3}")]),
            Rule::Unsaid => split(&[
                r"[\p{P}\$\+<=>\^~\|]+",
                r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
                r"\p{N}+",
                r"[0-9][0-9][0-9]",
            ]),
        },
        whole_words: matches!(rule, Rule::Llama3 | Rule::Tekken),
        add_bos: matches!(rule, Rule::Llama3 | Rule::Tekken),
    })
}

/// English endings.
const ENGLISH: &str = "?i:'s|'t|'re|'ve|'m|'ll|'d";

/// Bytes as letters, and with `words` GPT-2's expression before.
fn bytes(words: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": words})
}

/// Words with what is before them, numbers, signs, line ends, blanks.
fn modern(numbers: &str) -> String {
    format!(
        r"({ENGLISH})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{numbers}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
}

/// The same with words cut where small letters are followed by capitals, and something after words.
fn cased(after: &str, numbers: &str) -> String {
    let capitals = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]";
    let small = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]";
    let before = r"[^\r\n\p{L}\p{N}]?";
    let rest = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    format!(
        "{before}{capitals}*{small}+{after}|{before}{capitals}+{small}*{after}|{numbers}|{rest}"
    )
}
