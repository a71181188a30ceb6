//! Where the model's files come from: a folder, a GGUF file, a hub, or the default model, fetched or made once and kept.
//!
//! Nothing that comes from outside is trusted: neither what a hub says (`hub`), nor what a package index gives (`wheel`),
//! nor the header of a file that is converted (`gguf`). What is made is whole under its name or absent (`kept`).

mod convert;
pub mod gguf;
mod hub;
mod python;
pub mod wheel;

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, bail};
use candle_trt::Weights;

use candle_trt::kernel::BlockType;
use candle_trt::stream::{KeepError, Made, PackOptions, Store};
use indicatif::ProgressBar;

use crate::precision::Precision;
use crate::progress;

const DEFAULT_NAME: &str = "SmolLM2-135M-Instruct";
const DEFAULT_REPO: &str = "HuggingFaceTB/SmolLM2-135M-Instruct";
const CONFIG: &str = "config.json";
const TOKENIZER: &str = "tokenizer.json";

/// What a checkpoint may have besides what it must have; what these say has defaults.
const OPTIONAL: [&str; 5] = [
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// Which model, and how it is to be stored.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// A folder, a GGUF file, a repository, or a GGUF file of one (`OWNER/NAME/FILE.gguf`); without it the default model.
    pub model: Option<&'a str>,
    /// A branch, a tag or a commit of a repository.
    pub revision: Option<&'a str>,
    /// Of every weight; without it what the files hold.
    pub dtype: Option<Precision>,
}

/// The folder with `config.json`, `tokenizer.json` and the weights of what is wanted, or the GGUF file that is all of these.
///
/// # Errors
///
/// What is missing, and why it cannot be had.
pub fn obtain(wanted: Wanted) -> Result<PathBuf> {
    let Wanted {
        model,
        revision,
        dtype,
    } = wanted;
    let Some(model) = model else {
        if revision.is_some() {
            bail!("--revision needs a repository: --model OWNER/NAME");
        }
        return default_model(&cache_dir()?, dtype);
    };
    let path = Path::new(model);
    if path.exists() {
        let what = if path.is_dir() { "folder" } else { "file" };
        if revision.is_some() {
            bail!("{model} is a {what}, which has no revisions");
        }
        return stored_as(path, dtype);
    }
    let revision = revision.unwrap_or("main");
    if let Some((repo, file)) = hub::file_of(model) {
        return stored_as(&hub::fetch_file(repo, revision, file)?, dtype);
    }
    if !hub::is_repo_id(model) {
        bail!(
            "{model} is neither a folder nor a file, nor a Hugging Face repository such as {DEFAULT_REPO}, nor a GGUF \
             file of one such as OWNER/NAME/FILE.gguf"
        );
    }
    stored_as(&hub::fetch(model, revision)?, dtype)
}

/// The folder with these files of a Hugging Face repository, by their paths in it: fetched unless they are in the cache.
///
/// # Errors
///
/// What is missing, and why it cannot be had.
pub fn files(repo: &str, revision: &str, files: &[&str]) -> Result<PathBuf> {
    if !hub::is_repo_id(repo) {
        bail!("{repo} is neither a folder nor a Hugging Face repository such as {DEFAULT_REPO}");
    }
    Ok(hub::fetch_files(repo, revision, files)?)
}

/// Makes a place of the cache unless it is there; says so if another process is at it.
fn keep(
    place: &Path,
    there: impl Fn(&Path) -> bool,
    make: impl FnOnce(&Path) -> Result<Made>,
) -> Result<()> {
    let waits = || eprintln!("waiting for another process that makes {}", place.display());
    candle_trt::stream::keep(place, there, waits, |dir| make(dir).map_err(Failed::Make)).map_err(
        |failed| match failed {
            Failed::Make(error) => error,
            Failed::Keep(error) => error.into(),
        },
    )
}

/// Why nothing was made.
enum Failed {
    Make(anyhow::Error),
    Keep(KeepError),
}

impl From<KeepError> for Failed {
    fn from(error: KeepError) -> Failed {
        Failed::Keep(error)
    }
}

/// The weights with their matrices in blocks, made once and kept in the cache.
///
/// # Errors
///
/// Values that blocks cannot hold, and what keeps the cache from being written.
pub fn quantised(weights: &Weights, block: BlockType) -> Result<Weights> {
    let bar = OnceLock::new();
    let progress = |done: u64, total: u64| {
        let bar: &ProgressBar = bar.get_or_init(|| {
            let message = format!("storing the weights as {}", block.name());
            progress::bytes(total, message)
        });
        bar.set_position(done);
    };
    let store = Store::Folder(cache_dir()?.join("quantised"));
    let all = weights.quantised(block, &store, &progress)?;
    if let Some(bar) = bar.get() {
        bar.finish_and_clear();
    }
    Ok(all)
}

/// The weights with a packed form beside them, made once: in a file beside the model, or in the cache where that cannot be written. Says what it
/// saves.
///
/// # Errors
///
/// What keeps it from being made: no room on the disk, no folder that can be written.
pub fn packed(weights: &Arc<Weights>) -> Result<Arc<Weights>> {
    let bar = OnceLock::new();
    let progress = |done: u64, total: u64| {
        let bar: &ProgressBar = bar.get_or_init(|| progress::bytes(total, "packing"));
        bar.set_position(done);
    };
    let all = weights.pack(&PackOptions {
        store: Store::Beside(cache_dir()?.join("packed")),
        progress: &progress,
    })?;
    if let Some(bar) = bar.get() {
        bar.finish_and_clear();
    }
    eprintln!("{}", saved(&all));
    Ok(all)
}

/// What packing has saved, and where that lies.
fn saved(weights: &Weights) -> String {
    let Some(packing) = weights.packing().filter(|p| p.plain_bytes() > 0) else {
        return "packed: nothing, since no weight is a matrix of bf16 or f16 that gets smaller"
            .into();
    };
    let (before, after) = (packing.plain_bytes() as f64, packing.packed_bytes() as f64);
    let place = packing.path().map(|p| p.display().to_string());
    format!(
        "packed: {:.1} of {:.1} MB of weights take {:.1} MB ({:.3}), in {}",
        before / 1e6,
        weights.total_bytes() as f64 / 1e6,
        after / 1e6,
        after / before,
        place.as_deref().unwrap_or("memory"),
    )
}

fn cache_dir() -> Result<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let dir = set("CANDLE_TRT_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("candle-trt")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/candle-trt")))
        .context("no place for the cache: set CANDLE_TRT_CACHE to a folder")?;
    // Programs that are started for it run elsewhere.
    std::path::absolute(&dir).with_context(|| format!("no place for the cache: {}", dir.display()))
}

/// The default model as its wheel holds it, or dequantised to a dtype.
fn default_model(cache: &Path, dtype: Option<Precision>) -> Result<PathBuf> {
    let place = dtype.map(|dtype| {
        (
            cache.join(format!("{DEFAULT_NAME}-{}", dtype.name())),
            dtype,
        )
    });
    if let Some((place, _)) = place.as_ref().filter(|(place, _)| is_whole(place)) {
        return Ok(place.clone());
    }
    let no_wheel = match (wheel::gguf(cache), place) {
        (Ok(file), None) => return Ok(file),
        (Ok(file), Some((place, dtype))) => {
            dequantised(&file, &place, dtype)?;
            return Ok(place);
        }
        (Err(no_wheel), _) => no_wheel,
    };
    match hub::fetch(DEFAULT_REPO, "main") {
        Ok(folder) => stored_as(&folder, dtype),
        Err(no_hub) => bail!(
            "cannot get the default model {DEFAULT_NAME}:\n  \
             from the Python package index: {no_wheel:#}\n  from Hugging Face: {no_hub:#}\n\
             Give a folder that has config.json, tokenizer.json and safetensors with --model DIR."
        ),
    }
}

/// Whether a folder of the cache was made to its end.
fn is_whole(place: &Path) -> bool {
    let there =
        |name: &str| fs::metadata(place.join(name)).is_ok_and(|m| m.is_file() && m.len() > 0);
    [CONFIG, TOKENIZER, convert::WEIGHTS].into_iter().all(there)
}

/// Makes a folder of what a GGUF file holds, every weight written out in a dtype.
fn dequantised(file: &Path, place: &Path, dtype: Precision) -> Result<()> {
    keep(place, is_whole, |dir| {
        gguf::convert(file, dir, dtype)?;
        Ok(Made::All)
    })
}

/// The folder or file itself where its weights are of the wanted dtype, else a converted copy in the cache.
fn stored_as(path: &Path, dtype: Option<Precision>) -> Result<PathBuf> {
    if path.is_dir() {
        check_folder(path)?;
    }
    let Some(dtype) = dtype else {
        return Ok(path.to_path_buf());
    };
    let weights = Weights::open(path)?;
    let gguf = weights.metadata().is_some();
    if !gguf && convert::is_all(&weights, dtype) {
        return Ok(path.to_path_buf());
    }
    let place = cache_dir()?
        .join("converted")
        .join(converted_name(path, dtype)?);
    match gguf {
        _ if is_whole(&place) => {}
        true => dequantised(path, &place, dtype)?,
        false => keep(&place, is_whole, |dir| {
            convert::restore(&weights, path, dir, dtype)?;
            Ok(Made::All)
        })?,
    }
    Ok(place)
}

/// Checks that a folder has what is needed beside weights. What it lacks a GGUF file in it may say.
fn check_folder(folder: &Path) -> Result<()> {
    for name in [CONFIG, TOKENIZER] {
        match fs::metadata(folder.join(name)) {
            Ok(meta) if meta.is_file() => {}
            Ok(_) => bail!("{} is not a regular file", folder.join(name).display()),
            Err(_) if Weights::open(folder)?.metadata().is_some() => {}
            Err(_) => bail!("{} has no {name}", folder.display()),
        }
    }
    Ok(())
}

/// A name for this state of a folder's files, stored as `dtype`.
fn converted_name(folder: &Path, dtype: Precision) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    let folder = folder.canonicalize()?;
    let files = match folder.is_dir() {
        true => {
            let files = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path()));
            files.collect::<std::io::Result<BTreeSet<_>>>()?
        }
        false => BTreeSet::from([folder.clone()]),
    };
    for path in files {
        // A link that leads nowhere is as good as no file.
        let Ok(meta) = fs::metadata(&path) else {
            continue;
        };
        (path, meta.len(), meta.modified()?).hash(&mut hasher);
    }
    let name = folder
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    Ok(format!("{name}-{:016x}-{}", hasher.finish(), dtype.name()))
}
