//! Where the model's files come from: a folder, a hub, or the default model, made once and kept.
//!
//! Nothing that comes from outside is trusted: neither what a hub says (`hub`), nor what a package index gives (`wheel`),
//! nor the header of a file that is converted (`gguf`). What is made is whole under its name or absent (`kept`).

mod convert;
pub mod gguf;
mod hub;
mod kept;
mod wheel;

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use candle_trt::Weights;

use crate::precision::Precision;
use kept::Made;

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
    /// A folder or a repository; without it the default model.
    pub model: Option<&'a str>,
    /// A branch, a tag or a commit of a repository.
    pub revision: Option<&'a str>,
    /// Of every weight; without it bf16 for the default model, and what the files hold for any other.
    pub dtype: Option<Precision>,
}

/// The folder with `config.json`, `tokenizer.json` and the weights of what is wanted.
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
        return default_model(&cache_dir()?, dtype.unwrap_or(Precision::Bf16));
    };
    let folder = Path::new(model);
    if folder.is_dir() {
        if revision.is_some() {
            bail!("{model} is a folder, which has no revisions");
        }
        return stored_as(folder, dtype);
    }
    if folder.exists() {
        bail!(
            "{model} is not a folder; a model is a folder or a Hugging Face repository such as {DEFAULT_REPO}"
        );
    }
    if !hub::is_repo_id(model) {
        bail!("{model} is neither a folder nor a Hugging Face repository such as {DEFAULT_REPO}");
    }
    stored_as(&hub::fetch(model, revision.unwrap_or("main"))?, dtype)
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

fn default_model(cache: &Path, dtype: Precision) -> Result<PathBuf> {
    let place = cache.join(format!("{DEFAULT_NAME}-{}", dtype.name()));
    if is_whole(&place) {
        return Ok(place);
    }
    let no_wheel = match wheel::gguf(cache) {
        Ok(file) => {
            kept::keep(&place, is_whole, |dir| {
                gguf::convert(&file, dir, dtype)?;
                Ok(Made::All)
            })?;
            return Ok(place);
        }
        Err(no_wheel) => no_wheel,
    };
    match hub::fetch(DEFAULT_REPO, "main") {
        Ok(folder) => stored_as(&folder, Some(dtype)),
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

/// `folder` itself where its weights are of the wanted dtype, else a converted copy in the cache.
fn stored_as(folder: &Path, dtype: Option<Precision>) -> Result<PathBuf> {
    for name in [CONFIG, TOKENIZER] {
        match fs::metadata(folder.join(name)) {
            Ok(meta) if meta.is_file() => {}
            Ok(_) => bail!("{} is not a regular file", folder.join(name).display()),
            Err(_) => bail!("{} has no {name}", folder.display()),
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
    if !is_whole(&place) {
        kept::keep(&place, is_whole, |dir| {
            convert::restore(&weights, folder, dir, dtype)?;
            Ok(Made::All)
        })?;
    }
    Ok(place)
}

/// A name for this state of a folder's files, stored as `dtype`.
fn converted_name(folder: &Path, dtype: Precision) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    let folder = folder.canonicalize()?;
    let files = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path()));
    for path in files.collect::<std::io::Result<BTreeSet<_>>>()? {
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
