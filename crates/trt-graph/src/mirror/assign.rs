//! Tensors with parts of others in their place: slices put in, edges repeated, axes turned.
//!
//! Every part is there whatever its size is: where nothing is before a slice, an empty part is joined.

use super::size;
use super::tensor::Tensor;
use candle_core::shape::Dim as AsDim;
use candle_core::{Result, bail};
use std::ops::{Bound, RangeBounds};

impl Tensor {
    /// This tensor with `src` from index `start` of an axis on.
    ///
    /// # Errors
    ///
    /// If there is no such axis, `src` is of another dtype or has other sizes elsewhere, or it does not fit
    /// behind `start`.
    #[track_caller]
    pub fn slice_scatter<A: AsDim>(&self, src: &Tensor, dim: A, start: usize) -> Result<Tensor> {
        let axis = dim.to_index(self.shape(), "slice-scatter")?;
        let fits = self.rank() == src.rank()
            && self.kernel_dtype() == src.kernel_dtype()
            && (0..self.rank()).all(|a| match a == axis {
                true => src.dims()[a].saturating_add(start) <= self.dims()[a],
                false => src.dims()[a] == self.dims()[a],
            });
        if !fits {
            bail!("slice-scatter: {src:?} does not fit {self:?} from {start} of axis {axis} on");
        }
        self.around(src, axis, start)
    }

    /// [`Tensor::slice_scatter`] along the first axis.
    ///
    /// # Errors
    ///
    /// As [`Tensor::slice_scatter`].
    #[track_caller]
    pub fn slice_scatter0(&self, src: &Tensor, start: usize) -> Result<Tensor> {
        self.slice_scatter(src, 0, start)
    }

    /// What is before and after `src` along an axis, and `src` in between.
    #[track_caller]
    fn around(&self, src: &Tensor, axis: usize, start: usize) -> Result<Tensor> {
        let end = start + src.dims()[axis];
        let before = self.narrow(axis, 0, start)?;
        let after = self.narrow(axis, end, self.dims()[axis].saturating_sub(end))?;
        Tensor::cat(&[&before, src, &after], axis)
    }

    /// This tensor with `src` in place of the elements in a range of each axis.
    ///
    /// # Errors
    ///
    /// If ranks or dtypes differ, there is not a range for each axis, or one is empty, outside of its axis or
    /// not as long as `src` is there.
    #[track_caller]
    pub fn slice_assign<R: RangeBounds<usize>>(
        &self,
        ranges: &[R],
        src: &Tensor,
    ) -> Result<Tensor> {
        let (rank, of_src) = (self.rank(), src.rank());
        if rank != of_src || rank != ranges.len() {
            bail!(
                "slice-assign: ranks {rank} and {of_src} for {} ranges",
                ranges.len()
            );
        }
        if self.kernel_dtype() != src.kernel_dtype() {
            bail!("slice-assign: {src:?} in {self:?} is of another dtype");
        }
        let mut starts = Vec::with_capacity(rank);
        for (axis, range) in ranges.iter().enumerate() {
            let size = self.dims()[axis];
            let start = match range.start_bound() {
                Bound::Unbounded => 0,
                Bound::Included(v) => *v,
                Bound::Excluded(v) => v.saturating_add(1),
            };
            let end = match range.end_bound() {
                Bound::Unbounded => size,
                Bound::Included(v) => v.saturating_add(1),
                Bound::Excluded(v) => *v,
            };
            if end <= start || end > size || end - start != src.dims()[axis] {
                bail!(
                    "slice-assign: range {start}..{end} of axis {axis}, which has {size} elements, for {} of \
                     {src:?}",
                    src.dims()[axis]
                );
            }
            starts.push(start);
        }
        self.assigned(&starts, src, 0)
    }

    /// This part, which is all of `src`'s places along the axes before, with `src` put in.
    #[track_caller]
    fn assigned(&self, starts: &[usize], src: &Tensor, axis: usize) -> Result<Tensor> {
        let Some(start) = starts.get(axis) else {
            return Ok(src.clone());
        };
        let part = self.narrow(axis, *start, src.dims()[axis])?;
        self.around(&part.assigned(starts, src, axis + 1)?, axis, *start)
    }

    /// Nothing is written into a tensor here.
    ///
    /// # Errors
    ///
    /// Always: what a call leaves for the next is a tensor of its own.
    #[track_caller]
    pub fn slice_set<A: AsDim>(&self, src: &Tensor, _dim: A, offset: usize) -> Result<()> {
        bail!(
            "slice_set writes {src:?} into {self:?} at {offset}, and symbolic tensors are not written into: keep \
             the result of slice_scatter, or of cat where it is appended"
        )
    }

    /// The first element repeated before an axis, and the last one after it.
    ///
    /// # Errors
    ///
    /// If there is no such axis, there is no element to repeat, or the result is too large.
    #[track_caller]
    pub fn pad_with_same<A: AsDim>(&self, dim: A, left: usize, right: usize) -> Result<Tensor> {
        let axis = dim.to_index(self.shape(), "pad_with_same")?;
        let size = self.dims()[axis];
        let Some(last) = size.checked_sub(1) else {
            return match left == 0 && right == 0 {
                true => Ok(self.clone()),
                false => bail!("pad_with_same: axis {axis} of {self:?} has no elements"),
            };
        };
        let edge = |at: usize, n: usize| {
            let mut dims = self.dims().to_vec();
            dims[axis] = n;
            self.narrow(axis, at, 1)?.broadcast_as(dims)
        };
        Tensor::cat(&[edge(0, left)?, self.clone(), edge(last, right)?], axis)
    }

    /// The elements of an axis `shift` places further on; those beyond its end come first.
    ///
    /// # Errors
    ///
    /// If there is no such axis, or it has no or too many elements.
    #[track_caller]
    pub fn roll<A: AsDim + Clone>(&self, shift: i32, dim: A) -> Result<Tensor> {
        let axis = dim.to_index(self.shape(), "roll")?;
        let size = self.dims()[axis];
        let Some(shift) = i64::try_from(size)
            .ok()
            .and_then(|n| i64::from(shift).checked_rem_euclid(n))
        else {
            bail!("roll: axis {axis} of {self:?} has no elements");
        };
        let kept = size - shift as usize;
        let (a, b) = (
            self.narrow(axis, 0, kept)?,
            self.narrow(axis, kept, size - kept)?,
        );
        Tensor::cat(&[&b, &a], axis)
    }

    /// The elements of some axes in reverse.
    ///
    /// # Errors
    ///
    /// If there is no such axis.
    #[track_caller]
    pub fn flip(&self, dims: &[usize]) -> Result<Tensor> {
        let mut out = self.clone();
        for axis in dims {
            let last = out.dim(*axis)? as i64 - 1;
            let ids = Tensor::arange_step(last, -1, -1, self.device())?;
            out = out.index_select(&ids, *axis)?;
        }
        Ok(out)
    }

    /// Windows of `size` elements of an axis, `step` apart, along a new last axis.
    ///
    /// # Errors
    ///
    /// If there is no such axis, it is shorter than a window, or the step is 0.
    #[track_caller]
    pub fn unfold<A: AsDim>(&self, dim: A, size: usize, step: usize) -> Result<Tensor> {
        let axis = dim.to_index(self.shape(), "unfold")?;
        let Some(places) = (self.dims()[axis].checked_sub(size)).and_then(|n| n.checked_div(step))
        else {
            bail!("unfold: windows of {size} elements, {step} apart, of axis {axis} of {self:?}");
        };
        size::parts(size, "unfold")?;
        let windows = self.unfolded(axis, size, places + 1, (step, 1))?;
        let mut order: Vec<usize> = (0..windows.rank()).collect();
        let window = order.remove(axis + 1);
        order.push(window);
        windows.permuted(order)
    }
}
