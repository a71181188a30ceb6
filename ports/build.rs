//! Writes model files of candle-transformers again, with other `use` lines.
//!
//! What changes is what a user changes: `candle` and `candle_nn` are those of `candle_trt`, and what files share
//! (`crate::quantized_nn`, `crate::quantized_var_builder`, `crate::utils`, `with_tracing`) is in
//! `candle_trt::candle_transformers`. A model that another one names is ported beside it. No other line is touched.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The model files, with those that they name.
const MODELS: &[&str] = &[
    "quantized_llama",
    "quantized_qwen2",
    "quantized_qwen3",
    "quantized_phi3",
    "quantized_gemma3",
    "quantized_t5",
    "quantized_mistral",
    "quantized_stable_lm",
    "quantized_glm4",
    "quantized_lfm2",
    "quantized_mixformer",
    "quantized_moondream",
    "quantized_mpt",
    "quantized_phi",
    "quantized_recurrent_gemma",
    "quantized_rwkv_v5",
    "quantized_rwkv_v6",
    "quantized_blip",
    "quantized_blip_text",
    "quantized_qwen3_moe",
    "whisper/quantized_model",
    "mistral",
    "mpt",
    "stable_lm",
    "mixformer",
    "moondream",
    "recurrent_gemma",
    "rwkv_v5",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../Cargo.lock");
    let models = sources().join("models");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo says where to write"));
    let mut list = String::new();
    for model in MODELS {
        let path = models.join(format!("{model}.rs"));
        let text = std::fs::read_to_string(&path).expect("a model file of candle-transformers");
        let above = match model.split_once('/') {
            Some((folder, _)) => format!("crate::models::{folder}::"),
            None => "crate::models::".to_string(),
        };
        let name = model.replace('/', "_");
        let ported = out.join(format!("{name}.rs"));
        std::fs::write(&ported, port(&text, &above)).expect("the file is written");
        list += &format!("#[path = {ported:?}]\npub mod {name};\n");
    }
    std::fs::write(out.join("ported.rs"), list).expect("the list is written");
}

/// Where the sources of candle-transformers are.
fn sources() -> PathBuf {
    let cargo = std::env::var_os("CARGO").expect("cargo runs this");
    let host = std::env::var("HOST").expect("cargo says for what it builds");
    let ask = |more: &[&str]| {
        Command::new(&cargo)
            .args([
                "metadata",
                "--format-version",
                "1",
                "--filter-platform",
                &host,
            ])
            .args(more)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo runs")
    };
    // What this builds is here already; what else the workspace names may not be.
    let mut output = ask(&["--offline"]);
    if !output.status.success() {
        output = ask(&[]);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata: {said}");
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let manifest = packages
        .filter(|p| p["name"] == "candle-transformers")
        .find_map(|p| p["manifest_path"].as_str())
        .expect("candle-transformers is a dependency");
    Path::new(manifest).with_file_name("src")
}

/// A model file with other `use` lines, which calls the module around it so.
fn port(text: &str, above: &str) -> String {
    // Comments at the head of a file and its own tests have no part in this.
    let lines = text.lines().take_while(|l| !l.starts_with("#[cfg(test)]"));
    let head = "use candle_trt::{candle, candle_nn};\n".to_string();
    let moved = [
        ("use candle::", "use candle_trt::candle::"),
        ("use candle_nn::", "use candle_trt::candle_nn::"),
        ("super::with_tracing", "crate::models::with_tracing"),
        (
            "crate::fused_moe",
            "candle_trt::candle_transformers::fused_moe",
        ),
        (
            "crate::quantized_nn",
            "candle_trt::candle_transformers::quantized_nn",
        ),
        (
            "crate::quantized_var_builder",
            "candle_trt::candle_transformers::quantized_var_builder",
        ),
        ("crate::utils", "candle_trt::candle_transformers::utils"),
        (
            "crate::models::with_tracing",
            "candle_trt::candle_transformers::models::with_tracing",
        ),
        ("use crate::{", "use candle_trt::candle_transformers::{"),
    ];
    let theirs = "candle_transformers::models::";
    let line = |line: &str| {
        let renamed = |line: String, (from, to): &(&str, &str)| line.replace(from, to);
        let line = moved.iter().fold(line.to_string(), renamed);
        // What another model has is taken from where that is ported, or from candle's own file.
        let line = line.replace("super::", above);
        let named = line.split("crate::models::").nth(1);
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let named = named
            .and_then(|n| n.split(|c| !word(c)).next())
            .unwrap_or_default();
        let place = match MODELS.contains(&named) {
            true => "super::",
            false => theirs,
        };
        line.replace("crate::models::", place) + "\n"
    };
    lines
        .filter(|l| !l.starts_with("//!"))
        .map(line)
        .fold(head, |text, line| text + &line)
}
