//! The values of weights in blocks, for kernels that need them in one piece and read nothing but plain elements.

use super::make::{Job, Wanted};
use super::{Store, StoreError, identity};
use crate::files::{TensorId, Weights};
use std::ops::Range;
use trt_kernel::{DType, Encoding};

/// What is done.
const MADE: &str = "values";

impl Weights {
    /// These weights and the values, in f32, of some that are in blocks; with the id of each. They are found by no name, and
    /// kept in memory: norms, biases and what else is used whole is small.
    ///
    /// # Errors
    /// [`StoreError::Device`] if the system has no memory for them.
    pub fn with_values(&self, of: &[TensorId]) -> Result<(Weights, Vec<TensorId>), StoreError> {
        let source = |number: usize| self.info(of[number]);
        let wanted = |id: &TensorId| Wanted {
            name: self.info(*id).name.clone(),
            encoding: Encoding::Plain(DType::F32),
            shape: self.info(*id).shape.clone(),
        };
        let rows = |number: usize, rows: Range<usize>, out: &mut [u8]| {
            let info = source(number);
            let columns = info.shape.last().copied().unwrap_or(1);
            let mut values = vec![0f32; rows.len() * columns];
            self.values(of[number], rows.start * columns, &mut values);
            for (bytes, value) in out.chunks_exact_mut(4).zip(values) {
                bytes.copy_from_slice(&value.to_le_bytes());
            }
            Ok(())
        };
        let job = Job {
            made: MADE.into(),
            source: identity(self)?,
            tensors: of.iter().map(wanted).collect(),
            rows: &rows,
            progress: &|_, _| {},
        };
        let side = Store::Memory.hold(&job, self, MADE)?;
        Ok(self.beside(side.file, side.header.infos()))
    }

    /// Values of a tensor from one on, row-major, as many as there are places for. What does not begin with a block is not
    /// written.
    pub(super) fn values(&self, id: TensorId, first: usize, out: &mut [f32]) {
        let Some(bytes) = self.bytes(id) else { return };
        let encoding = self.info(id).encoding;
        let (values, size) = (encoding.values(), encoding.bytes());
        let blocks = bytes.chunks_exact(size).skip(first / values);
        for (block, out) in blocks.zip(out.chunks_exact_mut(values)) {
            match encoding {
                Encoding::Blocks(kind) => kind.decode(block, out),
                // No tensor of a file is packed: that is a form beside it.
                Encoding::Packed(_) | Encoding::Code => {}
                Encoding::Plain(dtype) => out[0] = plain(dtype, block),
            }
        }
    }
}

/// A plain value; files hold floats.
fn plain(dtype: DType, bytes: &[u8]) -> f32 {
    match (dtype, bytes) {
        (DType::BF16, [a, b]) => half::bf16::from_le_bytes([*a, *b]).to_f32(),
        (DType::F16, [a, b]) => half::f16::from_le_bytes([*a, *b]).to_f32(),
        (DType::F32, [a, b, c, d]) => f32::from_le_bytes([*a, *b, *c, *d]),
        _ => f32::NAN,
    }
}
