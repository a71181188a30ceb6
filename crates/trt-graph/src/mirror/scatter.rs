//! Elements that integers place.
//!
//! Each element of the result looks through all that may be placed there, so what it becomes depends on
//! no order in which anything runs: sums are folds of a row, and of several that are set the last counts.
//! That costs the product of both sizes along the axis for each of the other indices.

use super::tensor::Tensor;
use crate::graph::Op;
use candle_core::shape::Dim as AsDim;
use candle_core::{Result, bail};
use trt_kernel::{Compare, Dim, Reduce};

/// Which elements of a source belong to which of a result, over the shape of the result with an axis more,
/// behind the one that is scattered along: the source's.
struct Hits {
    /// Where a source's element belongs to the result's; u8 of 0 or 1.
    own: Tensor,
    axis: usize,
    /// The shape.
    all: Vec<usize>,
}

impl Hits {
    /// `ids` have the source's shape, or one that can be broadcast to it.
    #[track_caller]
    fn new(to: &Tensor, ids: &Tensor, source: &Tensor, axis: usize, op: &str) -> Result<Hits> {
        let size = to.dims()[axis];
        let mut all = source.dims().to_vec();
        all.insert(axis, size);
        let nothing = ids.picks_nothing(op)?;
        let ids = nothing.where_cond(&ids.zeros_like()?, ids)?;
        let within = Op::Within(Dim::from(size));
        let shape = ids.shape().clone();
        let dtype = ids.kernel_dtype();
        let ids = Tensor::make(within, vec![ids], shape, dtype)?;
        let ids = ids.to_dtype(candle_core::DType::I64)?;
        let ids = nothing
            .where_cond(&ids.like(-1.0)?, &ids)?
            .unsqueeze(axis)?;
        let place = to.index_along(axis)?.unsqueeze(axis + 1)?;
        let [place, ids] = [place, ids].map(|t| t.broadcast_as(all.as_slice()));
        let own = place?.comparison(&ids?, Compare::Eq)?;
        Ok(Hits { own, axis, all })
    }

    /// What each element of the result has of values of the source's shape; `none` where nothing.
    #[track_caller]
    fn folded(&self, f: Reduce, values: &Tensor, none: f64) -> Result<Tensor> {
        let values = values
            .unsqueeze(self.axis)?
            .broadcast_as(self.all.as_slice())?;
        let own = self.own.where_cond(&values, &values.like(none)?)?;
        own.reduce(f, self.axis + 1)?.squeeze(self.axis + 1)
    }
}

impl Tensor {
    /// The index along an axis, as i64, with size 1 along all others.
    #[track_caller]
    pub(super) fn index_along(&self, axis: usize) -> Result<Tensor> {
        let mut shape = vec![1; self.rank()];
        shape[axis] = self.dims()[axis];
        Tensor::arange(0i64, shape[axis] as i64, self.device())?.reshape(shape)
    }

    #[track_caller]
    fn scatters(&self, ids: &Tensor, source: &Tensor, axis: usize, op: &str) -> Result<()> {
        let fits = source.rank() == self.rank()
            && (0..self.rank()).all(|a| a == axis || source.dims()[a] == self.dims()[a])
            && source.kernel_dtype() == self.kernel_dtype()
            && !ids.kernel_dtype().is_float();
        match fits {
            true => Ok(()),
            false => bail!("{op}: {source:?} by {ids:?} does not fit axis {axis} of {self:?}"),
        }
    }

    #[track_caller]
    fn added(&self, ids: &Tensor, source: &Tensor, axis: usize, op: &str) -> Result<Tensor> {
        self.scatters(ids, source, axis, op)?;
        let sum = Hits::new(self, ids, source, axis, op)?.folded(Reduce::Sum, source, 0.0)?;
        self + sum
    }

    /// These elements with others in place of some: element `[i.., j, k..]` of `source` is in place of
    /// `[i.., indexes[i.., j, k..], k..]`, and of several in one place it is the last.
    ///
    /// # Errors
    ///
    /// If there is no such axis, shapes or dtypes do not fit, or `indexes` are floats.
    #[track_caller]
    pub fn scatter<A: AsDim>(&self, indexes: &Tensor, source: &Tensor, dim: A) -> Result<Tensor> {
        let axis = dim.to_index(self.shape(), "scatter")?;
        self.scatters(indexes, source, axis, "scatter")?;
        if indexes.shape() != source.shape() {
            bail!("scatter: indexes {indexes:?} of source {source:?}");
        }
        if source.dims()[axis] == 0 {
            return Ok(self.clone());
        }
        let hits = Hits::new(self, indexes, source, axis, "scatter")?;
        let places = source.index_along(axis)?.broadcast_as(source.shape())?;
        let last = hits.folded(Reduce::Max, &places, -1.0)?;
        let none = last.comparison(&last.zeros_like()?, Compare::Lt)?;
        let some = none.where_cond(&last.zeros_like()?, &last)?;
        none.where_cond(self, &source.picked(&some, axis)?)
    }

    /// These elements with others added to some: element `[i.., j, k..]` of `source` to
    /// `[i.., indexes[i.., j, k..], k..]`.
    ///
    /// # Errors
    ///
    /// If there is no such axis, shapes or dtypes do not fit, or `indexes` are floats.
    #[track_caller]
    pub fn scatter_add<A: AsDim>(
        &self,
        indexes: &Tensor,
        source: &Tensor,
        dim: A,
    ) -> Result<Tensor> {
        let axis = dim.to_index(self.shape(), "scatter-add")?;
        if indexes.shape() != source.shape() {
            bail!("scatter-add: indexes {indexes:?} of source {source:?}");
        }
        self.added(indexes, source, axis, "scatter-add")
    }

    /// Indices of an axis with those of `source` added that ids say: element `i` of the axis of `source` to
    /// element `ids[i]` of this one's.
    ///
    /// # Errors
    ///
    /// If there is no such axis, the shapes or dtypes do not fit, or the ids are floats or have not 1 axis.
    #[track_caller]
    pub fn index_add<A: AsDim>(&self, ids: &Tensor, source: &Tensor, dim: A) -> Result<Tensor> {
        let axis = dim.to_index(self.shape(), "index-add")?;
        let n = ids.dims1()?;
        self.scatters(ids, source, axis, "index-add")?;
        if source.dims()[axis] != n {
            bail!("index-add: {source:?} by {n} ids along axis {axis}");
        }
        let mut shape = vec![1; self.rank()];
        shape[axis] = n;
        self.added(&ids.reshape(shape)?, source, axis, "index-add")
    }
}
