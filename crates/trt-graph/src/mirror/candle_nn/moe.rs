//! Experts that values pick.
//!
//! Which experts a token has is known only in a call, so no model code can loop over them. Here all experts
//! are part of the program: the weights of all of them are fetched in every call, and each row is multiplied
//! by its own alone.

use crate::graph::Op;
use crate::mirror::tensor::Tensor;
use candle_core::{Result, bail};
use trt_kernel::Dim;

pub use super::routed::routed;

/// Each row of `xs` (`[m, k]`) times the matrix of its expert: row `i` times `weights[ids[i]]` transposed, where
/// each weight is `[n, k]` as that of a linear layer. The result is `[m, n]`.
///
/// A weight of a model is fetched by rows, as any linear layer's; one that is computed is not, and is
/// computed in each call. An id that is no expert's is an error of the call.
///
/// # Errors
///
/// If shapes or dtypes do not fit, or there are no experts.
pub fn experts(xs: &Tensor, ids: &Tensor, weights: &[Tensor]) -> Result<Tensor> {
    let Some(first) = weights.first() else {
        bail!("experts: no weights");
    };
    // Weights that are joined of the same parts are multiplied part by part: a part is a weight that is
    // fetched by rows, and what is joined of them would be made anew in each call.
    if let Op::Cat(0) = first.op()
        && weights.iter().all(|w| parts(w) == parts(first))
    {
        let each = (0..first.operands().len()).map(|part| {
            let own: Vec<Tensor> = weights.iter().map(|w| w.operands()[part].clone()).collect();
            experts(xs, ids, &own)
        });
        return Tensor::cat(&each.collect::<Result<Vec<_>>>()?, 1);
    }
    let (n, k) = first.dims2()?;
    if let Some(other) = weights.iter().find(|w| w.dims() != [n, k]) {
        bail!("experts: weights {first:?} and {other:?}");
    }
    by_ids(xs, ids, weights, (weights.len(), n, k))
}

/// The same of one tensor that holds the matrices of all experts, `[experts, n, k]`.
pub(in crate::mirror) fn stack(xs: &Tensor, ids: &Tensor, all: &Tensor) -> Result<Tensor> {
    by_ids(xs, ids, std::slice::from_ref(all), all.dims3()?)
}

/// The rows of each of the tensors that one is joined of along its first axis.
fn parts(w: &Tensor) -> Option<Vec<usize>> {
    let joined = matches!(w.op(), Op::Cat(0));
    joined.then(|| w.operands().iter().map(|part| part.dims()[0]).collect())
}

fn by_ids(
    xs: &Tensor,
    ids: &Tensor,
    weights: &[Tensor],
    (count, n, k): (usize, usize, usize),
) -> Result<Tensor> {
    let (m, depth) = xs.dims2()?;
    let floats = weights
        .iter()
        .chain([xs])
        .all(|t| t.kernel_dtype().is_float());
    if ids.dims1()? != m || depth != k || !floats || ids.kernel_dtype().is_float() {
        bail!("experts: {xs:?} by {ids:?} of {count} weights [{n}, {k}]");
    }
    let dtype = ids.kernel_dtype();
    let ids = Tensor::make(Op::Within(Dim::from(count)), vec![ids.clone()], m, dtype)?;
    let mut operands = vec![xs.clone(), ids];
    operands.extend(weights.iter().cloned());
    Tensor::make(Op::Experts, operands, (m, n), xs.kernel_dtype())
}

/// What candle's function of this name gives on a GPU: rows of `input` by the experts of their tokens, `topk` of
/// each. Pair `i` of a token and an expert is of token `i / topk`; `experts_ids[j]` is the expert of pair
/// `sorted_token_ids[j]`. Without `topk_weights` a row of `input` is a token's, with them a pair's, and
/// results are multiplied by them. `weights` are `[experts, n, k]`; the result is `[pairs, n]`.
///
/// # Errors
///
/// If shapes or dtypes do not fit.
#[allow(
    clippy::too_many_arguments,
    reason = "they are those of candle's function"
)]
pub fn moe_gemm(
    input: &Tensor,
    weights: &Tensor,
    topk_weights: &Option<Tensor>,
    sorted_token_ids: &Tensor,
    experts_ids: &Tensor,
    topk: usize,
    _is_prefill: bool,
) -> Result<Tensor> {
    let (rows, k) = input.dims2()?;
    let pairs = sorted_token_ids.dims1()?;
    let ids = experts_of_pairs(sorted_token_ids, experts_ids)?;
    let xs = match topk_weights {
        Some(_) => input.clone(),
        None => {
            let each = input.unsqueeze(1)?.broadcast_as((rows, topk, k))?;
            each.reshape((rows.saturating_mul(topk), k))?
        }
    };
    let ys = match stacked(weights) {
        Some(each) => experts(&xs, &ids, &each)?,
        None => stack(&xs, &ids, weights)?,
    };
    let Some(scales) = topk_weights else {
        return Ok(ys);
    };
    let scales = scales.flatten_all()?.reshape((pairs, 1))?;
    let wide = candle_core::DType::F32;
    let scaled = ys.to_dtype(wide)?.broadcast_mul(&scales.to_dtype(wide)?)?;
    scaled.to_dtype(input.dtype())
}

/// The expert of each pair, from pairs and experts in the order of experts.
fn experts_of_pairs(pairs: &Tensor, experts: &Tensor) -> Result<Tensor> {
    // Most often both were just made by sorting what is asked for.
    if let (Op::ArgSort { .. }, Op::Gather(_)) = (pairs.op(), experts.op())
        && experts.operands()[0].id() == pairs.operands()[0].id()
        && experts.operands()[1].id() == pairs.id()
    {
        return Ok(pairs.operands()[0].clone());
    }
    let places = pairs.arg_sort_last_dim(true)?;
    experts.gather(&places, 0)
}

/// The matrices that a tensor of three axes is stacked of.
fn stacked(all: &Tensor) -> Option<Vec<Tensor>> {
    let Op::Cat(0) = all.op() else { return None };
    let each = all.operands().iter().map(|part| {
        let matrix = part.operands().first()?;
        let fits =
            *part.op() == Op::Reshape && part.dims()[0] == 1 && part.dims()[1..] == *matrix.dims();
        fits.then(|| matrix.clone())
    });
    each.collect()
}
