//! Everything on a GPU against the host device: kernels, models, budgets, errors.
//!
//! Where there is no CUDA device each test says so and passes; `TRT_REQUIRE_CUDA=1` makes that a
//! failure. `cargo test --release --test gpu` runs it; the binary alone runs too, on a machine
//! without Rust. `TRT_GPU_SMALL=1` makes the run small enough for tools that watch every access.

mod allocation;
mod cases;
#[path = "../../crates/trt-kernel/tests/ptx/corpus/mod.rs"]
#[allow(missing_docs, reason = "shared with the tests of the crate")]
mod corpus;
mod engines;
mod errors;
mod extent;
mod kernels;
#[path = "../suite/common/matrix.rs"]
mod matrix;
mod models;
mod numbers;
mod pressure;
#[path = "../suite/common/tiny.rs"]
#[allow(dead_code, reason = "the other suite uses more of it")]
mod tiny;

use candle_trt::device::{self, Device};
use std::sync::Arc;

/// The first CUDA device.
fn cuda() -> Option<Arc<dyn Device>> {
    match device::open("cuda:0") {
        Ok(device) => Some(device),
        Err(why) if std::env::var_os("TRT_REQUIRE_CUDA").is_some() => {
            panic!("TRT_REQUIRE_CUDA is set, but: {why}")
        }
        Err(why) => {
            eprintln!("not run: {why}");
            None
        }
    }
}
