//! Models with convolutions on the GPU: the numbers of candle, and the same bits at every budget.

use crate::cuda;
use candle_core::DType;
use candle_trt::Request;
use fixtures::{compile, error, flat, models};

#[path = "../suite/conv/fixtures.rs"]
mod fixtures;

#[test]
fn convolutions_follow_candle_in_every_dtype() {
    let Some(gpu) = cuda() else { return };
    for (name, side) in models() {
        for (dtype, most) in [(DType::F32, 2e-4), (DType::F16, 0.01), (DType::BF16, 0.06)] {
            for (batches, batch) in [((1, 1), 1), ((2, 4), 3)] {
                let engine = compile(&side, dtype, batches, gpu.clone());
                let mut session = engine.session().expect("a session");
                let error = error(&mut session, &side, dtype, batch);
                assert!(
                    error <= most,
                    "{name} {dtype:?} batch {batch}: error {error:.2e}"
                );
            }
        }
    }
}

#[test]
fn convolutions_give_the_same_bits_at_every_budget() {
    let Some(gpu) = cuda() else { return };
    for (name, side) in models() {
        let engine = compile(&side, DType::BF16, (1, 1), gpu.clone());
        let inputs = (side.inputs)(1, DType::BF16);
        let mut first: Option<Vec<u32>> = None;
        for request in ["full", "min", "70%", "full"] {
            let request: Request = request.parse().expect("a budget");
            // A share may be below the floor of so small a model.
            if engine.set_device_budget(request).is_err() {
                continue;
            }
            let mut session = engine.session().expect("a session");
            let out = session.run(&inputs).expect("it runs");
            let bits: Vec<u32> = flat(&out[0]).iter().map(|v| v.to_bits()).collect();
            let want = first.get_or_insert_with(|| bits.clone());
            assert!(*want == bits, "{name}: other bits at {request}");
        }
        assert!(first.is_some(), "{name} ran at no budget");
    }
}
