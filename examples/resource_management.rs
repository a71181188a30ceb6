//! Torch-TensorRT's guide to resource management, call by call, as it is done here.
//!
//! `cargo run --release --example resource_management [-- MODEL] [--device auto|host|host-discrete|cuda:0]`
//! needs no download: without a model it makes a random small llama. Each function below is one
//! row of the table in README's "Resource management", and fails if what it shows is not so.

#[path = "resource_management/model.rs"]
mod model;

use anyhow::{Result, ensure};
use candle_trt::device::{self, ProcessMemory};
use candle_trt::models::DecoderConfig;
use candle_trt::{
    Allocation, CompileLimits, Compiler, Engine, Error, FromTensors, Request, Shared, Weights,
    trim_host_memory,
};
use clap::Parser;
use model::{Model, small};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Run every call of the guide once.
#[derive(Debug, Parser)]
struct Args {
    /// A folder with config.json and safetensors of a Llama-family model.
    model: Option<PathBuf>,
    /// auto, host, host-discrete or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
}

const PROMPT: [u32; 8] = [1, 5, 9, 2, 6, 3, 8, 4];
/// What is freed to be trimmed: so many pieces of so many bytes.
const PIECES: usize = 4096;
const PIECE: usize = 16 << 10;

fn main() -> Result<()> {
    let args = Args::parse();
    let made = tempfile::tempdir()?;
    let dir = match &args.model {
        Some(dir) => dir.clone(),
        None => {
            small().write(made.path())?;
            made.path().to_path_buf()
        }
    };
    let model = Model {
        config: DecoderConfig::from_file(dir.join("config.json"))?,
        dir,
        device: device::open(&args.device)?,
    };
    println!("on {}", model.device.info().name);
    let engine = enable_weight_streaming(&model)?;
    total_device_budget(&engine)?;
    device_budget(&engine)?;
    automatic_budget(&engine)?;
    minimum_budget(&engine)?;
    weight_streaming_context(&engine)?;
    device_limit(&engine)?;
    predicted_budget(&engine)?;
    resource_allocation_strategy(&engine)?;
    shared_allocation(&model)?;
    lazy_engine_init(&model, &engine)?;
    drop(engine);
    resource_partitioning(&model)?;
    offload_module_to_cpu(&model)?;
    builder_malloc_trim()
}

fn mb(bytes: u64) -> String {
    format!("{:.2} MB", bytes as f64 / 1e6)
}

fn logits(engine: &Engine) -> Result<Vec<f32>> {
    let mut session = engine.session()?;
    session.prefill(&PROMPT)?;
    Ok(session.decode(7)?)
}

/// `compile(..., enable_weight_streaming=True)`
fn enable_weight_streaming(model: &Model) -> Result<Engine> {
    let fixed = model.compile(model.opened()?)?;
    ensure!(fixed.total_device_budget() == 0);
    let refused = fixed.set_device_budget(Request::Full);
    ensure!(matches!(refused, Err(Error::NoStreaming)));
    drop(fixed);
    let engine = model.compile(model.opened()?.weight_streaming(true))?;
    println!(
        "enable_weight_streaming: {} of weights can stream; without it the total is 0",
        mb(engine.total_device_budget())
    );
    Ok(engine)
}

/// `ctx.total_device_budget`
fn total_device_budget(engine: &Engine) -> Result<()> {
    let total = engine.total_device_budget();
    ensure!(total > 0 && engine.minimum_device_budget() <= total);
    println!("total_device_budget: {}", mb(total));
    Ok(())
}

/// `ctx.device_budget` and `ctx.device_budget = n`
fn device_budget(engine: &Engine) -> Result<()> {
    let expected = logits(engine)?;
    for request in ["50%", "32MiB", "full"] {
        let asked: Request = request.parse()?;
        let applied = engine.set_device_budget(asked)?;
        ensure!(engine.device_budget()?.applied == applied.applied);
        ensure!(logits(engine)? == expected, "the same bits at every budget");
        println!(
            "device_budget = {request}: {} applied, {} resident, {} streamed a token",
            mb(applied.applied),
            mb(applied.resident),
            mb(applied.streamed)
        );
    }
    Ok(())
}

/// `ctx.get_automatic_weight_streaming_budget()`
fn automatic_budget(engine: &Engine) -> Result<()> {
    let automatic = engine.automatic_device_budget();
    let applied = engine.set_device_budget(Request::Automatic)?;
    ensure!(applied.applied > 0 && applied.applied <= applied.total);
    println!("automatic budget: {} fit now", mb(automatic));
    Ok(())
}

/// `ctx.device_budget = 0`: as little as possible
fn minimum_budget(engine: &Engine) -> Result<()> {
    let applied = engine.set_device_budget(Request::Bytes(0))?;
    ensure!(applied.applied == applied.floor && applied.floor > 0);
    println!(
        "device_budget = 0: the floor, {} pinned and a ring of {}",
        mb(applied.pinned),
        mb(applied.ring)
    );
    let below = engine.set_device_budget(Request::Bytes(applied.floor - 1));
    println!("device_budget = floor - 1: {}", error(below)?);
    Ok(())
}

fn error<T>(result: Result<T, Error>) -> Result<Error> {
    match result {
        Ok(_) => anyhow::bail!("this should have been refused"),
        Err(error) => Ok(error),
    }
}

/// `with torch_tensorrt.runtime.weight_streaming(module) as ctx:`
fn weight_streaming_context(engine: &Engine) -> Result<()> {
    engine.set_device_budget(Request::Full)?;
    {
        let mut scope = engine.weight_streaming()?;
        let applied = scope.set_device_budget("40%".parse()?)?;
        println!("weight_streaming scope: {} inside", mb(applied.applied));
    }
    let after = engine.device_budget()?;
    ensure!(after.applied == after.total);
    println!("weight_streaming scope: {} after", mb(after.applied));
    Ok(())
}

/// No counterpart: a bound for everything on the device, from which the budget follows
fn device_limit(engine: &Engine) -> Result<()> {
    let memory = engine.memory();
    let other = memory.activations + memory.constants + memory.code + memory.states_per_session;
    let mut scope = engine.weight_streaming()?;
    let applied = scope.set_device_limit(other + engine.total_device_budget() / 2)?;
    logits(engine)?;
    ensure!(engine.memory().in_use <= engine.device_limit());
    println!(
        "device_limit: {} for all it holds leaves {} for weights",
        mb(engine.device_limit()),
        mb(applied.applied)
    );
    Ok(())
}

/// No counterpart: what a budget costs, and the budget for a time
fn predicted_budget(engine: &Engine) -> Result<()> {
    let start = Instant::now();
    let costs = engine.calibrate(&[])?;
    println!(
        "predict: calibrated in {:.2} s, weights come at {:.2} GB/s",
        start.elapsed().as_secs_f64(),
        costs.link / 1e9
    );
    for request in ["full", "50%", "min"] {
        let predicted = engine.predict(request.parse()?)?;
        println!(
            "predict: {:.2} ms a token at {request} ({} over the link)",
            predicted.seconds * 1e3,
            mb(predicted.link_bytes)
        );
    }
    let half = engine.predict("50%".parse()?)?;
    let budget = engine.budget_for(half.time())?;
    ensure!(budget <= half.budget);
    println!("budget_for {:.2?}: {}", half.time(), mb(budget));
    let impossible = engine.budget_for(std::time::Duration::from_nanos(1));
    println!("budget_for 1 ns: {}", error(impossible)?);
    Ok(())
}

/// `dynamically_allocate_resources=True` and `with ResourceAllocationStrategy(module, ...)`
fn resource_allocation_strategy(engine: &Engine) -> Result<()> {
    let held = engine.memory().activations;
    {
        let _scope = engine.resource_allocation(Allocation::Dynamic)?;
        logits(engine)?;
        ensure!(engine.memory().activations == 0);
        println!("dynamic allocation: 0 bytes between calls inside the scope");
    }
    ensure!(engine.allocation() == Allocation::Static);
    ensure!(engine.memory().activations == held);
    println!("static allocation: {} again after it", mb(held));
    Ok(())
}

/// No counterpart: engines that run in turns share one arena
fn shared_allocation(model: &Model) -> Result<()> {
    let shared = Shared::new();
    let compiler = || -> Result<Compiler> {
        let streaming = model.opened()?.weight_streaming(true);
        Ok(streaming.budget(Request::Minimum).allocation(&shared))
    };
    let one = model.compile(compiler()?)?;
    let alone = shared.bytes();
    let two = model.compile(compiler()?)?;
    ensure!(logits(&one)? == logits(&two)?);
    ensure!(shared.bytes() == alone);
    println!("shared allocation: two engines hold {} together", mb(alone));
    Ok(())
}

/// `lazy_engine_init=True`, and saving a compiled module
fn lazy_engine_init(model: &Model, engine: &Engine) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    engine.save(file.path())?;
    let compiler = || -> Result<Compiler> {
        let streaming = model.opened()?.weight_streaming(true);
        Ok(streaming.budget("25%".parse()?))
    };
    // The first engine lives, so the kernels are on the device for both.
    let start = Instant::now();
    let again = model.compile(compiler()?)?;
    let compiled = start.elapsed();
    drop(again);
    let start = Instant::now();
    let loaded = compiler()?.load(file.path())?;
    let took = start.elapsed();
    ensure!(loaded.report().loaded && logits(&loaded)? == logits(engine)?);
    println!(
        "save and load: {} on disk without the weights, ready in {took:.2?} at {}; compiled again in \
         {compiled:.2?}, also with its kernels on the device",
        mb(file.path().metadata()?.len()),
        mb(loaded.device_budget()?.applied)
    );
    Ok(())
}

/// `enable_resource_partitioning=True, cpu_memory_budget=...`
fn resource_partitioning(model: &Model) -> Result<()> {
    let limited = |host_bytes, device_bytes| -> Result<Compiler> {
        let compiler = model.opened()?.weight_streaming(true);
        Ok(compiler.budget(Request::Minimum).limits(CompileLimits {
            host_bytes: Some(host_bytes),
            device_bytes: Some(device_bytes),
        }))
    };
    let (host, device) = (1 << 30, 1 << 30);
    let engine = model.compile(limited(host, device)?)?;
    let report = engine.report();
    ensure!(report.device_peak_bytes > 0 && report.device_peak_bytes <= device);
    ensure!(report.host_peak_bytes.is_none_or(|peak| peak <= host));
    println!(
        "compile limits: peaks of {} on the host and {} on the device",
        report.host_peak_bytes.map_or("?".into(), mb),
        mb(report.device_peak_bytes)
    );
    for (which, host, device) in [
        ("host", 1 << 20, device),
        ("device", host, report.device_peak_bytes / 4),
    ] {
        let refused = error(model.compile(limited(host, device)?))?;
        println!("compile limits: {refused}");
        let Error::CompileLimit { memory, short, .. } = refused else {
            anyhow::bail!("refused for another reason");
        };
        ensure!(memory == which && short > 0);
    }
    Ok(())
}

/// `offload_module_to_cpu=True`
fn offload_module_to_cpu(model: &Model) -> Result<()> {
    println!("offload_module_to_cpu: files are mapped, so there is no copy to offload");
    let tensors = tensors(&model.dir)?;
    let bytes: usize = tensors.values().map(tensor_bytes).sum();
    let weights = Arc::new(Weights::from_tensors(tensors)?);
    let copies: usize = weights.files().iter().map(|f| f.map.len()).sum();
    ensure!(weights.files().len() == 1 && copies < bytes + bytes / 10);
    let engine = || {
        let compiler = model.compiler(weights.clone())?.weight_streaming(true);
        Ok::<_, anyhow::Error>(model.compile(compiler.budget(Request::Minimum))?)
    };
    let first = engine()?;
    let expected = logits(&first)?;
    // Nothing on systems that do not tell.
    let held = || {
        trim_host_memory();
        ProcessMemory::now().map_or(0, |m| m.anonymous + m.shared)
    };
    let before = held();
    let second = engine()?;
    ensure!(logits(&second)? == expected);
    let more = held().saturating_sub(before);
    ensure!(more < bytes as u64 / 2, "a second engine took {more} bytes");
    println!(
        "offload_module_to_cpu: {} of tensors are copied once; a second engine took {} more",
        mb(bytes as u64),
        mb(more)
    );
    Ok(())
}

fn tensor_bytes(tensor: &candle_core::Tensor) -> usize {
    tensor.elem_count() * tensor.dtype().size_in_bytes()
}

fn tensors(dir: &Path) -> Result<std::collections::HashMap<String, candle_core::Tensor>> {
    let mut all = std::collections::HashMap::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            all.extend(candle_core::safetensors::load(
                path,
                &candle_core::Device::Cpu,
            )?);
        }
    }
    Ok(all)
}

/// `TORCHTRT_ENABLE_BUILDER_MALLOC_TRIM=1`
fn builder_malloc_trim() -> Result<()> {
    // Pieces too small to be mappings of their own, of which every eighth stays, so that the allocator
    // keeps the others when freed.
    let mut pieces: Vec<Vec<u8>> = (0..PIECES).map(|_| vec![1; PIECE]).collect();
    for (_, piece) in pieces.iter_mut().enumerate().filter(|(i, _)| i % 8 != 0) {
        *piece = Vec::new();
    }
    let trimmed = trim_host_memory();
    drop(pieces);
    // Other allocators than the GNU C library's cannot be asked.
    if cfg!(all(target_os = "linux", target_env = "gnu")) {
        ensure!(trimmed > (PIECES * PIECE) as u64 / 2, "{trimmed} bytes");
    }
    println!(
        "builder malloc trim: {} went back to the system",
        mb(trimmed)
    );
    Ok(())
}
