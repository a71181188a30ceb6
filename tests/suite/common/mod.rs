//! What the integration tests share: tiny random checkpoints of every family, and the model files of
//! `trt-models` compiled a second time against candle itself.

#[path = "../../../crates/trt-device/tests/support/forward.rs"]
pub mod forward;
pub mod hooked;
#[allow(dead_code, reason = "the tests on a GPU use more of it")]
pub mod mapped;
pub mod matrix;
pub mod on_candle;
pub mod random;
pub mod small;
pub mod stress;
pub mod tiny;
