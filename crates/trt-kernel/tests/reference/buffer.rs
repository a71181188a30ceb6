//! Arguments of kernels, value by value.

use super::worse;
use half::{bf16, f16};
use trt_kernel::*;

/// Scales with which a block of any bytes has values between about -1 and 1.
fn small_scales(block: BlockType, bytes: &mut [u8], next: &mut impl FnMut() -> f64) {
    let (places, most): (&[usize], f64) = match block {
        BlockType::Q4_0 | BlockType::Q5_0 | BlockType::Q4_1 | BlockType::Q5_1 => (&[0], 1.0 / 16.0),
        BlockType::Q8_0 | BlockType::Iq4Nl => (&[0], 1.0 / 128.0),
        BlockType::Q2K => (&[80, 82], 1.0 / 64.0),
        BlockType::Q3K => (&[108], 1.0 / 128.0),
        BlockType::Q4K | BlockType::Q5K => (&[0, 2], 1.0 / 1024.0),
        BlockType::Q6K => (&[208], 1.0 / 4096.0),
        BlockType::Iq4Xs => (&[0], 1.0 / 4096.0),
        BlockType::Mxfp4 => {
            bytes[0] = 123 + (next() * 4.0) as u8;
            (&[], 0.0)
        }
    };
    for at in places {
        bytes[*at..at + 2].copy_from_slice(&f16::from_f64(next() * most).to_le_bytes());
    }
    if let BlockType::Q4_1 | BlockType::Q5_1 = block {
        bytes[2..4].copy_from_slice(&f16::from_f64(next() - 1.0).to_le_bytes());
    }
}

/// An argument: values and how they are written down.
#[derive(Clone, Debug, PartialEq)]
pub struct Buffer {
    pub encoding: Encoding,
    pub bytes: Vec<u8>,
}

impl Buffer {
    pub fn zeros(encoding: impl Into<Encoding>, len: usize) -> Buffer {
        let encoding = encoding.into();
        let bytes = encoding.row_bytes(len).expect("whole blocks");
        Buffer {
            encoding,
            bytes: vec![0; bytes],
        }
    }

    pub fn new(dtype: DType, values: impl IntoIterator<Item = f64>) -> Buffer {
        let values: Vec<f64> = values.into_iter().collect();
        let mut buffer = Buffer::zeros(dtype, values.len());
        for (i, v) in values.into_iter().enumerate() {
            buffer.set(i as i64, v);
        }
        buffer
    }

    /// Deterministic values between -1 and 1 (integers: 0 to 9).
    pub fn random(encoding: impl Into<Encoding>, len: usize, seed: u64) -> Buffer {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        match encoding.into() {
            Encoding::Plain(dtype) => Buffer::new(
                dtype,
                (0..len).map(|_| match dtype.is_float() {
                    true => next() * 2.0 - 1.0,
                    false => (next() * 10.0).floor(),
                }),
            ),
            Encoding::Blocks(block) => {
                let mut buffer = Buffer::zeros(block, len);
                for bytes in buffer.bytes.chunks_exact_mut(block.bytes()) {
                    bytes.fill_with(|| (next() * 256.0) as u8);
                    small_scales(block, bytes, &mut next);
                }
                buffer
            }
            Encoding::Packed(_) | Encoding::Code => panic!("packed rows are made of plain ones"),
        }
    }

    /// The same values, each by itself.
    pub fn plain(&self) -> Buffer {
        match self.encoding {
            Encoding::Plain(_) => self.clone(),
            Encoding::Packed(_) | Encoding::Code => panic!("packed rows are made of plain ones"),
            Encoding::Blocks(block) => {
                let mut values = vec![0f32; self.len()];
                let blocks = self.bytes.chunks_exact(block.bytes());
                for (bytes, values) in blocks.zip(values.chunks_exact_mut(block.values())) {
                    block.decode(bytes, values);
                }
                Buffer::new(DType::F32, values.into_iter().map(f64::from))
            }
        }
    }

    /// The dtype of the values.
    pub fn dtype(&self) -> DType {
        self.encoding.dtype()
    }

    pub fn len(&self) -> usize {
        self.bytes.len() / self.encoding.bytes() * self.encoding.values()
    }

    pub fn get(&self, i: i64) -> f64 {
        let dtype = match self.encoding {
            Encoding::Plain(dtype) => dtype,
            Encoding::Packed(_) | Encoding::Code => panic!("packed rows have no single values"),
            Encoding::Blocks(block) => {
                let (values, bytes) = (block.values(), block.bytes());
                let mut decoded = vec![0f32; values];
                let at = i as usize / values * bytes;
                block.decode(&self.bytes[at..at + bytes], &mut decoded);
                return f64::from(decoded[i as usize % values]);
            }
        };
        let at = i as usize * dtype.size();
        let b = &self.bytes[at..at + dtype.size()];
        match dtype {
            DType::U8 => f64::from(b[0]),
            DType::U32 => f64::from(u32::from_le_bytes(b.try_into().unwrap())),
            DType::I64 => i64::from_le_bytes(b.try_into().unwrap()) as f64,
            DType::BF16 => bf16::from_le_bytes(b.try_into().unwrap()).to_f64(),
            DType::F16 => f16::from_le_bytes(b.try_into().unwrap()).to_f64(),
            DType::F32 => f64::from(f32::from_le_bytes(b.try_into().unwrap())),
        }
    }

    pub fn set(&mut self, i: i64, v: f64) {
        let dtype = self.encoding.as_plain().expect("no kernel writes blocks");
        let at = i as usize * dtype.size();
        let b = &mut self.bytes[at..at + dtype.size()];
        match dtype {
            DType::U8 => b[0] = v as u8,
            DType::U32 => b.copy_from_slice(&(v as u32).to_le_bytes()),
            DType::I64 => b.copy_from_slice(&(v as i64).to_le_bytes()),
            DType::BF16 => b.copy_from_slice(&bf16::from_f32(v as f32).to_le_bytes()),
            DType::F16 => b.copy_from_slice(&f16::from_f32(v as f32).to_le_bytes()),
            DType::F32 => b.copy_from_slice(&(v as f32).to_le_bytes()),
        }
    }

    pub fn values(&self) -> Vec<f64> {
        (0..self.len() as i64).map(|i| self.get(i)).collect()
    }

    /// The largest distance to another buffer, in units of what the dtype resolves near 1.
    pub fn distance(&self, other: &Buffer) -> f64 {
        assert_eq!(self.encoding, other.encoding);
        if let Encoding::Packed(_) | Encoding::Code = self.encoding {
            // Nobody writes them.
            return if self.bytes == other.bytes {
                0.0
            } else {
                f64::INFINITY
            };
        }
        assert_eq!(self.len(), other.len());
        let unit = match self.dtype() {
            DType::BF16 => 1.0 / 128.0,
            DType::F16 => 1.0 / 1024.0,
            DType::F32 => 1e-6,
            DType::U8 | DType::U32 | DType::I64 => 1e-9,
        };
        (self.values().iter().zip(other.values()))
            .map(|(a, b)| match (*a == b) || (a.is_nan() && b.is_nan()) {
                true => 0.0,
                false => (a - b).abs() / (unit * b.abs().max(1.0)),
            })
            .fold(0.0, worse)
    }
}
