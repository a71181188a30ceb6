//! What users write on the command line, and what they are told.

use std::io::Write;
use std::process::Stdio;

use crate::models;
use crate::program::{Ended, candle_trt, run};

/// One answer of the small model.
fn answered(more: &[&str]) -> Ended {
    let (home, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    models::write(folder.path(), &models::model());
    let model = folder.path().to_str().unwrap();
    let line = [
        "run", "--model", model, "--raw", "--device", "host", "--json",
    ];
    run(candle_trt(home.path(), &[&line, more].concat()))
}

#[test]
fn more_tokens_than_the_model_holds_are_clamped_and_told() {
    let ended = answered(&[
        "--prompt",
        "a b c d",
        "--max-tokens",
        "1000",
        "--ignore-eos",
    ]);
    assert!(
        ended
            .err
            .contains("64 positions less 4 of the prompt leave 60"),
        "{}",
        ended.err
    );
    assert_eq!(
        ended.json()["generated_tokens"].as_array().unwrap().len(),
        60
    );
    // -1 is whatever the model holds, which needs no word.
    let all = answered(&["--prompt", "a b c d", "--max-tokens", "-1", "--ignore-eos"]);
    assert!(!all.err.contains("note"), "{}", all.err);
    assert_eq!(all.json()["generated_tokens"].as_array().unwrap().len(), 60);
}

#[test]
fn a_prompt_that_leaves_no_room_is_an_error_with_the_numbers() {
    let ended = answered(&["--prompt", &"a ".repeat(64), "--max-tokens", "1"]);
    assert!(
        ended
            .error()
            .contains("the prompt has 64 tokens; the model holds 64"),
        "{}",
        ended.err
    );
}

#[test]
fn the_json_has_the_keys_that_programs_read() {
    let json = answered(&["--prompt", "a b c", "--max-tokens", "8", "--budget", "full"]).json();
    let mut keys: Vec<&str> = json
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    let want = [
        "activation_bytes",
        "budget_applied",
        "budget_floor",
        "budget_requested",
        "compile_seconds",
        "decode_tokens_per_second",
        "device",
        "device_peak_bytes",
        "dtype",
        "finish",
        "generated_tokens",
        "host_anon_peak_bytes",
        "host_rss_peak_bytes",
        "packed_bytes",
        "prefill_tokens_per_second",
        "prompt_tokens",
        "resident_bytes",
        "ring_bytes",
        "state_bytes",
        "streamed_bytes_per_token",
        "text",
        "time_to_first_token_seconds",
        "total_weight_bytes",
        "weight_bytes_by_type",
    ];
    assert_eq!(keys, want);
    assert_eq!(json["budget_requested"], "full");
    assert_eq!(json["prompt_tokens"], 3);
}

#[test]
fn a_limit_alone_gives_the_largest_budget_that_fits() {
    let json = answered(&["--prompt", "a b c", "--max-tokens", "8", "--limit", "64MiB"]).json();
    assert_eq!(json["streamed_bytes_per_token"], 0, "{json}");
    assert!(
        json["budget_applied"].as_u64() > json["budget_floor"].as_u64(),
        "{json}"
    );
}

#[test]
fn a_prompt_comes_from_a_file_or_standard_input_too() {
    let (home, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    models::write(folder.path(), &models::model());
    let text = folder.path().join("prompt.txt");
    std::fs::write(&text, "a b c d").unwrap();
    let model = folder.path().to_str().unwrap();
    let line = [
        "run",
        "--model",
        model,
        "--raw",
        "--device",
        "host",
        "--json",
        "--max-tokens",
        "8",
    ];
    let file = run(candle_trt(
        home.path(),
        &[&line[..], &["--file", text.to_str().unwrap()]].concat(),
    ));
    assert_eq!(file.json()["prompt_tokens"], 4);
    for more in [&["--file", "-"][..], &[]] {
        let mut command = candle_trt(home.path(), &[&line, more].concat());
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.unwrap();
        child.stdin.take().unwrap().write_all(b"a b\n").unwrap();
        let out = child.wait_with_output().unwrap();
        let last = String::from_utf8(out.stdout).unwrap();
        let json: serde_json::Value = serde_json::from_str(last.lines().last().unwrap()).unwrap();
        assert_eq!(json["prompt_tokens"], 2);
    }
}

#[test]
fn a_stop_string_ends_the_answer_and_is_not_shown() {
    let whole = answered(&["--prompt", "a b c", "--max-tokens", "8", "--ignore-eos"]).json();
    let text = whole["text"].as_str().unwrap();
    let stop = text.split_whitespace().nth(2).unwrap();
    let cut = answered(&[
        "--prompt",
        "a b c",
        "--max-tokens",
        "8",
        "--ignore-eos",
        "--stop",
        stop,
    ])
    .json();
    assert_eq!(cut["finish"], "stop");
    assert!(text.starts_with(cut["text"].as_str().unwrap()), "{cut}");
    assert!(!cut["text"].as_str().unwrap().contains(stop));
}

#[test]
fn packed_weights_give_the_same_answer_and_are_made_once() {
    let (home, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    models::write(folder.path(), &models::wide());
    let model = folder.path().to_str().unwrap();
    let line = |more: &[&str]| {
        let line = [
            "run", "--model", model, "--dtype", "bf16", "--raw", "--prompt", "a b c",
        ];
        let rest = [
            "--budget",
            "min",
            "--device",
            "host-discrete",
            "--ignore-eos",
            "--json",
        ];
        let all: Vec<&str> = line.iter().chain(&rest).chain(more).copied().collect();
        run(candle_trt(home.path(), &all))
    };
    let plain = line(&[]);
    assert!(!plain.err.contains("packed:"), "{}", plain.err);
    let made = line(&["--pack"]);
    let said = made
        .err
        .lines()
        .find(|l| l.starts_with("packed: "))
        .unwrap_or_default();
    let path = said.split(" in ").last().unwrap_or_default();
    let written = std::fs::metadata(path).and_then(|m| m.modified());
    let written = written.unwrap_or_else(|e| panic!("{e}: {said:?} of {}", made.err));
    assert_eq!(made.json()["text"], plain.json()["text"]);
    let again = line(&["--pack"]);
    assert_eq!(again.json()["text"], plain.json()["text"]);
    assert!(again.err.contains(said), "{}", again.err);
    let left = std::fs::metadata(path).and_then(|m| m.modified());
    assert_eq!(left.unwrap(), written, "it was packed again");
}

#[test]
fn info_tells_sizes_types_and_what_fits() {
    let (home, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    models::write(folder.path(), &models::model());
    let model = folder.path().to_str().unwrap();
    let json = run(candle_trt(
        home.path(),
        &["info", model, "--device", "host", "--json"],
    ))
    .json();
    assert_eq!(json["family"], "llama");
    assert_eq!(json["shape"]["layers"], 2);
    let weights = json["weight_bytes"].as_u64().unwrap();
    assert_eq!(
        json["types"],
        serde_json::json!([{"dtype": "f32", "tensors": json["tensors"], "bytes": weights}])
    );
    let host = &json["devices"][0];
    assert_eq!(host["whole"], true);
    assert!(host["floor_bytes"].as_u64() <= host["full_bytes"].as_u64());
    assert_eq!(host["automatic_bytes"], host["full_bytes"]);
    let people = run(candle_trt(
        home.path(),
        &["info", model, "--device", "host"],
    ));
    assert!(people.out.contains("all weights fit"), "{}", people.out);
}

#[test]
fn info_tells_of_a_family_that_cannot_run_what_it_can() {
    let (home, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    models::write(folder.path(), &models::model());
    let config = serde_json::json!({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]});
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let model = folder.path().to_str().unwrap();
    let json = run(candle_trt(home.path(), &["info", model, "--json"])).json();
    assert_eq!(json["family"], "gpt2");
    assert!(
        json["unsupported"].as_str().unwrap().contains("gpt2"),
        "{json}"
    );
    assert!(json["weight_bytes"].as_u64() > Some(0));
}
