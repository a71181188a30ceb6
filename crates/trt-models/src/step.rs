//! How a compiler steps the models of this crate.
//!
//! A step declares the token ids as the call's input, `(1, seq)` of u32, and runs the model at
//! position `past`; the key-value caches that the model keeps become states.

use crate::Llama;
use std::sync::Once;
use trt_graph::candle::{DType, Result, Tensor};
use trt_graph::{Call, Step};

/// Whether it was said that prompts beyond a dynamic rope's original context depend on how they are cut into calls.
static SAID: Once = Once::new();

impl Step for Llama {
    fn step(&mut self, call: &Call<'_>) -> Result<Vec<Tensor>> {
        let (past, seq) = call.positions()?;
        if let Some(original) = self.dynamic_beyond()
            && (past > 0 && seq > 1 && past.saturating_add(seq) > original)
        {
            SAID.call_once(|| {
                tracing::warn!(
                    original,
                    "rope is dynamic: beyond its original context the keys of a prompt depend on the calls that it is given in"
                );
            });
        }
        let ids = call.input("input_ids", (1, seq), DType::U32)?;
        Ok(vec![self.forward(&ids, past)?])
    }
}
