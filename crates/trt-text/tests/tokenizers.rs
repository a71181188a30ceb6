//! Tokenizers as a model's files describe them.

mod common;

use common::{byte_level, sentence_piece, tokenizer};
use serde_json::{Value, json};
use trt_text::{Error, Files, Tokenizer};

fn with(json: &Value, files: Files<'_>) -> Result<Tokenizer, Error> {
    let json = json.to_string();
    Tokenizer::from_files(&Files {
        tokenizer: json.as_bytes(),
        ..files
    })
}

fn config(text: &str) -> Files<'_> {
    Files {
        tokenizer_config: Some(text),
        ..Files::default()
    }
}

#[test]
fn truncation_and_padding_are_for_training() {
    let mut json = byte_level();
    json["truncation"] =
        json!({"max_length": 8, "strategy": "LongestFirst", "stride": 0, "direction": "Right"});
    json["padding"] = json!({"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "!"});
    let text = "thirty-one characters are here.";
    let ids = tokenizer(&json).encode(text, true).unwrap();
    assert_eq!(ids.len(), 30, "{ids:?}");
    assert_eq!(tokenizer(&json).decode(&ids, true).unwrap(), text);
}

#[test]
fn dropout_is_for_training() {
    let mut json = byte_level();
    json["model"]["dropout"] = json!(1.0);
    assert_eq!(
        tokenizer(&json).encode("hello", false).unwrap(),
        tokenizer(&byte_level()).encode("hello", false).unwrap()
    );
}

#[test]
fn the_post_processor_says_what_a_text_begins_and_ends_with() {
    let llama = tokenizer(&sentence_piece());
    assert_eq!(llama.encode("hi", true).unwrap()[0], 1);
    assert_eq!(llama.encode("hi", false).unwrap().len(), 1);
    let smol = tokenizer(&byte_level());
    assert_eq!(
        smol.encode("hello", true).unwrap(),
        smol.encode("hello", false).unwrap()
    );
}

#[test]
fn add_bos_token_and_add_eos_token_decide_where_they_are_said() {
    let tokens = r#""bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}"#;
    let ids = |more: &str| {
        let text = format!("{{{tokens}, {more}}}");
        let ids = with(&sentence_piece(), config(&text)).unwrap();
        let ids = ids.encode("hi", true).unwrap();
        (ids[0] == 1, ids[ids.len() - 1] == 2)
    };
    assert_eq!(ids(r#""add_bos_token": true"#), (true, false));
    assert_eq!(ids(r#""add_bos_token": false"#), (false, false));
    assert_eq!(
        ids(r#""add_bos_token": false, "add_eos_token": true"#),
        (false, true)
    );
    assert_eq!(ids(r#""add_bos_token": null"#), (true, false));
    // Without a first token there is none to add.
    let none = with(
        &byte_level(),
        config(r#"{"add_bos_token": true, "bos_token": null}"#),
    )
    .unwrap();
    assert_eq!(none.encode("hello", true).unwrap().len(), 1);
}

#[test]
fn an_end_token_that_stands_only_in_the_generation_config_ends_the_text() {
    let files = Files {
        generation_config: Some(r#"{"eos_token_id": 266}"#),
        ..Files::default()
    };
    assert_eq!(with(&byte_level(), files).unwrap().ends(), [266]);
}

#[test]
fn end_tokens_of_all_files_are_united() {
    let files = Files {
        tokenizer_config: Some(r#"{"eos_token": "<s>"}"#),
        generation_config: Some(r#"{"eos_token_id": [266, 5.0, -1]}"#),
        config: Some(r#"{"eos_token_id": 266, "text_config": {"eos_token_id": [7]}}"#),
        ..Files::default()
    };
    let tokenizer = with(&byte_level(), files).unwrap();
    assert_eq!(tokenizer.ends(), [266, 5, 7, 267]);
    // <|im_end|> is among them already.
    assert!(tokenizer.turn_ends().is_empty());
    assert_eq!(
        with(&byte_level(), Files::default()).unwrap().turn_ends(),
        [266]
    );
}

#[test]
fn special_tokens_are_strings_or_objects_and_the_map_overrides() {
    let map = Files {
        tokenizer_config: Some(
            r#"{"bos_token": "a", "pad_token": null, "image_token": "<img>", "add_bos_token": null}"#,
        ),
        special_tokens_map: Some(r#"{"bos_token": {"content": "b"}, "unk_token": "c"}"#),
        ..Files::default()
    };
    let tokenizer = with(&byte_level(), map).unwrap();
    let tokens: Vec<_> = tokenizer.special_tokens().collect();
    assert!(tokens.contains(&("bos_token", "b")) && tokens.contains(&("image_token", "<img>")));
    assert!(tokens.contains(&("unk_token", "c")) && tokenizer.special_token("pad_token").is_none());
    let own = Files {
        tokenizer_config: Some(
            r#"{"bos_token": "a", "added_tokens_decoder": {"267": {"content": "<s>", "special": true}}}"#,
        ),
        ..map
    };
    assert_eq!(
        with(&byte_level(), own).unwrap().special_token("bos_token"),
        Some("a")
    );
}

#[test]
fn tokens_that_only_the_configuration_knows_are_added_with_their_numbers() {
    let text = r#"{"added_tokens_decoder": {"268": {"content": "<tool>", "special": true},
        "269": {"content": "plain", "special": false}}}"#;
    let tokenizer = with(&byte_level(), config(text)).unwrap();
    let ids = tokenizer.encode("a<tool>plain", false).unwrap();
    assert_eq!(ids, [u32::from(b'a'), 268, 269]);
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "aplain");
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "a<tool>plain");

    let gap = r#"{"added_tokens_decoder": {"300": {"content": "<tool>", "special": true}}}"#;
    let why = with(&byte_level(), config(gap)).unwrap_err().to_string();
    assert!(
        why.contains("added_tokens_decoder.300") && why.contains("268"),
        "{why}"
    );
}

#[test]
fn a_special_token_that_is_an_ordinary_word_of_the_vocabulary_is_special_then() {
    let tokenizer = with(&byte_level(), config(r#"{"eos_token": "hello"}"#)).unwrap();
    let ids = tokenizer.encode("a hello", false).unwrap();
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "a ");
    assert_eq!(tokenizer.ends(), &ids[2..]);
}

#[test]
fn what_is_malformed_is_named_by_file_and_field() {
    let cases = [
        (
            r#"{"bos_token": 5}"#,
            "tokenizer_config.json: bos_token is not",
        ),
        (
            r#"{"bos_token": {"content": 5}}"#,
            "tokenizer_config.json: bos_token is not",
        ),
        (
            r#"{"add_bos_token": "yes"}"#,
            "add_bos_token is not true or false",
        ),
        (
            r#"{"added_tokens_decoder": []}"#,
            "added_tokens_decoder is not an object",
        ),
        (
            r#"{"added_tokens_decoder": {"x": {"content": "a"}}}"#,
            "added_tokens_decoder.x is not under",
        ),
        (
            r#"{"additional_special_tokens": 3}"#,
            "additional_special_tokens is not a list",
        ),
        ("[]", "tokenizer_config.json: it is not a JSON object"),
        ("{", "tokenizer_config.json: EOF"),
    ];
    for (text, part) in cases {
        let why = with(&byte_level(), config(text)).unwrap_err().to_string();
        assert!(why.contains(part), "{why}");
    }
    let files = Files {
        generation_config: Some(r#"{"eos_token_id": "</s>"}"#),
        ..Files::default()
    };
    let why = with(&byte_level(), files).unwrap_err().to_string();
    assert_eq!(
        why,
        r#"generation_config.json: eos_token_id "</s>" is not the number of a token"#
    );
}

#[test]
fn panics_inside_the_tokenizer_are_errors() {
    let mut json = byte_level();
    json["added_tokens"][0]["id"] = json!(u32::MAX);
    json["model"]["vocab"]["<|im_start|>"] = json!(u32::MAX);
    let result = with(&json, Files::default());
    assert!(matches!(result, Err(Error::Malformed { .. })), "{result:?}");
}

#[test]
fn pipes_folders_and_endless_files_are_no_files() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Tokenizer::open(folder.path());
    assert!(matches!(
        open(),
        Err(Error::Missing {
            name: "tokenizer.json",
            ..
        })
    ));
    std::fs::create_dir(folder.path().join("tokenizer.json")).unwrap();
    assert!(matches!(open(), Err(Error::NotAFile { .. })));
    std::fs::remove_dir(folder.path().join("tokenizer.json")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", folder.path().join("tokenizer.json")).unwrap();
    assert!(matches!(open(), Err(Error::NotAFile { .. })));
    std::fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    std::fs::write(
        folder.path().join("tokenizer.json"),
        byte_level().to_string(),
    )
    .unwrap();
    let large = std::fs::File::create(folder.path().join("generation_config.json")).unwrap();
    large.set_len(1 << 40).unwrap();
    assert!(matches!(open(), Err(Error::TooLarge { .. })));
    std::fs::write(
        folder.path().join("generation_config.json"),
        "\u{feff}{\"eos_token_id\": 3}",
    )
    .unwrap();
    assert_eq!(open().unwrap().ends(), [3]);
}
