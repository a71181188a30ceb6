//! The mirror of `candle_nn`: layers, functions and the variable builder.

pub mod activation;
pub mod conv;
pub mod embedding;
pub mod kv_cache;
pub mod layer_norm;
pub mod linear;
pub mod ops;
pub mod rotary_emb;
pub mod var_builder;

pub use super::tensor::{Module, ModuleT};
pub use activation::Activation;
pub use conv::{
    Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, conv1d, conv1d_no_bias, conv2d, conv2d_no_bias,
};
pub use embedding::{Embedding, embedding};
pub use layer_norm::{
    LayerNorm, LayerNormConfig, RmsNorm, layer_norm, layer_norm_no_bias, rms_norm,
};
pub use linear::{Linear, linear, linear_b, linear_no_bias};
pub use var_builder::{VarBuilder, WeightSource};
