//! Tensors made of parts of others: joined, repeated, padded, picked.

use super::tensor::Tensor;
use crate::graph::Op;
use crate::line;
use candle_core::shape::Dim as AsDim;
use candle_core::{Result, Shape, bail};

impl Tensor {
    /// Joins tensors along an axis.
    ///
    /// # Errors
    ///
    /// If there is none, or they differ otherwise than along the axis.
    #[track_caller]
    pub fn cat<T: AsRef<Tensor>, A: AsDim>(args: &[T], dim: A) -> Result<Tensor> {
        let Some(first) = args.first().map(AsRef::as_ref) else {
            line::here();
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
    ///
    /// # Errors
    ///
    /// If there is none, or they differ in shape or dtype.
    #[track_caller]
    pub fn stack<T: AsRef<Tensor>, A: AsDim>(args: &[T], dim: A) -> Result<Tensor> {
        let Some(first) = args.first().map(AsRef::as_ref) else {
            line::here();
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
    ///
    /// # Errors
    ///
    /// If the result is too large or made of too many parts.
    #[track_caller]
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
            out = out.tiled(axis, *n)?;
        }
        Ok(out)
    }

    /// Repeats an axis as a view of a new one; once is a view too, as another size's is.
    #[track_caller]
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

    /// Zeros before and after an axis.
    ///
    /// # Errors
    ///
    /// If there is no such axis, or the result is too large.
    #[track_caller]
    pub fn pad_with_zeros<A: AsDim>(&self, dim: A, left: usize, right: usize) -> Result<Tensor> {
        let axis = dim.to_index(self.shape(), "pad_with_zeros")?;
        let zeros = |n: usize| {
            let mut dims = self.dims().to_vec();
            dims[axis] = n;
            Tensor::filled(0.0, dims.into(), self.kernel_dtype())
        };
        // None on a side are zeros too: at another size there may be some.
        Tensor::cat(&[zeros(left)?, self.clone(), zeros(right)?], axis)
    }

    /// The rows of a matrix picked by ids.
    ///
    /// # Errors
    ///
    /// If the table has not 2 axes, or the ids have not 1.
    #[track_caller]
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
    ///
    /// # Errors
    ///
    /// If there is no such axis, or the ids are floats or have not 1 axis.
    #[track_caller]
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
