//! What can be wrong with a saved engine.

use std::io;
use trt_stream::FileError;

/// What is wrong with a saved engine, or why it could not be saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SavedError {
    /// The system refused.
    #[error("cannot {action}: {error}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the system said. It is part of the message, so it is no source of it.
        error: io::Error,
    },
    /// Something else in a file's place, or more than there is memory for.
    #[error("cannot read: {0}")]
    File(FileError),
    /// More than any engine needs.
    #[error("{found} bytes are more than the {most} that a saved engine may have")]
    TooLarge {
        /// Bytes that there are.
        found: u64,
        /// Bytes that there may be.
        most: u64,
    },
    /// A file of another kind.
    #[error("this is no saved engine")]
    Foreign,
    /// A file of another version of this library.
    #[error("saved by version {found}, but this is version {expected}: compile again")]
    Version {
        /// Version and format of the file.
        found: String,
        /// Version and format that can be read.
        expected: String,
    },
    /// The file ends too early, or goes on after its end.
    #[error("the file has {found} bytes of {needed}")]
    Length {
        /// Bytes that it should have.
        needed: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// The bytes are not those that were written.
    #[error("the file is damaged: {what}")]
    Damaged {
        /// What does not fit.
        what: String,
    },
    /// It was compiled for other weights.
    #[error(
        "saved for weights with fingerprint {saved:016x}, but these have {found:016x}: names, \
         shapes, dtypes or places in the files differ"
    )]
    OtherWeights {
        /// The fingerprint that was saved.
        saved: u64,
        /// That of the weights given.
        found: u64,
    },
    /// It was compiled for other values of a weight.
    #[error(
        "saved by a model whose code read the values of weight '{name}', and these weights have others: compile again"
    )]
    OtherValues {
        /// The weight, as its files call it.
        name: String,
    },
    /// It was compiled with other options than asked for.
    #[error("saved with {what} {saved}, but {asked} was asked for")]
    OtherOptions {
        /// The option.
        what: &'static str,
        /// What was saved.
        saved: String,
        /// What the compiler was told.
        asked: String,
    },
}
