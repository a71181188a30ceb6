//! Reading elements while a model is traced: possible where they depend on constants and small weights only.

use super::known;
use super::tensor::{Tensor, kernel_dtype};
use candle_core::{Result, WithDType, bail};

impl Tensor {
    /// The elements in row-major order, if they depend on constants and small weights only.
    #[track_caller]
    pub(super) fn elements<S: WithDType>(&self, method: &str) -> Result<Vec<S>> {
        if kernel_dtype(S::DTYPE)? != self.kernel_dtype() {
            bail!("{method}::<{:?}> of {self:?}", S::DTYPE);
        }
        let elements = known::elements(self, method)?;
        Ok(elements.iter().copied().map(S::from_f64).collect())
    }

    /// The only element of a scalar that depends on constants and small weights only.
    ///
    /// # Errors
    ///
    /// If there are axes, the dtype is another, or the elements depend on an input of the call, or on more than 1 MiB
    /// of weights.
    #[track_caller]
    pub fn to_scalar<S: WithDType>(&self) -> Result<S> {
        self.dims0()?;
        match self.elements::<S>("to_scalar")?.first() {
            Some(v) => Ok(*v),
            None => bail!("to_scalar: {self:?} has no element"),
        }
    }

    /// As [`Tensor::to_scalar`].
    ///
    /// # Errors
    ///
    /// As [`Tensor::to_scalar`].
    #[track_caller]
    pub fn to_vec0<S: WithDType>(&self) -> Result<S> {
        self.to_scalar()
    }

    /// The elements of a vector that depends on constants and small weights only.
    ///
    /// # Errors
    ///
    /// If there is not 1 axis, the dtype is another, or the elements depend on what [`Tensor::to_scalar`] refuses.
    #[track_caller]
    pub fn to_vec1<S: WithDType>(&self) -> Result<Vec<S>> {
        self.dims1()?;
        self.elements("to_vec1")
    }

    /// The rows of a matrix that depends on constants and small weights only.
    ///
    /// # Errors
    ///
    /// If there are not 2 axes, the dtype is another, or the elements depend on what [`Tensor::to_scalar`] refuses.
    #[track_caller]
    pub fn to_vec2<S: WithDType>(&self) -> Result<Vec<Vec<S>>> {
        let (_, cols) = self.dims2()?;
        let all = self.elements::<S>("to_vec2")?;
        Ok(all.chunks(cols.max(1)).map(<[S]>::to_vec).collect())
    }

    /// The matrices of a rank 3 tensor that depends on constants and small weights only.
    ///
    /// # Errors
    ///
    /// If there are not 3 axes, the dtype is another, or the elements depend on what [`Tensor::to_scalar`] refuses.
    #[track_caller]
    pub fn to_vec3<S: WithDType>(&self) -> Result<Vec<Vec<Vec<S>>>> {
        let (_, rows, cols) = self.dims3()?;
        let all = self.elements::<S>("to_vec3")?;
        let matrix = |m: &[S]| m.chunks(cols.max(1)).map(<[S]>::to_vec).collect();
        Ok(all.chunks((rows * cols).max(1)).map(matrix).collect())
    }
}
