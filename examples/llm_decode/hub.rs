//! A model's files from Hugging Face, through its own cache.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use indicatif::ProgressBar;

use crate::progress;

/// `owner/name`, and no path.
pub fn is_repo_id(text: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    text.split_once('/')
        .is_some_and(|(owner, name)| plain(owner) && plain(name))
}

/// Fetches what is not yet in the cache; the answer is the folder that holds all of it.
pub fn fetch(repo: &str) -> Result<PathBuf> {
    let api = ApiBuilder::from_env()
        .with_progress(false)
        .build()
        .context("cannot set up the Hugging Face client")?;
    let files = api.model(repo.to_string());
    let cache = hf_hub::Cache::from_env().model(repo.to_string());
    let get = |name: &str| match cache.get(name) {
        Some(path) => Ok(path),
        None => download(&files, name).map_err(|e| anyhow!("{repo}: {name}: {e}")),
    };
    let config = get("config.json")?;
    get("tokenizer.json")?;
    for optional in [
        "tokenizer_config.json",
        "generation_config.json",
        "chat_template.jinja",
    ] {
        // Absent in many repositories; what they say has defaults.
        let _ = get(optional);
    }
    match get("model.safetensors.index.json") {
        Ok(index) => {
            for shard in shards(&index)? {
                get(&shard)?;
            }
        }
        Err(_) => drop(get("model.safetensors")?),
    }
    Ok(config
        .parent()
        .context("a file in the cache has a folder")?
        .to_path_buf())
}

/// The files that an index names.
pub fn shards(index: &Path) -> Result<BTreeSet<String>> {
    let broken = || format!("{} is not a safetensors index", index.display());
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(index)?).with_context(broken)?;
    let map = json["weight_map"].as_object().with_context(broken)?;
    map.values()
        .map(|file| file.as_str().map(str::to_string).with_context(broken))
        .collect()
}

fn download(repo: &ApiRepo, name: &str) -> Result<PathBuf, ApiError> {
    let bar = progress::bytes(0, format!("fetching {name}"));
    let file = repo.download_with_progress(name, Bar(bar.clone()));
    bar.finish_and_clear();
    file
}

struct Bar(ProgressBar);

impl hf_hub::api::Progress for Bar {
    fn init(&mut self, size: usize, _filename: &str) {
        self.0.set_length(size as u64);
    }

    fn update(&mut self, size: usize) {
        self.0.inc(size as u64);
    }

    fn finish(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_id_is_owner_slash_name() {
        assert!(is_repo_id("HuggingFaceTB/SmolLM2-135M-Instruct"));
        for other in ["model", "./model", "/model", "a/b/c", "a/", "../b", "a b/c"] {
            assert!(!is_repo_id(other), "{other}");
        }
    }
}
