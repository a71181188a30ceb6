//! What a call costs in each allocation: one arena for the engine's life, one for each call, one
//! shared by engines.
//!
//! `cargo bench --bench allocation`. A tiny generated decoder shows the overhead itself; SmolLM2
//! shows what of it is left in a real model, if `candle-trt run` has fetched it (run it
//! once with `--dtype bf16`). On the discrete host calls that come again are replayed where the
//! arena stays, as on a GPU. Before criterion's figures come medians of calls in turns, which
//! compare better on a machine that does other things too.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

#[allow(dead_code, reason = "the tests use all of it")]
#[path = "../tests/suite/common/tiny.rs"]
mod tiny;

use candle_core::DType;
use candle_trt::device::{Host, HostMode};
use candle_trt::models::{DecoderConfig, Llama, LoadOptions};
use candle_trt::{Allocation, Compiler, Engine, Profile, Request, Session, Shared, Weights};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const CONTEXT: usize = 640;
const PROMPT: usize = 512;
/// Cached positions before each call.
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
        None => println!("no SmolLM2: run candle-trt run --dtype bf16 first"),
    }
    models
}

fn engine(dir: &Path, mode: HostMode) -> Engine {
    let config = DecoderConfig::from_file(dir.join("config.json")).expect("a config");
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

/// A call after [`PAST`] cached positions.
fn call(session: &mut Session, prompt: &[u32]) {
    session.prefill(prompt).expect("tokens");
    session.truncate(PAST);
}

/// Medians of calls that take turns: a few in one allocation, of which the first ones, which
/// record or fault pages in, do not count, then a few in the next.
fn in_turns(engine: &Engine, session: &mut Session, prompt: &[u32], allocations: &[Allocation]) {
    const FIRST: usize = 3;
    const COUNTED: usize = 5;
    let rounds = if prompt.len() == 1 { 60 } else { 12 };
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); allocations.len()];
    for _ in 0..rounds {
        for (allocation, times) in allocations.iter().zip(&mut times) {
            engine
                .set_allocation(allocation.clone())
                .expect("there is memory");
            for i in 0..FIRST + COUNTED {
                let start = Instant::now();
                call(session, prompt);
                times.extend((i >= FIRST).then(|| start.elapsed()));
            }
        }
    }
    let medians = allocations.iter().zip(&mut times).map(|(a, times)| {
        times.sort();
        format!("{a} {:.1} µs", times[times.len() / 2].as_secs_f64() * 1e6)
    });
    println!("  in turns: {}", medians.collect::<Vec<_>>().join(", "));
}

/// What it costs to lay a call out whose length is new, beside one whose length came before.
fn new_lengths(engine: &Engine, session: &mut Session) {
    engine
        .set_allocation(Allocation::Dynamic)
        .expect("there is memory");
    let mut timed = |n: usize| {
        let start = Instant::now();
        call(session, &tokens(n));
        start.elapsed().as_secs_f64() * 1e6
    };
    let mut extra: Vec<f64> = (20..60).map(|n| timed(n) - timed(n)).collect();
    extra.sort_by(f64::total_cmp);
    println!("  a new length: {:.1} µs more", extra[extra.len() / 2]);
}

fn calls(c: &mut Criterion) {
    for model in models() {
        for mode in [HostMode::Unified, HostMode::Discrete] {
            let engine = engine(&model.dir, mode);
            let shared = Shared::new();
            let allocations = [
                Allocation::Static,
                Allocation::Dynamic,
                Allocation::from(&shared),
            ];
            let mut session = engine.session().expect("a session");
            session.prefill(&tokens(PAST)).expect("a prompt");
            new_lengths(&engine, &mut session);
            for (class, n) in engine.report().classes.iter().zip([1, PROMPT]) {
                let name = format!("{}-{}-{mode:?}", model.name, class.class).to_lowercase();
                println!("{name}: an arena of up to {} bytes", class.arena_bytes);
                let prompt = tokens(n);
                in_turns(&engine, &mut session, &prompt, &allocations);
                let mut group = c.benchmark_group(name);
                group
                    .sample_size(if n == 1 { 60 } else { 20 })
                    .warm_up_time(Duration::from_secs(1))
                    .measurement_time(Duration::from_secs(3));
                for allocation in &allocations {
                    engine
                        .set_allocation(allocation.clone())
                        .expect("there is memory");
                    let id = BenchmarkId::from_parameter(allocation);
                    group.bench_function(id, |b| b.iter(|| call(&mut session, &prompt)));
                }
                group.finish();
            }
        }
    }
}

criterion_group!(benches, calls);
criterion_main!(benches);
