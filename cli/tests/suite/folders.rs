//! Folders that mean no good: each ends with an error, soon, and in words.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::models::{self, Files};
use crate::program::{Ended, candle_trt, run};

fn answered(folder: &Path) -> Ended {
    let home = tempfile::tempdir().unwrap();
    let model = folder.to_str().unwrap();
    let line = [
        "run",
        "--model",
        model,
        "--prompt",
        "a b",
        "--max-tokens",
        "8",
        "--device",
        "host",
    ];
    run(candle_trt(home.path(), &line))
}

fn folder(files: &Files) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    models::write(folder.path(), files);
    folder
}

/// A model with a template, so that nothing else is wrong with it.
fn good() -> Files {
    let mut files = models::model();
    files.insert(
        "chat_template.jinja".into(),
        b"{{ messages[0].content }}".to_vec(),
    );
    files
}

fn with(name: &str, json: &Value) -> tempfile::TempDir {
    let mut files = good();
    files.insert(name.into(), json.to_string().into_bytes());
    folder(&files)
}

#[test]
fn a_good_folder_is_answered() {
    let folder = folder(&good());
    let ended = answered(folder.path());
    assert_eq!(ended.code, Some(0), "{}", ended.err);
}

#[test]
fn a_pipe_a_device_or_a_folder_in_place_of_a_file_is_an_error() {
    let names = [
        "config.json",
        "tokenizer.json",
        "model.safetensors",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "generation_config.json",
        "chat_template.jinja",
    ];
    let place = |kind: &str, at: &Path| match kind {
        "pipe" => assert!(Command::new("mkfifo").arg(at).status().unwrap().success()),
        "device" => symlink("/dev/zero", at).unwrap(),
        _ => std::fs::create_dir(at).unwrap(),
    };
    for name in names {
        for kind in ["pipe", "device", "folder"] {
            let folder = folder(&good());
            let at = folder.path().join(name);
            let _ = std::fs::remove_file(&at);
            place(kind, &at);
            let ended = answered(folder.path());
            let error = ended.error();
            assert!(
                error.contains("regular file"),
                "{name} as a {kind}: {error}"
            );
        }
    }
}

#[test]
fn an_index_that_leads_out_of_the_folder_is_refused() {
    for name in ["../secret.safetensors", "/etc/passwd", "a\\b", "x?y", "NUL"] {
        let mut files = good();
        files.remove("model.safetensors");
        let index = json!({"weight_map": {"model.norm.weight": name}});
        files.insert(
            "model.safetensors.index.json".into(),
            index.to_string().into_bytes(),
        );
        let ended = answered(folder(&files).path());
        assert!(
            ended.error().contains("is no plain file name"),
            "{name}: {}",
            ended.err
        );
    }
}

#[test]
fn a_template_without_bound_is_ended() {
    for template in [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x='aaaaaaaa') %}{% for a in range(64) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
        "{{ messages[0].content | indent(9999999999) }}",
        "{% for a in range(99999) %}{{ messages }}{% endfor %}",
    ] {
        let mut files = good();
        files.insert("chat_template.jinja".into(), template.as_bytes().to_vec());
        let ended = answered(folder(&files).path());
        assert!(
            ended.error().contains("chat template"),
            "{template}: {}",
            ended.err
        );
    }
}

#[test]
fn numbers_that_no_model_has_are_refused() {
    for (field, value) in [
        ("num_hidden_layers", json!(1_000_000_000_000u64)),
        ("head_dim", json!((1u64 << 63) + 8)),
        ("hidden_size", json!(u64::MAX)),
        ("vocab_size", json!(1u64 << 62)),
        ("intermediate_size", json!(1u64 << 60)),
        ("num_attention_heads", json!(1u64 << 40)),
    ] {
        let mut config = models::config();
        config[field] = value;
        let ended = answered(with("config.json", &config).path());
        ended.error();
    }
}

#[test]
fn a_tokenizer_without_bound_is_an_error() {
    let mut tokenizer = models::tokenizer();
    tokenizer["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "////"});
    let ended = answered(with("tokenizer.json", &tokenizer).path());
    assert!(ended.error().contains("tokenizer.json"), "{}", ended.err);
}
