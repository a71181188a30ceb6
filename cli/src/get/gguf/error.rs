//! Why a file is not a GGUF file that can be read.

use std::io;

/// A file that is no GGUF file that can be read.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// It begins otherwise.
    #[error("it begins with {0:?}, not with \"GGUF\"")]
    Magic(String),
    /// Of another version.
    #[error("it is of version {0}; versions 2 and 3 are known")]
    Version(u32),
    /// Longer than what is there.
    #[error("{what} needs {needed} bytes, and {left} are left")]
    Short {
        /// What was to be read.
        what: String,
        /// Its bytes.
        needed: u64,
        /// Those of the file, or of what a header may have.
        left: u64,
    },
    /// More than there can be.
    #[error("it has {count} {what}, and at most {most} are read")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: u64,
        /// The bound.
        most: u64,
    },
    /// A value of a type that is not known, or lists too deep in lists.
    #[error("{key}: {why}")]
    Value {
        /// Its name.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// A tensor that cannot be.
    #[error("tensor {name}: {why}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// A value that is needed.
    #[error("it has no {0}")]
    Missing(String),
    /// The file could not be read.
    #[error("{0}")]
    Io(#[source] io::Error),
}

impl GgufError {
    /// For a value that is not what it should be.
    pub fn value(key: &str, why: impl Into<String>) -> Self {
        GgufError::Value {
            key: key.to_string(),
            why: why.into(),
        }
    }
}
