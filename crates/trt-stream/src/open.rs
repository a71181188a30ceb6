//! Finding and mapping weight files.
//!
//! Opening maps every file read-only and shared, and reads only the headers: weights stay in
//! the page cache, cost no memory of the process until they are used, and are shared between
//! processes.
//!
//! The mapping is left with the kernel's normal read-ahead: whole tiles are asked for ahead of
//! use, and random-access advice would read a cold tile page by page. What becomes of its pages
//! is the device's business.

use crate::WeightsError;
use crate::header;
use crate::index::{File, Weights};
use memmap2::Mmap;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The part of `model.safetensors.index.json` that matters.
#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

impl Weights {
    /// Opens a model directory or one file.
    ///
    /// In a directory this is `model.safetensors` if it exists, else the shards named in
    /// `model.safetensors.index.json`, else every `*.safetensors` in it. Only headers are read.
    ///
    /// # What the caller vouches for
    ///
    /// The files are mapped, not read, for as long as these weights or an engine of them live. As
    /// long as that no one may change their bytes: it would not be noticed, and what comes out then
    /// means nothing. Nor may anyone cut them, or take away what they are stored on. Where that
    /// happens all the same:
    ///
    /// - Before every pass over the weights, every fetch and every kernel that reads a mapping the
    ///   file is asked for its length, and pages are asked for rather than touched. A file that was
    ///   cut before that is an error with its name, the bytes that it had and those that it has
    ///   ([`trt_device::Error::FileCut`]); one that the system cannot read, such as a disk that
    ///   fails, is [`trt_device::Error::FileRead`]. The call fails, the session stays where it was,
    ///   budgets stay as they are, and calls work again when the file is whole again.
    /// - A file that is cut in the moment between the question and the access, or while a kernel
    ///   reads it in place, cannot be caught: the system ends the process with a bus error. So does a
    ///   page that was given back under pressure and cannot be read again. Only the host device
    ///   reads weights in place ([`trt_device::Host::unified`]); others read tables of embeddings
    ///   so, and copy the rest. [`Weights::bytes`] asks nothing.
    ///
    /// Weights that must stand whatever happens to files can be copied: [`crate::Copies`].
    pub fn open(path: impl AsRef<Path>) -> Result<Weights, WeightsError> {
        let path = path.as_ref();
        let kind = std::fs::metadata(path).map_err(|e| WeightsError::io("find", path, &e))?;
        if !kind.is_dir() {
            return Weights::open_files(&[path]);
        }
        let single = path.join(SINGLE);
        if single.exists() {
            return Weights::open_files(&[single]);
        }
        let index = path.join(INDEX);
        if index.exists() {
            return open_index(path, &index);
        }
        let files = safetensors_in(path)?;
        if files.is_empty() {
            return Err(WeightsError::Empty {
                path: path.to_path_buf(),
            });
        }
        Weights::open_files(&files)
    }

    /// Opens these safetensors files as one set of weights.
    pub fn open_files(paths: &[impl AsRef<Path>]) -> Result<Weights, WeightsError> {
        let files = paths
            .iter()
            .map(|path| open_file(path.as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        Weights::build(files)
    }
}

fn safetensors_in(path: &Path) -> Result<Vec<PathBuf>, WeightsError> {
    let listing = std::fs::read_dir(path).map_err(|e| WeightsError::io("list", path, &e))?;
    let mut files = Vec::new();
    for entry in listing {
        let file = entry
            .map_err(|e| WeightsError::io("list", path, &e))?
            .path();
        if file.extension().is_some_and(|e| e == "safetensors") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn open_index(dir: &Path, path: &Path) -> Result<Weights, WeightsError> {
    let bad = |reason: String| WeightsError::BadIndex {
        path: path.to_path_buf(),
        reason,
    };
    let text = std::fs::read(path).map_err(|e| WeightsError::io("read", path, &e))?;
    let index: ShardIndex = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
    let shards: BTreeSet<&String> = index.weight_map.values().collect();
    if shards.is_empty() {
        return Err(bad("its weight_map names no shard".into()));
    }
    let mut paths = Vec::with_capacity(shards.len());
    for shard in shards {
        let name = Path::new(shard);
        if !name.components().all(|c| matches!(c, Component::Normal(_))) {
            return Err(bad(format!(
                "shard name '{shard}' leads out of the directory"
            )));
        }
        let file = dir.join(name);
        if !file.exists() {
            let first = index.weight_map.iter().find(|(_, s)| *s == shard);
            return Err(WeightsError::MissingShard {
                index: path.to_path_buf(),
                shard: shard.clone(),
                tensor: first.map(|(t, _)| t.clone()).unwrap_or_default(),
            });
        }
        paths.push(file);
    }
    let weights = Weights::open_files(&paths)?;
    for (tensor, shard) in &index.weight_map {
        let file = dir.join(shard);
        if weights.file_of(tensor) != Some(file.as_path()) {
            return Err(WeightsError::NotInShard {
                tensor: tensor.clone(),
                index: path.to_path_buf(),
                file,
            });
        }
    }
    Ok(weights)
}

fn open_file(path: &Path) -> Result<File, WeightsError> {
    let file = std::fs::File::open(path).map_err(|e| WeightsError::io("open", path, &e))?;
    let len = file
        .metadata()
        .map_err(|e| WeightsError::io("find", path, &e))?
        .len();
    if len < header::PREFIX {
        return Err(WeightsError::Truncated {
            file: path.to_path_buf(),
            what: "the header's length".into(),
            needed: header::PREFIX,
            found: len,
        });
    }
    let [map, passing] = map(path, &file)?;
    let tensors = header::parse(path, &map)?;
    Ok(File {
        path: path.to_path_buf(),
        file: Arc::new(file),
        map,
        passing,
        tensors,
    })
}

/// Maps a file twice: for what stays and for what passes.
#[allow(
    unsafe_code,
    reason = "mapping a file is unsafe; this is the one place"
)]
pub(crate) fn map(path: &Path, file: &std::fs::File) -> Result<[Arc<Mmap>; 2], WeightsError> {
    let once = || {
        // SAFETY: the mapping is read-only and shared, and is only ever read as plain bytes. The
        // one hazard left, another process truncating the file, is documented on `Weights::open`.
        let map = unsafe { Mmap::map(file) };
        map.map_err(|e| WeightsError::io("map", path, &e))
    };
    Ok([Arc::new(once()?), Arc::new(once()?)])
}
