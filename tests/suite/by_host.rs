//! Kernels that a device lacks: the host computes them, and nothing else changes.

use crate::common::tiny;
use crate::families::tokens;
use candle_core::DType;
use candle_trt::device::Host;
use candle_trt::models::{Llama, LoadOptions};
use candle_trt::{Compiler, Engine, Profile, Request, TileTarget, Weights};

fn compile(dir: &std::path::Path, device: Host) -> Engine {
    let config = tiny::llama().config();
    let options = LoadOptions {
        max_positions: Some(64),
    };
    Compiler::new(Weights::open(dir).expect("it opens"))
        .device(device)
        .profile(Profile::decoder(64, 32).expect("a profile"))
        .weight_streaming(true)
        .tile_target(TileTarget::Bytes(8 << 10))
        .compile(|vb| Llama::load_with(vb, &config, &options))
        .expect("it compiles")
}

fn logits(engine: &Engine) -> Vec<Vec<f32>> {
    let mut session = engine.session().expect("a session");
    let mut all = vec![session.prefill(&tokens(20)).expect("a prompt")];
    // Often enough for calls to be recorded where they can be.
    all.extend([3, 4, 5, 6].map(|t| session.decode(t).expect("a token")));
    all
}

#[test]
fn a_kernel_that_the_device_lacks_gives_the_same_bits_and_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let written = tiny::llama().write(dir.path(), DType::F32, 7, 1);
    written.expect("a checkpoint");
    let whole = compile(dir.path(), Host::discrete());
    let expected = logits(&whole);
    assert!(whole.report().classes.iter().all(|c| c.by_host.is_empty()));
    let text = |engine: &Engine| engine.report().to_string();
    assert!(!text(&whole).contains("computed by the host"));
    let kinds = ["row", "matmul", "attention", "gather", "group"];
    for kind in kinds {
        let engine = compile(dir.path(), Host::discrete().without(kind));
        let mut all = 0;
        for class in &engine.report().classes {
            let lacking = class.launches.iter().filter(|(k, _)| k == kind).count();
            all += lacking;
            assert_eq!(class.by_host.len(), lacking, "{kind}");
            assert!(class.by_host.iter().all(|(_, why)| why.contains(kind)));
        }
        assert!(all > 0, "{kind}");
        assert!(text(&engine).contains("computed by the host"), "{kind}");
        for budget in [Request::Minimum, Request::Full] {
            engine.set_device_budget(budget).expect("a budget");
            assert!(logits(&engine) == expected, "{kind} at {budget}");
        }
    }
    let none = kinds.iter().fold(Host::discrete(), |d, k| d.without(k));
    assert!(logits(&compile(dir.path(), none)) == expected, "all kinds");
}

#[test]
fn weights_of_what_the_host_computes_count_and_stream_like_any_other() {
    let dir = tempfile::tempdir().expect("a folder");
    let written = tiny::llama().write(dir.path(), DType::F32, 7, 1);
    written.expect("a checkpoint");
    let whole = compile(dir.path(), Host::discrete());
    let lacking = compile(
        dir.path(),
        Host::discrete().without("matmul").without("group"),
    );
    let totals = [&whole, &lacking].map(Engine::total_device_budget);
    assert_eq!(totals[0], totals[1]);
    for engine in [&whole, &lacking] {
        let applied = engine.set_device_budget(Request::Bytes(totals[0] / 2));
        let applied = applied.expect("a budget");
        logits(engine);
        assert!(engine.memory().weights <= applied.applied);
        assert_eq!(engine.last_traffic().bytes, applied.streamed);
    }
    assert_eq!(whole.last_traffic(), lacking.last_traffic());
}

#[test]
fn an_error_of_what_the_host_computes_is_the_call_s() {
    let dir = tempfile::tempdir().expect("a folder");
    let written = tiny::llama().write(dir.path(), DType::F32, 7, 1);
    written.expect("a checkpoint");
    let engine = compile(dir.path(), Host::discrete().without("gather"));
    let mut session = engine.session().expect("a session");
    let error = session.prefill(&[3, 5000, 1]).expect_err("no such token");
    assert!(error.to_string().contains("5000"), "{error}");
    session.prefill(&tokens(5)).expect("the engine goes on");
}
