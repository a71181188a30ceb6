//! Weights that are made of others: where they are kept, and that they are made once.
//!
//! Quantised weights, values of weights in blocks, weights that model code derives of others: whatever takes the place of tensors of the files lies in a *side file* of its
//! own. It is made under a temporary name, synced and renamed ([`keep`]), says what it was made of, and has a checksum for
//! each tensor. The invariant: what is given was made whole, of these very files, and is as it was written; a side file that is
//! not is made again.

mod derived;
mod kept;
mod make;
mod quantise;
mod side;
mod values;

pub use derived::{Derivation, Derive, WithDerived};
pub use kept::{KeepError, Made, keep};

use super::WeightsError;
use super::fnv::Fnv;
use super::index::Weights;
use super::open::map;
use super::tensor::WeightFile;
use make::Job;
use side::Header;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;
use trt_device::{memory_file, seal_size};
use trt_kernel::Encoding;

/// What errors call a file that has no name.
const NAMELESS: &str = "weights-in-memory";

/// Where weights that are made of others are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// In this folder, for as long as nobody removes them: any number of processes make them once.
    Folder(PathBuf),
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

/// A side file that is there.
struct Side {
    file: WeightFile,
    header: Header,
}

impl Store {
    /// What a job makes, made now unless it is kept already. `stem` begins its name.
    fn hold(&self, job: &Job<'_>, stem: &str) -> Result<Side, StoreError> {
        match self {
            Store::Memory => {
                let (path, file) = (Path::new(NAMELESS), memory_file("candle-trt-made")?);
                job.write(path, &file)?;
                seal_size(&file)?;
                opened(path, file, job)
            }
            Store::Folder(folder) => {
                let slug = job.made.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
                let place = folder.join(format!("{stem}.{slug}.{}.side", job.source));
                match whole(&place, job) {
                    Ok(side) => return Ok(side),
                    Err(StoreError::Io { error, .. })
                        if error.kind() == io::ErrorKind::NotFound => {}
                    Err(why) => {
                        tracing::warn!(file = %place.display(), %why, "made again");
                        std::fs::remove_file(&place)
                            .map_err(|e| StoreError::io("remove", &place, e))?;
                    }
                }
                let there = |place: &Path| whole(place, job).is_ok();
                let waits = || tracing::info!(file = %place.display(), "another process makes it");
                keep(&place, there, waits, |work| {
                    let path = work.join("side");
                    let file = File::create_new(&path);
                    let file = file.map_err(|e| StoreError::io("make", &path, e))?;
                    job.write(&place, &file)?;
                    Ok::<_, StoreError>(Made::File(path))
                })?;
                whole(&place, job)
            }
        }
    }
}

/// The side file at a place, if it is what the job makes.
fn whole(place: &Path, job: &Job<'_>) -> Result<Side, StoreError> {
    let file = super::open_regular(place).map_err(|e| match e {
        super::FileError::Io(error) => StoreError::io("open", place, error),
        other => StoreError::Damaged {
            path: place.to_path_buf(),
            what: other.to_string(),
        },
    })?;
    opened(place, file, job)
}

fn opened(path: &Path, file: File, job: &Job<'_>) -> Result<Side, StoreError> {
    let damaged = |what: String| StoreError::Damaged {
        path: path.to_path_buf(),
        what,
    };
    let len = file
        .metadata()
        .map_err(|e| StoreError::io("find", path, e))?;
    // An empty file has no mapping.
    if len.len() == 0 {
        return Err(damaged("it is empty".into()));
    }
    let [map, passing] = map(path, &file)?;
    let header = side::read(&map).map_err(damaged)?;
    if !job.makes(&header) {
        return Err(damaged(format!("it is {} of other weights", header.made)));
    }
    if let Some(tensor) = side::damaged(&header, &map) {
        return Err(damaged(format!("tensor '{tensor}' has other bytes")));
    }
    Ok(Side {
        file: WeightFile {
            path: path.to_path_buf(),
            file: Arc::new(file),
            map,
            passing,
        },
        header,
    })
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
