//! Experts that values pick, as model files name them.

use crate::mirror::candle_nn::{Activation, Linear, VarBuilder, linear_no_bias, moe, ops};
use crate::mirror::device::Device;
use crate::mirror::module::Module;
use crate::mirror::quantized::QTensor;
use crate::mirror::tensor::Tensor;
use candle_core::{D, DType, Result};
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
        let router = Router {
            gate: &self.gate,
            each: self.each,
            norm_topk_prob: self.norm_topk_prob,
            act: self.act,
        };
        let product = |which: Which, xs: &Tensor, ids: &Tensor| {
            let weights = match which {
                Which::Gate => &self.gates,
                Which::Up => &self.ups,
                Which::Down => &self.downs,
            };
            moe::experts(xs, ids, weights)
        };
        router.forward(xs, product)
    }
}

/// Which matrix of an expert.
#[derive(Clone, Copy)]
enum Which {
    Gate,
    Up,
    Down,
}

/// What experts have in common, however their weights lie.
struct Router<'a> {
    gate: &'a Linear,
    /// How many experts a token has.
    each: usize,
    norm_topk_prob: bool,
    act: Activation,
}

impl Router<'_> {
    /// `xs` (`[batch, seq, hidden]`) through the experts that its values pick; `product` multiplies rows by the
    /// matrices of their experts.
    #[track_caller]
    fn forward(
        &self,
        xs: &Tensor,
        product: impl Fn(Which, &Tensor, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
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
        let gate = product(Which::Gate, &wide, &ids)?.apply(&self.act)?;
        let inner = (gate * product(Which::Up, &wide, &ids)?)?;
        let ys = product(Which::Down, &inner, &ids)?;
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

/// Experts of a GGUF file, where one tensor holds a matrix of all of them. Such a tensor is no matrix whose rows are
/// fetched: all of it is on the device, as values, which are several times as many bytes as its blocks.
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
    /// `xs` (`[batch, seq, hidden]`) through the experts that its values pick, by their shares.
    ///
    /// # Errors
    ///
    /// If shapes or dtypes do not fit, or a tensor cannot be used.
    #[track_caller]
    pub fn forward(&self, xs: &Tensor, _is_prefill: bool) -> Result<Tensor> {
        let router = Router {
            gate: &self.gate,
            each: self.num_experts_per_tok,
            norm_topk_prob: self.norm_topk_prob,
            act: self.act,
        };
        let product = |which: Which, xs: &Tensor, ids: &Tensor| {
            let weights = match which {
                Which::Gate => &self.gate_experts,
                Which::Up => &self.up_experts,
                Which::Down => &self.down_experts,
            };
            moe::stack(xs, ids, &weights.dequantize(&Device::Cpu)?)
        };
        router
            .forward(&xs.to_dtype(DType::F32)?, product)?
            .to_dtype(xs.dtype())
    }
}
