//! Running sums.
//!
//! Each element sums the ones up to it, in one fold: the order of additions follows from the length
//! alone. That costs the square of the length for each row, in reads that stay in the cache.

use super::tensor::Tensor;
use candle_core::Result;
use candle_core::shape::Dim as AsDim;
use trt_kernel::{Compare, Reduce};

impl Tensor {
    /// Sums of all elements of an axis up to each.
    ///
    /// # Errors
    ///
    /// If there is no such axis, or what is summed is too large.
    #[track_caller]
    pub fn cumsum<A: AsDim>(&self, dim: A) -> Result<Tensor> {
        let axis = dim.to_index(self.shape(), "cumsum")?;
        let mut all = self.dims().to_vec();
        all.insert(axis, all[axis]);
        let places = self.index_along(axis)?;
        let here = places.unsqueeze(axis + 1)?.broadcast_as(all.as_slice())?;
        let there = places.unsqueeze(axis)?.broadcast_as(all.as_slice())?;
        let values = self.unsqueeze(axis)?.broadcast_as(all.as_slice())?;
        let before = there.comparison(&here, Compare::Le)?;
        let summed = before.where_cond(&values, &values.zeros_like()?)?;
        summed.reduce(Reduce::Sum, axis + 1)?.squeeze(axis + 1)
    }
}
