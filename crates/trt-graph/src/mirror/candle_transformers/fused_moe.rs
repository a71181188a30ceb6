//! Experts that values pick: what model files need to compile, and an error where one is run.

use crate::mirror::candle_nn::{Activation, Linear};
use crate::mirror::quantized::QTensor;
use crate::mirror::tensor::Tensor;
use candle_core::{DType, Result, bail};
use std::sync::Arc;

/// The sizes of experts.
#[allow(
    missing_docs,
    reason = "candle's names, which are those of configurations"
)]
pub struct MoeCfg {
    pub hidden_size: usize,
    pub num_experts: usize,
    pub num_experts_per_tok: usize,
    pub moe_intermediate_size: usize,
    pub norm_topk_prob: bool,
    pub act: Activation,
    pub decoder_sparse_step: Option<usize>,
}

/// Experts whose weights are in blocks.
#[derive(Clone, Debug)]
#[allow(
    missing_docs,
    reason = "candle's names, which are those of configurations"
)]
pub struct FusedMoeGGUF {
    pub gate: Linear,
    pub gate_experts: Arc<QTensor>,
    pub up_experts: Arc<QTensor>,
    pub down_experts: Arc<QTensor>,
    pub act: Activation,
    pub norm_topk_prob: bool,
    pub num_experts_per_tok: usize,
    pub dtype: DType,
}

impl FusedMoeGGUF {
    /// Not in this version.
    ///
    /// # Errors
    ///
    /// Always: experts that values pick are not in this version.
    #[track_caller]
    pub fn forward(&self, _xs: &Tensor, _is_prefill: bool) -> Result<Tensor> {
        bail!(
            "experts of {:?} are picked by values, which is not in this version of candle-trt",
            self.gate_experts
        )
    }
}
