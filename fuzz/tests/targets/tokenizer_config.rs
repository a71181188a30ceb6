//! The files beside `tokenizer.json`: one input holds all four, one after another.

use candle_trt_fuzz::Target;
use trt_text::{Files, Tokenizer};

const MODEL: &str = r#"{"version":"1.0","added_tokens":[{"id":2,"content":"</s>","single_word":false,"lstrip":false,"rstrip":false,
"normalized":false,"special":true}],"model":{"type":"WordLevel","vocab":{"a":0,"b":1},"unk_token":"a"}}"#;

const CONFIG: &str = r#"{"add_bos_token":true,"add_eos_token":false,"bos_token":"a","eos_token":{"content":"</s>","lstrip":false},
"pad_token":null,"additional_special_tokens":["b",{"content":"c"}],"extra_special_tokens":{"image_token":"<i>"},"model_max_length":1e30,
"added_tokens_decoder":{"2":{"content":"</s>","special":true},"3":{"content":"<t>","special":false,"rstrip":true}}}"#;

#[test]
fn settings_are_read_or_refused_by_name() {
    let split = "\u{1}";
    let corpus = [
        [
            CONFIG,
            r#"{"bos_token":"b"}"#,
            r#"{"eos_token_id":[1,2.0,-1]}"#,
            r#"{"eos_token_id":2}"#,
        ],
        [
            "{}",
            r#"{"unk_token":{"content":"a"}}"#,
            r#"{"eos_token_id":1}"#,
            r#"{"text_config":{"eos_token_id":[0]}}"#,
        ],
    ];
    let corpus = corpus.map(|files| files.join(split).into_bytes());
    let words = [
        "\"bos_token\":",
        "\"eos_token_id\":",
        "\"added_tokens_decoder\":",
        "\"content\":",
        "\"special\":",
        split,
    ];
    let target = Target {
        words: &words,
        ..Target::new("tokenizer_config", &corpus)
    };
    target.run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let mut parts = text.split(split);
        let files = Files {
            tokenizer: MODEL.as_bytes(),
            tokenizer_config: parts.next(),
            special_tokens_map: parts.next(),
            generation_config: parts.next(),
            config: parts.next(),
        };
        if let Ok(tokenizer) = Tokenizer::from_files(&files) {
            let _ = tokenizer.encode("a <t> </s>", true);
        }
    });
}
