//! Tensors of the reference, and how elements are held in bytes.

use crate::Error;
use half::{bf16, f16};
use trt_kernel::DType;

/// A tensor of the reference: shape and row-major elements.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Array {
    /// Sizes of the axes.
    pub shape: Vec<usize>,
    /// Row-major elements.
    pub data: Vec<f64>,
}

impl Array {
    /// An array from parts; lengths must agree.
    ///
    /// # Errors
    ///
    /// [`Error::Reference`] if the lengths differ.
    pub fn new(shape: Vec<usize>, data: Vec<f64>) -> Result<Array, Error> {
        match shape.iter().product::<usize>() == data.len() {
            true => Ok(Array { shape, data }),
            false => Err(Error::Reference(format!(
                "{} elements for shape {shape:?}",
                data.len()
            ))),
        }
    }

    /// Every element computed from its index.
    pub(super) fn from_fn(shape: &[usize], mut f: impl FnMut(&[usize]) -> f64) -> Array {
        let n = shape.iter().product();
        let mut index = vec![0; shape.len()];
        let mut data = Vec::with_capacity(n);
        for _ in 0..n {
            data.push(f(&index));
            for axis in (0..shape.len()).rev() {
                index[axis] += 1;
                if index[axis] < shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        Array {
            shape: shape.to_vec(),
            data,
        }
    }

    pub(super) fn at(&self, index: &[usize]) -> f64 {
        let flat = index
            .iter()
            .zip(&self.shape)
            .fold(0, |acc, (i, n)| acc * n + i);
        self.data[flat]
    }
}

/// Rounds a value to what the dtype can hold.
pub fn round(value: f64, dtype: DType) -> f64 {
    match dtype {
        DType::F32 => f64::from(value as f32),
        DType::F16 => f16::from_f32(value as f32).to_f64(),
        DType::BF16 => bf16::from_f32(value as f32).to_f64(),
        DType::U8 => f64::from(value as u8),
        DType::U32 => f64::from(value as u32),
        DType::I64 => (value as i64) as f64,
    }
}

/// Elements of little-endian bytes.
pub fn decode(bytes: &[u8], dtype: DType) -> Vec<f64> {
    let each = bytes.chunks_exact(dtype.size());
    each.map(|c| one(c, dtype)).collect()
}

/// One element of little-endian bytes, if they reach that far.
pub(crate) fn element(bytes: &[u8], i: usize, dtype: DType) -> Option<f64> {
    let at = i.checked_mul(dtype.size())?;
    let chunk = bytes.get(at..at.checked_add(dtype.size())?)?;
    Some(one(chunk, dtype))
}

fn one(chunk: &[u8], dtype: DType) -> f64 {
    let mut word = [0; 8];
    word[..chunk.len()].copy_from_slice(chunk);
    let bits = u64::from_le_bytes(word);
    match dtype {
        DType::U8 | DType::U32 => bits as f64,
        DType::I64 => bits as i64 as f64,
        DType::BF16 => bf16::from_bits(bits as u16).to_f64(),
        DType::F16 => f16::from_bits(bits as u16).to_f64(),
        DType::F32 => f64::from(f32::from_bits(bits as u32)),
    }
}

/// Little-endian bytes of elements.
pub fn encode(values: &[f64], dtype: DType) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(values.len() * dtype.size());
    for &v in values {
        match dtype {
            DType::U8 => bytes.push(v as u8),
            DType::U32 => bytes.extend((v as u32).to_le_bytes()),
            DType::I64 => bytes.extend((v as i64).to_le_bytes()),
            DType::BF16 => bytes.extend(bf16::from_f32(v as f32).to_le_bytes()),
            DType::F16 => bytes.extend(f16::from_f32(v as f32).to_le_bytes()),
            DType::F32 => bytes.extend((v as f32).to_le_bytes()),
        }
    }
    bytes
}
