//! The mirror of what model files of `candle_transformers` take from each other.
//!
//! Such a file ports by its `use` lines: what it names as `crate::quantized_nn`,
//! `crate::quantized_var_builder`, `crate::utils` and `crate::models::with_tracing` is here. A model that
//! it names is ported beside it, and its `Config` may as well be candle's own.

pub mod fused_moe;
pub mod models;
pub mod quantized_nn;
pub mod quantized_var_builder;
pub mod utils;
