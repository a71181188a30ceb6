//! Places of elements in order, and of the first of them.

use super::tensor::{Tensor, candle_dtype};
use crate::graph::Op;
use candle_core::shape::Dim as AsDim;
use candle_core::{D, Result, bail};
use trt_kernel::{Compare, DType, Reduce};

/// The dtype of places.
const PLACES: DType = DType::U32;

impl Tensor {
    /// The place of the largest or smallest element along an axis, as candle finds it: the first of
    /// several; a NaN is neither, but if it is the first element it stays.
    #[track_caller]
    fn place_of(&self, f: Reduce, axis: usize) -> Result<Tensor> {
        if self.elem_count() == 0 {
            bail!("argmax or argmin of {self:?}, which has no elements");
        }
        let best = self.reduce(f, axis)?.broadcast_as(self.shape())?;
        let mut found = self.comparison(&best, Compare::Eq)?;
        let place = self.index_along(axis)?.to_dtype(candle_dtype(PLACES))?;
        let place = place.broadcast_as(self.shape())?;
        if self.kernel_dtype().is_float() {
            let nan = self.comparison(self, Compare::Ne)?.maximum(&found)?;
            let first = place.comparison(&place.zeros_like()?, Compare::Eq)?;
            found = first.where_cond(&nan, &found)?;
        }
        let none = place.like(self.dims()[axis] as f64)?;
        found.where_cond(&place, &none)?.reduce(Reduce::Min, axis)
    }

    /// Places of the largest elements along an axis, which stays with size 1, as u32; of several the
    /// first.
    ///
    /// # Errors
    ///
    /// If there is no such axis or no element.
    #[track_caller]
    pub fn argmax_keepdim<A: AsDim>(&self, dim: A) -> Result<Tensor> {
        let axis = dim.to_index(self.shape(), "argmax")?;
        self.place_of(Reduce::Max, axis)
    }

    /// Places of the largest elements along an axis, which goes, as u32; of several the first.
    ///
    /// # Errors
    ///
    /// If there is no such axis or no element.
    #[track_caller]
    pub fn argmax<A: AsDim>(&self, dim: A) -> Result<Tensor> {
        let axis = dim.to_index(self.shape(), "argmax")?;
        self.place_of(Reduce::Max, axis)?.squeeze(axis)
    }

    /// Places of the smallest elements along an axis, which stays with size 1, as u32; of several the
    /// first.
    ///
    /// # Errors
    ///
    /// If there is no such axis or no element.
    #[track_caller]
    pub fn argmin_keepdim<A: AsDim>(&self, dim: A) -> Result<Tensor> {
        let axis = dim.to_index(self.shape(), "argmin")?;
        self.place_of(Reduce::Min, axis)
    }

    /// Places of the smallest elements along an axis, which goes, as u32; of several the first.
    ///
    /// # Errors
    ///
    /// If there is no such axis or no element.
    #[track_caller]
    pub fn argmin<A: AsDim>(&self, dim: A) -> Result<Tensor> {
        let axis = dim.to_index(self.shape(), "argmin")?;
        self.place_of(Reduce::Min, axis)?.squeeze(axis)
    }

    /// Places of the elements of each row in order, as u32: the smallest first, or the largest. Equal
    /// elements stay in their order; NaN comes last.
    ///
    /// # Errors
    ///
    /// If there is no axis.
    #[track_caller]
    pub fn arg_sort_last_dim(&self, asc: bool) -> Result<Tensor> {
        if self.rank() == 0 {
            bail!("empty last-dim in arg-sort");
        }
        let shape = self.shape().clone();
        Tensor::make(Op::ArgSort { asc }, vec![self.clone()], shape, PLACES)
    }

    /// The elements of each row in order, and their places: as [`Tensor::arg_sort_last_dim`].
    ///
    /// # Errors
    ///
    /// If there is no axis.
    #[track_caller]
    pub fn sort_last_dim(&self, asc: bool) -> Result<(Tensor, Tensor)> {
        let places = self.arg_sort_last_dim(asc)?;
        let axis = D::Minus1.to_index(self.shape(), "sort")?;
        Ok((self.picked(&places, axis)?, places))
    }
}
