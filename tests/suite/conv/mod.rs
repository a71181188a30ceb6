//! Models with convolutions against candle, at every budget.

use crate::common::small::Stingy;
use candle_core::DType;
use candle_trt::Request;
use candle_trt::device::{Host, HostMode};
use fixtures::{Side, compile, error, flat, models};
use std::collections::BTreeMap;
use std::sync::Arc;

#[path = "../../../crates/trt-kernel/tests/ptx/assemble.rs"]
mod assemble;
#[path = "fixtures.rs"]
mod fixtures;

fn follows(name: &str, side: &Side, dtype: DType, batches: (i64, i64), most: f32) {
    let engine = compile(side, dtype, batches, Arc::new(Host::unified()));
    let mut session = engine.session().expect("a session");
    for batch in batches.0..=batches.1 {
        let error = error(&mut session, side, dtype, batch as usize);
        assert!(
            error <= most,
            "{name} {dtype:?} batch {batch}: error {error:.2e}"
        );
    }
}

#[test]
fn models_with_convolutions_follow_candle_at_any_batch() {
    for (name, side) in models() {
        follows(name, &side, DType::F32, (1, 1), 1e-4);
        follows(name, &side, DType::F32, (2, 4), 1e-4);
    }
}

#[test]
fn convolutions_in_half_precision_follow_candle() {
    for (name, side) in models() {
        follows(name, &side, DType::F16, (2, 2), 0.01);
        follows(name, &side, DType::BF16, (2, 3), 0.06);
    }
}

#[test]
fn weights_of_convolutions_stream_and_change_no_bit() {
    for (name, side) in models() {
        for mode in [HostMode::Unified, HostMode::Discrete] {
            let engine = compile(&side, DType::F32, (2, 3), Arc::new(Host::new(mode)));
            let inputs = (side.inputs)(2, DType::F32);
            let mut first: Option<Vec<u32>> = None;
            for share in [0u64, 2, 1] {
                let request = match share {
                    0 => Request::Minimum,
                    n => Request::Bytes(
                        (engine.total_device_budget() / n).max(engine.minimum_device_budget()),
                    ),
                };
                let applied = engine.set_device_budget(request).expect("a budget");
                let mut session = engine.session().expect("a session");
                // The first call after a change also moves what becomes resident.
                session.run(&inputs).expect("it runs");
                let out = session.run(&inputs).expect("it runs again");
                let bits: Vec<u32> = flat(&out[0]).iter().map(|v| v.to_bits()).collect();
                let want = first.get_or_insert_with(|| bits.clone());
                assert!(*want == bits, "{name} {mode:?}: other bits at {request}");
                assert_eq!(
                    engine.last_traffic().bytes,
                    applied.streamed,
                    "{name} {request}"
                );
                assert!(
                    engine.memory().weights <= applied.applied,
                    "{name} {request}"
                );
                assert_eq!(
                    applied.streamed == 0,
                    share == 1,
                    "{name} {request}: {applied:?}"
                );
            }
        }
    }
}

/// All but biases and norms of a residual network streams: its floor is far below its weights.
#[test]
fn a_residual_network_runs_in_a_fraction_of_its_weights() {
    let (_, side) = models().swap_remove(0);
    let engine = compile(&side, DType::F32, (1, 1), Arc::new(Host::discrete()));
    let (floor, total) = (engine.minimum_device_budget(), engine.total_device_budget());
    assert!(floor * 3 < total, "{floor} of {total} bytes");
    let pinned = &engine.report().notes;
    assert!(!pinned.iter().any(|n| n.contains("conv")), "{pinned:?}");
}

#[test]
fn what_models_with_convolutions_launch_assembles_on_every_target_without_spills() {
    let device = Stingy::on(Arc::new(Host::unified()));
    for (_, side) in models() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            // One image, whose results are stored as outputs are, and several.
            compile(&side, dtype, (1, 1), device.clone());
            compile(&side, dtype, (2, 3), device.clone());
        }
    }
    // Equal kernels once.
    let loaded = device.take_asked().kernels.into_iter();
    let distinct: BTreeMap<String, _> = loaded.map(|k| (format!("{k:?}"), k)).collect();
    println!("{} kernels", distinct.len());
    assert!(distinct.len() > 100, "{} kernels", distinct.len());
    let numbered = distinct.into_values().enumerate();
    let named: Vec<_> = numbered.map(|(i, k)| (format!("k{i}"), k)).collect();
    if let Some(all) = assemble::everywhere(&named) {
        // Some kernels have several entries.
        assert!(all.iter().all(|(_, entries)| entries.len() >= named.len()));
    }
}
