//! What can go wrong, with the names and numbers needed to act on it.

use crate::{BudgetError, ProgramId, WeightId};
use std::path::{Path, PathBuf};
use trt_kernel::DType;

/// An error about weight files or a weight asked of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No file in memory could be made.
    #[error(transparent)]
    Device(#[from] trt_device::Error),
    /// A directory without weights.
    #[error("{path} holds no safetensors file")]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// A file ends before what its header promises.
    #[error("{file} is truncated: {what} ends at byte {needed}, the file has {found}")]
    Truncated {
        /// The file.
        file: PathBuf,
        /// What is cut off.
        what: String,
        /// Where it ends.
        needed: u64,
        /// Bytes of the file.
        found: u64,
    },
    /// A header that cannot be read.
    #[error("{file}: bad header: {reason}")]
    BadHeader {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A tensor whose offsets make no range.
    #[error("{file}: tensor '{tensor}' has offsets {begin}..{end}: {reason}")]
    BadOffsets {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its first byte after the header.
        begin: u64,
        /// The byte after its last.
        end: u64,
        /// What is wrong.
        reason: String,
    },
    /// Two tensors share bytes.
    #[error(
        "{file}: tensors '{first}' at {}..{} and '{second}' at {}..{} overlap",
        first_offsets.0, first_offsets.1, second_offsets.0, second_offsets.1
    )]
    Overlap {
        /// The file.
        file: PathBuf,
        /// The one that starts first.
        first: String,
        /// Its offsets after the header.
        first_offsets: (u64, u64),
        /// The other.
        second: String,
        /// Its offsets after the header.
        second_offsets: (u64, u64),
    },
    /// A tensor's bytes are not what its shape and dtype need.
    #[error("{file}: tensor '{tensor}' has {found} bytes, but {dtype} {shape:?} needs {expected}")]
    WrongLength {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Bytes it has.
        found: u64,
        /// Its dtype.
        dtype: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Bytes it needs; the largest number if more.
        expected: u64,
    },
    /// A tensor is there twice.
    #[error("tensor '{tensor}' is in both {first} and {second}")]
    Duplicate {
        /// The tensor.
        tensor: String,
        /// One file.
        first: PathBuf,
        /// The other; the same if one header repeats a name.
        second: PathBuf,
    },
    /// A shard index that cannot be read.
    #[error("{path}: bad shard index: {reason}")]
    BadIndex {
        /// The index.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A shard that the index names does not exist.
    #[error("{index} puts tensor '{tensor}' in shard '{shard}', which does not exist")]
    MissingShard {
        /// The index.
        index: PathBuf,
        /// The shard.
        shard: String,
        /// A tensor it should hold.
        tensor: String,
    },
    /// A tensor is not in the shard that the index names.
    #[error("{index} puts tensor '{tensor}' in {file}, which does not hold it")]
    NotInShard {
        /// The tensor.
        tensor: String,
        /// The index.
        index: PathBuf,
        /// The shard.
        file: PathBuf,
    },
    /// No tensor of this name.
    #[error("no tensor '{name}' among {count}{}", suggest(near))]
    Missing {
        /// The name asked for.
        name: String,
        /// How many tensors there are.
        count: usize,
        /// Names that look like it, best first.
        near: Vec<String>,
    },
    /// The tensor's dtype cannot be used.
    #[error("{file}: tensor '{tensor}' is {dtype}; weights can be F32, F16 or BF16")]
    UnsupportedDType {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its dtype.
        dtype: String,
    },
    /// The tensor has another shape.
    #[error("{file}: tensor '{tensor}' has shape {found:?}, the model needs {expected:?}")]
    WrongShape {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shape asked for.
        expected: Vec<usize>,
        /// Its shape.
        found: Vec<usize>,
    },
    /// The tensor has another dtype.
    #[error("{file}: tensor '{tensor}' is {found}, the model needs {expected}")]
    WrongDType {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The dtype asked for.
        expected: DType,
        /// Its dtype.
        found: DType,
    },
}

impl WeightsError {
    pub(crate) fn io(action: &'static str, path: &Path, source: &std::io::Error) -> Self {
        WeightsError::Io {
            action,
            path: path.to_path_buf(),
            // An `io::Error` is not `Clone`; its kind and text are what matters.
            source: std::io::Error::new(source.kind(), source.to_string()),
        }
    }
}

fn suggest(near: &[String]) -> String {
    match near {
        [] => String::new(),
        names => format!("; near names: {}", names.join(", ")),
    }
}

/// An error of the executor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The budget cannot be met.
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// The pool has no room.
    #[error(transparent)]
    Pool(#[from] trt_alloc::Error),
    /// The device refused.
    #[error(transparent)]
    Device(#[from] trt_device::Error),
    /// A weight of other weights.
    #[error("weight {} does not exist: there are {count}", id.0)]
    UnknownWeight {
        /// The id asked for.
        id: WeightId,
        /// How many weights there are.
        count: usize,
    },
    /// A weight is to be pinned and streamed.
    #[error("weight '{name}' cannot be both pinned and streamed")]
    TwoRoles {
        /// The weight.
        name: String,
    },
    /// A weight was asked for in a role it does not have.
    #[error("weight '{name}' is not {role}")]
    NotInRole {
        /// The weight.
        name: String,
        /// The role asked for: pinned or mapped.
        role: &'static str,
    },
    /// No such program.
    #[error("program {} does not exist: there are {count}", program.0)]
    UnknownProgram {
        /// The program asked for.
        program: ProgramId,
        /// How many there are.
        count: usize,
    },
    /// A pass asked for more weights than its program uses.
    #[error("program {} uses {uses} weights, and all were used in this pass", program.0)]
    TooManyUses {
        /// The program.
        program: ProgramId,
        /// Weights it uses.
        uses: usize,
    },
    /// A pass ended early.
    #[error("the pass over program {} ended after {done} of {uses} weights", program.0)]
    Unfinished {
        /// The program.
        program: ProgramId,
        /// Weights used.
        done: usize,
        /// Weights the program uses.
        uses: usize,
    },
    /// Memory for the last budget could not be had, nor for the one before.
    #[error("the streamer holds no usable budget since one could not be applied: set another")]
    Starved,
}

impl Error {
    /// The bytes that were asked for, if the device had no memory for them.
    pub fn out_of_memory(&self) -> Option<u64> {
        match self {
            Error::Device(e) => e.out_of_memory(),
            Error::Pool(e) => e.out_of_memory(),
            _ => None,
        }
    }
}
