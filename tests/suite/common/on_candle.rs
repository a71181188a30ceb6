//! The model files of `trt-models`, unchanged, with candle behind their `use` lines.
#![allow(missing_docs, reason = "documented where they live")]

/// The two crates a candle model imports: here, the real ones.
pub mod backend {
    pub use candle_core as candle;
    pub use candle_nn;
}

#[path = "../../../crates/trt-models/src/cache.rs"]
pub mod cache;
#[path = "../../../crates/trt-models/src/checkpoint.rs"]
mod checkpoint;
#[path = "../../../crates/trt-models/src/llama.rs"]
pub mod llama;
#[path = "../../../crates/trt-models/src/rope.rs"]
pub mod rope;

pub use trt_models::{config, frequencies};

pub use llama::{Llama, LoadOptions};
