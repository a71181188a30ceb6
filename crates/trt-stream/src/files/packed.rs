//! What of some weights also lies packed, and where.
//!
//! A weight stays what it is: its values, found by its name, in its file. That its rows lie in a side file too, in units that kernels
//! read, is known beside it. So nothing that asks for a weight sees packing, and fingerprints and sums of bytes are as without.

use super::index::Weights;
use super::tensor::{FileId, TensorId};
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use trt_kernel::PackedType;

/// The rows of a weight, packed.
#[derive(Clone, Debug)]
pub struct PackedRows {
    /// How units are written.
    pub encoding: PackedType,
    /// Rows: of experts those of one after those of the other. No unit has rows of two.
    pub rows: usize,
    /// Values of a row.
    pub columns: usize,
    /// The file that holds them.
    pub file: FileId,
    /// Their first byte in that file.
    pub start: usize,
    /// Rows of a unit but the last.
    pub unit_rows: usize,
    /// Where each unit begins and the last ends, from the first one's first byte; multiples of 16.
    pub offsets: Arc<[usize]>,
    /// The tensor that kernels read beside them, whole: the code as a table, and the places of units.
    pub code: TensorId,
}

/// What of some weights lies packed.
#[derive(Debug)]
pub struct Packing {
    pub(super) rows: HashMap<TensorId, PackedRows>,
    /// The tensors that are codes.
    pub(super) codes: Range<u32>,
    /// The files that hold both.
    pub(super) files: [FileId; 2],
    /// Where the rows lie, unless that is in memory.
    pub(super) path: Option<PathBuf>,
}

impl PackedRows {
    /// Bytes of all units.
    pub fn bytes(&self) -> usize {
        self.offsets.last().copied().unwrap_or(0)
    }
}

impl Packing {
    /// The file that holds them; nothing if they are in memory.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The weights that lie packed, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (TensorId, &PackedRows)> + '_ {
        self.rows.iter().map(|(id, rows)| (*id, rows))
    }

    /// Bytes of these weights as they are.
    pub fn plain_bytes(&self) -> u64 {
        let bytes = |rows: &PackedRows| 2 * rows.rows as u64 * rows.columns as u64;
        self.rows.values().map(bytes).sum()
    }

    /// Bytes that they take packed.
    pub fn packed_bytes(&self) -> u64 {
        self.rows.values().map(|rows| rows.bytes() as u64).sum()
    }

    /// The same but for some weights, which are not what they were.
    pub(super) fn without(&self, changed: &[TensorId]) -> Packing {
        let kept = self.rows.iter().filter(|(id, _)| !changed.contains(id));
        Packing {
            rows: kept.map(|(id, rows)| (*id, rows.clone())).collect(),
            codes: self.codes.clone(),
            files: self.files,
            path: self.path.clone(),
        }
    }

    /// Whether a tensor is none of the weights but what their kernels read beside them.
    pub(super) fn is_code(&self, id: TensorId) -> bool {
        self.codes.contains(&id.0)
    }
}

impl Weights {
    /// The packed rows of a weight, if it has some.
    pub fn packed(&self, id: TensorId) -> Option<&PackedRows> {
        self.packing.as_ref()?.rows.get(&id)
    }

    /// What of these weights lies packed; nothing unless they were [packed](Weights::pack).
    pub fn packing(&self) -> Option<&Packing> {
        self.packing.as_deref()
    }
}
