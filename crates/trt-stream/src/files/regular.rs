//! Opening files that others name: regular files only, and no more of them than is expected.
//!
//! A path that comes from a user or a model folder may lead to a pipe, which blocks whoever opens
//! it, or to a device that never ends. So what a path leads to is looked at before it is opened,
//! it is opened without waiting, and what was opened is looked at again.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Why a file was not opened or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The system refused.
    #[error("{0}")]
    Io(io::Error),
    /// It is no regular file.
    #[error("it is {kind}, not a regular file")]
    NotRegular {
        /// What it is, with its article.
        kind: &'static str,
    },
    /// It is larger than such a file ever is.
    #[error("it has {found} bytes, more than the {most} that are read of such a file")]
    TooLarge {
        /// Bytes that it has, as far as is known.
        found: u64,
        /// Bytes that are read.
        most: u64,
    },
    /// There is no memory for what it holds.
    #[error("there is no memory for its {bytes} bytes")]
    Memory {
        /// Bytes that it has.
        bytes: u64,
    },
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        FileError::Io(error)
    }
}

/// Opens a regular file to read it; links are followed. Never waits.
///
/// # Errors
///
/// [`FileError::NotRegular`] for a folder, a pipe, a socket or a device; what the system says.
pub fn open_regular(path: impl AsRef<Path>) -> Result<File, FileError> {
    let path = path.as_ref();
    regular(&std::fs::metadata(path)?)?;
    // Another file may be there by now.
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    regular(&file.metadata()?)?;
    Ok(file)
}

/// Reads a regular file whole if it has at most `most` bytes.
///
/// # Errors
///
/// As [`open_regular`], and [`FileError::TooLarge`].
pub fn read_regular(path: impl AsRef<Path>, most: u64) -> Result<Vec<u8>, FileError> {
    let file = open_regular(path)?;
    let found = file.metadata()?.len();
    if found > most {
        return Err(FileError::TooLarge { found, most });
    }
    let mut bytes = reserved(found)?;
    // A file of the system may tell no length, and any file may have grown.
    let read = file.take(most.saturating_add(1)).read_to_end(&mut bytes)? as u64;
    match read > most {
        true => Err(FileError::TooLarge { found: read, most }),
        false => Ok(bytes),
    }
}

/// An empty vector with room for so many bytes.
pub(crate) fn reserved(bytes: u64) -> Result<Vec<u8>, FileError> {
    let mut room = Vec::new();
    let len = usize::try_from(bytes).unwrap_or(usize::MAX);
    match room.try_reserve_exact(len) {
        Ok(()) => Ok(room),
        Err(_) => Err(FileError::Memory { bytes }),
    }
}

fn regular(metadata: &Metadata) -> Result<(), FileError> {
    match metadata.is_file() {
        true => Ok(()),
        false => Err(FileError::NotRegular {
            kind: kind(metadata.file_type()),
        }),
    }
}

fn kind(file: FileType) -> &'static str {
    match file {
        f if f.is_dir() => "a folder",
        f if f.is_fifo() => "a named pipe",
        f if f.is_socket() => "a socket",
        f if f.is_char_device() || f.is_block_device() => "a device",
        _ => "something else",
    }
}
