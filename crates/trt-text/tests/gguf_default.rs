//! The default model's GGUF file gives what the files of its folder give.

use std::path::PathBuf;
use trt_engine::Weights;
use trt_text::{ChatTemplate, Conversation, Message, Tokenizer};

const TEXTS: [&str; 12] = [
    "",
    "hello world",
    "hello  hello\n\n  world \n",
    "<s>hello<|im_end|> world",
    "hi hi  hihi\thi a",
    "éa ☃ é̂",
    "日本語 and 한국어, Ελληνικά",
    "🙂👩‍👩‍👧 family",
    "1234567 12 3,141.59",
    "   leading and trailing   ",
    "don't I'LL we've\r\nx",
    "<unk> <0x41> </s>",
];

/// The default model's file and folder, where they are kept; none without them, unless they are required.
fn default_model() -> Option<(PathBuf, PathBuf)> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let home = || set("HOME").map(|home| home.join(".cache/candle-trt"));
    let cache = set("TRT_SMOLLM2")
        .or_else(|| set("CANDLE_TRT_CACHE"))
        .or_else(home)?;
    let file = cache.join("SmolLM2-135M-Instruct.Q4_1.gguf");
    let folder = cache.join("SmolLM2-135M-Instruct-bf16");
    let there = file.exists() && folder.exists();
    if !there {
        assert!(set("TRT_REQUIRE_MODEL").is_none(), "no {}", file.display());
        eprintln!("not run: no {}", file.display());
    }
    there.then_some((file, folder))
}

#[test]
fn the_default_model_has_the_tokens_of_its_folder() {
    let Some((file, folder)) = default_model() else {
        return;
    };
    let weights = Weights::open(file).unwrap();
    let ours = Tokenizer::from_gguf(&weights).unwrap();
    let stated = Tokenizer::open(&folder).unwrap();
    let long = TEXTS.join(" \n\t  ");
    let code = "fn main() {\n    println!(\"{}\", 0x1F + 1_000);\n}\n\n\n";
    for text in TEXTS.into_iter().chain([long.as_str(), code]) {
        for special in [false, true] {
            let ids = ours.encode(text, special).unwrap();
            assert_eq!(ids, stated.encode(text, special).unwrap(), "{text:?}");
            assert_eq!(ours.decode(&ids, true).unwrap(), text);
        }
    }
    assert_eq!(
        (ours.ends(), ours.turn_ends()),
        (stated.ends(), stated.turn_ends())
    );
    let messages = [Message::user("What is 2 + 2?")];
    let conversation = Conversation::new(&messages);
    let ours = ChatTemplate::from_gguf(&weights, &ours).unwrap();
    let stated = ChatTemplate::open(&folder, &stated).unwrap();
    assert_eq!(
        ours.render(&conversation).unwrap(),
        stated.render(&conversation).unwrap()
    );
}
