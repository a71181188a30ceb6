//! SmolLM2-135M-Instruct, the real model, against candle-transformers.
//!
//! The checkpoint comes from `candle-trt run --dtype f32`, which leaves it in the cache folder
//! (or the folder that `TRT_SMOLLM2` names: a parent of `SmolLM2-135M-Instruct-f32`). Without it
//! the tests say that they did not run, unless `TRT_REQUIRE_MODEL=1`.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::llama as theirs;
use candle_trt::device::Host;
use candle_trt::models::{DecoderConfig, Llama, LoadOptions};
use candle_trt::{Compiler, Engine, Profile, Request, Weights};
use std::path::PathBuf;

const STEPS: usize = 48;
/// "The capital of France is" and a little more, as SmolLM2's ids.
const PROMPT: [u32; 8] = [504, 3575, 282, 4649, 314, 7042, 28, 285];

fn folder() -> Option<PathBuf> {
    let cache = std::env::var_os("TRT_SMOLLM2")
        .or_else(|| std::env::var_os("CANDLE_TRT_CACHE"))
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/candle-trt")))?;
    let found = Some(cache.join("SmolLM2-135M-Instruct-f32"))
        .filter(|d| d.join("model.safetensors").exists());
    if found.is_none() {
        assert!(
            std::env::var("TRT_REQUIRE_MODEL").is_err(),
            "no SmolLM2 in {}",
            cache.display()
        );
        println!(
            "did not run: no SmolLM2 in {}; run candle-trt run --dtype f32 first",
            cache.display()
        );
    }
    found
}

/// The model with all weights rounded to a dtype.
fn converted(source: &std::path::Path, dtype: DType) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let tensors = candle_core::safetensors::load(source.join("model.safetensors"), &Device::Cpu)
        .expect("it loads");
    let rounded = tensors
        .into_iter()
        .map(|(k, v)| (k, v.to_dtype(dtype).expect("a float")));
    candle_core::safetensors::save(&rounded.collect(), dir.path().join("model.safetensors"))
        .expect("it saves");
    dir
}

fn compile(dir: &std::path::Path, config: &DecoderConfig, dtype: DType) -> Engine {
    Compiler::new(Weights::open(dir).expect("it opens"))
        .device(Host::unified())
        .dtype(dtype)
        .weight_streaming(true)
        .profile(Profile::decoder(128, 32).expect("a profile"))
        .compile(|vb| {
            Llama::load_with(
                vb,
                config,
                &LoadOptions {
                    max_positions: Some(128),
                },
            )
        })
        .expect("it compiles")
}

/// candle-transformers' logits at the prompt and each of the tokens that follow.
fn oracle(
    dir: &std::path::Path,
    dtype: DType,
    tokens: Option<&[u32]>,
) -> (Vec<Vec<f32>>, Vec<u32>) {
    let json = std::fs::read(dir.join("config.json")).expect("a config");
    let config: theirs::LlamaConfig = serde_json::from_slice(&json).expect("it parses");
    let config = config.into_config(false);
    let tensors = candle_core::safetensors::load(dir.join("model.safetensors"), &Device::Cpu)
        .expect("it loads");
    let vb = VarBuilder::from_tensors(tensors, dtype, &Device::Cpu);
    let model = theirs::Llama::load(vb, &config).expect("it loads");
    let mut cache = theirs::Cache::new(true, dtype, &config, &Device::Cpu).expect("a cache");
    let (mut all, mut chosen) = (Vec::new(), Vec::new());
    let (mut input, mut position) = (PROMPT.to_vec(), 0);
    for step in 0..STEPS {
        let ids = Tensor::new(input.as_slice(), &Device::Cpu)
            .and_then(|t| t.unsqueeze(0))
            .expect("ids");
        let logits = model.forward(&ids, position, &mut cache).expect("it runs");
        position += input.len();
        let logits: Vec<f32> = logits.squeeze(0).and_then(|l| l.to_vec1()).expect("a row");
        let next = tokens.map_or_else(|| argmax(&logits), |t| t[step]);
        all.push(logits);
        chosen.push(next);
        input = vec![next];
    }
    (all, chosen)
}

fn ours(engine: &Engine, tokens: &[u32]) -> Vec<Vec<f32>> {
    let mut session = engine.session().expect("a session");
    let mut all = vec![session.prefill(&PROMPT).expect("a prompt")];
    all.extend(
        tokens[..STEPS - 1]
            .iter()
            .map(|t| session.decode(*t).expect("a token")),
    );
    all
}

fn argmax(logits: &[f32]) -> u32 {
    let best = logits
        .iter()
        .enumerate()
        .max_by(|a, b| a.1.total_cmp(b.1))
        .expect("logits");
    best.0 as u32
}

/// The largest difference at any step.
fn worst(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    let pairs = a.iter().zip(b).flat_map(|(x, y)| x.iter().zip(y));
    pairs.map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

/// Root of the mean squared difference over all steps.
fn error(a: &[Vec<f32>], b: &[Vec<f32>]) -> f64 {
    let pairs = a.iter().zip(b).flat_map(|(x, y)| x.iter().zip(y));
    let squares: Vec<f64> = pairs.map(|(x, y)| f64::from(x - y).powi(2)).collect();
    (squares.iter().sum::<f64>() / squares.len() as f64).sqrt()
}

#[test]
fn smollm2_follows_candle_in_every_dtype_and_at_every_budget() {
    let Some(dir) = folder() else { return };
    let config = DecoderConfig::from_file(dir.join("config.json")).expect("a config");
    let (exact, tokens) = oracle(&dir, DType::F32, None);

    let engine = compile(&dir, &config, DType::F32);
    let found = ours(&engine, &tokens);
    let off = worst(&exact, &found);
    assert!(off <= 1e-3, "f32 logits are off by {off}");
    let chosen: Vec<u32> = found.iter().map(|l| argmax(l)).collect();
    assert_eq!(chosen, tokens, "greedy tokens");
    let (floor, total) = (engine.minimum_device_budget(), engine.total_device_budget());
    for budget in [floor, total / 8, total / 4, total / 2, total] {
        engine
            .set_device_budget(Request::Bytes(budget))
            .expect("a budget");
        assert!(
            ours(&engine, &tokens) == found,
            "bits differ at a budget of {budget} bytes"
        );
    }
    drop(engine);

    // candle has no bf16 matmul on the CPU, so its f16 error is the measure for both: bf16 has
    // three bits less, which is a factor of 8.
    let (f16, _) = oracle(&dir, DType::F16, Some(&tokens));
    let theirs = error(&exact, &f16);
    for (dtype, factor) in [(DType::F16, 1.0), (DType::BF16, 8.0)] {
        let rounded = converted(&dir, dtype);
        let found = error(
            &exact,
            &ours(&compile(rounded.path(), &config, dtype), &tokens),
        );
        println!("{dtype:?}: error {found:.5}, candle's f16 error {theirs:.5}");
        assert!(
            found <= theirs * factor,
            "{dtype:?}: error {found}, candle's in f16 {theirs}"
        );
    }
}
