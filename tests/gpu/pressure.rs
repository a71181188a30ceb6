//! Memory pressure on the GPU: another party takes nearly all device memory, calls go on with the
//! same bits, and the weights come back when it is gone.
//!
//! `cargo test --release --test gpu pressure -- --ignored` runs it.

use crate::models::{compile, heavy, tokens};
use crate::{cuda_alone, free};
use candle_core::DType;
use candle_trt::device::{self, Device, Memory};
use candle_trt::{Allocation, Request, Session};
use std::sync::Arc;

const MIB: u64 = 1 << 20;

/// Takes what is free but for a few pieces, as another process would: memory without content.
fn take(device: &Arc<dyn Device>) -> Vec<Memory> {
    let mut taken = Vec::new();
    // Large pieces first, then the least that the driver gives.
    for piece in [4096 * MIB, 256 * MIB, 16 * MIB, 2 * MIB] {
        loop {
            let addresses = device.reserve(piece as usize).expect("addresses");
            match device.commit(&addresses, piece as usize) {
                Ok(()) => taken.push(addresses),
                Err(error) => {
                    assert!(error.out_of_memory().is_some(), "{error}");
                    break;
                }
            }
        }
    }
    taken
}

fn logits(session: &mut Session) -> Vec<Vec<u32>> {
    session.reset();
    let bits = |v: Vec<f32>| v.iter().map(|v| v.to_bits()).collect();
    let all = tokens(404);
    let calls = std::iter::once(&all[..400]).chain(all[400..].chunks(1));
    calls
        .map(|call| bits(session.prefill(call).expect("weights make room")))
        .collect()
}

#[test]
#[ignore = "takes all memory of the device: run it alone"]
fn an_engine_gives_way_to_another_party_and_grows_back() {
    let Some(gpu) = cuda_alone() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let model = heavy();
    model
        .write(dir.path(), DType::F32, 7, 1)
        .expect("a checkpoint");
    let engine = compile(dir.path(), &model, DType::F32, gpu.clone(), true);
    engine
        .set_allocation(Allocation::Dynamic)
        .expect("a change");
    engine.set_device_budget(Request::Full).expect("memory");
    let mut session = engine.session().expect("a session");
    let wanted = logits(&mut session);
    assert_eq!(engine.memory().pressure.shrinks, 0);

    // A device of its own, as another party has.
    let other = device::open("cuda:0").expect("the same GPU");
    let mut taken = take(&other);
    let left = free(&gpu);
    assert!(left < 256 * MIB, "{left} bytes were left");
    let arena = engine.report().classes.iter().map(|c| c.arena_bytes).max();
    assert!(
        arena > Some(4 * MIB),
        "an arena of {arena:?} bytes is more than a piece"
    );
    assert!(logits(&mut session) == wanted, "other bits under pressure");
    let memory = engine.memory();
    let last = memory.pressure.last.expect("it gave way");
    assert!(
        last.to < last.from && memory.weights == last.to,
        "{memory:?}"
    );
    // What calls have given back goes too.
    taken.extend(take(&other));
    let refused = engine
        .set_device_budget(Request::Full)
        .expect_err("another party has it");
    assert!(refused.out_of_memory().is_some(), "{refused}");
    assert_eq!(engine.memory().weights, last.to);
    assert!(logits(&mut session) == wanted, "other bits the second time");
    assert!(engine.memory().pressure.shrinks > memory.pressure.shrinks);

    drop(taken);
    let grown = engine.regrow().expect("memory is back");
    assert_eq!(grown.applied, grown.total);
    assert!(logits(&mut session) == wanted);
    assert_eq!(engine.last_traffic().bytes, 0, "nothing streams");
}
