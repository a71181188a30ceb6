//! The values of candle's tensors as bytes of a device, and back.

use crate::error::Error;
use candle_core::{Device as CandleDevice, Tensor};
use trt_kernel::DType;

/// What candle calls a dtype.
pub(super) fn candle_dtype(dtype: DType) -> candle_core::DType {
    match dtype {
        DType::U8 => candle_core::DType::U8,
        DType::U32 => candle_core::DType::U32,
        DType::I64 => candle_core::DType::I64,
        DType::BF16 => candle_core::DType::BF16,
        DType::F16 => candle_core::DType::F16,
        DType::F32 => candle_core::DType::F32,
    }
}

/// Values of f32 in the device's byte order.
pub(super) fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|c| f32::from_le_bytes(*c))
        .collect()
}

/// What a tensor's values are on a device.
///
/// # Errors
/// What candle refuses.
pub(super) fn tensor_bytes(t: &Tensor) -> Result<Vec<u8>, Error> {
    let flat = t.flatten_all()?;
    Ok(match t.dtype() {
        candle_core::DType::U8 => flat.to_vec1::<u8>()?,
        candle_core::DType::U32 => flat
            .to_vec1::<u32>()?
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        candle_core::DType::I64 => flat
            .to_vec1::<i64>()?
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        candle_core::DType::BF16 => flat
            .to_vec1::<half::bf16>()?
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        candle_core::DType::F16 => flat
            .to_vec1::<half::f16>()?
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        _ => flat
            .to_vec1::<f32>()?
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
    })
}

/// A tensor on the CPU of what was read from a device.
///
/// # Errors
/// What candle refuses.
pub(super) fn tensor_from(bytes: &[u8], dims: &[usize], dtype: DType) -> Result<Tensor, Error> {
    Ok(Tensor::from_raw_buffer(
        bytes,
        candle_dtype(dtype),
        dims,
        &CandleDevice::Cpu,
    )?)
}
