//! Finding and mapping weight files.
//!
//! Opening maps every file read-only and shared, and reads only the headers: weights stay in
//! the page cache, cost no memory of the process until they are used, and are shared between
//! processes.
//!
//! The mapping is left with the kernel's normal read-ahead: whole tiles are asked for ahead of
//! use, and random-access advice would read a cold tile page by page. What becomes of its pages
//! is the device's business.

use super::file::{File, Opened};
use super::header;
use super::index::Weights;
use super::shards::ShardIndex;
use super::{WeightsError, gguf, open_regular};
use memmap2::Mmap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const INDEX_END: &str = ".safetensors.index.json";
/// Ends of names of files with weights in other formats.
const OTHERS: [&str; 7] = [".bin", ".ckpt", ".h5", ".msgpack", ".onnx", ".pt", ".pth"];

impl Weights {
    /// Opens a model directory, an index or one file. Only headers are read.
    ///
    /// In a directory **an index decides**: where there is a `model.safetensors.index.json`, the
    /// tensors are those that it names, each in the shard that it names, whatever else the shards
    /// and the directory hold. What it names wrongly is an error only where it is asked for: a
    /// tensor in a shard that does not exist or does not hold it. Only if none of its shards
    /// exists and there is a `model.safetensors`, it is left aside. Without an index the weights are
    /// `model.safetensors` if it exists, else those of the one other `*.safetensors.index.json`,
    /// else every `*.safetensors` whose name does not begin with a dot. Where there is none, they are
    /// those of the one GGUF model that the directory holds.
    ///
    /// A GGUF file is one that begins as such, whatever its name. One that says that it is a part of
    /// a model, as in `NAME-00001-of-00003.gguf`, stands for all parts, which lie beside it; one that is
    /// missing is an error. Tensors have the names of the file, and those of Hugging Face's files for
    /// the same model: see [`Weights::view`].
    ///
    /// Files and names come from others, so nothing about them is trusted: every file is a
    /// regular one, shards have [plain names](crate::plain_name) below the directory, and headers
    /// are checked before anything is used. Memory and time are bounded by the headers' length.
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
    ///
    /// # Errors
    ///
    /// [`WeightsError`] says what is wrong with which file. A file of another kind (a git-lfs
    /// pointer, a pickle, a web page) is [`WeightsError::Foreign`], and a pipe, a device or a
    /// folder in a file's place [`WeightsError::File`].
    pub fn open(path: impl AsRef<Path>) -> Result<Weights, WeightsError> {
        let path = path.as_ref();
        let kind = std::fs::metadata(path).map_err(|e| WeightsError::io("find", path, e))?;
        if !kind.is_dir() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            return match name.ends_with(INDEX_END) {
                true => open_index(path, None),
                false => Weights::open_files(&[path]),
            };
        }
        let single = Some(path.join(SINGLE)).filter(|p| is_there(p));
        let index = path.join(INDEX);
        if is_there(&index) {
            return open_index(&index, single);
        }
        if let Some(single) = single {
            return Weights::open_files(&[single]);
        }
        let names = names_in(path)?;
        let ending = |end: &str| {
            names
                .iter()
                .filter(|n| n.ends_with(end))
                .collect::<Vec<_>>()
        };
        if let [index] = ending(INDEX_END)[..] {
            return open_index(&path.join(index), None);
        }
        let files = ending(".safetensors");
        if files.is_empty() {
            match gguf::models(&names)[..] {
                [] => {}
                [model] => return Weights::open_files(&[path.join(model)]),
                [..] => {
                    let models = gguf::models(&names).into_iter();
                    return Err(WeightsError::SeveralModels {
                        path: path.to_path_buf(),
                        names: models.take(8).cloned().collect(),
                    });
                }
            }
            let other = |n: &&String| OTHERS.iter().any(|end| n.ends_with(end));
            return Err(WeightsError::Empty {
                path: path.to_path_buf(),
                others: names.iter().filter(other).take(3).cloned().collect(),
            });
        }
        let files: Vec<PathBuf> = files.into_iter().map(|n| path.join(n)).collect();
        Weights::open_files(&files)
    }

    /// Opens these safetensors files as one set of weights. A name in two of them is an error. One
    /// GGUF file alone is opened too, with the other parts of its model.
    ///
    /// # Errors
    /// As [`Weights::open`] for each of them; [`WeightsError::Duplicate`] for a name that two have.
    pub fn open_files(paths: &[impl AsRef<Path>]) -> Result<Weights, WeightsError> {
        if let [path] = paths {
            let opened = open_file(path.as_ref())?;
            if opened.map.starts_with(gguf::MAGIC) {
                return Weights::build_gguf(gguf::model(opened, open_file)?);
            }
            return Weights::build(vec![safetensors(opened)?]);
        }
        let open = |path| safetensors(open_file(path)?);
        let files = paths.iter().map(|path| open(path.as_ref()));
        Weights::build(files.collect::<Result<Vec<_>, _>>()?)
    }
}

/// Whether there is anything of this name; a link that leads nowhere is an error to come, not an
/// absent file.
fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// The names in a folder that do not begin with a dot, sorted. Those that are no text are not ours.
fn names_in(path: &Path) -> Result<Vec<String>, WeightsError> {
    let listing = std::fs::read_dir(path).map_err(|e| WeightsError::io("list", path, e))?;
    let mut names = Vec::new();
    for entry in listing {
        let entry = entry.map_err(|e| WeightsError::io("list", path, e))?;
        names.extend(entry.file_name().into_string());
    }
    names.retain(|n| !n.starts_with('.'));
    names.sort();
    Ok(names)
}

/// Opens the shards of an index, or `instead` if none of them exists.
fn open_index(path: &Path, instead: Option<PathBuf>) -> Result<Weights, WeightsError> {
    let mut index = ShardIndex::read(path)?;
    let mut files = Vec::with_capacity(index.shards.len());
    for shard in &mut index.shards {
        if shard.exists() {
            shard.file = Some(files.len() as u32);
            files.push(safetensors(open_file(&shard.path)?)?);
        }
    }
    match instead {
        _ if !files.is_empty() => Weights::build_by(files, index),
        Some(single) => {
            tracing::warn!(index = %path.display(), "no shard of the index exists: it is left aside");
            Weights::open_files(&[single])
        }
        None => Err(index.nothing()),
    }
}

fn open_file(path: &Path) -> Result<Opened, WeightsError> {
    let file = open_regular(path).map_err(|e| WeightsError::file(path, e))?;
    let len = file
        .metadata()
        .map_err(|e| WeightsError::io("find", path, e))?
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
    Ok(Opened {
        path: path.to_path_buf(),
        file: Arc::new(file),
        map,
        passing,
    })
}

fn safetensors(opened: Opened) -> Result<File, WeightsError> {
    let tensors = header::parse(&opened.path, &opened.map)?;
    Ok(opened.with(tensors))
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
        map.map_err(|e| WeightsError::io("map", path, e))
    };
    Ok([Arc::new(once()?), Arc::new(once()?)])
}
