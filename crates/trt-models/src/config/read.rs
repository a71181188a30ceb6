//! A file's text, read with bounds: regular files only, and no more than a configuration has.

use super::ConfigError;
use std::fs::{File, FileType, Metadata};
use std::io::Read;
use std::path::Path;

/// Bytes of a `config.json` at most. Those with labels of thousands of classes have one.
pub(super) const MOST: usize = 4 << 20;

pub(super) fn text(path: &Path) -> Result<String, ConfigError> {
    let failed = |reason| ConfigError::Read {
        path: path.display().to_string(),
        reason,
    };
    // Looked at before it is opened: opening a pipe would wait for its writer.
    regular(path, &std::fs::metadata(path).map_err(failed)?)?;
    let file = File::open(path).map_err(failed)?;
    regular(path, &file.metadata().map_err(failed)?)?;
    let mut bytes = Vec::new();
    let most = MOST as u64;
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() > MOST {
        return Err(ConfigError::TooLong { most: MOST });
    }
    String::from_utf8(bytes)
        .map_err(|e| failed(std::io::Error::new(std::io::ErrorKind::InvalidData, e)))
}

fn regular(path: &Path, metadata: &Metadata) -> Result<(), ConfigError> {
    match metadata.is_file() {
        true => Ok(()),
        false => Err(ConfigError::NotAFile {
            path: path.display().to_string(),
            found: kind(metadata.file_type()),
        }),
    }
}

fn kind(found: FileType) -> &'static str {
    match found.is_dir() {
        true => "a folder",
        false => "a pipe, socket or device",
    }
}
