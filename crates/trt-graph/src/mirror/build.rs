//! Constructors: tensors from data, fills and ranges.

use super::device::Device;
use super::size;
use super::tensor::{Tensor, kernel_dtype};
use crate::graph::Op;
use crate::line;
use candle_core::shape::ShapeWithOneHole;
use candle_core::{CpuStorage, NdArray, Result, Shape, WithDType, bail};
use trt_kernel::{DType, Dim};

/// The elements of memory of candle's, as bytes.
#[track_caller]
pub(super) fn bytes(storage: &CpuStorage) -> Result<(Vec<u8>, DType)> {
    fn raw<T: bytemuck::NoUninit>(v: &[T]) -> Vec<u8> {
        bytemuck::cast_slice(v).to_vec()
    }
    Ok(match storage {
        CpuStorage::U8(v) => (v.clone(), DType::U8),
        CpuStorage::U32(v) => (raw(v), DType::U32),
        CpuStorage::I64(v) => (raw(v), DType::I64),
        CpuStorage::BF16(v) => (raw(v), DType::BF16),
        CpuStorage::F16(v) => (raw(v), DType::F16),
        CpuStorage::F32(v) => (raw(v), DType::F32),
        other => bail!(
            "constants of {:?} are not supported by candle-trt",
            std::mem::discriminant(other)
        ),
    })
}

impl Tensor {
    /// A tensor from nested arrays, slices or a scalar.
    ///
    /// # Errors
    ///
    /// If the elements do not fill the shape, are more than [`CONSTANT`](size::CONSTANT) bytes, or
    /// have a dtype that is not supported.
    #[track_caller]
    pub fn new<A: NdArray>(array: A, _device: &Device) -> Result<Tensor> {
        line::here();
        let shape = array.shape()?;
        let (bytes, dtype) = bytes(&array.to_cpu_storage())?;
        Tensor::literal(bytes, shape, dtype)
    }

    /// A tensor from row-major elements.
    ///
    /// # Errors
    ///
    /// If the elements do not fill the shape, are more than [`CONSTANT`](size::CONSTANT) bytes, or
    /// have a dtype that is not supported.
    #[track_caller]
    pub fn from_vec<S: ShapeWithOneHole, D: WithDType>(
        data: Vec<D>,
        shape: S,
        _device: &Device,
    ) -> Result<Tensor> {
        line::here();
        let shape = size::shape(shape, data.len())?;
        let (bytes, dtype) = bytes(&D::to_cpu_storage_owned(data))?;
        Tensor::literal(bytes, shape, dtype)
    }

    /// A tensor from row-major elements.
    ///
    /// # Errors
    ///
    /// If the elements do not fill the shape, are more than [`CONSTANT`](size::CONSTANT) bytes, or
    /// have a dtype that is not supported.
    #[track_caller]
    pub fn from_slice<S: ShapeWithOneHole, D: WithDType>(
        data: &[D],
        shape: S,
        device: &Device,
    ) -> Result<Tensor> {
        Tensor::from_vec(data.to_vec(), shape, device)
    }

    /// A vector of an iterator's elements.
    ///
    /// # Errors
    ///
    /// If the elements are more than [`CONSTANT`](size::CONSTANT) bytes, or have a dtype that is
    /// not supported.
    #[track_caller]
    pub fn from_iter<D: WithDType>(
        iter: impl IntoIterator<Item = D>,
        device: &Device,
    ) -> Result<Tensor> {
        let most = size::CONSTANT / size_of::<D>().max(1);
        let data: Vec<D> = iter.into_iter().take(most + 1).collect();
        let len = data.len();
        if len > most {
            bail!("from_iter: more than {most} elements");
        }
        Tensor::from_vec(data, len, device)
    }

    /// One value repeated.
    ///
    /// # Errors
    ///
    /// If the shape has more than [`LARGEST`](size::LARGEST) elements, or the dtype is not
    /// supported.
    #[track_caller]
    pub fn full<D: WithDType, S: Into<Shape>>(
        value: D,
        shape: S,
        _device: &Device,
    ) -> Result<Tensor> {
        Tensor::filled(value.to_f64(), shape.into(), kernel_dtype(D::DTYPE)?)
    }

    /// Zeros.
    ///
    /// # Errors
    ///
    /// If the shape has more than [`LARGEST`](size::LARGEST) elements, or the dtype is not
    /// supported.
    #[track_caller]
    pub fn zeros<S: Into<Shape>>(
        shape: S,
        dtype: candle_core::DType,
        _device: &Device,
    ) -> Result<Tensor> {
        Tensor::filled(0.0, shape.into(), kernel_dtype(dtype)?)
    }

    /// Ones.
    ///
    /// # Errors
    ///
    /// If the shape has more than [`LARGEST`](size::LARGEST) elements, or the dtype is not
    /// supported.
    #[track_caller]
    pub fn ones<S: Into<Shape>>(
        shape: S,
        dtype: candle_core::DType,
        _device: &Device,
    ) -> Result<Tensor> {
        Tensor::filled(1.0, shape.into(), kernel_dtype(dtype)?)
    }

    /// Zeros of this shape and dtype.
    ///
    /// # Errors
    ///
    /// None; the signature is candle's.
    #[track_caller]
    pub fn zeros_like(&self) -> Result<Tensor> {
        self.like(0.0)
    }

    /// Ones of this shape and dtype.
    ///
    /// # Errors
    ///
    /// None; the signature is candle's.
    #[track_caller]
    pub fn ones_like(&self) -> Result<Tensor> {
        self.like(1.0)
    }

    /// `start, start + 1, …` below `end`.
    ///
    /// # Errors
    ///
    /// As [`Tensor::arange_step`].
    #[track_caller]
    pub fn arange<D: WithDType>(start: D, end: D, device: &Device) -> Result<Tensor> {
        Tensor::arange_step(start, end, D::from_f64(1.0), device)
    }

    /// `start, start + step, …` before `end`.
    ///
    /// # Errors
    ///
    /// If the step is 0, or the elements are more than [`CONSTANT`](size::CONSTANT) bytes or of a
    /// dtype that is not supported.
    #[track_caller]
    pub fn arange_step<D: WithDType>(start: D, end: D, step: D, device: &Device) -> Result<Tensor> {
        line::here();
        let (first, last, by) = (start.to_f64(), end.to_f64(), step.to_f64());
        if by == 0.0 {
            bail!("arange: the step is 0");
        }
        let len = ((last - first) / by).ceil().max(0.0) as usize;
        // Beyond this, neighbouring integers are the same number.
        let exact = |v: f64| v.fract() == 0.0 && v.abs() <= (1u64 << 53) as f64;
        if exact(first) && exact(by) && exact(last.trunc()) {
            let op = Op::Arange {
                start: Dim::from(first as i64),
                step: by as i64,
            };
            return Tensor::make(op, vec![], len, kernel_dtype(D::DTYPE)?);
        }
        let mut data: Vec<D> = size::room(len, "arange")?;
        data.extend((0..len).map(|i| D::from_f64(first + by * i as f64)));
        Tensor::from_vec(data, len, device)
    }
}
