//! Tensors of places: triangles, diagonals and grids of coordinates. All are generated from their sizes, so
//! these may vary.

use super::device::Device;
use super::tensor::{Tensor, kernel_dtype};
use crate::graph::Op;
use candle_core::{DType, Result, bail};
use trt_kernel::{DType as Kernel, Dim};

/// `[n, n]` of u8: 1 where the column is more than `offset` after the row.
#[track_caller]
fn above(n: usize, offset: i64) -> Result<Tensor> {
    let op = Op::Causal {
        offset: Dim::from(offset),
        window: None,
    };
    Tensor::make(op, vec![], (n, n), Kernel::U8)
}

impl Tensor {
    /// Ones on and below the diagonal of an `n x n` matrix.
    ///
    /// # Errors
    ///
    /// If the elements are too many or the dtype is not supported.
    #[track_caller]
    pub fn tril2(n: usize, dtype: DType, _device: &Device) -> Result<Tensor> {
        let dtype = kernel_dtype(dtype)?;
        let fill = |value: f64| Tensor::filled(value, (n, n).into(), dtype);
        above(n, 0)?.where_cond(&fill(0.0)?, &fill(1.0)?)
    }

    /// Ones on and above the diagonal of an `n x n` matrix.
    ///
    /// # Errors
    ///
    /// If the elements are too many or the dtype is not supported.
    #[track_caller]
    pub fn triu2(n: usize, dtype: DType, _device: &Device) -> Result<Tensor> {
        above(n, -1)?.to_dtype(dtype)
    }

    /// Ones on the diagonal of an `n x n` matrix.
    ///
    /// # Errors
    ///
    /// If the elements are too many or the dtype is not supported.
    #[track_caller]
    pub fn eye(n: usize, dtype: DType, device: &Device) -> Result<Tensor> {
        let Ok(end) = u32::try_from(n) else {
            bail!("eye: {n} rows are too many");
        };
        let places = Tensor::arange(0u32, end, device)?;
        let (row, column) = (places.reshape((n, 1))?, places.reshape((1, n))?);
        row.broadcast_eq(&column)?.to_dtype(dtype)
    }

    /// For each of some vectors a grid of its elements, which vary along its own axis only. With `xy_indexing`
    /// axes are in the order of the vectors from the last to the first.
    ///
    /// # Errors
    ///
    /// If there are fewer than two, or one is no vector.
    #[track_caller]
    pub fn meshgrid<A: AsRef<Tensor>>(args: &[A], xy_indexing: bool) -> Result<Vec<Tensor>> {
        if args.len() < 2 {
            bail!(
                "meshgrid: {} vectors, and there must be two at least",
                args.len()
            );
        }
        let rank = args.len();
        let axis = |i: usize| match xy_indexing {
            true => rank - 1 - i,
            false => i,
        };
        let mut shape = vec![0; rank];
        for (i, arg) in args.iter().enumerate() {
            shape[axis(i)] = arg.as_ref().dims1()?;
        }
        let grid = |(i, arg): (usize, &A)| {
            let mut line = vec![1; rank];
            line[axis(i)] = shape[axis(i)];
            arg.as_ref().reshape(line)?.broadcast_as(shape.as_slice())
        };
        args.iter().enumerate().map(grid).collect()
    }
}
