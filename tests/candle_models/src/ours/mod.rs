//! The cases over candle-trt.

/// The files as their `use` lines make them, and those that need other lines (`candle_models_trial::changed`).
pub mod models {
    pub use candle_models_ported::changed::models::{deepseek2, mixtral, qwen2_moe, qwen3_moe};
    pub use candle_models_ported::models::*;
}
/// The same where other files name the unchanged one, whose types are others.
pub use candle_models_ported::changed::models as changed;
pub use candle_models_ported::models::own_with_tracing as with_tracing;
pub use candle_trt::{candle, candle_nn};

/// What a model is loaded with.
pub type Builder = candle_nn::VarBuilder<'static>;

/// What a model of a GGUF file is loaded with.
pub type BlocksBuilder = candle_trt::candle_transformers::quantized_var_builder::VarBuilder;

/// What is compiled if the file is.
macro_rules! when_compiled {
    ($file:tt, $block:block) => {
        #[cfg(ported = $file)]
        $block
    };
}
use when_compiled;

#[path = "../cases/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "cases of files that do not compile are left out"
)]
pub mod cases;
