//! Picking of tokens.

use crate::mirror::tensor::Tensor;
use candle_core::shape::Dim as AsDim;
use candle_core::{DType, Result};

/// At a temperature of 0 or less the places of the largest logits along an axis; at others places by chance, which a
/// compiled model has not.
///
/// # Errors
///
/// If there is no such axis or no element, or the temperature is above 0: noise is an input of the call.
#[track_caller]
pub fn gumbel_softmax<A: AsDim>(logits: &Tensor, temperature: f64, dim: A) -> Result<Tensor> {
    if temperature <= 0.0 {
        return logits.argmax(dim);
    }
    logits.to_dtype(DType::F32)?.rand_like(1e-7, 0.999)
}
