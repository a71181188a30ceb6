//! Tokenizers of both families, small, and decoders that stand in for engines.
#![allow(dead_code, reason = "each test uses some of it")]

use std::collections::BTreeMap;

use serde_json::{Value, json};
use trt_text::{Decoder, Files, Tokenizer};

/// GPT-2's letters for bytes.
fn letter(byte: u8) -> char {
    let shown = |b: u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
    match shown(byte.into()) {
        true => byte.into(),
        false => {
            let before = (0..u32::from(byte)).filter(|b| !shown(*b)).count() as u32;
            char::from_u32(256 + before).expect("a letter")
        }
    }
}

/// Like SmolLM2's: all bytes, some merges, special tokens. Numbers: 0..=255 are the bytes in order.
pub fn byte_level() -> Value {
    let mut vocab: BTreeMap<String, u32> =
        (0..=255).map(|b| (letter(b).into(), b.into())).collect();
    let (blank, mut merges) = (letter(b' ').to_string(), Vec::new());
    let pairs = [
        ("h", "e"),
        ("l", "l"),
        ("he", "ll"),
        ("hell", "o"),
        (&blank, "w"),
        ("o", "r"),
        (&format!("{blank}w"), "or"),
        ("ð", "Ł"),
        ("Ã", "©"),
    ];
    for (a, b) in pairs {
        vocab.insert(format!("{a}{b}"), vocab.len() as u32);
        merges.push(format!("{a} {b}"));
    }
    let special = ["<|im_start|>", "<|im_end|>", "<s>"];
    let added = special.iter().zip(265..).map(|(t, id)| {
        json!({"id": id, "content": t, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges}
    })
}

/// Like Llama 2's: words with `▁` for blanks, bytes for what it has no token for.
pub fn sentence_piece() -> Value {
    let mut vocab: BTreeMap<String, u32> = ["<unk>", "<s>", "</s>"]
        .iter()
        .zip(0..)
        .map(|(t, i)| (t.to_string(), i))
        .collect();
    for byte in 0..=255u32 {
        vocab.insert(format!("<0x{byte:02X}>"), 3 + byte);
    }
    for piece in [
        "▁", "a", "b", "é", "h", "i", "hi", "▁hi", "▁a", "☃", "▁▁", "\n", "<",
    ] {
        let id = vocab.len() as u32;
        vocab.entry(piece.to_string()).or_insert(id);
    }
    let added = ["<unk>", "<s>", "</s>"].iter().zip(0..).map(|(t, id)| {
        json!({"id": id, "content": t, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null,
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocab, "merges": ["h i", "▁ hi", "▁ a", "▁ ▁"]}
    })
}

pub fn tokenizer(json: &Value) -> Tokenizer {
    let json = json.to_string();
    let files = Files {
        tokenizer: json.as_bytes(),
        ..Files::default()
    };
    Tokenizer::from_files(&files).expect("a tokenizer")
}

/// Says given tokens one after another, whatever it is asked.
#[derive(Debug, Default)]
pub struct Script {
    pub vocabulary: usize,
    pub says: Vec<u32>,
    pub max: Option<usize>,
    pub held: Vec<u32>,
    /// The tokens of each call.
    pub calls: Vec<Vec<u32>>,
    pub said: usize,
    pub broken: bool,
}

impl Script {
    pub fn new(vocabulary: usize, says: &[u32]) -> Self {
        Script {
            vocabulary,
            says: says.to_vec(),
            ..Script::default()
        }
    }
}

impl Decoder for Script {
    type Error = std::io::Error;

    fn prefill(&mut self, tokens: &[u32]) -> Result<Vec<f32>, Self::Error> {
        if self.broken {
            return Err(std::io::Error::other("the device is gone"));
        }
        self.calls.push(tokens.to_vec());
        self.held.extend(tokens);
        let mut logits = vec![0.0; self.vocabulary];
        if let Some(next) = self.says.get(self.said) {
            match logits.get_mut(*next as usize) {
                Some(logit) => *logit = 1.0,
                None => logits[0] = f32::NAN,
            }
        }
        self.said += 1;
        Ok(logits)
    }

    fn position(&self) -> usize {
        self.held.len()
    }

    fn truncate(&mut self, position: usize) {
        self.held.truncate(position);
    }

    fn max_context(&self) -> Option<usize> {
        self.max
    }
}
