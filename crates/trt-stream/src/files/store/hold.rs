//! Where a side file is kept, and that it is made once.

use super::side::Header;
use super::{Made, Store, StoreError, keep, side, whole};
use crate::files::open::map;
use crate::files::tensor::WeightFile;
use crate::files::{FileError, open_regular};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use trt_device::{memory_file, seal_size};

/// What errors call a file that has no name.
const NAMELESS: &str = "weights-in-memory";

/// What makes a side file, and knows it.
pub(super) trait Making {
    /// Whether a side file is what this makes.
    fn makes(&self, header: &Header) -> bool;

    /// Writes all of the file, which is empty. `path` is its name in errors.
    fn write(&self, path: &Path, file: &File) -> Result<(), StoreError>;
}

/// A side file that is there.
pub(super) struct Side {
    pub file: WeightFile,
    pub header: Header,
}

impl Store {
    /// What a job makes, made now unless it is kept already under this name.
    pub(super) fn hold(&self, job: &dyn Making, name: &str) -> Result<Side, StoreError> {
        match self {
            Store::Memory => {
                let (path, file) = (Path::new(NAMELESS), memory_file("candle-trt-made")?);
                job.write(path, &file)?;
                seal_size(&file)?;
                opened(path, file, job)
            }
            Store::Folder(folder) => {
                let place = folder.join(name);
                match at(&place, job) {
                    Ok(side) => return Ok(side),
                    Err(StoreError::Io { error, .. })
                        if error.kind() == io::ErrorKind::NotFound => {}
                    Err(why) => {
                        tracing::warn!(file = %place.display(), %why, "made again");
                        std::fs::remove_file(&place)
                            .map_err(|e| StoreError::io("remove", &place, e))?;
                    }
                }
                let there = |place: &Path| at(place, job).is_ok();
                let waits = || tracing::info!(file = %place.display(), "another process makes it");
                keep(&place, there, waits, |work| {
                    let path = work.join("side");
                    let file = File::create_new(&path);
                    let file = file.map_err(|e| StoreError::io("make", &path, e))?;
                    job.write(&place, &file)?;
                    Ok::<_, StoreError>(Made::File(path))
                })?;
                at(&place, job)
            }
        }
    }
}

/// The side file at a place, if it is what the job makes.
fn at(place: &Path, job: &dyn Making) -> Result<Side, StoreError> {
    let file = open_regular(place).map_err(|e| match e {
        FileError::Io(error) => StoreError::io("open", place, error),
        other => StoreError::Damaged {
            path: place.to_path_buf(),
            what: other.to_string(),
        },
    })?;
    opened(place, file, job)
}

fn opened(path: &Path, file: File, job: &dyn Making) -> Result<Side, StoreError> {
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
    whole::check(&header, &map).map_err(damaged)?;
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
