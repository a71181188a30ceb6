//! GGUF files as models: given by their path, in a folder, or from a hub.

use crate::gguf_file::Gguf;
use crate::hubs::Hub;
use crate::models::Files;
use crate::program::{Ended, candle_trt, run};
use std::path::Path;

const HIDDEN: u64 = 64;

/// A llama of one layer whose products are in Q8_0 and whose norms are in f32.
fn model() -> Gguf {
    let q8 = |file: Gguf, name: &str, rows: u64, columns: u64| {
        file.tensor(name, &[rows, columns], 8, rows * columns / 32 * 34)
    };
    let mut file = Gguf::new()
        .text("general.architecture", "llama")
        .u32("llama.context_length", 64)
        .u32("llama.embedding_length", HIDDEN as u32)
        .u32("llama.block_count", 1)
        .u32("llama.feed_forward_length", 96)
        .u32("llama.attention.head_count", 4)
        .u32("llama.attention.head_count_kv", 2)
        .f32("llama.attention.layer_norm_rms_epsilon", 1e-5)
        .u32("tokenizer.ggml.bos_token_id", 0)
        .u32("tokenizer.ggml.eos_token_id", 1);
    file = q8(file, "token_embd.weight", 8, HIDDEN);
    for (name, rows, columns) in [
        ("attn_q", HIDDEN, HIDDEN),
        ("attn_k", HIDDEN / 2, HIDDEN),
        ("attn_v", HIDDEN / 2, HIDDEN),
        ("attn_output", HIDDEN, HIDDEN),
        ("ffn_gate", 96, HIDDEN),
        ("ffn_up", 96, HIDDEN),
        ("ffn_down", HIDDEN, 96),
    ] {
        file = q8(file, &format!("blk.0.{name}.weight"), rows, columns);
    }
    for name in ["blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"] {
        file = file.f32s(&format!("{name}.weight"), &[HIDDEN]);
    }
    file
}

fn info(home: &Path, endpoint: Option<&str>, model: &str) -> Ended {
    let line = [
        "info",
        model,
        "--device",
        "host",
        "--context",
        "32",
        "--json",
    ];
    let mut command = candle_trt(home, &line);
    if let Some(endpoint) = endpoint {
        command.env("HF_ENDPOINT", endpoint);
    }
    run(command)
}

#[track_caller]
fn known(ended: &Ended) {
    let json = ended.json();
    assert_eq!(json["family"], "llama", "{json}");
    assert!(json["unsupported"].is_null(), "{json}");
    assert_eq!(json["tensors"], 11);
    let types: Vec<&str> = json["types"]
        .as_array()
        .expect("types")
        .iter()
        .filter_map(|t| t["dtype"].as_str())
        .collect();
    assert_eq!(types, ["q8_0", "f32"]);
}

#[test]
fn a_file_is_a_model_and_so_is_a_folder_with_one() {
    let home = tempfile::tempdir().unwrap();
    let file = model().write(&home.path().join("m.gguf"));
    known(&info(home.path(), None, file.to_str().unwrap()));
    known(&info(home.path(), None, home.path().to_str().unwrap()));
}

#[test]
fn a_file_of_a_repository_is_fetched_alone() {
    let home = tempfile::tempdir().unwrap();
    let mut files = Files::new();
    files.insert("m.gguf".into(), model().bytes());
    let hub = Hub::honest(files);
    known(&info(home.path(), Some(&hub.endpoint), "owner/name/m.gguf"));
    let asked: Vec<String> = hub.log().into_iter().map(|a| a.path).collect();
    assert!(
        asked.iter().all(|path| path.ends_with("/m.gguf")),
        "{asked:?}"
    );
    // What is there is used without asking.
    let before = hub.log().len();
    known(&info(home.path(), Some(&hub.endpoint), "owner/name/m.gguf"));
    assert_eq!(hub.log().len(), before);
    let missing = info(home.path(), Some(&hub.endpoint), "owner/name/other.gguf");
    assert!(missing.error().contains("other.gguf"), "{}", missing.err);
}

#[test]
fn what_is_no_model_is_an_error_that_says_what_it_is() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("m.gguf");
    std::fs::write(&file, b"GGUF and nothing else").unwrap();
    let ended = info(home.path(), None, file.to_str().unwrap());
    assert!(ended.error().contains("m.gguf"), "{}", ended.err);
    for wrong in ["nowhere.gguf", "owner/../m.gguf"] {
        let ended = info(home.path(), None, wrong);
        assert!(ended.error().contains(wrong), "{}", ended.err);
    }
    let ended = run(candle_trt(home.path(), &["run", "--dtype", "iq4_nl"]));
    assert_eq!(ended.code, Some(2), "a type that is only read");
    assert!(ended.err.contains("q4_k"), "{}", ended.err);
}
