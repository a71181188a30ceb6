//! What a call costs in each allocation: one arena for the engine's life, one for each call, one
//! shared by engines.
//!
//! `cargo bench --bench allocation`. A tiny generated decoder shows the overhead itself; SmolLM2
//! shows what of it is left in a real model, if the example `llm_decode` has fetched it (run it
//! once with `--dtype bf16`). On the discrete host calls that come again are replayed where the
//! arena stays, as on a GPU.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

#[allow(dead_code, reason = "the tests use all of it")]
#[path = "../tests/suite/common/tiny.rs"]
mod tiny;

use candle_core::DType;
use candle_trt::device::{Host, HostMode};
use candle_trt::models::{Config, Llama, LoadOptions};
use candle_trt::{Allocation, Compiler, Engine, Profile, Request, Session, Shared, Weights};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::path::{Path, PathBuf};
use std::time::Duration;

const CONTEXT: usize = 512;
const PROMPT: usize = 128;
/// Cached positions before each decode step.
const PAST: usize = 64;

/// A folder with a model; the tiny one goes with its guard.
struct Model {
    name: &'static str,
    dir: PathBuf,
    _made: Option<tempfile::TempDir>,
}

fn models() -> Vec<Model> {
    let made = tempfile::tempdir().expect("a folder");
    tiny::llama()
        .write(made.path(), DType::F32, 7, 1)
        .expect("a checkpoint");
    let mut models = vec![Model {
        name: "tiny",
        dir: made.path().into(),
        _made: Some(made),
    }];
    let cache = std::env::var_os("TRT_SMOLLM2")
        .or_else(|| std::env::var_os("CANDLE_TRT_CACHE"))
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/candle-trt")));
    let dir = cache.map(|c| c.join("SmolLM2-135M-Instruct-bf16"));
    match dir.filter(|d| d.join("model.safetensors").exists()) {
        Some(dir) => models.push(Model {
            name: "smollm2",
            dir,
            _made: None,
        }),
        None => println!("no SmolLM2: run the example llm_decode with --dtype bf16 first"),
    }
    models
}

fn engine(dir: &Path, mode: HostMode) -> Engine {
    let config = Config::from_file(dir.join("config.json")).expect("a config");
    let options = LoadOptions {
        max_positions: Some(CONTEXT),
    };
    Compiler::new(Weights::open(dir).expect("weights"))
        .device(Host::new(mode))
        .weight_streaming(true)
        .budget(Request::Full)
        .profile(Profile::decoder(CONTEXT, PROMPT).expect("a profile"))
        .compile(|vb| Llama::load_with(vb, &config, &options))
        .expect("it compiles")
}

fn tokens(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| (i * 37 + 5) % 90).collect()
}

fn decode_once(session: &mut Session) {
    session.decode(7).expect("a token");
    session.truncate(PAST);
}

fn calls(c: &mut Criterion) {
    for model in models() {
        for mode in [HostMode::Unified, HostMode::Discrete] {
            let engine = engine(&model.dir, mode);
            for class in &engine.report().classes {
                println!(
                    "{} {}: an arena of {} bytes",
                    model.name, class.class, class.arena_bytes
                );
            }
            let shared = Shared::new();
            let allocations = [
                Allocation::Static,
                Allocation::Dynamic,
                Allocation::from(&shared),
            ];
            let mut session = engine.session().expect("a session");
            session.prefill(&tokens(PAST)).expect("a prompt");
            let name = |what: &str| format!("{}-{what}-{mode:?}", model.name).to_lowercase();
            for (what, n) in [("decode", 1), ("prefill", PROMPT)] {
                let mut group = c.benchmark_group(name(what));
                let seconds = if n == 1 { 3 } else { 4 };
                group
                    .sample_size(if n == 1 { 60 } else { 20 })
                    .warm_up_time(Duration::from_secs(1))
                    .measurement_time(Duration::from_secs(seconds));
                for allocation in &allocations {
                    engine
                        .set_allocation(allocation.clone())
                        .expect("there is memory");
                    let prompt = tokens(n);
                    let id = BenchmarkId::from_parameter(allocation);
                    group.bench_function(id, |b| {
                        b.iter(|| match n {
                            1 => decode_once(&mut session),
                            _ => {
                                session.truncate(PAST);
                                session.prefill(&prompt).expect("a prompt");
                                session.truncate(PAST);
                            }
                        })
                    });
                }
                group.finish();
            }
        }
    }
}

criterion_group!(benches, calls);
criterion_main!(benches);
