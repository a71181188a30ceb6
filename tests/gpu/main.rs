//! Everything on a GPU against the host device: kernels, models, budgets, errors.
//!
//! Where there is no CUDA device each test says so and passes; `TRT_REQUIRE_CUDA=1` makes that a
//! failure. `cargo test --release --test gpu` runs it; the binary alone runs too, on a machine
//! without Rust. `TRT_GPU_SMALL=1` makes the run small enough for tools that watch every access.

mod allocation;
mod budgets;
mod cases;
mod conv;
#[path = "../../crates/trt-kernel/tests/ptx/corpus/mod.rs"]
#[allow(missing_docs, reason = "shared with the tests of the crate")]
mod corpus;
#[path = "../suite/common/mapped.rs"]
mod cut;
mod encodings;
mod engines;
mod errors;
mod extent;
#[path = "../../crates/trt-device/tests/support/forward.rs"]
mod forward;
mod kernels;
mod limits;
#[path = "../../crates/trt-stream/tests/support/forms.rs"]
mod made;
mod mapped;
mod maps;
#[path = "../suite/common/matrix.rs"]
mod matrix;
mod models;
mod numbers;
#[path = "../suite/common/on_candle.rs"]
#[allow(dead_code, unused_imports, reason = "the other suite uses more of it")]
mod on_candle;
mod packed;
mod pressure;
#[path = "../suite/common/random.rs"]
#[allow(dead_code, reason = "the other suite uses more of it")]
mod random;
#[path = "../suite/common/small.rs"]
#[allow(dead_code, reason = "the other suite uses more of it")]
mod small;
#[path = "../suite/common/stress.rs"]
mod stress;
#[path = "../../crates/trt-stream/tests/support/mod.rs"]
mod support;
#[path = "../../crates/trt-stream/tests/support/tied.rs"]
#[allow(dead_code, reason = "the host sums otherwise")]
mod tied;
#[path = "../suite/common/tiny.rs"]
#[allow(dead_code, reason = "the other suite uses more of it")]
mod tiny;
#[path = "../../crates/trt-kernel/tests/reference/units.rs"]
mod units;
mod unpacked;

use candle_trt::device::{self, Device};
use std::cell::RefCell;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Tests that use the device share it; one that looks at how much memory is free has it for itself.
static USERS: RwLock<()> = RwLock::new(());

enum Use {
    Shared(#[allow(dead_code, reason = "held")] RwLockReadGuard<'static, ()>),
    Alone(#[allow(dead_code, reason = "held")] RwLockWriteGuard<'static, ()>),
}

thread_local! {
    /// How the test of this thread uses the device, until the thread or its next test ends.
    static USE: RefCell<Option<Use>> = const { RefCell::new(None) };
}

/// The first CUDA device.
fn cuda() -> Option<Arc<dyn Device>> {
    USE.with_borrow_mut(|own| {
        own.get_or_insert_with(|| {
            Use::Shared(USERS.read().unwrap_or_else(PoisonError::into_inner))
        });
    });
    open()
}

/// The first CUDA device, when no other test of this process uses it. No other process may either.
fn cuda_alone() -> Option<Arc<dyn Device>> {
    USE.with_borrow_mut(|own| {
        // With one thread for all tests, this is what the test before has left.
        drop(own.take());
        *own = Some(Use::Alone(
            USERS.write().unwrap_or_else(PoisonError::into_inner),
        ));
    });
    open()
}

/// What is free by the driver's count.
fn free(device: &Arc<dyn Device>) -> u64 {
    device.free_memory().expect("the driver tells")
}

fn open() -> Option<Arc<dyn Device>> {
    match device::open("cuda:0") {
        Ok(device) => Some(device),
        Err(why) if std::env::var_os("TRT_REQUIRE_CUDA").is_some_and(|v| v == "1") => {
            panic!("TRT_REQUIRE_CUDA=1, but: {why}")
        }
        Err(why) => {
            eprintln!("not run: {why}");
            None
        }
    }
}
