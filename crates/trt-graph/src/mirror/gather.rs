//! Elements that integers pick.
//!
//! As in candle the largest integer of a dtype picks nothing: there a result is 0, and nothing is
//! scattered. Any other index outside of the axis is an error of the call.

use super::tensor::Tensor;
use crate::graph::Op;
use candle_core::shape::Dim as AsDim;
use candle_core::{Result, bail};
use trt_kernel::{Compare, DType};

impl Tensor {
    /// The elements that `indexes` picks along an axis: element `[i.., j, k..]` is
    /// `self[i.., indexes[i.., j, k..], k..]`. The result has the shape of `indexes`.
    ///
    /// # Errors
    ///
    /// If there is no such axis, the ranks differ, `indexes` are floats, or more than the elements along
    /// another axis.
    #[track_caller]
    pub fn gather<A: AsDim>(&self, indexes: &Tensor, dim: A) -> Result<Tensor> {
        let axis = dim.to_index(self.shape(), "gather")?;
        let mut axes = self.dims().iter().zip(indexes.dims()).enumerate();
        let fits =
            indexes.rank() == self.rank() && axes.all(|(a, (all, some))| a == axis || some <= all);
        if !fits {
            bail!("gather: {indexes:?} does not fit {self:?} along axis {axis}");
        }
        let nothing = indexes.picks_nothing("gather")?;
        let ids = nothing.where_cond(&indexes.zeros_like()?, indexes)?;
        let picked = self.picked(&ids, axis)?;
        nothing.where_cond(&picked.zeros_like()?, &picked)
    }

    /// The elements that integers pick along an axis, all of which there are.
    #[track_caller]
    pub(super) fn picked(&self, ids: &Tensor, axis: usize) -> Result<Tensor> {
        let operands = vec![self.clone(), ids.clone()];
        let shape = ids.shape().clone();
        Tensor::make(Op::Gather(axis), operands, shape, self.kernel_dtype())
    }

    /// Where ids are the largest integer of their dtype; u8 of 0 or 1.
    #[track_caller]
    pub(super) fn picks_nothing(&self, op: &str) -> Result<Tensor> {
        let most = match self.kernel_dtype() {
            DType::U8 => self.like(f64::from(u8::MAX))?,
            DType::U32 => self.like(f64::from(u32::MAX))?,
            // No size is that large, so kernels do not have it as a number of their own.
            DType::I64 => Tensor::new(i64::MAX, self.device())?.broadcast_as(self.shape())?,
            DType::BF16 | DType::F16 | DType::F32 => {
                bail!("{op}: indexes of dtype {:?}", self.dtype())
            }
        };
        self.comparison(&most, Compare::Eq)
    }
}
