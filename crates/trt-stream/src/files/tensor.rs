//! What an index tells of a tensor and of a file.

use memmap2::Mmap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use trt_kernel::{DType, Encoding};

/// A tensor of the files, by its position in [`Weights`](super::Weights).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(pub u32);

/// A file of a [`Weights`](super::Weights), by its position in [`Weights::files`](super::Weights::files).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u32);

/// What and where a tensor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// How its values lie there: f32, f16 or bf16 one after another, or blocks of them.
    pub encoding: Encoding,
    /// Its shape, row-major.
    pub shape: Vec<usize>,
    /// The file that holds it.
    pub file: FileId,
    /// Its bytes in that file.
    pub range: Range<usize>,
}

impl TensorInfo {
    /// The same in a file.
    pub(super) fn of(self, file: FileId) -> TensorInfo {
        TensorInfo { file, ..self }
    }

    /// Bytes.
    pub fn bytes(&self) -> usize {
        self.range.len()
    }

    /// The dtype of its values: of blocks it is f32.
    pub fn dtype(&self) -> DType {
        self.encoding.dtype()
    }

    /// How many values it has.
    pub fn elements(&self) -> usize {
        // Its bytes were counted, and so were its elements.
        self.shape.iter().product()
    }

    /// Rows when used as a matrix: the first axis, or 1 for a scalar. A vector in blocks is one row,
    /// since a block is not cut.
    pub fn rows(&self) -> usize {
        match self.shape[..] {
            [_] if self.encoding.values() > 1 => 1,
            [] => 1,
            [rows, ..] => rows,
        }
    }

    /// Values of a row.
    pub fn columns(&self) -> usize {
        match self.rows() {
            0 => 0,
            rows => self.elements() / rows,
        }
    }
}

/// A mapped file.
#[derive(Clone, Debug)]
pub struct WeightFile {
    /// Where it was opened.
    pub path: PathBuf,
    /// The open file.
    pub file: Arc<std::fs::File>,
    /// The read-only mapping, for `Device::map`.
    pub map: Arc<Mmap>,
    /// The same again, for what is read in place as it streams by: its pages come and go in
    /// another way, and a mapping has one way.
    pub passing: Arc<Mmap>,
}
