//! Shapes: reshape, transpose, narrow and their relatives.

use super::size;
use super::tensor::Tensor;
use crate::graph::Op;
use candle_core::shape::{Dim as AsDim, Dims, ShapeWithOneHole};
use candle_core::{D, Result, Shape, bail};
use trt_kernel::Dim;

impl Tensor {
    /// The same elements under another shape. One that it has already stays a node, as everything
    /// does that is without effect at some sizes only: calls of other sizes make the same list.
    #[track_caller]
    pub(super) fn reshaped(&self, dims: Vec<usize>) -> Result<Tensor> {
        if size::checked(&dims)? != self.elem_count() {
            bail!("reshape: {:?} cannot be {dims:?}", self.shape());
        }
        Tensor::make(Op::Reshape, vec![self.clone()], dims, self.kernel_dtype())
    }

    /// The same elements under another shape; one size may be `()`.
    ///
    /// # Errors
    ///
    /// If the elements do not have this shape.
    #[track_caller]
    pub fn reshape<S: ShapeWithOneHole>(&self, s: S) -> Result<Tensor> {
        let shape = size::shape(s, self.elem_count())?;
        self.reshaped(shape.into_dims())
    }

    /// Joins the axes from `start_dim` to `end_dim` inclusive.
    ///
    /// # Errors
    ///
    /// If there is no such axis.
    #[track_caller]
    pub fn flatten<D1: AsDim, D2: AsDim>(&self, start_dim: D1, end_dim: D2) -> Result<Tensor> {
        if self.rank() == 0 {
            return self.reshape(1);
        }
        let start = start_dim.to_index(self.shape(), "flatten")?;
        let end = end_dim.to_index(self.shape(), "flatten")?;
        if start >= end {
            return Ok(self.clone());
        }
        let dims = self.dims();
        let mut out = dims[..start].to_vec();
        out.push(dims[start..=end].iter().product());
        out.extend(&dims[end + 1..]);
        self.reshaped(out)
    }

    /// Joins the axes up to `end_dim` inclusive.
    ///
    /// # Errors
    ///
    /// If there is no such axis.
    #[track_caller]
    pub fn flatten_to<A: AsDim>(&self, end_dim: A) -> Result<Tensor> {
        self.flatten(0, end_dim)
    }

    /// Joins the axes from `start_dim` on.
    ///
    /// # Errors
    ///
    /// If there is no such axis.
    #[track_caller]
    pub fn flatten_from<A: AsDim>(&self, start_dim: A) -> Result<Tensor> {
        self.flatten(start_dim, D::Minus1)
    }

    /// Joins all axes.
    ///
    /// # Errors
    ///
    /// None; the signature is candle's.
    #[track_caller]
    pub fn flatten_all(&self) -> Result<Tensor> {
        self.flatten(0, D::Minus1)
    }

    /// Removes an axis of size 1; any other axis stays.
    ///
    /// # Errors
    ///
    /// If there is no such axis.
    #[track_caller]
    pub fn squeeze<A: AsDim>(&self, dim: A) -> Result<Tensor> {
        let dim = dim.to_index(self.shape(), "squeeze")?;
        let mut dims = self.dims().to_vec();
        if dims[dim] == 1 {
            dims.remove(dim);
        }
        self.reshaped(dims)
    }

    /// Inserts an axis of size 1.
    ///
    /// # Errors
    ///
    /// If there is no such axis.
    #[track_caller]
    pub fn unsqueeze<A: AsDim>(&self, dim: A) -> Result<Tensor> {
        let dim = dim.to_index_plus_one(self.shape(), "unsqueeze")?;
        let mut dims = self.dims().to_vec();
        dims.insert(dim, 1);
        self.reshaped(dims)
    }

    /// Swaps the last two axes.
    ///
    /// # Errors
    ///
    /// If there are fewer than 2 axes.
    #[track_caller]
    pub fn t(&self) -> Result<Tensor> {
        if self.rank() < 2 {
            bail!(
                "unexpected rank, expected: 2, got: {} ({:?})",
                self.rank(),
                self.shape()
            );
        }
        self.transpose(D::Minus2, D::Minus1)
    }

    /// Swaps two axes.
    ///
    /// # Errors
    ///
    /// If there is no such axis.
    #[track_caller]
    pub fn transpose<D1: AsDim, D2: AsDim>(&self, dim1: D1, dim2: D2) -> Result<Tensor> {
        let dim1 = dim1.to_index(self.shape(), "transpose")?;
        let dim2 = dim2.to_index(self.shape(), "transpose")?;
        let mut perm: Vec<usize> = (0..self.rank()).collect();
        perm.swap(dim1, dim2);
        self.permuted(perm)
    }

    #[track_caller]
    pub(super) fn permuted(&self, perm: Vec<usize>) -> Result<Tensor> {
        if perm.iter().copied().eq(0..self.rank()) {
            return Ok(self.clone());
        }
        let dims: Vec<usize> = perm.iter().map(|p| self.dims()[*p]).collect();
        Tensor::make(
            Op::Permute(perm),
            vec![self.clone()],
            dims,
            self.kernel_dtype(),
        )
    }

    /// Reorders the axes.
    ///
    /// # Errors
    ///
    /// If not each axis is named once.
    #[track_caller]
    pub fn permute<A: Dims>(&self, dims: A) -> Result<Tensor> {
        let perm = dims.to_indexes(self.shape(), "permute")?;
        if perm.len() != self.rank() {
            bail!(
                "permute: {} axes given for a tensor of shape {:?}",
                perm.len(),
                self.shape()
            );
        }
        self.permuted(perm)
    }

    /// `len` indices of an axis from `start`.
    ///
    /// # Errors
    ///
    /// If there is no such axis, or the range is outside of it.
    #[track_caller]
    pub fn narrow<A: AsDim>(&self, dim: A, start: usize, len: usize) -> Result<Tensor> {
        let axis = dim.to_index(self.shape(), "narrow")?;
        let size = self.dims()[axis];
        if start.saturating_add(len) > size {
            bail!(
                "narrow: {start}..{} is outside of axis {axis} of {:?}",
                start.saturating_add(len),
                self.shape()
            );
        }
        let mut dims = self.dims().to_vec();
        dims[axis] = len;
        // A narrow of everything stays a node: at other sample points it may take less.
        let op = Op::Narrow {
            axis,
            start: Dim::from(start),
        };
        Tensor::make(op, vec![self.clone()], dims, self.kernel_dtype())
    }

    /// Parts of an axis, all but the last of equal size.
    ///
    /// # Errors
    ///
    /// If there is no such axis, or 0 or too many chunks are asked for.
    #[track_caller]
    pub fn chunk<A: AsDim>(&self, chunks: usize, dim: A) -> Result<Vec<Tensor>> {
        let axis = dim.to_index(self.shape(), "chunk")?;
        if chunks == 0 {
            bail!("chunk: 0 chunks");
        }
        let size = self.dims()[axis];
        size::parts(chunks.min(size), "chunk")?;
        if size < chunks {
            return (0..size).map(|i| self.narrow(axis, i, 1)).collect();
        }
        let (base, extra) = (size / chunks, size % chunks);
        let mut start = 0;
        (0..chunks)
            .map(|i| {
                let len = base + usize::from(i < extra);
                start += len;
                self.narrow(axis, start - len, len)
            })
            .collect()
    }

    /// One index of the first axis, which goes.
    ///
    /// # Errors
    ///
    /// If the index is outside of the first axis.
    #[track_caller]
    pub fn get(&self, i: usize) -> Result<Tensor> {
        if self.rank() == 0 {
            return Ok(self.clone());
        }
        self.narrow(0, i, 1)?.reshape(&self.dims()[1..])
    }

    /// One index of an axis, which goes.
    ///
    /// # Errors
    ///
    /// If there is no such axis, or the index is outside of it.
    #[track_caller]
    pub fn get_on_dim<A: AsDim>(&self, dim: A, index: usize) -> Result<Tensor> {
        let dim = dim.to_index(self.shape(), "get_on_dim")?;
        self.narrow(dim, index, 1)?.squeeze(dim)
    }

    /// Repeats axes of size 1, and adds leading axes, up to a shape.
    ///
    /// # Errors
    ///
    /// If the shape cannot be broadcast to.
    #[track_caller]
    pub fn broadcast_as<S: Into<Shape>>(&self, shape: S) -> Result<Tensor> {
        let shape = shape.into();
        let target = shape.dims();
        let mut dims = vec![1; target.len().saturating_sub(self.rank())];
        dims.extend(self.dims());
        let fits =
            dims.len() == target.len() && dims.iter().zip(target).all(|(a, b)| a == b || *a == 1);
        if !fits {
            bail!("cannot broadcast {:?} to {:?}", self.shape(), shape);
        }
        let point = match dims.len() == self.rank() {
            true => self.clone(),
            false => self.reshaped(dims)?,
        };
        match target.is_empty() {
            true => Ok(point),
            false => Tensor::make(Op::Broadcast, vec![point], shape, self.kernel_dtype()),
        }
    }

    /// As [`Tensor::broadcast_as`].
    ///
    /// # Errors
    ///
    /// As [`Tensor::broadcast_as`].
    #[track_caller]
    pub fn expand<S: Into<Shape>>(&self, shape: S) -> Result<Tensor> {
        self.broadcast_as(shape)
    }

    /// Adds leading axes.
    ///
    /// # Errors
    ///
    /// If the result is too large.
    #[track_caller]
    pub fn broadcast_left<S: Into<Shape>>(&self, left_shape: S) -> Result<Tensor> {
        let mut dims = left_shape.into().into_dims();
        dims.extend(self.dims());
        self.broadcast_as(dims)
    }
}
