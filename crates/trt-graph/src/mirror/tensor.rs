//! The symbolic tensor: an operation with its operands, shape and dtype.

use super::device::{Device, Storage};
use super::{recorder, size};
use crate::graph::{Literal, Op};
use crate::line::{self, Line};
use candle_core::{Layout, Result, Shape, bail};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use trt_kernel::{DType, Dim, Encoding};

pub use super::module::{Module, ModuleT};

/// A tensor whose elements are not known while a model is traced, with candle's methods.
#[derive(Clone)]
pub struct Tensor(Arc<Symbol>);

struct Symbol {
    id: u64,
    epoch: u32,
    op: Op,
    operands: Vec<Tensor>,
    shape: Shape,
    /// The shape that the next call sees, where a trace sets the length of what is kept.
    resized: OnceLock<Shape>,
    dtype: DType,
    /// The line of model code that made it.
    line: Line,
}

static NEXT: AtomicU64 = AtomicU64::new(0);
static CPU: Device = Device::Cpu;

/// The house's dtype for candle's.
#[track_caller]
pub(crate) fn kernel_dtype(dtype: candle_core::DType) -> Result<DType> {
    use candle_core::DType as C;
    Ok(match dtype {
        C::U8 => DType::U8,
        C::U32 => DType::U32,
        C::I64 => DType::I64,
        C::BF16 => DType::BF16,
        C::F16 => DType::F16,
        C::F32 => DType::F32,
        other => bail!(
            "dtype {other:?} is not supported by candle-trt (u8, u32, i64, bf16, f16, f32 are)"
        ),
    })
}

/// candle's dtype for the house's.
pub(crate) fn candle_dtype(dtype: DType) -> candle_core::DType {
    match dtype {
        DType::U8 => candle_core::DType::U8,
        DType::U32 => candle_core::DType::U32,
        DType::I64 => candle_core::DType::I64,
        DType::BF16 => candle_core::DType::BF16,
        DType::F16 => candle_core::DType::F16,
        DType::F32 => candle_core::DType::F32,
    }
}

impl Tensor {
    #[track_caller]
    pub(crate) fn make(
        op: Op,
        operands: Vec<Tensor>,
        shape: impl Into<Shape>,
        dtype: DType,
    ) -> Result<Tensor> {
        let shape = shape.into();
        size::checked(shape.dims())?;
        let tensor = Tensor(Arc::new(Symbol {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            epoch: recorder::current_epoch(),
            op,
            operands,
            shape,
            resized: OnceLock::new(),
            dtype,
            line: line::here(),
        }));
        recorder::record(&tensor);
        Ok(tensor)
    }

    #[track_caller]
    pub(crate) fn input(index: u32, shape: Shape, dtype: candle_core::DType) -> Result<Tensor> {
        Tensor::make(Op::Input(index), vec![], shape, kernel_dtype(dtype)?)
    }

    #[track_caller]
    pub(crate) fn weight(name: &str, shape: Shape, encoding: Encoding) -> Result<Tensor> {
        let op = Op::Weight(name.into(), encoding);
        Tensor::make(op, vec![], shape, encoding.dtype())
    }

    /// A constant from the bytes of its elements.
    #[track_caller]
    pub(crate) fn literal(bytes: Vec<u8>, shape: Shape, dtype: DType) -> Result<Tensor> {
        Tensor::make(Op::Const(Literal::new(bytes)), vec![], shape, dtype)
    }

    pub(crate) fn id(&self) -> u64 {
        self.0.id
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.0.epoch
    }

    pub(crate) fn op(&self) -> &Op {
        &self.0.op
    }

    pub(crate) fn operands(&self) -> &[Tensor] {
        &self.0.operands
    }

    pub(crate) fn kernel_dtype(&self) -> DType {
        self.0.dtype
    }

    /// How many hold this tensor.
    pub(crate) fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// Gives it another shape once, as if its call had been another; see [`crate::trace`].
    pub(crate) fn resize(&self, dims: Vec<usize>) {
        let shape = Shape::from(dims);
        if shape != self.0.shape {
            // A second time would mean that an older call's tensor was taken for the last one's.
            let _ = self.0.resized.set(shape);
        }
    }

    /// The sizes that it was made with, whatever later calls see.
    pub(crate) fn made_dims(&self) -> &[usize] {
        self.0.shape.dims()
    }

    /// A scalar of this dtype repeated over this shape.
    #[track_caller]
    pub(crate) fn like(&self, value: f64) -> Result<Tensor> {
        Tensor::filled(value, self.shape().clone(), self.0.dtype)
    }

    #[track_caller]
    pub(crate) fn filled(value: f64, shape: Shape, dtype: DType) -> Result<Tensor> {
        let op = match dtype.is_float() {
            true => Op::Float(value as f32),
            false => Op::Int(Dim::from(value as i64)),
        };
        let scalar = Tensor::make(op, vec![], (), dtype)?;
        if shape.rank() == 0 {
            return Ok(scalar);
        }
        let point = Tensor::make(Op::Reshape, vec![scalar], vec![1usize; shape.rank()], dtype)?;
        Tensor::make(Op::Broadcast, vec![point], shape, dtype)
    }

    /// The line of model code that made it, where it is known.
    pub fn line(&self) -> Line {
        self.0.line
    }

    /// The element type.
    pub fn dtype(&self) -> candle_core::DType {
        candle_dtype(self.0.dtype)
    }

    /// Always the CPU: where a program runs is decided when it is compiled.
    pub fn device(&self) -> &Device {
        &CPU
    }

    /// The shape.
    #[track_caller]
    pub fn shape(&self) -> &Shape {
        line::here();
        self.0.resized.get().unwrap_or(&self.0.shape)
    }

    /// The sizes of the axes.
    #[track_caller]
    pub fn dims(&self) -> &[usize] {
        self.shape().dims()
    }

    /// The size of one axis.
    ///
    /// # Errors
    ///
    /// If there is no such axis.
    #[track_caller]
    pub fn dim<D: candle_core::shape::Dim>(&self, dim: D) -> Result<usize> {
        let dim = dim.to_index(self.shape(), "dim")?;
        Ok(self.dims()[dim])
    }

    /// The number of axes.
    #[track_caller]
    pub fn rank(&self) -> usize {
        self.dims().len()
    }

    /// The number of elements.
    #[track_caller]
    pub fn elem_count(&self) -> usize {
        self.shape().elem_count()
    }

    /// Checks for rank 0.
    ///
    /// # Errors
    ///
    /// If there are not 0 axes.
    #[track_caller]
    pub fn dims0(&self) -> Result<()> {
        self.shape().dims0()
    }

    /// The size of a vector.
    ///
    /// # Errors
    ///
    /// If there are not 1 axes.
    #[track_caller]
    pub fn dims1(&self) -> Result<usize> {
        self.shape().dims1()
    }

    /// The sizes of a matrix.
    ///
    /// # Errors
    ///
    /// If there are not 2 axes.
    #[track_caller]
    pub fn dims2(&self) -> Result<(usize, usize)> {
        self.shape().dims2()
    }

    /// The sizes of a rank 3 tensor.
    ///
    /// # Errors
    ///
    /// If there are not 3 axes.
    #[track_caller]
    pub fn dims3(&self) -> Result<(usize, usize, usize)> {
        self.shape().dims3()
    }

    /// The sizes of a rank 4 tensor.
    ///
    /// # Errors
    ///
    /// If there are not 4 axes.
    #[track_caller]
    pub fn dims4(&self) -> Result<(usize, usize, usize, usize)> {
        self.shape().dims4()
    }

    /// The sizes of a rank 5 tensor.
    ///
    /// # Errors
    ///
    /// If there are not 5 axes.
    #[track_caller]
    pub fn dims5(&self) -> Result<(usize, usize, usize, usize, usize)> {
        self.shape().dims5()
    }

    /// Layout is decided by the compiler; every symbolic tensor counts as contiguous.
    pub fn is_contiguous(&self) -> bool {
        true
    }

    /// The same tensor: layout is decided by the compiler.
    ///
    /// # Errors
    ///
    /// None; the signature is candle's.
    #[track_caller]
    pub fn contiguous(&self) -> Result<Tensor> {
        Ok(self.clone())
    }

    /// The same tensor: layout is decided by the compiler.
    ///
    /// # Errors
    ///
    /// None; the signature is candle's.
    #[track_caller]
    pub fn force_contiguous(&self) -> Result<Tensor> {
        Ok(self.clone())
    }

    /// The memory, which a symbolic tensor has not, and the layout of a new tensor.
    pub fn storage_and_layout(&self) -> (Box<Storage>, Layout) {
        let layout = Layout::contiguous(self.shape().clone());
        (Box::new(Storage::Symbolic), layout)
    }

    /// The same tensor: nothing is shared that could be written.
    ///
    /// # Errors
    ///
    /// None; the signature is candle's.
    #[track_caller]
    pub fn copy(&self) -> Result<Tensor> {
        Ok(self.clone())
    }

    /// The same tensor: there are no gradients.
    pub fn detach(&self) -> Tensor {
        self.clone()
    }

    /// The same tensor: where a program runs is decided when it is compiled.
    ///
    /// # Errors
    ///
    /// None; the signature is candle's.
    #[track_caller]
    pub fn to_device(&self, _device: &Device) -> Result<Tensor> {
        Ok(self.clone())
    }

    /// Conversion to another dtype.
    ///
    /// # Errors
    ///
    /// If the dtype is not supported.
    #[track_caller]
    pub fn to_dtype(&self, dtype: candle_core::DType) -> Result<Tensor> {
        let dtype = kernel_dtype(dtype)?;
        if dtype == self.0.dtype {
            return Ok(self.clone());
        }
        Tensor::make(Op::Cast, vec![self.clone()], self.shape().clone(), dtype)
    }

    /// Runs a layer on this tensor.
    ///
    /// # Errors
    ///
    /// What the layer returns.
    #[track_caller]
    pub fn apply<M: Module>(&self, m: &M) -> Result<Tensor> {
        m.forward(self)
    }

    /// Runs a layer on this tensor.
    ///
    /// # Errors
    ///
    /// What the layer returns.
    #[track_caller]
    pub fn apply_t<M: ModuleT>(&self, m: &M, train: bool) -> Result<Tensor> {
        m.forward_t(self, train)
    }
}

impl AsRef<Tensor> for Tensor {
    fn as_ref(&self) -> &Tensor {
        self
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Tensor[{} {:?}; {}]",
            self.0.op.name(),
            self.dims(),
            self.0.dtype
        )
    }
}
