//! How a compiler steps the models of this crate.
//!
//! A step declares the token ids as the call's input, `(1, seq)` of u32, and runs the model at
//! position `past`; the key-value caches that the model keeps become states.

use crate::Llama;
use trt_graph::candle::{DType, Result, Tensor};
use trt_graph::{Call, Step};

impl Step for Llama {
    fn step(&mut self, call: &Call<'_>) -> Result<Vec<Tensor>> {
        let (past, seq) = (call.int("past")?, call.int("seq")?);
        let ids = call.input("input_ids", (1, seq), DType::U32)?;
        Ok(vec![self.forward(&ids, past)?])
    }
}
