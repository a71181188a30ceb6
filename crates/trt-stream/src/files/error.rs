//! What can go wrong with an index of weights, with the names and numbers needed to act on it.

use super::near;
use super::regular::FileError;
use super::shown::{Dims, Shown};
use std::path::{Path, PathBuf};
use trt_kernel::{BlockType, Encoding};

/// An error about weight files or a weight asked of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The system refused.
    #[error("cannot {action} {path}: {error}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said. It is part of the message, so it is no source of it.
        error: std::io::Error,
    },
    /// Something else in a file's place, or a file that is too large to be what it should be.
    #[error("cannot read {path}: {error}")]
    File {
        /// The path.
        path: PathBuf,
        /// What is there.
        error: FileError,
    },
    /// No file in memory could be made.
    #[error(transparent)]
    Device(#[from] trt_device::Error),
    /// A directory without weights.
    #[error("{path} holds no safetensors or GGUF file{}", instead(others))]
    Empty {
        /// The directory.
        path: PathBuf,
        /// Files with weights in other formats that it holds.
        others: Vec<String>,
    },
    /// A directory with several models.
    #[error("{path} holds several GGUF models: {}; open one of them by its name", Shown(&names.join(", ")))]
    SeveralModels {
        /// The directory.
        path: PathBuf,
        /// Names of some of them; of a model in parts, of the first.
        names: Vec<String>,
    },
    /// A file of another kind.
    #[error("{file} is no safetensors file but {kind}")]
    Foreign {
        /// The file.
        file: PathBuf,
        /// What it is, and what may be done about it.
        kind: &'static str,
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
    /// A named value of a GGUF file that is not what it should be.
    #[error("{file}: value '{}': {reason}", Shown(key))]
    BadValue {
        /// The file.
        file: PathBuf,
        /// The name of the value.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// What a GGUF file says of a tensor cannot be.
    #[error("{file}: tensor '{}': {reason}", Shown(tensor))]
    BadTensor {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
    /// A part of a GGUF model is not there.
    #[error("{file} is one of {count} parts of a model, and there is no {part}")]
    MissingPart {
        /// The part that was opened.
        file: PathBuf,
        /// The first that is missing.
        part: PathBuf,
        /// How many there are in all.
        count: usize,
    },
    /// A tensor whose offsets make no range.
    #[error(
        "{file}: tensor '{}' has offsets {begin}..{end}: {reason}",
        Shown(tensor)
    )]
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
        "{file}: tensors '{}' at {}..{} and '{}' at {}..{} overlap",
        Shown(first), first_offsets.0, first_offsets.1, Shown(second), second_offsets.0, second_offsets.1
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
    #[error(
        "{file}: tensor '{}' has {found} bytes, but {} {} needs {expected}",
        Shown(tensor),
        Shown(dtype),
        Dims(shape)
    )]
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
    #[error("tensor '{}' is in both {first} and {second}", Shown(tensor))]
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
    /// A tensor is in a shard, but the index, which decides, does not name it.
    #[error(
        "tensor '{}' is in {file}, but {index} does not name it",
        Shown(tensor)
    )]
    NotInIndex {
        /// The tensor.
        tensor: String,
        /// The shard.
        file: PathBuf,
        /// The index.
        index: PathBuf,
    },
    /// The tensor was asked for, and the shard that the index names for it does not exist.
    #[error(
        "{index} puts tensor '{}' in shard '{}', which does not exist",
        Shown(tensor),
        Shown(shard)
    )]
    MissingShard {
        /// The index.
        index: PathBuf,
        /// The shard.
        shard: String,
        /// The tensor, or one of them where no shard exists.
        tensor: String,
    },
    /// The tensor was asked for, and is not in the shard that the index names for it.
    #[error(
        "{index} puts tensor '{}' in {file}, which does not hold it",
        Shown(tensor)
    )]
    NotInShard {
        /// The tensor.
        tensor: String,
        /// The index.
        index: PathBuf,
        /// The shard.
        file: PathBuf,
    },
    /// No tensor of this name.
    #[error("no tensor '{}' among {count}{}", Shown(name), suggest(name, near))]
    Missing {
        /// The name asked for.
        name: String,
        /// How many tensors there are.
        count: usize,
        /// Names that look like it, best first.
        near: Vec<String>,
    },
    /// The tensor's values are stored in a way that cannot be read.
    #[error(
        "{file}: tensor '{}' is {}; weights can be F32, F16, BF16{}",
        Shown(tensor),
        Shown(dtype),
        in_blocks(file)
    )]
    UnsupportedDType {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its dtype.
        dtype: String,
    },
    /// The tensor has another shape.
    #[error(
        "{file}: tensor '{}' has shape {}, the model needs {}",
        Shown(tensor),
        Dims(found),
        Dims(expected)
    )]
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
    #[error(
        "{file}: tensor '{}' is {found}, the model needs {expected}",
        Shown(tensor)
    )]
    WrongDType {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What it was asked for as.
        expected: Encoding,
        /// What it is.
        found: Encoding,
    },
}

impl WeightsError {
    /// For a missing tensor, the names that may be meant, best first, each with what sets it apart
    /// if that is its prefix.
    pub fn suggestions(&self) -> Vec<String> {
        match self {
            WeightsError::Missing { name, near, .. } => described(name, near),
            _ => Vec::new(),
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path, error: std::io::Error) -> Self {
        WeightsError::Io {
            action,
            path: path.to_path_buf(),
            error,
        }
    }

    pub(crate) fn file(path: &Path, error: FileError) -> Self {
        let path = path.to_path_buf();
        match error {
            FileError::Io(error) => WeightsError::Io {
                action: "open",
                path,
                error,
            },
            error => WeightsError::File { path, error },
        }
    }
}

fn described(name: &str, near: &[String]) -> Vec<String> {
    let shown = |n: &String| Shown(&near::described(name, n)).to_string();
    near.iter().map(shown).collect()
}

fn suggest(name: &str, near: &[String]) -> String {
    match near {
        [] => String::new(),
        near => format!("; near names: {}", described(name, near).join(", ")),
    }
}

/// What else the weights in this file could be.
fn in_blocks(file: &Path) -> String {
    let gguf = file.extension().is_some_and(|e| e == "gguf");
    let blocks = BlockType::ALL.map(|b| b.name().to_uppercase());
    match gguf {
        true => format!(", {}", blocks.join(", ")),
        false => String::new(),
    }
}

fn instead(others: &[String]) -> String {
    match others {
        [] => String::new(),
        others => {
            let others = others.join(", ");
            format!(", but {}: convert them to safetensors", Shown(&others))
        }
    }
}
