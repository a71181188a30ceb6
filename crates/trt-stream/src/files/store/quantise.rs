//! Plain weights as blocks: made once, row by row.

use super::make::{Job, Wanted};
use super::{Store, StoreError, identity, name};
use crate::files::{TensorId, TensorInfo, Weights};
use std::ops::Range;
use trt_kernel::{BlockType, Encoding};

impl Weights {
    /// These weights with every plain matrix in blocks of a type instead, which a store keeps. `progress` is told how many
    /// bytes are made of how many; it is not called if all are there.
    ///
    /// Rows that are no whole blocks of the type are in another that fits: of the types of 256 values, in `q4_0` for `q2_k` and `q3_k`,
    /// `q5_0` for `q4_k`, `q5_1` for `q5_k` and `q8_0` for `q6_k`. Where not even 32 values fit, and where a tensor is no matrix, it stays as it
    /// is: norms and biases do.
    ///
    /// # Errors
    /// [`StoreError::Encode`] for a value that blocks cannot hold and for a type that this version only reads; what the
    /// system says where they are kept.
    pub fn quantised(
        &self,
        to: BlockType,
        store: &Store,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<Weights, StoreError> {
        let chosen = |(id, info): (TensorId, &TensorInfo)| Some((id, fitting(to, info)?));
        let chosen: Vec<(TensorId, BlockType)> = self.iter().filter_map(chosen).collect();
        if chosen.is_empty() {
            return Ok(self.clone());
        }
        let wanted = |(id, block): &(TensorId, BlockType)| Wanted {
            name: self.info(*id).name.clone(),
            encoding: Encoding::Blocks(*block),
            shape: self.info(*id).shape.clone(),
        };
        let rows = |number: usize, rows: Range<usize>, out: &mut [u8]| {
            let (id, block) = chosen[number];
            self.encode_rows(id, block, rows, out)
        };
        let job = Job {
            made: format!("quantise {}", to.name()),
            source: identity(self)?,
            tensors: chosen.iter().map(wanted).collect(),
            rows: &rows,
            progress,
        };
        let side = store.hold(&job, self, &name(self, &job.made, &job.source))?;
        let ids: Vec<TensorId> = chosen.iter().map(|c| c.0).collect();
        Ok(self.replaced(side.file, side.header.infos(), &ids))
    }

    fn encode_rows(
        &self,
        id: TensorId,
        block: BlockType,
        rows: Range<usize>,
        out: &mut [u8],
    ) -> Result<(), StoreError> {
        let info = self.info(id);
        let columns = info.columns();
        let mut values = vec![0f32; columns];
        let row_bytes = columns / block.values() * block.bytes();
        for (row, out) in rows.zip(out.chunks_exact_mut(row_bytes.max(1))) {
            self.values(id, row * columns, &mut values);
            block
                .encode(&values, out)
                .map_err(|error| StoreError::Encode {
                    tensor: info.name.clone(),
                    row,
                    error,
                })?;
        }
        Ok(())
    }
}

/// The type in which a tensor is quantised, if it is.
fn fitting(to: BlockType, info: &TensorInfo) -> Option<BlockType> {
    let [rows, columns] = info.shape[..] else {
        return None;
    };
    info.encoding.as_plain()?;
    let instead = match to {
        BlockType::Q2K | BlockType::Q3K => BlockType::Q4_0,
        BlockType::Q4K => BlockType::Q5_0,
        BlockType::Q5K => BlockType::Q5_1,
        BlockType::Q6K => BlockType::Q8_0,
        BlockType::Iq4Xs => BlockType::Iq4Nl,
        BlockType::Q4_0
        | BlockType::Q4_1
        | BlockType::Q5_0
        | BlockType::Q5_1
        | BlockType::Q8_0
        | BlockType::Iq4Nl
        | BlockType::Mxfp4 => to,
    };
    let fits = |block: &BlockType| columns.is_multiple_of(block.values());
    [to, instead]
        .into_iter()
        .find(fits)
        .filter(|_| rows * columns > 0)
}
