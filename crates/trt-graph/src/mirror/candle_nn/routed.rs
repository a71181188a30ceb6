//! Experts as the layers that model code has of them, in place of a loop over what `to_vec2` gives.
//!
//! Which rows an expert gets is known only in a call, so each expert's code is run on all rows, and what the experts
//! did is put together: where they multiply by matrices of their own, each row is multiplied by that of its expert
//! ([`experts`]). That is what a loop gives if each row of a result is made of the same row of the operands, so
//! nothing else is taken: what mixes rows is refused, and so is what differs in another way than by weights.

use super::moe::experts;
use crate::graph::Op;
use crate::mirror::size;
use crate::mirror::tensor::Tensor;
use candle_core::{Result, bail};
use std::collections::HashMap;

/// For each token of `xs` (`[tokens, hidden]`) the sum of what its experts give, each times its share: expert
/// `ids[t, i]` has the share `shares[t, i]`, and `layer(e, rows)` is what expert `e` of `count` makes of rows
/// `[n, hidden]`. The result is `[tokens, ..]`, of the dtype of what the experts give.
///
/// The weights of all experts are fetched in every call, as those of [`experts`] are.
///
/// # Errors
///
/// If shapes do not fit, an expert fails, or the experts are not the same operations on each row but for the
/// weights of linear layers.
#[track_caller]
pub fn routed(
    xs: &Tensor,
    ids: &Tensor,
    shares: &Tensor,
    count: usize,
    layer: impl Fn(usize, &Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let (tokens, hidden) = xs.dims2()?;
    let (of, picked) = ids.dims2()?;
    if of != tokens || shares.dims() != ids.dims() || count == 0 {
        bail!("routed: {xs:?} by {ids:?} with {shares:?} of {count} experts");
    }
    let pairs = xs
        .unsqueeze(1)?
        .broadcast_as((tokens, picked, hidden))?
        .reshape((tokens * picked, hidden))?;
    let each = (0..size::parts(count, "routed")?).map(|e| layer(e, &pairs));
    let each = each.collect::<Result<Vec<Tensor>>>()?;
    let mut joined = Joined {
        pairs: &pairs,
        ids: &ids.flatten_all()?,
        depends: HashMap::from([(pairs.id(), true)]),
        made: HashMap::new(),
    };
    let ys = joined.of(&each)?;
    let (_, width) = ys.dims2()?;
    let ys = ys.reshape((tokens, picked, width))?;
    let shares = shares.unsqueeze(2)?.to_dtype(ys.dtype())?;
    ys.broadcast_mul(&shares)?.sum(1)
}

/// One tensor for what is a tensor of each expert.
struct Joined<'a> {
    /// The rows that each expert was given.
    pairs: &'a Tensor,
    /// The expert of each.
    ids: &'a Tensor,
    /// Whether a tensor is made of the rows.
    depends: HashMap<u64, bool>,
    made: HashMap<Vec<u64>, Tensor>,
}

impl Joined<'_> {
    fn of(&mut self, each: &[Tensor]) -> Result<Tensor> {
        let key: Vec<u64> = each.iter().map(Tensor::id).collect();
        if let Some(made) = self.made.get(&key) {
            return Ok(made.clone());
        }
        let made = if each.iter().all(|t| t.id() == self.pairs.id()) {
            self.pairs.clone()
        } else if each.iter().any(|t| self.depends(t)) {
            self.by_rows(each)?
        } else {
            self.given(each)?
        };
        self.made.insert(key, made.clone());
        Ok(made)
    }

    fn depends(&mut self, t: &Tensor) -> bool {
        if let Some(known) = self.depends.get(&t.id()) {
            return *known;
        }
        let operands = t.operands().to_vec();
        let depends = operands.iter().any(|o| self.depends(o));
        self.depends.insert(t.id(), depends);
        depends
    }

    /// What is made of the rows: the same operation of all experts, one row at a time.
    fn by_rows(&mut self, each: &[Tensor]) -> Result<Tensor> {
        let first = &each[0];
        let op = first.op();
        if let Some(other) = each.iter().find(|t| !alike(first, t)) {
            bail!("routed: one expert computes {first:?} where another computes {other:?}");
        }
        let rows = self.pairs.dims()[0];
        let by_rows = match op {
            Op::Softmax => first.rank() > 1,
            Op::Reduce(_, axis) | Op::Narrow { axis, .. } | Op::Cat(axis) => *axis > 0,
            Op::Matmul => first.rank() == 2,
            Op::Broadcast => first.operands()[0].dims().first() == Some(&rows),
            op => op.is_scalar() && !matches!(op, Op::Within(_)),
        };
        if !by_rows || first.dims().first() != Some(&rows) {
            bail!("routed: an expert computes {first:?}, which does not go row by row");
        }
        let operand =
            |i: usize| -> Vec<Tensor> { each.iter().map(|t| t.operands()[i].clone()).collect() };
        if matches!(op, Op::Matmul) {
            let (left, right) = (self.of(&operand(0))?, operand(1));
            return match right.iter().all(|t| same(&right[0], t)) {
                true if !self.depends(&right[0]) => left.product(&right[0]),
                _ => experts(&left, self.ids, &self.matrices(&right)?),
            };
        }
        let operands = (0..first.operands().len()).map(|i| self.of(&operand(i)));
        let operands = operands.collect::<Result<Vec<_>>>()?;
        Tensor::make(op.clone(), operands, first.dims(), first.kernel_dtype())
    }

    /// The matrices that are multiplied by, as linear layers have them.
    fn matrices(&mut self, transposed: &[Tensor]) -> Result<Vec<Tensor>> {
        let matrix = |t: &Tensor| match (t.op(), t.operands()) {
            (Op::Permute(axes), [matrix]) if *axes == [1, 0] && !self.depends(matrix) => {
                Ok(matrix.clone())
            }
            _ => {
                bail!("routed: an expert multiplies by {t:?}, which is no weight of a linear layer")
            }
        };
        transposed.iter().map(matrix).collect()
    }

    /// What is not made of the rows: the same for all experts, or a vector of each.
    fn given(&mut self, each: &[Tensor]) -> Result<Tensor> {
        let first = &each[0];
        let vectors: Vec<Tensor> = each
            .iter()
            .flat_map(|t| t.operands().iter().cloned())
            .collect();
        let all_rows = each.iter().all(|t| {
            let point = t.operands().first().map(Tensor::dims);
            *t.op() == Op::Broadcast
                && t.dims() == first.dims()
                && point.is_some_and(|d| d.first() == Some(&1))
        });
        let by_row = first.dims().first() == Some(&self.pairs.dims()[0]);
        let bias = |v: &Tensor| v.dims().get(1) == first.dims().get(1);
        match each.iter().all(|t| same(first, t)) {
            true if all_rows || !by_row => Ok(first.clone()),
            // Which rows an expert is given is not known here.
            true => {
                bail!("routed: {first:?} has a row of its own for each row that an expert is given")
            }
            false if all_rows && first.rank() == 2 && vectors.iter().all(bias) => {
                Tensor::cat(&vectors, 0)?.index_select(self.ids, 0)
            }
            false => bail!(
                "routed: experts differ in {first:?}, which is no matrix or bias of a linear layer"
            ),
        }
    }
}

/// Whether two tensors are the same operation, whatever its operands.
fn alike(a: &Tensor, b: &Tensor) -> bool {
    let operands = a.operands().len() == b.operands().len();
    a.op() == b.op() && a.dims() == b.dims() && a.kernel_dtype() == b.kernel_dtype() && operands
}

/// Whether two tensors have the same elements as they are spelled.
fn same(a: &Tensor, b: &Tensor) -> bool {
    let operands = || a.operands().iter().zip(b.operands());
    a.id() == b.id() || alike(a, b) && operands().all(|(a, b)| same(a, b))
}
