//! Two-operand arithmetic: methods, broadcasting variants and comparisons.

use super::tensor::Tensor;
use crate::graph::Op;
use candle_core::{Result, Shape, WithDType, bail};
use trt_kernel::{Binary, Compare, DType};

/// A tensor or a number, where candle accepts both.
pub enum TensorScalar {
    /// A tensor of the operand's shape.
    Tensor(Tensor),
    /// A number.
    Scalar(f64),
}

/// What can stand on the right of a comparison or in a clamp.
pub trait TensorOrScalar {
    /// The closed choice.
    fn to_tensor_scalar(self) -> Result<TensorScalar>;
}

impl TensorOrScalar for &Tensor {
    #[track_caller]
    fn to_tensor_scalar(self) -> Result<TensorScalar> {
        Ok(TensorScalar::Tensor(self.clone()))
    }
}

impl<T: WithDType> TensorOrScalar for T {
    #[track_caller]
    fn to_tensor_scalar(self) -> Result<TensorScalar> {
        Ok(TensorScalar::Scalar(self.to_f64()))
    }
}

#[track_caller]
fn broadcast_shape(a: &Tensor, b: &Tensor) -> Result<Shape> {
    let rank = a.rank().max(b.rank());
    let dim = |t: &Tensor, i: usize| (i + t.rank()).checked_sub(rank).map_or(1, |i| t.dims()[i]);
    let mut dims = Vec::with_capacity(rank);
    for i in 0..rank {
        match (dim(a, i), dim(b, i)) {
            (x, y) if x == y || y == 1 => dims.push(x),
            (1, y) => dims.push(y),
            _ => bail!(
                "shapes {:?} and {:?} cannot be broadcast together",
                a.shape(),
                b.shape()
            ),
        }
    }
    Ok(dims.into())
}

impl Tensor {
    #[track_caller]
    pub(super) fn binary(&self, rhs: &Tensor, f: Binary) -> Result<Tensor> {
        self.agree(rhs, &f.to_string())?;
        let operands = vec![self.clone(), rhs.clone()];
        Tensor::make(
            Op::Binary(f),
            operands,
            self.shape().clone(),
            self.kernel_dtype(),
        )
    }

    #[track_caller]
    fn agree(&self, rhs: &Tensor, op: &str) -> Result<()> {
        if self.shape() != rhs.shape() || self.kernel_dtype() != rhs.kernel_dtype() {
            bail!("{op}: operands {self:?} and {rhs:?} differ in shape or dtype");
        }
        Ok(())
    }

    #[track_caller]
    fn broadcast_binary(&self, rhs: &Tensor, f: Binary) -> Result<Tensor> {
        let shape = broadcast_shape(self, rhs)?;
        self.broadcast_as(shape.clone())?
            .binary(&rhs.broadcast_as(shape)?, f)
    }

    #[track_caller]
    pub(super) fn with_scalar(&self, value: f64, f: Binary) -> Result<Tensor> {
        match f {
            // candle divides by a number as a product with its inverse, also integers.
            Binary::Div => self.binary(&self.like(1.0 / value)?, Binary::Mul),
            _ => self.binary(&self.like(value)?, f),
        }
    }

    #[track_caller]
    pub(super) fn comparison(&self, rhs: &Tensor, f: Compare) -> Result<Tensor> {
        self.agree(rhs, &f.to_string())?;
        Tensor::make(
            Op::Compare(f),
            vec![self.clone(), rhs.clone()],
            self.shape().clone(),
            DType::U8,
        )
    }

    #[track_caller]
    fn compare<T: TensorOrScalar>(&self, rhs: T, f: Compare) -> Result<Tensor> {
        let rhs = self.operand(rhs)?;
        self.comparison(&rhs, f)
    }

    #[track_caller]
    fn operand<T: TensorOrScalar>(&self, rhs: T) -> Result<Tensor> {
        Ok(match rhs.to_tensor_scalar()? {
            TensorScalar::Tensor(t) => t,
            TensorScalar::Scalar(v) => self.like(v)?,
        })
    }

    /// `cond != 0 ? on_true : on_false`, elementwise; all shapes are equal.
    ///
    /// # Errors
    ///
    /// If the three shapes or the two results' dtypes differ, or the condition is a float.
    #[track_caller]
    pub fn where_cond(&self, on_true: &Tensor, on_false: &Tensor) -> Result<Tensor> {
        on_true.agree(on_false, "where_cond")?;
        if self.shape() != on_true.shape() || self.kernel_dtype().is_float() {
            bail!("where_cond: condition {self:?} does not fit {on_true:?}");
        }
        let operands = vec![self.clone(), on_true.clone(), on_false.clone()];
        Tensor::make(
            Op::Where,
            operands,
            on_true.shape().clone(),
            on_true.kernel_dtype(),
        )
    }

    /// Elements limited to `min..=max`.
    ///
    /// # Errors
    ///
    /// If a bound is a tensor of another shape or dtype.
    #[track_caller]
    pub fn clamp<T1: TensorOrScalar, T2: TensorOrScalar>(
        &self,
        min: T1,
        max: T2,
    ) -> Result<Tensor> {
        self.maximum(min)?.minimum(max)
    }

    /// The larger of each pair.
    ///
    /// # Errors
    ///
    /// If the other is a tensor of another shape or dtype.
    #[track_caller]
    pub fn maximum<T: TensorOrScalar>(&self, rhs: T) -> Result<Tensor> {
        let rhs = self.operand(rhs)?;
        self.binary(&rhs, Binary::Maximum)
    }

    /// The smaller of each pair.
    ///
    /// # Errors
    ///
    /// If the other is a tensor of another shape or dtype.
    #[track_caller]
    pub fn minimum<T: TensorOrScalar>(&self, rhs: T) -> Result<Tensor> {
        let rhs = self.operand(rhs)?;
        self.binary(&rhs, Binary::Minimum)
    }

    /// `self ^ rhs`, elementwise.
    ///
    /// # Errors
    ///
    /// If shapes or dtypes differ.
    #[track_caller]
    pub fn pow(&self, rhs: &Tensor) -> Result<Tensor> {
        self.binary(rhs, Binary::Pow)
    }

    /// `[.., m, k] x [.., k, n]` with equal leading axes.
    ///
    /// # Errors
    ///
    /// If the last two axes do not fit, the leading ones differ, or the dtypes are not one float.
    #[track_caller]
    pub fn matmul(&self, rhs: &Tensor) -> Result<Tensor> {
        let (a, b) = (self.dims(), rhs.dims());
        let r = a.len();
        let fits = r >= 2 && b.len() == r && a[..r - 2] == b[..r - 2] && a[r - 1] == b[r - 2];
        if !fits {
            bail!(
                "matmul: shapes {:?} and {:?} do not fit",
                self.shape(),
                rhs.shape()
            );
        }
        self.product(rhs)
    }

    /// A product in which the second operand may also be one matrix for all leading axes.
    #[track_caller]
    pub(in crate::mirror) fn product(&self, rhs: &Tensor) -> Result<Tensor> {
        if self.kernel_dtype() != rhs.kernel_dtype() || !self.kernel_dtype().is_float() {
            bail!(
                "matmul: dtypes {:?} and {:?} do not fit",
                self.dtype(),
                rhs.dtype()
            );
        }
        let mut dims = self.dims().to_vec();
        let last = dims.len() - 1;
        dims[last] = rhs.dims()[rhs.rank() - 1];
        Tensor::make(
            Op::Matmul,
            vec![self.clone(), rhs.clone()],
            dims,
            self.kernel_dtype(),
        )
    }

    /// A product with leading axes broadcast.
    ///
    /// # Errors
    ///
    /// If one is no matrix, the leading axes cannot be broadcast together, or the matrices do not
    /// fit.
    #[track_caller]
    pub fn broadcast_matmul(&self, rhs: &Tensor) -> Result<Tensor> {
        let (ra, rb) = (self.rank(), rhs.rank());
        if ra < 2 || rb < 2 {
            bail!(
                "broadcast_matmul: shapes {:?} and {:?} have no matrices",
                self.shape(),
                rhs.shape()
            );
        }
        let lead = |t: &Tensor| t.reshape([&t.dims()[..t.rank() - 2], &[1, 1]].concat());
        let shape = broadcast_shape(
            &lead(&self.narrow_to_point()?)?,
            &lead(&rhs.narrow_to_point()?)?,
        )?;
        let left = &shape.dims()[..shape.rank() - 2];
        let a = self.broadcast_as([left, &self.dims()[ra - 2..]].concat())?;
        let b = rhs.broadcast_as([left, &rhs.dims()[rb - 2..]].concat())?;
        a.matmul(&b)
    }

    /// The first element of each trailing matrix: a shape carrier for broadcasting.
    #[track_caller]
    fn narrow_to_point(&self) -> Result<Tensor> {
        let r = self.rank();
        self.narrow(r - 2, 0, 1)?.narrow(r - 1, 0, 1)
    }
}

/// Methods that differ only in their function; candle has each name three times.
macro_rules! binary_methods {
    ($($name:ident $broadcast:ident $f:expr, $doc:literal;)*) => {
        impl Tensor {
            $(
                #[doc = $doc]
                ///
                /// # Errors
                ///
                /// If shapes or dtypes differ.
                #[track_caller]
                pub fn $name(&self, rhs: &Tensor) -> Result<Tensor> {
                    self.binary(rhs, $f)
                }
                #[doc = concat!($doc, " Shapes are broadcast.")]
                ///
                /// # Errors
                ///
                /// If the shapes cannot be broadcast together, or dtypes differ.
                #[track_caller]
                pub fn $broadcast(&self, rhs: &Tensor) -> Result<Tensor> {
                    self.broadcast_binary(rhs, $f)
                }
            )*
        }
    };
}
binary_methods! {
    add broadcast_add Binary::Add, "The sum of each pair.";
    sub broadcast_sub Binary::Sub, "The difference of each pair.";
    mul broadcast_mul Binary::Mul, "The product of each pair.";
    div broadcast_div Binary::Div, "The quotient of each pair.";
}

impl Tensor {
    /// The larger of each pair. Shapes are broadcast.
    ///
    /// # Errors
    ///
    /// If the shapes cannot be broadcast together, or dtypes differ.
    #[track_caller]
    pub fn broadcast_maximum(&self, rhs: &Tensor) -> Result<Tensor> {
        self.broadcast_binary(rhs, Binary::Maximum)
    }

    /// The smaller of each pair. Shapes are broadcast.
    ///
    /// # Errors
    ///
    /// If the shapes cannot be broadcast together, or dtypes differ.
    #[track_caller]
    pub fn broadcast_minimum(&self, rhs: &Tensor) -> Result<Tensor> {
        self.broadcast_binary(rhs, Binary::Minimum)
    }

    /// `self ^ rhs`. Shapes are broadcast.
    ///
    /// # Errors
    ///
    /// If the shapes cannot be broadcast together, or dtypes differ.
    #[track_caller]
    pub fn broadcast_pow(&self, rhs: &Tensor) -> Result<Tensor> {
        self.broadcast_binary(rhs, Binary::Pow)
    }
}

macro_rules! comparison_methods {
    ($($name:ident $broadcast:ident $f:expr, $doc:literal;)*) => {
        impl Tensor {
            $(
                #[doc = $doc]
                ///
                /// # Errors
                ///
                /// If shapes or dtypes differ.
                #[track_caller]
                pub fn $name<T: TensorOrScalar>(&self, rhs: T) -> Result<Tensor> {
                    self.compare(rhs, $f)
                }
                #[doc = concat!($doc, " Shapes are broadcast.")]
                ///
                /// # Errors
                ///
                /// If the shapes cannot be broadcast together, or dtypes differ.
                #[track_caller]
                pub fn $broadcast(&self, rhs: &Tensor) -> Result<Tensor> {
                    let shape = broadcast_shape(self, rhs)?;
                    self.broadcast_as(shape.clone())?.comparison(&rhs.broadcast_as(shape)?, $f)
                }
            )*
        }
    };
}
comparison_methods! {
    eq broadcast_eq Compare::Eq, "1 where both are equal, else 0 (u8).";
    ne broadcast_ne Compare::Ne, "1 where both differ, else 0 (u8).";
    lt broadcast_lt Compare::Lt, "1 where the left is less, else 0 (u8).";
    le broadcast_le Compare::Le, "1 where the left is not greater, else 0 (u8).";
    gt broadcast_gt Compare::Gt, "1 where the left is greater, else 0 (u8).";
    ge broadcast_ge Compare::Ge, "1 where the left is not less, else 0 (u8).";
}
