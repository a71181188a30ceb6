//! Operations that are defined over memory.
//!
//! Such an operation says what it does in terms of a CPU's memory, which no symbolic tensor has. Where all its
//! operands depend on constants only, their elements are known, so it runs on these and its result is a constant.
//! Elsewhere it is an error.

use super::build::bytes;
use super::tensor::Tensor;
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, WithDType, bail,
};
use half::{bf16, f16};
use trt_kernel::DType;

impl Tensor {
    /// The elements in memory of candle's.
    #[track_caller]
    fn storage(&self) -> Result<CpuStorage> {
        #[track_caller]
        fn of<T: WithDType>(t: &Tensor) -> Result<CpuStorage> {
            Ok(T::to_cpu_storage_owned(t.elements::<T>("apply_op")?))
        }
        match self.kernel_dtype() {
            DType::U8 => of::<u8>(self),
            DType::U32 => of::<u32>(self),
            DType::I64 => of::<i64>(self),
            DType::BF16 => of::<bf16>(self),
            DType::F16 => of::<f16>(self),
            DType::F32 => of::<f32>(self),
        }
    }
}

/// Runs an operation on operands whose elements are known.
#[track_caller]
fn run<const N: usize>(
    name: &str,
    operands: [&Tensor; N],
    f: impl FnOnce([(&CpuStorage, &Layout); N]) -> Result<(CpuStorage, Shape)>,
) -> Result<Tensor> {
    let mut known = Vec::with_capacity(N);
    for operand in operands {
        match operand.storage() {
            Ok(storage) => known.push((storage, Layout::contiguous(operand.shape().clone()))),
            Err(e) => bail!(
                "the custom operation '{name}' reads the memory of {operand:?}, which a symbolic tensor has not: \
                 spell it in tensor operations, or keep it outside of the compiled model ({e})"
            ),
        }
    }
    let at = |i: usize| (&known[i].0, &known[i].1);
    let (storage, shape) = f(std::array::from_fn(at))?;
    let (bytes, dtype) = bytes(&storage)?;
    Tensor::literal(bytes, shape, dtype)
}

impl Tensor {
    /// The result of an operation of one operand.
    ///
    /// # Errors
    ///
    /// If the operand depends on more than constants, or the operation fails.
    #[track_caller]
    pub fn apply_op1_no_bwd<C: CustomOp1>(&self, c: &C) -> Result<Tensor> {
        run(c.name(), [self], |[a]| c.cpu_fwd(a.0, a.1))
    }

    /// The result of an operation of two operands.
    ///
    /// # Errors
    ///
    /// If an operand depends on more than constants, or the operation fails.
    #[track_caller]
    pub fn apply_op2_no_bwd<C: CustomOp2>(&self, rhs: &Tensor, c: &C) -> Result<Tensor> {
        run(c.name(), [self, rhs], |[a, b]| {
            c.cpu_fwd(a.0, a.1, b.0, b.1)
        })
    }

    /// The result of an operation of three operands.
    ///
    /// # Errors
    ///
    /// If an operand depends on more than constants, or the operation fails.
    #[track_caller]
    pub fn apply_op3_no_bwd<C: CustomOp3>(
        &self,
        t2: &Tensor,
        t3: &Tensor,
        c: &C,
    ) -> Result<Tensor> {
        run(c.name(), [self, t2, t3], |[x, y, z]| {
            c.cpu_fwd(x.0, x.1, y.0, y.1, z.0, z.1)
        })
    }

    /// As [`Tensor::apply_op1_no_bwd`]: there are no gradients.
    ///
    /// # Errors
    ///
    /// As [`Tensor::apply_op1_no_bwd`].
    #[track_caller]
    pub fn apply_op1<C: 'static + CustomOp1 + Send + Sync>(&self, c: C) -> Result<Tensor> {
        self.apply_op1_no_bwd(&c)
    }

    /// As [`Tensor::apply_op2_no_bwd`]: there are no gradients.
    ///
    /// # Errors
    ///
    /// As [`Tensor::apply_op2_no_bwd`].
    #[track_caller]
    pub fn apply_op2<C: 'static + CustomOp2 + Send + Sync>(
        &self,
        r: &Tensor,
        c: C,
    ) -> Result<Tensor> {
        self.apply_op2_no_bwd(r, &c)
    }

    /// As [`Tensor::apply_op3_no_bwd`]: there are no gradients.
    ///
    /// # Errors
    ///
    /// As [`Tensor::apply_op3_no_bwd`].
    #[track_caller]
    pub fn apply_op3<C: 'static + CustomOp3 + Send + Sync>(
        &self,
        t2: &Tensor,
        t3: &Tensor,
        c: C,
    ) -> Result<Tensor> {
        self.apply_op3_no_bwd(t2, t3, &c)
    }
}
