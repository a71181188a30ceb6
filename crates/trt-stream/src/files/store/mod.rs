//! Weights that are made of others: where they are kept, and that they are made once.
//!
//! Quantised weights, values of weights in blocks, weights that model code derives of others: whatever takes the place of tensors of the files lies in a *side file* of its
//! own. It is made under a temporary name, synced and renamed ([`keep`]), says what it was made of, and has a checksum for
//! each tensor. The invariant: what is given was made whole, of these very files, and is as it was written; a side file that is
//! not is made again.

mod cut;
mod derived;
mod hold;
mod kept;
mod make;
mod pack;
mod quantise;
mod side;
mod units;
mod values;
mod whole;

pub use derived::{Derivation, Derive, WithDerived};
pub use kept::{KeepError, Made, keep};
pub use pack::PackOptions;

use super::WeightsError;
use super::fnv::Fnv;
use super::index::Weights;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;
use trt_kernel::Encoding;

/// Where weights that are made of others are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// In this folder, for as long as nobody removes them: any number of processes make them once.
    Folder(PathBuf),
    /// Beside the first of the files that they are made of; where nothing can be made there, in this folder.
    Beside(PathBuf),
    /// In memory that has no name, for as long as they are used. They take as much of it as they have bytes.
    Memory,
}

/// Why weights cannot be made or kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The system refused.
    #[error("cannot {action} {}: {error}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said. It is part of the message, so it is no source of it.
        error: io::Error,
    },
    /// The disk has less room than they take, as far as can be told before they are made.
    #[error("{} needs about {needed} bytes, and {free} are free there", path.display())]
    NoRoom {
        /// The file.
        path: PathBuf,
        /// Bytes that it will have.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// Nothing can be made where it is to be kept.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// A side file that was just made is not what was written.
    #[error("{} is not what was written to it: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A tensor whose rows are no whole blocks, or whose bytes cannot be counted.
    #[error("tensor '{tensor}' of shape {shape:?} cannot be {encoding}")]
    Shape {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// What it was to be.
        encoding: Encoding,
    },
    /// Values that blocks cannot hold, or a type of blocks that is only read.
    #[error("row {row} of tensor '{tensor}': {error}")]
    Encode {
        /// The tensor.
        tensor: String,
        /// The row.
        row: usize,
        /// What is wrong.
        error: trt_kernel::EncodeError,
    },
    /// A weight that cannot be derived of others.
    #[error("weight '{tensor}' cannot be made: {error}")]
    Derive {
        /// The weight.
        tensor: String,
        /// Why not. It is part of the message, so it is no source of it.
        error: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The weights that it is made of.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// No file in memory could be made.
    #[error(transparent)]
    Device(#[from] trt_device::Error),
    /// A thread that makes rows has ended early.
    #[error("a thread that makes weights has panicked")]
    Panicked,
}

impl StoreError {
    pub(super) fn io(action: &'static str, path: &Path, error: io::Error) -> StoreError {
        StoreError::Io {
            action,
            path: path.to_path_buf(),
            error,
        }
    }
}

/// What tells the files of weights from any others, as far as can be told without reading them: what they hold, how long
/// they are and when they were changed.
fn identity(weights: &Weights) -> Result<String, StoreError> {
    let mut hash = Fnv::new();
    hash.number(weights.fingerprint() as usize);
    for file in weights.files() {
        let meta = file.file.metadata();
        let meta = meta.map_err(|e| StoreError::io("find", &file.path, e))?;
        hash.number(meta.len() as usize);
        let changed = meta.modified().ok();
        let since = changed.and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        hash.number(since.map_or(0, |d| d.as_nanos() as usize));
    }
    Ok(format!("{:016x}", hash.value()))
}

/// The name of a side file: after the first of the files that it is made of, what is done with them, and which they are.
fn name(weights: &Weights, made: &str, which: &str) -> String {
    let first = weights.files().first().map(|f| f.path.as_path());
    let stem = first.and_then(Path::file_stem).unwrap_or_default();
    let slug = made.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    format!("{}.{slug}.{which}.side", stem.to_string_lossy())
}
