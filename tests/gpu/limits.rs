//! Limits on the GPU by the driver's count, and weights that were given as tensors.

use crate::allocation::{MIB, least_free};
use crate::models::{heavy, tokens};
use crate::small::{self, bits};
use crate::tiny::{self, Tiny};
use crate::{cuda, cuda_alone, free};
use candle_core::DType;
use candle_trt::device::Device;
use candle_trt::models::{Llama, LoadOptions};
use candle_trt::{
    CompileLimits, Compiler, Engine, Error, FromTensors, Profile, Request, TileTarget, Weights,
};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// What no limit counts: streams, page tables, what the driver rounds up.
const UNCOUNTED: u64 = 64 * MIB;

/// Positions of a session.
const CONTEXT: usize = 512;

fn limited(dir: &Path, model: &Tiny, device: Arc<dyn Device>, limit: u64) -> Engine {
    let config = model.config();
    let options = LoadOptions {
        max_positions: Some(CONTEXT),
    };
    Compiler::new(Weights::open(dir).expect("it opens"))
        .shared_device(device)
        .profile(Profile::decoder(CONTEXT, CONTEXT / 2).expect("a profile"))
        .weight_streaming(true)
        .tile_target(TileTarget::Bytes(1 << 20))
        .device_limit(limit)
        .compile(|vb| Llama::load_with(vb, &config, &options))
        .expect("it fits the limit")
}

#[test]
fn an_engine_takes_its_limit_and_what_the_driver_needs_at_most_by_the_drivers_count() {
    let Some(device) = cuda_alone() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let model = heavy();
    model
        .write(dir.path(), DType::F32, 7, 1)
        .expect("a checkpoint");
    // All weights are 54 MB.
    for limit in [40 * MIB, 64 * MIB] {
        let before = free(&device);
        let least = least_free(&device, || {
            let engine = limited(dir.path(), &model, device.clone(), limit);
            let mut session = engine.session().expect("a session");
            session.prefill(&tokens(CONTEXT / 2)).expect("a prompt");
            for token in 0..8 {
                session.decode(token).expect("a token");
            }
            let memory = engine.memory();
            let high = memory.high_water;
            assert!(high <= limit, "{high} with a limit of {limit}");
            assert!(memory.code > 0, "kernels are counted: {memory:?}");
        });
        let held = before.saturating_sub(least);
        assert!(held >= limit / 4, "{held}: nothing was measured");
        assert!(held <= limit + UNCOUNTED, "{held} with a limit of {limit}");
    }
}

#[test]
fn compiling_takes_what_its_limit_was_said_to_need_and_no_byte_less_will_do() {
    let Some(device) = cuda() else { return };
    let within = |bytes| {
        let limits = CompileLimits {
            host_bytes: None,
            device_bytes: Some(bytes),
        };
        let set = |c: Compiler| c.budget(Request::Minimum).limits(limits);
        small::compile(device.clone(), set)
    };
    let short = |bytes| match within(bytes) {
        Err(Error::CompileLimit { needed, .. }) => needed,
        other => panic!("{bytes} bytes cannot do: {other:?}"),
    };
    // Before kernels are loaded only the least is known, then all.
    let needed = short(short(1));
    let engine = within(needed).expect("as much as was said");
    assert!(engine.report().device_peak_bytes <= needed);
    assert!(within(needed - 1).is_err());
}

#[test]
fn weights_from_tensors_have_the_bits_of_the_file_at_every_budget() {
    let Some(device) = cuda() else { return };
    let model = tiny::llama();
    let config = model.config();
    let options = LoadOptions {
        max_positions: Some(small::CONTEXT),
    };
    let tensors: HashMap<_, _> = model.tensors(7).into_iter().collect();
    let profile = Profile::decoder(small::CONTEXT, small::CONTEXT - 4).expect("a profile");
    let engine = Compiler::new(Weights::from_tensors(tensors).expect("they are copied"))
        .shared_device(device.clone())
        .profile(profile)
        .weight_streaming(true)
        .tile_target(TileTarget::Bytes(8 << 10))
        .compile(|vb| Llama::load_with(vb, &config, &options))
        .expect("it compiles");
    let wanted = bits(&small::compile(device, |c| c).expect("it compiles"));
    for request in [Request::Full, Request::Minimum] {
        engine.set_device_budget(request).expect("a budget");
        assert!(bits(&engine) == wanted, "other bits at {request}");
    }
}

#[test]
fn predictions_are_of_the_budgets_that_are_set_and_leave_them_alone() {
    let Some(device) = cuda() else { return };
    let engine = small::compile(device, |c| c.budget(Request::Minimum)).expect("it compiles");
    let wanted = bits(&engine);
    let before = engine.device_budget().expect("a budget");
    engine.calibrate(&[]).expect("calls are timed");
    assert_eq!(engine.device_budget().expect("a budget"), before);
    let mut last = f64::INFINITY;
    for request in ["min", "25%", "50%", "75%", "full"] {
        let request = request.parse().expect("a budget");
        let predicted = engine.predict(request).expect("costs are known");
        assert!(predicted.seconds <= last, "{predicted:?}");
        last = predicted.seconds;
        let applied = engine.set_device_budget(request).expect("a budget");
        assert_eq!(predicted.budget, applied.applied);
        assert!(bits(&engine) == wanted);
    }
}
