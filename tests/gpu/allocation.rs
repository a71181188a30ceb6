//! How arenas are held on the GPU: right in every state, and gone by the driver's count.

use crate::cuda;
use crate::matrix;
use crate::models::{compile, tokens};
use crate::tiny;
use candle_core::DType;
use candle_trt::{Allocation, Shared};

const MIB: u64 = 1 << 20;

#[test]
fn every_pair_of_states_gives_right_outputs() {
    if let Some(device) = cuda() {
        matrix::every_pair_is_right_on(device);
    }
}

/// The driver counts in pieces of 2 MiB, and this must be the only process on the device.
#[test]
fn what_arenas_held_is_free_by_the_drivers_count() {
    let Some(device) = cuda() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let model = tiny::llama();
    model
        .write(dir.path(), DType::F32, 7, 1)
        .expect("a checkpoint");
    let engine = compile(dir.path(), &model, DType::F32, device.clone(), true);
    let free = || device.free_memory().expect("CUDA tells");
    let mut session = engine.session().expect("a session");
    let allocations = [
        Allocation::Static,
        Allocation::from(&Shared::new()),
        Allocation::Dynamic,
    ];
    engine
        .set_allocation(Allocation::Dynamic)
        .expect("a change");
    // What the first calls make for good: weights, streams, modules.
    session.prefill(&tokens(400)).expect("a prompt");
    let idle = free();
    for allocation in allocations {
        let scope = engine.resource_allocation(allocation.clone());
        let scope = scope.expect("there is memory");
        for _ in 0..5 {
            session.reset();
            session.prefill(&tokens(400)).expect("a prompt");
            session.decode(7).expect("a token");
        }
        drop(scope);
        let now = free();
        assert!(now + 4 * MIB >= idle, "{allocation}: {idle} then {now}");
    }
}
