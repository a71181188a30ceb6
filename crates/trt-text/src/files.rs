//! Reading the files of a model's folder, which others made.
//!
//! Only regular files, whole, up to a size that is told beforehand: a pipe would block for ever and a device has no end.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde_json::Value;

use crate::Error;

/// The most that is read of `tokenizer.json`; the largest that are known have 34 MB.
pub(crate) const TOKENIZER: u64 = 128 << 20;
/// The most that is read of a file with settings.
pub(crate) const SETTINGS: u64 = 16 << 20;
/// The most that is read of a template.
pub(crate) const TEMPLATE: u64 = 1 << 20;

/// The bytes of a file, or nothing where there is none.
pub(crate) fn read(path: &Path, most: u64) -> Result<Option<Vec<u8>>, Error> {
    let failed = |why| Error::Read {
        path: path.to_path_buf(),
        why,
    };
    let meta = match std::fs::metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    if !meta.is_file() {
        return Err(Error::NotAFile {
            path: path.to_path_buf(),
        });
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    match bytes.len() as u64 > most {
        true => Err(Error::TooLarge {
            path: path.to_path_buf(),
            most,
        }),
        false => Ok(Some(bytes)),
    }
}

/// The text of a file; a mark of its byte order is not part of it.
pub(crate) fn text(path: &Path, most: u64) -> Result<Option<String>, Error> {
    let Some(bytes) = read(path, most)? else {
        return Ok(None);
    };
    let text =
        String::from_utf8(bytes).map_err(|e| Error::malformed(path.display().to_string(), e))?;
    Ok(Some(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_string(),
        None => text,
    }))
}

/// A file with settings, a JSON object; `null` where there is none.
pub(crate) fn settings(path: &Path) -> Result<Value, Error> {
    match text(path, SETTINGS)? {
        None => Ok(Value::Null),
        Some(text) => object(&text, &path.display().to_string()),
    }
}

/// A JSON object from a text of `file`.
pub(crate) fn object(text: &str, file: &str) -> Result<Value, Error> {
    let value: Value = serde_json::from_str(text).map_err(|e| Error::malformed(file, e))?;
    match value.is_object() {
        true => Ok(value),
        false => Err(Error::malformed(file, "it is not a JSON object")),
    }
}
