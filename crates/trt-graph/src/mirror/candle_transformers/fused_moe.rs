//! Experts that values pick, as model files name them. Those of plain weights run; of those in blocks there is what
//! files need to compile, and an error where one is run.

use crate::mirror::candle_nn::{Activation, Linear, VarBuilder, linear_no_bias, moe, ops};
use crate::mirror::module::Module;
use crate::mirror::quantized::QTensor;
use crate::mirror::tensor::Tensor;
use candle_core::{D, DType, Result, bail};
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

/// Experts of plain weights. Every call fetches all of them, and multiplies each token by its own alone.
#[derive(Clone, Debug)]
pub struct FusedMoe {
    gate: Linear,
    /// Of each expert, as `[n, k]`: the gate's and the inner one's rows, and those that lead back.
    gates: Vec<Tensor>,
    ups: Vec<Tensor>,
    downs: Vec<Tensor>,
    act: Activation,
    norm_topk_prob: bool,
    each: usize,
}

impl FusedMoe {
    /// The weights `gate` and `experts.{i}.{gate,up,down}_proj` below `vb`.
    ///
    /// # Errors
    ///
    /// A weight that is missing or of another shape.
    #[track_caller]
    pub fn new(cfg: &MoeCfg, vb: VarBuilder<'_>, _dtype: DType) -> Result<Self> {
        let (hidden, inner) = (cfg.hidden_size, cfg.moe_intermediate_size);
        let experts = vb.pp("experts");
        let all = |name: &str, shape: (usize, usize)| -> Result<Vec<Tensor>> {
            let one = |i: usize| experts.pp(i).pp(name).get(shape, "weight");
            (0..cfg.num_experts).map(one).collect()
        };
        Ok(FusedMoe {
            gate: linear_no_bias(hidden, cfg.num_experts, vb.pp("gate"))?,
            gates: all("gate_proj", (inner, hidden))?,
            ups: all("up_proj", (inner, hidden))?,
            downs: all("down_proj", (hidden, inner))?,
            act: cfg.act,
            norm_topk_prob: cfg.norm_topk_prob,
            each: cfg.num_experts_per_tok,
        })
    }

    /// `xs` (`[batch, seq, hidden]`) through the experts that its values pick, by their shares.
    ///
    /// # Errors
    ///
    /// If shapes or dtypes do not fit.
    #[track_caller]
    pub fn forward(&self, xs: &Tensor, _is_prefill: bool) -> Result<Tensor> {
        let (batch, seq, hidden) = xs.dims3()?;
        let tokens = batch.saturating_mul(seq);
        let xs = xs.reshape((tokens, hidden))?;
        let shares = self.gate.forward(&xs)?.to_dtype(DType::F32)?;
        let shares = ops::softmax_last_dim(&shares)?;
        let order = shares.arg_sort_last_dim(false)?;
        let ids = order.narrow(D::Minus1, 0, self.each)?.contiguous()?;
        let mut shares = shares.gather(&ids, D::Minus1)?;
        if self.norm_topk_prob {
            shares = shares.broadcast_div(&shares.sum_keepdim(D::Minus1)?)?;
        }
        let ids = ids.flatten_all()?;
        let pairs = tokens.saturating_mul(self.each);
        let wide = xs.unsqueeze(1)?.broadcast_as((tokens, self.each, hidden))?;
        let wide = wide.reshape((pairs, hidden))?;
        let gate = moe::experts(&wide, &ids, &self.gates)?.apply(&self.act)?;
        let inner = (gate * moe::experts(&wide, &ids, &self.ups)?)?;
        let ys = moe::experts(&inner, &ids, &self.downs)?;
        let scaled = ys
            .to_dtype(DType::F32)?
            .broadcast_mul(&shares.reshape((pairs, 1))?)?;
        let scaled = scaled.to_dtype(xs.dtype())?;
        let sum = scaled
            .reshape((tokens, self.each, hidden))?
            .sum(D::Minus2)?;
        sum.reshape((batch, seq, hidden))
    }
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
