//! Tokenizers and templates that GGUF files describe.

mod common;
#[path = "../../trt-stream/tests/support/gguf.rs"]
mod gguf;

use common::{byte_level, sentence_piece, tokenizer};
use gguf::{Gguf, list, text};
use serde_json::Value;
use trt_engine::Weights;
use trt_text::{ChatTemplate, Conversation, Error, GgufFiles, Json, Message, Tokenizer};

fn opened(file: &Gguf) -> Weights {
    let dir = tempfile::tempdir().unwrap();
    Weights::open(file.write(&dir.path().join("m.gguf"))).unwrap()
}

fn read(file: &Gguf) -> Tokenizer {
    Tokenizer::from_gguf(&opened(file)).unwrap()
}

#[track_caller]
fn refused(file: &Gguf, parts: &[&str]) {
    let text = Tokenizer::from_gguf(&opened(file)).unwrap_err().to_string();
    for part in ["m.gguf"].iter().chain(parts) {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
}

fn texts<T: AsRef<str>>(all: &[T]) -> Vec<u8> {
    let all: Vec<Vec<u8>> = all.iter().map(|t| text(t.as_ref())).collect();
    list(8, &all)
}

fn kinds(all: &[i32]) -> Vec<u8> {
    let all: Vec<Vec<u8>> = all.iter().map(|k| k.to_le_bytes().to_vec()).collect();
    list(5, &all)
}

fn floats(all: &[f32]) -> Vec<u8> {
    let all: Vec<Vec<u8>> = all.iter().map(|k| k.to_le_bytes().to_vec()).collect();
    list(6, &all)
}

/// The tokens of a `tokenizer.json` by number, and the kinds of those that are special.
fn vocabulary(json: &Value) -> (Vec<String>, Vec<i32>) {
    let vocab = json["model"]["vocab"].as_object().unwrap();
    let mut tokens: Vec<(u64, String)> = vocab
        .iter()
        .map(|(t, id)| (id.as_u64().unwrap(), t.clone()))
        .collect();
    let added = json["added_tokens"].as_array().unwrap().iter();
    let special: Vec<(u64, String)> = added
        .map(|a| {
            (
                a["id"].as_u64().unwrap(),
                a["content"].as_str().unwrap().into(),
            )
        })
        .collect();
    tokens.extend(
        special
            .iter()
            .filter(|s| !vocab.contains_key(&s.1))
            .cloned(),
    );
    tokens.sort();
    let kind = |id: &u64| {
        if special.iter().any(|s| s.0 == *id) {
            3
        } else {
            1
        }
    };
    let kinds = tokens.iter().map(|(id, _)| kind(id)).collect();
    (tokens.into_iter().map(|(_, t)| t).collect(), kinds)
}

/// The file of a byte-level tokenizer.
fn words(pre: &str) -> Gguf {
    let json = byte_level();
    let (tokens, types) = vocabulary(&json);
    let merges = json["model"]["merges"].as_array().unwrap().iter();
    let merges: Vec<&str> = merges.map(|m| m.as_str().unwrap()).collect();
    Gguf::new()
        .text("tokenizer.ggml.model", "gpt2")
        .text("tokenizer.ggml.pre", pre)
        .value("tokenizer.ggml.tokens", 9, texts(&tokens))
        .value("tokenizer.ggml.token_type", 9, kinds(&types))
        .value("tokenizer.ggml.merges", 9, texts(&merges))
        .u32("tokenizer.ggml.bos_token_id", 267)
        .u32("tokenizer.ggml.eos_token_id", 266)
}

/// The file of a SentencePiece tokenizer: scores follow the order of the merges.
fn pieces() -> Gguf {
    let json = sentence_piece();
    let (tokens, mut types) = vocabulary(&json);
    types[0] = 2;
    let merges = json["model"]["merges"].as_array().unwrap();
    let score = |token: &String| {
        let made = |m: &Value| m.as_str().unwrap().replace(' ', "") == *token;
        merges
            .iter()
            .position(made)
            .map_or(-1e9, |rank| -(rank as f32))
    };
    let scores: Vec<f32> = tokens.iter().map(score).collect();
    for (kind, token) in types.iter_mut().zip(&tokens) {
        if token.starts_with("<0x") {
            *kind = 6;
        }
    }
    Gguf::new()
        .text("tokenizer.ggml.model", "llama")
        .value("tokenizer.ggml.tokens", 9, texts(&tokens))
        .value("tokenizer.ggml.token_type", 9, kinds(&types))
        .value("tokenizer.ggml.scores", 9, floats(&scores))
        .u32("tokenizer.ggml.bos_token_id", 1)
        .u32("tokenizer.ggml.eos_token_id", 2)
        .u32("tokenizer.ggml.unknown_token_id", 0)
}

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

#[test]
fn a_file_with_merges_has_the_tokens_of_its_tokenizer_json() {
    let (ours, stated) = (read(&words("gpt-2")), tokenizer(&byte_level()));
    for text in TEXTS {
        let ids = ours.encode(text, false).unwrap();
        assert_eq!(ids, stated.encode(text, false).unwrap(), "{text:?}");
        assert_eq!(ours.decode(&ids, true).unwrap(), text);
    }
    assert_eq!(ours.special_token("bos_token"), Some("<s>"));
    assert_eq!(ours.ends(), [266]);
    assert_eq!(
        ours.decode(&[104, 266], false).unwrap(),
        "h",
        "special tokens are hidden"
    );
}

#[test]
fn a_file_with_scores_has_the_tokens_of_its_tokenizer_json() {
    let (ours, stated) = (read(&pieces()), tokenizer(&sentence_piece()));
    for text in TEXTS {
        let ids = ours.encode(text, true).unwrap();
        assert_eq!(ids, stated.encode(text, true).unwrap(), "{text:?}");
        let (ours, stated) = (ours.decode(&ids, false), stated.decode(&ids, false));
        assert_eq!(ours.unwrap(), stated.unwrap(), "{text:?}");
    }
}

#[test]
fn a_blank_is_put_before_a_text_unless_the_file_says_no() {
    let without = pieces().value("tokenizer.ggml.add_space_prefix", 7, vec![0]);
    let without = read(&without);
    let (hi, blank_hi) = (
        without.token_to_id("hi").unwrap(),
        without.token_to_id("▁hi").unwrap(),
    );
    assert_eq!(without.encode("hi hi", false).unwrap(), [hi, blank_hi]);
    assert_eq!(read(&pieces()).encode("hi", false).unwrap(), [blank_hi]);
    assert_eq!(without.decode(&[blank_hi], false).unwrap(), " hi");
}

#[test]
fn the_file_decides_what_a_text_begins_and_ends_with() {
    let ends = |file: &Gguf| {
        let ids = read(file).encode("h", true).unwrap();
        (ids.len(), ids[0], ids[ids.len() - 1])
    };
    let (bos, eos, h) = (267, 266, 104);
    assert_eq!(ends(&words("gpt-2")), (1, h, h));
    assert_eq!(ends(&words("llama-bpe")), (2, bos, h), "Llama 3 has one");
    let flag = |name: &str, on: u8| words("llama-bpe").value(name, 7, vec![on]);
    assert_eq!(ends(&flag("tokenizer.ggml.add_bos_token", 0)), (1, h, h));
    assert_eq!(
        ends(&flag("tokenizer.ggml.add_eos_token", 1)),
        (3, bos, eos)
    );
}

#[test]
fn words_are_cut_as_the_name_says() {
    // Every cut is seen, since this vocabulary has nearly no merges across what could be cut.
    let cuts = |pre: &str, text: &str| {
        let files = GgufFiles::read(&opened(&words(pre))).unwrap();
        let json: Value = serde_json::from_slice(&files.tokenizer).unwrap();
        let pre: tokenizers::PreTokenizerWrapper =
            serde_json::from_value(json["pre_tokenizer"].clone()).unwrap();
        let mut text = tokenizers::PreTokenizedString::from(text);
        tokenizers::PreTokenizer::pre_tokenize(&pre, &mut text).unwrap();
        let parts = text.get_splits(
            tokenizers::OffsetReferential::Original,
            tokenizers::OffsetType::Byte,
        );
        let parts = parts
            .into_iter()
            .map(|(t, ..)| t.replace('Ġ', "_").replace('Ċ', "/"));
        parts.collect::<Vec<_>>().join("|")
    };
    let text = "I'LL pay 12345 for HelloWorld!!\n\n  x";
    let expected = [
        ("gpt-2", "I|'|LL|_pay|_12345|_for|_HelloWorld|!!|//_|_x"),
        (
            "smollm",
            "I|'|LL|_pay|_|1|2|3|4|5|_for|_HelloWorld|!!|//_|_x",
        ),
        (
            "llama-bpe",
            "I|'LL|_pay|_|123|45|_for|_HelloWorld|!!//|_|_x",
        ),
        ("qwen2", "I|'LL|_pay|_|1|2|3|4|5|_for|_HelloWorld|!!//|_|_x"),
        (
            "tekken",
            "I|'LL|_pay|_|1|2|3|4|5|_for|_Hello|World|!!//|_|_x",
        ),
        ("gpt-4o", "I'LL|_pay|_|123|45|_for|_Hello|World|!!//|_|_x"),
        ("default", "I|'|LL|_pay|_|123|45|_for|_HelloWorld|!!|//_|_x"),
    ];
    for (pre, parts) in expected {
        assert_eq!(cuts(pre, text), parts, "{pre}");
    }
    refused(
        &words("novel-bpe"),
        &["tokenizer.ggml.pre", "novel-bpe", "llama-bpe"],
    );
}

#[test]
fn qwen2_reads_composed_letters() {
    let (composed, apart) = ("\u{e9}", "e\u{301}");
    let qwen = read(&words("qwen2"));
    let ids = |text: &str| qwen.encode(text, false).unwrap();
    assert_eq!(ids(apart), ids(composed));
    let gpt = read(&words("gpt-2"));
    assert_ne!(gpt.encode(apart, false).unwrap(), ids(composed));
}

#[test]
fn kinds_of_tokens_say_what_they_do() {
    let tokens = ["a", "b", "<|ctl|>", "<tool>", "[PAD4]", ""];
    let file = Gguf::new()
        .text("tokenizer.ggml.model", "gpt2")
        .text("tokenizer.ggml.pre", "gpt-2")
        .value("tokenizer.ggml.tokens", 9, texts(&tokens))
        .value("tokenizer.ggml.token_type", 9, kinds(&[1, 1, 3, 4, 5, 1]))
        .value("tokenizer.ggml.merges", 9, texts::<&str>(&[]))
        .u32("tokenizer.ggml.eos_token_id", 2)
        .u32("tokenizer.ggml.eot_token_id", 4)
        .u32("tokenizer.ggml.bos_token_id", u32::MAX);
    let tokenizer = read(&file);
    let ids = tokenizer.encode("a<|ctl|>b<tool>", true).unwrap();
    assert_eq!(ids, [0, 2, 1, 3]);
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "ab<tool>");
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "a<|ctl|>b<tool>");
    assert_eq!(tokenizer.id_to_token(4), None, "a place without a token");
    assert_eq!(tokenizer.ends(), [2]);
    assert_eq!(tokenizer.special_token("bos_token"), None);
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let without = |key: &str| {
        let mut file = words("gpt-2");
        file.values.retain(|(k, ..)| k != key);
        file
    };
    for key in [
        "tokenizer.ggml.model",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.merges",
    ] {
        refused(&without(key), &[key, "no such value"]);
    }
    let put = |key: &str, kind: u32, bytes: Vec<u8>| without(key).value(key, kind, bytes);
    let merges = |m: &[&str]| put("tokenizer.ggml.merges", 9, texts(m));
    refused(&merges(&["h e", "he"]), &["merges", "merge 1", "\"he\""]);
    refused(&merges(&["h zz"]), &["merges", "merge 0", "\"zz\""]);
    refused(
        &put("tokenizer.ggml.token_type", 9, kinds(&[1])),
        &["token_type", "1 kinds"],
    );
    refused(
        &put("tokenizer.ggml.model", 8, text("bert")),
        &["'bert'", "gpt2 and llama"],
    );
    refused(
        &put("tokenizer.ggml.tokens", 8, text("a")),
        &["tokens", "not a list"],
    );
    let twice = put("tokenizer.ggml.tokens", 9, texts(&["a", "a"]));
    let mut twice = twice;
    twice
        .values
        .retain(|(k, ..)| k != "tokenizer.ggml.token_type");
    refused(&twice, &["tokens 0 and 1", "\"a\""]);
    let mut scores = pieces();
    scores.values[3].2 = floats(&[0.0]);
    refused(&scores, &["tokenizer.ggml.scores", "1 scores"]);
    let all: Vec<String> = (1..=250).map(|n| "a".repeat(n)).collect();
    let many = Gguf::new()
        .text("tokenizer.ggml.model", "llama")
        .value("tokenizer.ggml.tokens", 9, texts(&all))
        .value("tokenizer.ggml.scores", 9, floats(&[0.0; 250]));
    refused(&many, &["tokenizer.ggml.tokens", "cut"]);
    let long = Gguf::new()
        .text("tokenizer.ggml.model", "llama")
        .value("tokenizer.ggml.tokens", 9, texts(&["a".repeat(300)]))
        .value("tokenizer.ggml.scores", 9, floats(&[0.0]));
    refused(&long, &["token 0", "300 bytes"]);
    let plain = Weights::open_files(&[] as &[&str]).unwrap();
    let error = Tokenizer::from_gguf(&plain).unwrap_err();
    assert!(matches!(error, Error::NoGguf));
}

#[test]
fn the_chat_template_is_that_of_the_file() {
    let render = |file: &Gguf, tools: bool| {
        let weights = opened(file);
        let tokenizer = Tokenizer::from_gguf(&weights).unwrap();
        let template = ChatTemplate::from_gguf(&weights, &tokenizer).unwrap();
        let messages = [Message::user("hi")];
        let list = Json::parse("[]").unwrap();
        let conversation = Conversation {
            tools: tools.then_some(&list),
            ..Conversation::new(&messages)
        };
        template.render(&conversation).unwrap()
    };
    let key = "tokenizer.chat_template";
    let own = words("gpt-2").text(key, "{{ bos_token }}{{ messages[0].content }}");
    assert_eq!(render(&own, false), "<s>hi");
    let two = own
        .value("tokenizer.chat_templates", 9, texts(&["tool_use"]))
        .text("tokenizer.chat_template.tool_use", "with tools");
    assert_eq!(render(&two, false), "<s>hi");
    assert_eq!(render(&two, true), "with tools");
    let common = render(&words("gpt-2"), false);
    assert!(
        common.starts_with("<|im_start|>user\nhi<|im_end|>"),
        "{common}"
    );
}
