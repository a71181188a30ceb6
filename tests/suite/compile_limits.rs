//! What compiling may take, and what weights given as tensors are.

use crate::common::small::Stingy;
use crate::common::tiny;
use crate::families::tokens;
use candle_core::{DType, Device, Tensor};
use candle_trt::device::{Host, HostMode};
use candle_trt::models::{Llama, LoadOptions};
use candle_trt::{
    CompileLimits, Compiler, Engine, Error, FromTensors, Profile, Request, TileTarget, Weights,
};
use std::collections::HashMap;
use std::sync::Arc;

fn tensors() -> HashMap<String, Tensor> {
    tiny::llama().tensors(7).into_iter().collect()
}

fn compiler(weights: impl Into<Arc<Weights>>, mode: HostMode) -> Compiler {
    Compiler::new(weights)
        .device(Host::new(mode))
        .profile(Profile::decoder(64, 32).expect("a profile"))
        .weight_streaming(true)
        .tile_target(TileTarget::Bytes(8 << 10))
}

fn compile(compiler: Compiler) -> Result<Engine, Error> {
    let config = tiny::llama().config();
    let options = LoadOptions {
        max_positions: Some(64),
    };
    compiler.compile(|vb| Llama::load_with(vb, &config, &options))
}

fn logits(engine: &Engine) -> Vec<f32> {
    let mut session = engine.session().expect("a session");
    session.prefill(&tokens(20)).expect("a prompt");
    session.decode(3).expect("a token")
}

#[test]
fn tensors_give_the_bits_of_the_file_that_holds_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let written = tiny::llama().write(dir.path(), DType::F32, 7, 1);
    written.expect("a checkpoint");
    let file = Weights::open(dir.path()).expect("it opens");
    let file = compile(compiler(file, HostMode::Unified)).expect("it compiles");
    let expected = logits(&file);
    let given = Arc::new(Weights::from_tensors(tensors()).expect("they are copied"));
    for mode in [HostMode::Unified, HostMode::Discrete] {
        // One copy serves both engines.
        let engine = compile(compiler(given.clone(), mode)).expect("it compiles");
        assert_eq!(engine.total_device_budget(), file.total_device_budget());
        for budget in [Request::Minimum, Request::Full] {
            let applied = engine.set_device_budget(budget).expect("a budget");
            assert!(logits(&engine) == expected, "{mode:?} at {budget}");
            assert_eq!(engine.last_traffic().bytes, applied.streamed);
        }
    }
}

#[test]
fn tensors_that_the_caller_keeps_stay_as_and_where_they_are() {
    let kept = tensors();
    let weights = Weights::from_tensors(kept.clone()).expect("they are copied");
    for (name, tensor) in &kept {
        assert!(tensor.device().is_cpu());
        let values: Vec<f32> = tensor
            .flatten_all()
            .and_then(|t| t.to_vec1())
            .expect("values");
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let id = weights.find(name).expect("it is there");
        assert!(weights.bytes(id) == Some(&bytes[..]), "{name}");
    }
}

#[test]
fn the_same_tensors_have_the_same_fingerprint_whatever_the_order_of_the_map() {
    let fingerprint = || {
        let weights = Weights::from_tensors(tensors());
        weights.expect("they are copied").fingerprint()
    };
    assert_eq!(fingerprint(), fingerprint());
}

#[test]
fn two_names_of_one_tensor_share_its_copy() {
    let table = Tensor::randn(0f32, 1., (256, 64), &Device::Cpu).expect("a tensor");
    let two = HashMap::from([
        ("embedding".to_string(), table.clone()),
        ("head".to_string(), table),
    ]);
    let weights = Weights::from_tensors(two).expect("they are copied");
    assert_eq!(weights.files()[0].map.len(), 256 * 64 * 4);
    let id = |name| weights.find(name).expect("it is there");
    let bytes = |name| weights.bytes(id(name)).expect("an id of these weights");
    assert_eq!(bytes("embedding"), bytes("head"));
}

#[test]
fn tensors_with_strides_are_copied_row_by_row() {
    let table = Tensor::arange(0f32, 12., &Device::Cpu)
        .and_then(|t| t.reshape((3, 4)))
        .expect("a tensor");
    let turned = table.t().expect("a view");
    let part = table.narrow(0, 1, 2).expect("a view");
    let expected: Vec<u8> = turned
        .contiguous()
        .and_then(|t| t.flatten_all()?.to_vec1::<f32>())
        .expect("values")
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    let both = HashMap::from([("part".to_string(), part), ("turned".to_string(), turned)]);
    let weights = Weights::from_tensors(both).expect("they are copied");
    let id = |name| weights.find(name).expect("it is there");
    let bytes = |name| weights.bytes(id(name)).expect("an id of these weights");
    assert_eq!(bytes("turned"), expected);
    let first = f32::from_le_bytes(*bytes("part").first_chunk().expect("a value"));
    assert_eq!(first, 4.0);
}

#[test]
fn a_tensor_of_another_dtype_is_an_error_only_where_it_is_asked_for() {
    let ids = Tensor::arange(0u32, 4, &Device::Cpu).expect("a tensor");
    let mut all = tensors();
    all.insert("position_ids".into(), ids);
    let weights = Weights::from_tensors(all).expect("they are copied");
    let error = weights.find("position_ids").expect_err("not usable");
    assert!(error.to_string().to_lowercase().contains("u32"), "{error}");
    compile(compiler(weights, HostMode::Unified)).expect("nothing asks for it");
}

#[test]
fn a_device_limit_that_compiling_cannot_keep_is_refused_with_the_shortfall() {
    let weights = Arc::new(Weights::from_tensors(tensors()).expect("they are copied"));
    let with = |bytes| {
        let limits = CompileLimits {
            device_bytes: Some(bytes),
            ..CompileLimits::default()
        };
        compile(compiler(weights.clone(), HostMode::Discrete).limits(limits))
    };
    let free = compile(compiler(weights.clone(), HostMode::Discrete)).expect("it compiles");
    let memory = free.memory();
    let least = free.minimum_device_budget()
        + memory.activations
        + memory.constants
        + memory.states_per_session;
    match with(least - 1).expect_err("one byte is missing") {
        Error::CompileLimit {
            memory: which,
            needed,
            limit,
            short,
            parts,
        } => {
            assert_eq!(
                (which, needed, limit, short),
                ("device", least, least - 1, 1)
            );
            assert!(parts.contains(&memory.activations.to_string()), "{parts}");
        }
        other => panic!("{other}"),
    }
    let engine = with(least).expect("just enough");
    assert_eq!(
        engine.device_budget().expect("a budget").applied,
        engine.minimum_device_budget()
    );
    assert!(engine.report().device_peak_bytes <= least);
    assert_eq!(logits(&engine), logits(&free));
    // The limit is one of compiling: afterwards the budget is free to grow.
    engine.set_device_budget(Request::Full).expect("a budget");
}

/// A device that has no memory at all would answer the first request with an error of its own.
#[test]
fn a_device_limit_is_checked_before_any_memory_is_asked_for() {
    let weights = Arc::new(Weights::from_tensors(tensors()).expect("they are copied"));
    for mode in [HostMode::Unified, HostMode::Discrete] {
        let with = |device_bytes| {
            let device = Host::new(mode).with_memory(0);
            let limits = CompileLimits {
                device_bytes,
                ..CompileLimits::default()
            };
            let compiler = compiler(weights.clone(), mode).device(device);
            compile(compiler.limits(limits)).expect_err("there is no memory")
        };
        let limited = with(Some(1000));
        let Error::CompileLimit { memory, limit, .. } = limited else {
            panic!("{limited}");
        };
        assert_eq!((memory, limit), ("device", 1000));
        let asked = with(None);
        assert!(asked.out_of_memory().is_some(), "{asked}");
    }
}

#[test]
fn a_device_limit_that_cannot_be_kept_loads_no_kernel_and_makes_no_stream() {
    let weights = Arc::new(Weights::from_tensors(tensors()).expect("they are copied"));
    let dir = tempfile::tempdir().expect("a folder");
    let saved = dir.path().join("saved");
    let free = compile(compiler(weights.clone(), HostMode::Unified)).expect("it compiles");
    free.save(&saved).expect("it saves");
    for mode in [HostMode::Unified, HostMode::Discrete] {
        let device = Stingy::on(Arc::new(Host::new(mode)));
        for loads in [false, true] {
            let limits = CompileLimits {
                device_bytes: Some(free.minimum_device_budget()),
                ..CompileLimits::default()
            };
            let compiler = compiler(weights.clone(), mode).shared_device(device.clone());
            let made = match loads {
                true => compiler.limits(limits).load(&saved),
                false => compile(compiler.limits(limits)),
            };
            let error = made.expect_err("nothing is left for activations");
            assert!(matches!(error, Error::CompileLimit { .. }), "{error}");
            let asked = device.take_asked();
            let counts = (asked.kernels.len(), asked.streams, asked.allocations.len());
            assert_eq!(counts, (0, 0, 0), "{mode:?}");
        }
        compile(compiler(weights.clone(), mode).shared_device(device.clone()))
            .expect("it compiles");
        let asked = device.take_asked();
        assert!(asked.kernels.len() > 5 && asked.streams > 0, "it counts");
        assert!(!asked.allocations.is_empty());
    }
}

#[test]
fn a_saved_engine_is_loaded_within_its_limits_or_refused_with_the_shortfall() {
    let weights = Arc::new(Weights::from_tensors(tensors()).expect("they are copied"));
    let dir = tempfile::tempdir().expect("a folder");
    let saved = dir.path().join("saved");
    let free = compile(compiler(weights.clone(), HostMode::Discrete)).expect("it compiles");
    free.save(&saved).expect("it saves");
    let load = |limits| {
        let compiler = compiler(weights.clone(), HostMode::Discrete);
        compiler.limits(limits).load(&saved)
    };
    let memory = free.memory();
    let least = free.minimum_device_budget()
        + memory.activations
        + memory.constants
        + memory.states_per_session;
    let device = |bytes| CompileLimits {
        device_bytes: Some(bytes),
        host_bytes: None,
    };
    let host = |bytes| CompileLimits {
        device_bytes: None,
        host_bytes: Some(bytes),
    };
    let shortfall = |limits| match load(limits).expect_err("too little") {
        Error::CompileLimit {
            memory,
            needed,
            limit,
            short,
            ..
        } => {
            assert_eq!(short, needed - limit);
            (memory, short)
        }
        other => panic!("{other}"),
    };
    assert_eq!(shortfall(device(least - 1)), ("device", 1));
    let engine = load(device(least)).expect("just enough");
    assert!(engine.report().device_peak_bytes <= least);
    assert_eq!(logits(&engine), logits(&free));
    // It is held as it was read, and as programs.
    let bytes = saved.metadata().expect("a file").len();
    assert_eq!(shortfall(host(bytes)).0, "host");
    let engine = load(host(1 << 40)).expect("plenty");
    assert_eq!(logits(&engine), logits(&free));
}

#[test]
fn a_budget_that_exceeds_the_limit_of_compiling_is_refused() {
    let weights = Weights::from_tensors(tensors()).expect("they are copied");
    let total = weights.total_bytes();
    let limits = CompileLimits {
        device_bytes: Some(total / 2),
        ..CompileLimits::default()
    };
    let compiler = compiler(weights, HostMode::Discrete).budget(Request::Full);
    let error = compile(compiler.limits(limits)).expect_err("it cannot hold all weights");
    assert!(
        matches!(
            error,
            Error::CompileLimit {
                memory: "device",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_host_limit_that_cannot_be_kept_is_refused_before_any_work() {
    let weights = Weights::from_tensors(tensors()).expect("they are copied");
    let limits = CompileLimits {
        host_bytes: Some(1000),
        ..CompileLimits::default()
    };
    let mut loads = 0;
    let config = tiny::llama().config();
    let options = LoadOptions {
        max_positions: Some(64),
    };
    let compiler = compiler(weights, HostMode::Unified).limits(limits);
    let error = compiler
        .compile(|vb| {
            loads += 1;
            Llama::load_with(vb, &config, &options)
        })
        .expect_err("1000 bytes are too few");
    assert_eq!(loads, 0);
    match error {
        Error::CompileLimit {
            memory: "host",
            needed,
            limit: 1000,
            short,
            ..
        } => assert_eq!(short, needed - 1000),
        other => panic!("{other}"),
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_report_says_what_compiling_took() {
    let weights = Weights::from_tensors(tensors()).expect("they are copied");
    let engine = compile(compiler(weights, HostMode::Discrete)).expect("it compiles");
    let (report, memory) = (engine.report(), engine.memory());
    let applied = engine.device_budget().expect("a budget").applied;
    let plan = memory.activations + memory.constants;
    assert!(report.device_peak_bytes >= plan);
    assert!(report.device_peak_bytes <= applied + plan);
    let host = report.host_peak_bytes.expect("the system tells");
    let text = report.to_string();
    assert!(
        text.contains(&format!("{host} bytes of host memory")),
        "{text}"
    );
}
