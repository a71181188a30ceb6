//! One-operand functions and reductions.

use super::tensor::Tensor;
use crate::graph::Op;
use candle_core::shape::{Dim as AsDim, Dims};
use candle_core::{Result, bail};
use trt_kernel::{Binary, DType, Dim, Reduce, Unary};

impl Tensor {
    #[track_caller]
    pub(super) fn unary(&self, f: Unary) -> Result<Tensor> {
        if !self.kernel_dtype().is_float() && !f.of_integers() {
            bail!("{f:?} of a tensor of dtype {:?}", self.dtype());
        }
        Tensor::make(
            Op::Unary(f),
            vec![self.clone()],
            self.shape().clone(),
            self.kernel_dtype(),
        )
    }

    #[track_caller]
    pub(super) fn reduce(&self, f: Reduce, axis: usize) -> Result<Tensor> {
        let mut dims = self.dims().to_vec();
        dims[axis] = 1;
        Tensor::make(
            Op::Reduce(f, axis),
            vec![self.clone()],
            dims,
            self.kernel_dtype(),
        )
    }

    #[track_caller]
    fn squeezed(&self, axes: &[usize]) -> Result<Tensor> {
        let kept: Vec<usize> = self
            .dims()
            .iter()
            .enumerate()
            .filter(|(i, _)| !axes.contains(i))
            .map(|(_, d)| *d)
            .collect();
        self.reshape(kept)
    }

    /// `self * mul + add`.
    ///
    /// # Errors
    ///
    /// What the methods of [`Tensor`] return that it is spelled in.
    #[track_caller]
    pub fn affine(&self, mul: f64, add: f64) -> Result<Tensor> {
        let scaled = match mul == 1.0 {
            true => self.clone(),
            false => self.with_scalar(mul, Binary::Mul)?,
        };
        match add == 0.0 {
            true => Ok(scaled),
            false => scaled.with_scalar(add, Binary::Add),
        }
    }

    /// `self ^ e`.
    ///
    /// # Errors
    ///
    /// What the methods of [`Tensor`] return that it is spelled in.
    #[track_caller]
    pub fn powf(&self, e: f64) -> Result<Tensor> {
        match e == 2.0 {
            true => self.sqr(),
            false => self.with_scalar(e, Binary::Pow),
        }
    }

    /// `x > 0 ? x : alpha * (exp(x) - 1)`.
    ///
    /// # Errors
    ///
    /// What the methods of [`Tensor`] return that it is spelled in.
    #[track_caller]
    pub fn elu(&self, alpha: f64) -> Result<Tensor> {
        let negative = self.exp()?.affine(alpha, -alpha)?;
        self.gt(0.0)?.where_cond(self, &negative)
    }

    /// Sums over axes, which stay with size 1.
    ///
    /// # Errors
    ///
    /// If there is no such axis.
    #[track_caller]
    pub fn sum_keepdim<A: Dims>(&self, sum_dims: A) -> Result<Tensor> {
        let axes = sum_dims.to_indexes(self.shape(), "sum-keepdim")?;
        axes.iter()
            .try_fold(self.clone(), |t, a| t.reduce(Reduce::Sum, *a))
    }

    /// Sums over axes, which go.
    ///
    /// # Errors
    ///
    /// If there is no such axis.
    #[track_caller]
    pub fn sum<A: Dims>(&self, sum_dims: A) -> Result<Tensor> {
        let axes = sum_dims.to_indexes(self.shape(), "sum")?;
        axes.iter()
            .try_fold(self.clone(), |t, a| t.reduce(Reduce::Sum, *a))?
            .squeezed(&axes)
    }

    /// Means over axes, which stay with size 1.
    ///
    /// # Errors
    ///
    /// If there is no such axis, or the dtype is not a float.
    #[track_caller]
    pub fn mean_keepdim<A: Dims>(&self, mean_dims: A) -> Result<Tensor> {
        let axes = mean_dims.to_indexes(self.shape(), "mean-keepdim")?;
        let count: usize = axes.iter().map(|a| self.dims()[*a]).product();
        let sum = axes
            .iter()
            .try_fold(self.clone(), |t, a| t.reduce(Reduce::Sum, *a))?;
        sum.divided_by_count(count)
    }

    /// `self / count`, as a product with the inverse. The count is an integer of the graph: it
    /// may be a runtime size.
    #[track_caller]
    fn divided_by_count(&self, count: usize) -> Result<Tensor> {
        if !self.kernel_dtype().is_float() {
            bail!(
                "mean of a tensor of dtype {:?}; convert it to a float first",
                self.dtype()
            );
        }
        let count = Tensor::make(Op::Int(Dim::from(count)), vec![], (), DType::I64)?;
        let inverse = count
            .to_dtype(candle_core::DType::F32)?
            .recip()?
            .to_dtype(self.dtype())?;
        self.broadcast_mul(&inverse)
    }

    /// Means over axes, which go.
    ///
    /// # Errors
    ///
    /// If there is no such axis, or the dtype is not a float.
    #[track_caller]
    pub fn mean<A: Dims>(&self, mean_dims: A) -> Result<Tensor> {
        let axes = mean_dims.to_indexes(self.shape(), "mean")?;
        self.mean_keepdim(axes.clone())?.squeezed(&axes)
    }

    /// Unbiased variance over an axis, which stays with size 1.
    ///
    /// # Errors
    ///
    /// If there is no such axis, or the dtype is not a float.
    #[track_caller]
    pub fn var_keepdim<A: AsDim>(&self, dim: A) -> Result<Tensor> {
        let axis = dim.to_index(self.shape(), "var")?;
        let mean = self.mean_keepdim(axis)?;
        let squares = self.broadcast_sub(&mean)?.sqr()?;
        squares
            .reduce(Reduce::Sum, axis)?
            .divided_by_count(self.dims()[axis].saturating_sub(1))
    }

    /// Unbiased variance over an axis, which goes.
    ///
    /// # Errors
    ///
    /// If there is no such axis, or the dtype is not a float.
    #[track_caller]
    pub fn var<A: AsDim>(&self, dim: A) -> Result<Tensor> {
        let axis = dim.to_index(self.shape(), "var")?;
        self.var_keepdim(axis)?.squeezed(&[axis])
    }

    /// Largest elements along an axis, which stays with size 1.
    ///
    /// # Errors
    ///
    /// If there is no such axis.
    #[track_caller]
    pub fn max_keepdim<A: AsDim>(&self, dim: A) -> Result<Tensor> {
        let axis = dim.to_index(self.shape(), "max")?;
        self.reduce(Reduce::Max, axis)
    }

    /// Largest elements along an axis, which goes.
    ///
    /// # Errors
    ///
    /// If there is no such axis.
    #[track_caller]
    pub fn max<A: AsDim>(&self, dim: A) -> Result<Tensor> {
        let axis = dim.to_index(self.shape(), "max")?;
        self.reduce(Reduce::Max, axis)?.squeezed(&[axis])
    }

    /// Smallest elements along an axis, which stays with size 1.
    ///
    /// # Errors
    ///
    /// If there is no such axis.
    #[track_caller]
    pub fn min_keepdim<A: AsDim>(&self, dim: A) -> Result<Tensor> {
        let axis = dim.to_index(self.shape(), "min")?;
        self.reduce(Reduce::Min, axis)
    }

    /// Smallest elements along an axis, which goes.
    ///
    /// # Errors
    ///
    /// If there is no such axis.
    #[track_caller]
    pub fn min<A: AsDim>(&self, dim: A) -> Result<Tensor> {
        let axis = dim.to_index(self.shape(), "min")?;
        self.reduce(Reduce::Min, axis)?.squeezed(&[axis])
    }

    /// The sum of all elements.
    ///
    /// # Errors
    ///
    /// If the result is too large.
    #[track_caller]
    pub fn sum_all(&self) -> Result<Tensor> {
        self.flatten_all()?.sum(0)
    }

    /// The mean of all elements.
    ///
    /// # Errors
    ///
    /// If the dtype is not a float.
    #[track_caller]
    pub fn mean_all(&self) -> Result<Tensor> {
        self.flatten_all()?.mean(0)
    }

    /// The largest element.
    ///
    /// # Errors
    ///
    /// If the result is too large.
    #[track_caller]
    pub fn max_all(&self) -> Result<Tensor> {
        self.flatten_all()?.max(0)
    }

    /// The smallest element.
    ///
    /// # Errors
    ///
    /// If the result is too large.
    #[track_caller]
    pub fn min_all(&self) -> Result<Tensor> {
        self.flatten_all()?.min(0)
    }

    /// `log(sum(exp(x)))` over axes, which go.
    ///
    /// # Errors
    ///
    /// If there is no such axis, or the dtype is not a float.
    #[track_caller]
    pub fn log_sum_exp<A: Dims>(&self, sum_dims: A) -> Result<Tensor> {
        let axes = sum_dims.to_indexes(self.shape(), "log-sum-exp")?;
        let max = axes
            .iter()
            .try_fold(self.clone(), |t, a| t.reduce(Reduce::Max, *a))?;
        let sum = self
            .broadcast_sub(&max)?
            .exp()?
            .sum_keepdim(axes.clone())?
            .log()?;
        sum.add(&max)?.squeezed(&axes)
    }
}

macro_rules! unary_methods {
    ($($name:ident $f:expr, $doc:literal;)*) => {
        impl Tensor {
            $(
                #[doc = $doc]
                ///
                /// # Errors
                ///
                /// If integers do not have it.
                #[track_caller]
                pub fn $name(&self) -> Result<Tensor> {
                    self.unary($f)
                }
            )*
        }
    };
}
unary_methods! {
    neg Unary::Neg, "`-x` of each element.";
    abs Unary::Abs, "`|x|` of each element.";
    exp Unary::Exp, "`e^x` of each element.";
    log Unary::Log, "The natural logarithm of each element.";
    sin Unary::Sin, "The sine of each element.";
    cos Unary::Cos, "The cosine of each element.";
    tanh Unary::Tanh, "The hyperbolic tangent of each element.";
    sqr Unary::Sqr, "The square of each element.";
    sqrt Unary::Sqrt, "The square root of each element.";
    recip Unary::Recip, "`1/x` of each element.";
    erf Unary::Erf, "The error function of each element.";
    relu Unary::Relu, "`max(x, 0)` of each element.";
    silu Unary::Silu, "`x * sigmoid(x)` of each element.";
    gelu Unary::Gelu, "The tanh approximation of GELU of each element.";
    gelu_erf Unary::GeluErf, "GELU by the error function of each element.";
    floor Unary::Floor, "The largest integer not above each element.";
    ceil Unary::Ceil, "The smallest integer not below each element.";
    round Unary::Round, "The nearest integer of each element, halves away from zero.";
    sign Unary::Sign, "The sign of each element: -1, 0 or 1.";
}
