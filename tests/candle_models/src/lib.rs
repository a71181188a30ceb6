//! The model files of candle-transformers over candle-trt's tensors, held to candle.
//!
//! None of them is in this repository. The package `candle-models-ported` writes those that type-check again with other
//! `use` lines (`candle-models-trial` finds out which). Here each has a case: how a small model of it is loaded with
//! random weights and called. The text of a case is compiled twice, over candle-trt (`ours`) and over candle
//! (`theirs`), and `hold` compares what the two give: at full and at 25 % budget, at several sizes, and for decoders
//! token after token at positions that were not traced. [`table`] writes what comes of it to `MODELS.md`.
//! Models of GGUF files are held in [`blocks`].
#![allow(
    clippy::duplicate_mod,
    reason = "the text of a case is compiled over both crates"
)]

pub mod blocks;
mod fault;
mod hold;
pub mod layer;
mod oracle;
mod ours;
mod spec;
pub mod table;
mod theirs;
pub mod time;
mod values;
mod weights;

pub use fault::Fault;
pub use hold::{HOST, Held, Target};
