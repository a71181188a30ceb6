//! Other ways to an engine on the GPU: loaded from a file, short of kernels, short of host memory.

use crate::models::{self, bits, compile, logits, wide};
use crate::{cuda, cuda_alone, free, tiny};
use candle_core::DType;
use candle_trt::device::{Cuda, Device};
use candle_trt::models::{Llama, LoadOptions};
use candle_trt::{Allocation, Compiler, Profile, Request, TileTarget, Weights};
use std::path::Path;
use std::sync::Arc;

const MIB: u64 = 1 << 20;

fn checkpoint(model: &tiny::Tiny, dtype: DType) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    model.write(dir.path(), dtype, 7, 2).expect("a checkpoint");
    dir
}

fn compiler(dir: &Path, dtype: DType, device: Arc<dyn Device>) -> Compiler {
    Compiler::new(Weights::open(dir).expect("it opens"))
        .shared_device(device)
        .dtype(dtype)
        .profile(Profile::decoder(models::CONTEXT, 512).expect("a profile"))
        .weight_streaming(true)
        .tile_target(TileTarget::Bytes(64 << 10))
}

#[test]
fn a_saved_engine_gives_the_same_bits_when_loaded() {
    let Some(gpu) = cuda() else { return };
    let model = wide(64);
    let dir = checkpoint(&model, DType::BF16);
    let engine = compile(dir.path(), &model, DType::BF16, gpu.clone(), true);
    let file = dir.path().join("wide.engine");
    engine.save(&file).expect("it saves");
    let want = bits(&logits(&engine, 40));
    let loaded = compiler(dir.path(), DType::BF16, gpu).load(&file);
    let loaded = loaded.expect("it loads");
    for request in [Request::Full, Request::Minimum] {
        loaded.set_device_budget(request).expect("a budget");
        assert!(
            want == bits(&logits(&loaded, 40)),
            "other bits at {request}"
        );
    }
}

#[test]
fn a_second_engine_of_a_program_has_its_kernels_already() {
    if cuda().is_none() {
        return;
    }
    let device = Arc::new(Cuda::new(0).expect("a device"));
    let model = tiny::llama();
    let dir = checkpoint(&model, DType::F32);
    let engine = compile(dir.path(), &model, DType::F32, device.clone(), true);
    let assembled = device.assembled();
    assert!(assembled > 0);
    let again = compile(dir.path(), &model, DType::F32, device.clone(), true);
    assert_eq!(device.assembled(), assembled, "compiled again");
    let file = dir.path().join("small.engine");
    engine.save(&file).expect("it saves");
    let loaded = compiler(dir.path(), DType::F32, device.clone()).load(&file);
    assert!(loaded.expect("it loads").report().loaded);
    assert_eq!(device.assembled(), assembled, "loaded");
    drop((engine, again));
    compile(dir.path(), &model, DType::F32, device.clone(), true);
    assert!(device.assembled() > assembled, "nobody had them any more");
}

#[test]
fn engines_on_devices_opened_apart_record_while_others_move_weights() {
    if cuda().is_none() {
        return;
    }
    let model = tiny::llama();
    let dir = checkpoint(&model, DType::F32);
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                let device = Arc::new(Cuda::new(0).expect("a device"));
                let engine = compile(dir.path(), &model, DType::F32, device, true);
                let want = bits(&logits(&engine, 40));
                for round in 0..10 {
                    for request in ["min", "50%", "full"] {
                        let request = request.parse().expect("a budget");
                        engine.set_device_budget(request).expect("a budget");
                        let same = want == bits(&logits(&engine, 40));
                        assert!(same, "round {round}: other bits at {request}");
                    }
                }
            });
        }
    });
}

#[test]
fn what_the_device_lacks_the_host_computes() {
    if cuda().is_none() {
        return;
    }
    let model = tiny::llama();
    let dir = checkpoint(&model, DType::F32);
    let whole = compile(
        dir.path(),
        &model,
        DType::F32,
        cuda().expect("as above"),
        true,
    );
    let want = logits(&whole, 20);
    for kind in ["row", "matmul", "attention", "gather", "group"] {
        let device = Cuda::new(0).expect("a device").without(kind);
        let config = model.config();
        let options = LoadOptions {
            max_positions: Some(models::CONTEXT),
        };
        let engine = compiler(dir.path(), DType::F32, Arc::new(device))
            .compile(|vb| Llama::load_with(vb, &config, &options))
            .expect("it compiles");
        let named = engine
            .report()
            .classes
            .iter()
            .any(|c| !c.by_host.is_empty());
        assert!(named, "the report names no {kind}");
        let mut first = None;
        for request in [Request::Full, Request::Minimum] {
            engine.set_device_budget(request).expect("a budget");
            let got = logits(&engine, 20);
            let error = models::largest_error(&want, &got);
            assert!(error <= 2e-4, "{kind} at {request}: error {error:.2e}");
            let first = first.get_or_insert_with(|| bits(&got));
            assert!(*first == bits(&got), "{kind} has other bits at {request}");
        }
    }
}

/// Holds the file of the embedding, which kernels read in place, and not the other one.
const BUDGET: u64 = 7 << 20;

#[test]
fn weights_come_through_the_pinned_ring_where_host_memory_is_short() {
    let Some(gpu) = cuda() else { return };
    let model = wide(128);
    let dir = checkpoint(&model, DType::BF16);
    let want = bits(&logits(
        &compile(dir.path(), &model, DType::BF16, gpu, true),
        40,
    ));
    let device = Arc::new(Cuda::with_host_budget(0, BUDGET).expect("a device"));
    let engine = compile(dir.path(), &model, DType::BF16, device.clone(), true);
    for request in [Request::Minimum, Request::Full] {
        engine.set_device_budget(request).expect("a budget");
        assert!(
            want == bits(&logits(&engine, 40)),
            "other bits at {request}"
        );
    }
    let transfers = device.transfers();
    assert!(transfers.registered <= BUDGET, "{transfers:?}");
    assert!(transfers.ring > 0, "{transfers:?}");
}

/// Calls between two prompts.
const ROUND: u32 = 20;

#[test]
fn a_thousand_dynamic_calls_leave_nothing_behind() {
    let Some(gpu) = cuda_alone() else { return };
    let model = wide(64);
    let dir = checkpoint(&model, DType::F32);
    let engine = compile(dir.path(), &model, DType::F32, gpu.clone(), true);
    engine
        .set_allocation(Allocation::Dynamic)
        .expect("a change");
    let mut session = engine.session().expect("a session");
    let mut run = |calls: u32| {
        for i in 0..calls {
            if i % ROUND == 0 {
                session.reset();
                let prompt = 300 + (i / ROUND * 37 % 200) as usize;
                session.prefill(&models::tokens(prompt)).expect("a prompt");
            } else {
                session.decode(i % 90).expect("a token");
            }
        }
    };
    // Short prompts and long ones, so that all code is there.
    run(10 * ROUND);
    let arena = engine.report().classes.iter().map(|c| c.arena_bytes).max();
    // That of the largest prompt, of 512 tokens; half of it is in every round's.
    assert!(arena > Some(2 * (64 << 10)), "{arena:?}");
    let (before, pool) = (free(&gpu), engine.memory().in_use);
    run(1000);
    let left = before.saturating_sub(free(&gpu));
    assert!(left <= MIB, "{left} bytes stayed by the driver's count");
    assert_eq!(engine.memory().in_use, pool, "by the pool's count");
}
