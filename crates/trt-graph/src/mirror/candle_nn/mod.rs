//! The mirror of `candle_nn`: layers, functions and the variable builder.

pub mod activation;
pub mod attention;
pub mod batch_norm;
pub mod conv;
pub mod conv_transpose;
mod dropout;
pub mod embedding;
pub mod func;
pub mod group_norm;
pub mod kv_cache;
pub mod layer_norm;
pub mod linear;
pub mod moe;
mod no_files;
pub mod ops;
mod pixels;
pub mod rnn;
pub mod rotary_emb;
mod rotating;
mod routed;
pub mod sampling;
pub mod sequential;
pub mod var_builder;

pub use super::tensor::{Module, ModuleT};
pub use activation::{Activation, PReLU, prelu};
pub use batch_norm::{BatchNorm, BatchNormConfig, batch_norm};
pub use candle_nn::{Init, init};
pub use conv::{
    Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, conv1d, conv1d_no_bias, conv2d, conv2d_no_bias,
};
pub use conv_transpose::{
    ConvTranspose1d, ConvTranspose1dConfig, ConvTranspose2d, ConvTranspose2dConfig,
    conv_transpose1d, conv_transpose1d_no_bias, conv_transpose2d, conv_transpose2d_no_bias,
};
pub use embedding::{Embedding, embedding};
pub use func::{Func, FuncT, func, func_t};
pub use group_norm::{GroupNorm, group_norm};
pub use layer_norm::{
    LayerNorm, LayerNormConfig, RmsNorm, layer_norm, layer_norm_no_bias, rms_norm,
};
pub use linear::{Linear, linear, linear_b, linear_no_bias};
pub use ops::Dropout;
pub use rnn::{GRU, GRUConfig, LSTM, LSTMConfig, RNN, gru, lstm};
pub use sequential::{Sequential, seq};
pub use var_builder::{RowOrder, Stored, VarBuilder, WeightSource};
