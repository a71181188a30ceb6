//! SmolLM2 on this machine: decode and prefill beside candle-transformers in one process, and
//! latency against budget in both host modes.
//!
//! `cargo bench --bench smollm2`. The checkpoints come from `candle-trt run` (run it once
//! with `--dtype f32` and once with `--dtype bf16`), in the cache folder or the one that
//! `TRT_SMOLLM2` names. Beside criterion's figures, the measured memory rates and what they allow
//! are printed, so that each figure can be held against its floor.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::llama as theirs;
use candle_trt::device::{Host, HostMode};
use candle_trt::models::{DecoderConfig, Llama, LoadOptions};
use candle_trt::{Compiler, Engine, Profile, Request, Session, Weights};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const CONTEXT: usize = 1024;
const PROMPT: usize = 512;
/// Cached positions before each decode step.
const PAST: usize = 128;

fn folder(dtype: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("TRT_SMOLLM2")
        .or_else(|| std::env::var_os("CANDLE_TRT_CACHE"))
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/candle-trt")))?;
    let dir = cache.join(format!("SmolLM2-135M-Instruct-{dtype}"));
    if !dir.join("model.safetensors").exists() {
        println!(
            "no {}: run candle-trt run --dtype {dtype} first",
            dir.display()
        );
        return None;
    }
    Some(dir)
}

fn tokens(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| (i * 97 + 5) % 40_000).collect()
}

fn engine(dir: &Path, mode: HostMode) -> Engine {
    let config = DecoderConfig::from_file(dir.join("config.json")).expect("a config");
    let start = Instant::now();
    let engine = Compiler::new(Weights::open(dir).expect("weights"))
        .device(Host::new(mode))
        .weight_streaming(true)
        .budget(Request::Full)
        .profile(Profile::decoder(CONTEXT, PROMPT).expect("a profile"))
        .compile(|vb| {
            Llama::load_with(
                vb,
                &config,
                &LoadOptions {
                    max_positions: Some(CONTEXT),
                },
            )
        })
        .expect("it compiles");
    println!("trace and compile: {:.3} s", start.elapsed().as_secs_f64());
    engine
}

/// candle-transformers' model with a cache.
struct Candle {
    model: theirs::Llama,
    config: theirs::Config,
    dtype: DType,
    cache: theirs::Cache,
}

impl Candle {
    fn load(dir: &Path, dtype: DType) -> Candle {
        let json = std::fs::read(dir.join("config.json")).expect("a config");
        let config: theirs::LlamaConfig = serde_json::from_slice(&json).expect("it parses");
        let config = config.into_config(false);
        let tensors = candle_core::safetensors::load(dir.join("model.safetensors"), &Device::Cpu)
            .expect("weights");
        let vb = VarBuilder::from_tensors(tensors, dtype, &Device::Cpu);
        let model = theirs::Llama::load(vb, &config).expect("it loads");
        let cache = theirs::Cache::new(true, dtype, &config, &Device::Cpu).expect("a cache");
        Candle {
            model,
            config,
            dtype,
            cache,
        }
    }

    fn reset(&mut self) {
        self.cache =
            theirs::Cache::new(true, self.dtype, &self.config, &Device::Cpu).expect("a cache");
    }

    fn run(&mut self, ids: &[u32], position: usize) -> Vec<f32> {
        let ids = Tensor::new(ids, &Device::Cpu)
            .and_then(|t| t.unsqueeze(0))
            .expect("ids");
        let logits = self
            .model
            .forward(&ids, position, &mut self.cache)
            .expect("it runs");
        logits.squeeze(0).and_then(|l| l.to_vec1()).expect("a row")
    }
}

/// Bytes per second that all cores read from a mapping, and that one core copies.
fn memory_rates(dir: &Path) -> (f64, f64) {
    let weights = Weights::open(dir).expect("weights");
    let map = &weights.files()[0].map;
    let words: &[u64] = bytemuck_words(map);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let sum = |part: &[u64]| part.iter().fold(0u64, |a, b| a ^ b);
    let mut read = f64::MAX;
    for _ in 0..7 {
        let start = Instant::now();
        std::thread::scope(|s| {
            for part in words.chunks(words.len().div_ceil(cores)) {
                s.spawn(move || std::hint::black_box(sum(part)));
            }
        });
        read = read.min(start.elapsed().as_secs_f64());
    }
    let mut target = vec![0u64; words.len()];
    let mut copy = f64::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        target.copy_from_slice(words);
        std::hint::black_box(&target);
        copy = copy.min(start.elapsed().as_secs_f64());
    }
    let bytes = (words.len() * 8) as f64;
    (bytes / read, bytes / copy)
}

/// The words of a mapping, which starts on a page.
fn bytemuck_words(bytes: &[u8]) -> &[u64] {
    bytemuck::cast_slice(&bytes[..bytes.len() / 8 * 8])
}

fn session(engine: &Engine) -> Session {
    let mut session = engine.session().expect("a session");
    session.prefill(&tokens(PAST)).expect("a prompt");
    session
}

fn decode_once(session: &mut Session) {
    session.decode(7).expect("a token");
    session.truncate(PAST);
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    group
        .throughput(Throughput::Elements(1))
        .sample_size(60)
        .measurement_time(Duration::from_secs(6));
    for dtype in ["bf16", "f32"] {
        let Some(dir) = folder(dtype) else { continue };
        let engine = engine(&dir, HostMode::Unified);
        let (read, copy) = memory_rates(&dir);
        let bytes = engine.memory().total_weights as f64;
        println!(
            "{dtype}: {:.1} MB a token; memory reads {:.1} GB/s, one core copies {:.1} GB/s; floor {:.2} ms a token, \
             80 % of the rate {:.2} ms",
            bytes / 1e6,
            read / 1e9,
            copy / 1e9,
            bytes / read * 1e3,
            bytes / read / 0.8 * 1e3
        );
        let mut ours = session(&engine);
        group.bench_function(BenchmarkId::new("candle-trt", dtype), |b| {
            b.iter(|| decode_once(&mut ours))
        });
    }
    // candle has no bf16 matmul on the CPU; f16 and f32 are what it offers.
    for (name, dtype) in [("f16", DType::F16), ("f32", DType::F32)] {
        let Some(dir) = folder("f32") else { continue };
        let mut candle = Candle::load(&dir, dtype);
        candle.run(&tokens(PAST), 0);
        let cache = candle.cache.clone();
        group.bench_function(BenchmarkId::new("candle", name), |b| {
            b.iter(|| {
                candle.cache = cache.clone();
                candle.run(&[7], PAST)
            })
        });
    }
    group.finish();
}

fn prefill(c: &mut Criterion) {
    let mut group = c.benchmark_group("prefill512");
    group
        .throughput(Throughput::Elements(PROMPT as u64))
        .sample_size(10)
        .measurement_time(Duration::from_secs(8));
    let prompt = tokens(PROMPT);
    for dtype in ["bf16", "f32"] {
        let Some(dir) = folder(dtype) else { continue };
        let engine = engine(&dir, HostMode::Unified);
        let mut session = engine.session().expect("a session");
        group.bench_function(BenchmarkId::new("candle-trt", dtype), |b| {
            b.iter(|| {
                session.reset();
                session.prefill(&prompt).expect("a prompt")
            })
        });
    }
    for (name, dtype) in [("f16", DType::F16), ("f32", DType::F32)] {
        let Some(dir) = folder("f32") else { continue };
        let mut candle = Candle::load(&dir, dtype);
        group.bench_function(BenchmarkId::new("candle", name), |b| {
            b.iter(|| {
                candle.reset();
                candle.run(&prompt, 0)
            })
        });
    }
    group.finish();
}

fn budgets(c: &mut Criterion) {
    let mut group = c.benchmark_group("budget");
    group
        .throughput(Throughput::Elements(1))
        .sample_size(40)
        .measurement_time(Duration::from_secs(5));
    for dtype in ["bf16", "f32"] {
        let Some(dir) = folder(dtype) else { continue };
        for (name, mode) in [
            ("unified", HostMode::Unified),
            ("discrete", HostMode::Discrete),
        ] {
            let engine = engine(&dir, mode);
            let mut session = session(&engine);
            for budget in ["full", "75%", "50%", "25%", "10%", "min"] {
                let request: Request = budget.parse().expect("a budget");
                let applied = engine.set_device_budget(request).expect("above the floor");
                println!(
                    "{name} {dtype} {budget}: {} bytes streamed a token",
                    applied.streamed
                );
                // The first pass loads what is resident.
                decode_once(&mut session);
                let id = BenchmarkId::new(format!("{name}-{dtype}"), budget);
                group.bench_function(id, |b| b.iter(|| decode_once(&mut session)));
            }
        }
    }
    group.finish();
}

criterion_group!(benches, decode, prefill, budgets);
criterion_main!(benches);
