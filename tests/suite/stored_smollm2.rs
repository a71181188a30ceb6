//! SmolLM2-135M-Instruct as its GGUF file holds it, against an evaluation in f64 of its dequantised weights
//! (`tests/references/smollm2_f64.py`, which wrote the tokens).
//!
//! The file comes from `candle-trt run`, which leaves it in the cache folder (or the folder that `TRT_SMOLLM2` names).
//! Without it the test says that it did not run, unless `TRT_REQUIRE_MODEL=1`.

use candle_core::DType;
use candle_trt::device::{Host, HostMode};
use candle_trt::models::{DecoderConfig, Llama, LoadOptions};
use candle_trt::{Compiler, Engine, Profile, Weights};
use std::path::{Path, PathBuf};

const TOKENS: &str = include_str!("../references/smollm2_f64.txt");
const FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const POSITIONS: usize = 64;

fn file() -> Option<PathBuf> {
    let cache = std::env::var_os("TRT_SMOLLM2")
        .or_else(|| std::env::var_os("CANDLE_TRT_CACHE"))
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/candle-trt")))?;
    let found = Some(cache.join(FILE)).filter(|f| f.exists());
    if found.is_none() {
        let required = std::env::var_os("TRT_REQUIRE_MODEL").is_some();
        assert!(!required, "no {FILE} in {}", cache.display());
        println!(
            "did not run: no {FILE} in {}; run candle-trt run first",
            cache.display()
        );
    }
    found
}

fn compile(file: &Path, mode: HostMode) -> Engine {
    let weights = Weights::open(file).expect("it opens");
    let json = weights.config_json().expect("it is read").expect("a GGUF");
    let config = DecoderConfig::from_json(&json).expect("a llama");
    let options = LoadOptions {
        max_positions: Some(POSITIONS),
    };
    Compiler::new(weights)
        .device(Host::new(mode))
        .dtype(DType::F32)
        .weight_streaming(true)
        .profile(Profile::decoder(POSITIONS, 32).expect("a profile"))
        .compile(|vb| Llama::load_with(vb, &config, &options))
        .expect("it compiles")
}

/// A prompt, and what f64 goes on with.
fn expected() -> Vec<(Vec<u32>, Vec<u32>)> {
    let ids = |text: &str| -> Vec<u32> {
        text.split_whitespace()
            .map(|id| id.parse().expect("an id"))
            .collect()
    };
    let line = |line: &str| {
        let (prompt, tokens) = line.split_once(':').expect("a colon");
        let (tokens, _) = tokens.split_once('#').expect("the gap");
        (ids(prompt), ids(tokens))
    };
    TOKENS.lines().map(line).collect()
}

fn likeliest(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.expect("logits").0 as u32
}

#[test]
fn smollm2_as_stored_goes_on_as_in_f64_at_every_budget() {
    let Some(file) = file() else { return };
    for mode in [HostMode::Unified, HostMode::Discrete] {
        let engine = compile(&file, mode);
        for (prompt, want) in expected() {
            for request in ["min", "25%", "full"] {
                let budget = request.parse().expect("a budget");
                engine.set_device_budget(budget).expect("a budget");
                let mut session = engine.session().expect("a session");
                let mut tokens = vec![likeliest(&session.prefill(&prompt).expect("a prompt"))];
                while tokens.len() < want.len() {
                    let last = tokens[tokens.len() - 1];
                    tokens.push(likeliest(&session.decode(last).expect("a token")));
                }
                assert_eq!(tokens, want, "{mode:?} at {request}, prompt {prompt:?}");
            }
        }
    }
}
