//! Memory pressure on the GPU: another party takes nearly all device memory, calls go on with the
//! same bits, and the weights come back when it is gone.

use crate::cuda;
use crate::models::{compile, tokens};
use crate::tiny;
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
fn an_engine_gives_way_to_another_party_and_grows_back() {
    let Some(gpu) = cuda() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    // 54 MB of weights, and arenas of several MB.
    let mut model = tiny::llama3();
    for (name, value) in [
        ("hidden_size", 512),
        ("intermediate_size", 1536),
        ("num_hidden_layers", 4),
        ("num_attention_heads", 8),
        ("num_key_value_heads", 4),
        ("vocab_size", 1000),
    ] {
        model.json[name] = value.into();
    }
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
    let taken = take(&other);
    let free = gpu.free_memory().expect("the driver tells");
    assert!(free < 4 * MIB, "{free} bytes were left");
    // One call by the usual way and one that was recorded before.
    assert!(logits(&mut session) == wanted, "other bits under pressure");
    let memory = engine.memory();
    let last = memory.pressure.last.expect("it gave way");
    assert!(
        last.to < last.from && memory.weights == last.to,
        "{memory:?}"
    );
    let refused = engine
        .set_device_budget(Request::Full)
        .expect_err("another party has it");
    assert!(refused.out_of_memory().is_some(), "{refused}");
    assert_eq!(engine.memory().weights, last.to);

    drop(taken);
    let grown = engine.regrow().expect("memory is back");
    assert_eq!(grown.applied, grown.total);
    assert!(logits(&mut session) == wanted);
    assert_eq!(engine.last_traffic().bytes, 0, "nothing streams");
}
