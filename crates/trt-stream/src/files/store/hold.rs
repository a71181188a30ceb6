//! Where a side file is kept, and that it is made once.

use super::side::Header;
use super::{Made, Store, StoreError, keep, side, whole};
use crate::files::open::map;
use crate::files::tensor::WeightFile;
use crate::files::{FileError, Weights, open_regular};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
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
    /// What a job makes of some weights, made now unless it is kept already under this name.
    pub(super) fn hold(
        &self,
        job: &dyn Making,
        of: &Weights,
        name: &str,
    ) -> Result<Side, StoreError> {
        match self {
            Store::Memory => {
                let (path, file) = (Path::new(NAMELESS), memory_file("candle-trt-made")?);
                job.write(path, &file)?;
                seal_size(&file)?;
                opened(path, file, job)
            }
            Store::Folder(folder) => kept(&folder.join(name), job),
            Store::Beside(other) => {
                let other = other.join(name);
                let Some(place) = beside(of).map(|folder| folder.join(name)) else {
                    return kept(&other, job);
                };
                // What is whole in either place is not made again.
                for place in [&place, &other] {
                    if let Ok(side) = at(place, job) {
                        return Ok(side);
                    }
                }
                match kept(&place, job) {
                    Err(why) if refused(&why) => {
                        tracing::info!(file = %other.display(), %why, "made elsewhere");
                        kept(&other, job)
                    }
                    other => other,
                }
            }
        }
    }
}

/// The folder of the first file, if it has one: what lives in memory has no name.
fn beside(of: &Weights) -> Option<PathBuf> {
    let first = of.files().first()?;
    let named = first.file.metadata().is_ok_and(|m| m.nlink() > 0);
    let folder = first.path.parent().filter(|_| named)?;
    Some(folder.to_path_buf())
}

/// Whether a place is one where nothing can be made, which is not for want of room.
fn refused(why: &StoreError) -> bool {
    let error = match why {
        StoreError::Keep(keep) => &keep.error,
        StoreError::Io {
            action: "make" | "remove",
            error,
            ..
        } => error,
        _ => return false,
    };
    !matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}

/// The side file at a place, made now unless it is there and whole.
fn kept(place: &Path, job: &dyn Making) -> Result<Side, StoreError> {
    match at(place, job) {
        Ok(side) => return Ok(side),
        Err(StoreError::Io { error, .. }) if error.kind() == ErrorKind::NotFound => {}
        Err(why) => {
            tracing::warn!(file = %place.display(), %why, "made again");
            std::fs::remove_file(place).map_err(|e| StoreError::io("remove", place, e))?;
        }
    }
    let there = |place: &Path| at(place, job).is_ok();
    let waits = || tracing::info!(file = %place.display(), "another process makes it");
    keep(place, there, waits, |work| {
        let path = work.join("side");
        let file = File::create_new(&path);
        let file = file.map_err(|e| StoreError::io("make", &path, e))?;
        job.write(place, &file)?;
        Ok::<_, StoreError>(Made::File(path))
    })?;
    at(place, job)
}

/// The side file at a place, if it is what the job makes.
pub(super) fn at(place: &Path, job: &dyn Making) -> Result<Side, StoreError> {
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
