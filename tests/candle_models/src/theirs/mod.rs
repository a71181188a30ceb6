//! The same cases over candle.

pub use candle_core as candle;
pub use candle_nn;
pub use candle_transformers::models;
/// candle has its own files as they are.
pub use candle_transformers::models as changed;
pub use candle_transformers::models::with_tracing;

/// What a model is loaded with.
pub type Builder = candle_nn::VarBuilder<'static>;

/// What a model of a GGUF file is loaded with.
pub type BlocksBuilder = candle_transformers::quantized_var_builder::VarBuilder;

/// What is compiled if the file is: over candle, always.
macro_rules! when_compiled {
    ($file:tt, $block:block) => {
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
