//! Shapes: reshape, transpose, narrow, cat and their relatives.

use super::size;
use super::tensor::Tensor;
use crate::graph::Op;
use candle_core::shape::{Dim as AsDim, Dims, ShapeWithOneHole};
use candle_core::{D, Result, Shape, bail};
use trt_kernel::Dim;

/// Repeats up to this many are joined one by one.
const JOINED: usize = 64;

impl Tensor {
    /// The same elements under another shape. One that it has already stays a node, as everything
    /// does that is without effect at some sizes only: calls of other sizes make the same list.
    fn reshaped(&self, dims: Vec<usize>) -> Result<Tensor> {
        if size::checked(&dims)? != self.elem_count() {
            bail!("reshape: {:?} cannot be {dims:?}", self.shape());
        }
        Tensor::make(Op::Reshape, vec![self.clone()], dims, self.kernel_dtype())
    }

    /// The same elements under another shape; one size may be `()`.
    pub fn reshape<S: ShapeWithOneHole>(&self, s: S) -> Result<Tensor> {
        let shape = size::shape(s, self.elem_count())?;
        self.reshaped(shape.into_dims())
    }

    /// Joins the axes from `start_dim` to `end_dim` inclusive.
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
    pub fn flatten_to<A: AsDim>(&self, end_dim: A) -> Result<Tensor> {
        self.flatten(0, end_dim)
    }

    /// Joins the axes from `start_dim` on.
    pub fn flatten_from<A: AsDim>(&self, start_dim: A) -> Result<Tensor> {
        self.flatten(start_dim, D::Minus1)
    }

    /// Joins all axes.
    pub fn flatten_all(&self) -> Result<Tensor> {
        self.flatten(0, D::Minus1)
    }

    /// Removes an axis of size 1; any other axis stays.
    pub fn squeeze<A: AsDim>(&self, dim: A) -> Result<Tensor> {
        let dim = dim.to_index(self.shape(), "squeeze")?;
        let mut dims = self.dims().to_vec();
        if dims[dim] == 1 {
            dims.remove(dim);
        }
        self.reshaped(dims)
    }

    /// Inserts an axis of size 1.
    pub fn unsqueeze<A: AsDim>(&self, dim: A) -> Result<Tensor> {
        let dim = dim.to_index_plus_one(self.shape(), "unsqueeze")?;
        let mut dims = self.dims().to_vec();
        dims.insert(dim, 1);
        self.reshaped(dims)
    }

    /// Swaps the last two axes.
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
    pub fn transpose<D1: AsDim, D2: AsDim>(&self, dim1: D1, dim2: D2) -> Result<Tensor> {
        let dim1 = dim1.to_index(self.shape(), "transpose")?;
        let dim2 = dim2.to_index(self.shape(), "transpose")?;
        let mut perm: Vec<usize> = (0..self.rank()).collect();
        perm.swap(dim1, dim2);
        self.permuted(perm)
    }

    fn permuted(&self, perm: Vec<usize>) -> Result<Tensor> {
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
    pub fn get(&self, i: usize) -> Result<Tensor> {
        if self.rank() == 0 {
            return Ok(self.clone());
        }
        self.narrow(0, i, 1)?.reshape(&self.dims()[1..])
    }

    /// One index of an axis, which goes.
    pub fn get_on_dim<A: AsDim>(&self, dim: A, index: usize) -> Result<Tensor> {
        let dim = dim.to_index(self.shape(), "get_on_dim")?;
        self.narrow(dim, index, 1)?.squeeze(dim)
    }

    /// Joins tensors along an axis.
    pub fn cat<T: AsRef<Tensor>, A: AsDim>(args: &[T], dim: A) -> Result<Tensor> {
        let Some(first) = args.first().map(AsRef::as_ref) else {
            bail!("cat: no tensors");
        };
        if args.len() == 1 {
            return Ok(first.clone());
        }
        let axis = dim.to_index(first.shape(), "cat")?;
        let mut dims = first.dims().to_vec();
        dims[axis] = 0;
        for arg in args.iter().map(AsRef::as_ref) {
            let fits = arg.rank() == dims.len()
                && arg.kernel_dtype() == first.kernel_dtype()
                && (0..dims.len()).all(|a| a == axis || arg.dims()[a] == dims[a]);
            if !fits {
                bail!("cat: {arg:?} does not fit {first:?} along axis {axis}");
            }
            dims[axis] = dims[axis].saturating_add(arg.dims()[axis]);
        }
        let operands = args.iter().map(|a| a.as_ref().clone()).collect();
        Tensor::make(Op::Cat(axis), operands, dims, first.kernel_dtype())
    }

    /// Joins tensors along a new axis.
    pub fn stack<T: AsRef<Tensor>, A: AsDim>(args: &[T], dim: A) -> Result<Tensor> {
        let Some(first) = args.first().map(AsRef::as_ref) else {
            bail!("stack: no tensors");
        };
        let axis = dim.to_index_plus_one(first.shape(), "stack")?;
        let args: Vec<Tensor> = args
            .iter()
            .map(|t| t.as_ref().unsqueeze(axis))
            .collect::<Result<_>>()?;
        Tensor::cat(&args, axis)
    }

    /// Repeats along each axis as often as `shape` says; missing leading axes are added.
    pub fn repeat<S: Into<Shape>>(&self, shape: S) -> Result<Tensor> {
        let repeats = shape.into();
        let repeats = repeats.dims();
        let mut out = match repeats.len().saturating_sub(self.rank()) {
            0 => self.clone(),
            n => {
                let mut dims = vec![1; n];
                dims.extend(self.dims());
                self.reshaped(dims)?
            }
        };
        for (axis, n) in repeats.iter().enumerate() {
            out = match *n {
                0 => out.narrow(axis, 0, 0)?,
                1 => out,
                n if n <= JOINED => Tensor::cat(&vec![&out; n], axis)?,
                n => out.tiled(axis, n)?,
            };
        }
        Ok(out)
    }

    /// Repeats an axis as a view of a new one.
    fn tiled(&self, axis: usize, n: usize) -> Result<Tensor> {
        let mut dims = self.dims().to_vec();
        dims.insert(axis, 1);
        let point = self.reshaped(dims.clone())?;
        dims[axis] = n;
        let all = point.broadcast_as(dims.as_slice())?;
        dims.remove(axis);
        dims[axis] = dims[axis].saturating_mul(n);
        all.reshaped(dims)
    }

    /// Repeats axes of size 1, and adds leading axes, up to a shape.
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
    pub fn expand<S: Into<Shape>>(&self, shape: S) -> Result<Tensor> {
        self.broadcast_as(shape)
    }

    /// Adds leading axes.
    pub fn broadcast_left<S: Into<Shape>>(&self, left_shape: S) -> Result<Tensor> {
        let mut dims = left_shape.into().into_dims();
        dims.extend(self.dims());
        self.broadcast_as(dims)
    }

    /// Zeros before and after an axis.
    pub fn pad_with_zeros<A: AsDim>(&self, dim: A, left: usize, right: usize) -> Result<Tensor> {
        let axis = dim.to_index(self.shape(), "pad_with_zeros")?;
        let zeros = |n: usize| {
            let mut dims = self.dims().to_vec();
            dims[axis] = n;
            Tensor::filled(0.0, dims.into(), self.kernel_dtype())
        };
        let mut parts = Vec::new();
        if left > 0 {
            parts.push(zeros(left)?);
        }
        parts.push(self.clone());
        if right > 0 {
            parts.push(zeros(right)?);
        }
        Tensor::cat(&parts, axis)
    }

    /// The rows of a matrix picked by ids.
    pub fn embedding(&self, ids: &Tensor) -> Result<Tensor> {
        if self.rank() != 2 || ids.rank() != 1 {
            bail!(
                "embedding: table {:?} and ids {:?} must have ranks 2 and 1",
                self.shape(),
                ids.shape()
            );
        }
        self.index_select(ids, 0)
    }

    /// Indices of an axis picked by ids.
    pub fn index_select<A: AsDim>(&self, ids: &Tensor, dim: A) -> Result<Tensor> {
        let axis = dim.to_index(self.shape(), "index_select")?;
        let n = ids.dims1()?;
        if ids.kernel_dtype().is_float() {
            bail!("index_select: ids of dtype {:?}", ids.dtype());
        }
        // One op serves all: the axis comes first, the others are joined behind it.
        let mut perm: Vec<usize> = (0..self.rank()).filter(|a| *a != axis).collect();
        perm.insert(0, axis);
        let front = self.permuted(perm.clone())?;
        let entries = front.dims()[0];
        let cols = front.elem_count().checked_div(entries).unwrap_or(0);
        let table = front.reshaped(vec![entries, cols])?;
        let picked = Tensor::make(
            Op::IndexSelect,
            vec![table, ids.clone()],
            (n, cols),
            self.kernel_dtype(),
        )?;
        let mut dims = front.dims().to_vec();
        dims[0] = n;
        let mut back = vec![0; perm.len()];
        perm.iter().enumerate().for_each(|(i, p)| back[*p] = i);
        picked.reshaped(dims)?.permuted(back)
    }
}
