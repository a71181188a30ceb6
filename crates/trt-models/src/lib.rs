//! Ready models, written exactly as a candle user writes them.
//!
//! Nothing here knows about budgets, kernels or devices: a model asks a `VarBuilder` for its weights by name and
//! computes with tensors. The tensors are `trt_graph`'s, so running the code once records it; the same files compile
//! against candle itself (every import goes through one `backend` module), which is how the tests check them.
//!
//! A model begins with its `config.json`:
//!
//! ```
//! use trt_models::{DecoderConfig, Family};
//!
//! let config = DecoderConfig::from_json(r#"{
//!     "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
//!     "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
//!     "rope_theta": 100000.0, "tie_word_embeddings": true, "eos_token_id": 2
//! }"#)?;
//! assert_eq!(config.family, Family::Llama);
//! assert_eq!(config.head_dim, 64);
//! assert_eq!(config.heads_per_kv_head(), 3);
//! # Ok::<(), trt_models::ConfigError>(())
//! ```
//!
//! and is made inside a compiler's closure, `|vb| Llama::load(vb, &config)`.
#![forbid(unsafe_code)]

pub mod cache;
mod checkpoint;
pub mod config;
pub mod frequencies;
pub mod llama;
pub mod rope;
mod step;

/// The two crates a candle model imports.
mod backend {
    pub(crate) use trt_graph::{candle, candle_nn};
}

pub use config::{ConfigError, DecoderConfig, Family, MAX_POSITIONS, RopeScaling};
pub use llama::{Llama, LoadOptions};
