//! A model's files from Hugging Face, or from another hub that speaks as it does, through the cache that its users share.
//!
//! A hub is not trusted. What it says of names, commits and etags becomes a path only after it was found to be plain
//! (`layout`), and a name from an index is looked at before anything is asked for it. What is in the cache is used
//! without asking; only what is missing needs the network, all of it at one commit.

#[cfg(feature = "hub")]
mod client;
#[cfg(feature = "hub")]
mod download;
#[cfg_attr(
    not(feature = "hub"),
    allow(dead_code, reason = "without a client the cache is only read")
)]
mod error;
#[cfg_attr(
    not(feature = "hub"),
    allow(dead_code, reason = "without a client the cache is only read")
)]
mod layout;
#[cfg_attr(
    not(feature = "hub"),
    allow(dead_code, reason = "without a client the cache is only read")
)]
mod settings;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use candle_trt::stream::plain_name;

pub use error::HubError;
pub use settings::Settings;

use candle_trt::stream::read_regular;
use layout::{Commit, Layout};

const CONFIG: &str = "config.json";
const INDEX: &str = "model.safetensors.index.json";

/// The largest index that is read; that of the largest models has some 10 MB.
const INDEX_BYTES: u64 = 256 << 20;

/// `owner/name`, and no path.
pub fn is_repo_id(text: &str) -> bool {
    let plain = |part: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        (1..=96).contains(&part.len())
            && !part.starts_with(['.', '-'])
            && !part.ends_with(['.', '-'])
            && !part.contains("..")
            && !part.contains("--")
            && part.chars().all(known)
    };
    text.split_once('/')
        .is_some_and(|(owner, name)| plain(owner) && plain(name))
}

/// The repository and the name in it of a GGUF file, `OWNER/NAME/FILE.gguf`, where the file may be in a folder.
pub fn file_of(text: &str) -> Option<(&str, &str)> {
    let slash = |after: usize| text[after..].find('/').map(|at| after + at);
    let second = slash(slash(0)? + 1)?;
    let (repo, file) = (&text[..second], &text[second + 1..]);
    (is_repo_id(repo) && file.ends_with(".gguf")).then_some((repo, file))
}

/// Fetches a GGUF file of a repository, with the other parts of its model, unless they are in the cache; the answer is the
/// file.
///
/// # Errors
///
/// What is missing and cannot be had, by name.
pub fn fetch_file(repo: &str, revision: &str, file: &str) -> Result<PathBuf, HubError> {
    HubModel::new(&Settings::from_env()?, repo, revision)?.fetch_file(file)
}

/// Fetches what is not yet in the cache; the answer is the folder that holds all of it.
///
/// # Errors
///
/// What is missing and cannot be had, by name.
pub fn fetch(repo: &str, revision: &str) -> Result<PathBuf, HubError> {
    HubModel::new(&Settings::from_env()?, repo, revision)?.fetch()
}

/// Fetches files of a repository, by their paths in it, unless they are in the cache; the answer is the folder that they are in.
///
/// # Errors
///
/// What is missing and cannot be had, by name.
pub fn fetch_files(repo: &str, revision: &str, files: &[&str]) -> Result<PathBuf, HubError> {
    HubModel::new(&Settings::from_env()?, repo, revision)?.fetch_files(files)
}

/// One revision of a repository.
struct HubModel<'a> {
    settings: &'a Settings,
    repo: &'a str,
    revision: &'a str,
    layout: Layout,
}

/// What was found of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Here,
    /// The repository has none.
    Absent,
}

impl<'a> HubModel<'a> {
    fn new(settings: &'a Settings, repo: &'a str, revision: &'a str) -> Result<Self, HubError> {
        // It becomes a path and a part of an address.
        if plain_name(revision).is_err() || revision.starts_with(['.', '-']) {
            return Err(HubError::Revision(revision.to_string()));
        }
        Ok(HubModel {
            settings,
            repo,
            revision,
            layout: Layout::new(&settings.cache, repo),
        })
    }

    fn fetch(&self) -> Result<PathBuf, HubError> {
        let source = Source::new(self);
        let commit = match self.layout.commit(self.revision) {
            Some(commit) => commit,
            None => source.commit_of(CONFIG)?,
        };
        for needed in [CONFIG, "tokenizer.json"] {
            self.need(&source, &commit, needed)?;
        }
        // Where one file of weights is in the cache and no index, that was all there was to get.
        let cached = |name| self.layout.has(&commit, Path::new(name));
        let index = match cached("model.safetensors") && !cached(INDEX) {
            true => Found::Absent,
            false => source.get(&commit, INDEX)?,
        };
        match index {
            Found::Here => {
                for shard in self.shards(&self.layout.snapshot(&commit).join(INDEX))? {
                    self.need(&source, &commit, &shard)?;
                }
            }
            Found::Absent => self.need(&source, &commit, "model.safetensors")?,
        }
        for optional in super::OPTIONAL {
            // All that is needed is here by now. What else there may be is worth a question, not a failure.
            if let Err(error) = source.get(&commit, optional) {
                eprintln!(
                    "note: going on without {optional}, which may or may not be there: {error}"
                );
                if error.passes() {
                    break;
                }
            }
        }
        Ok(self.layout.snapshot(&commit))
    }

    fn fetch_file(&self, file: &str) -> Result<PathBuf, HubError> {
        let place = plain_name(file).map_err(|source| HubError::Name {
            repo: self.repo.to_string(),
            source,
        })?;
        let parts = parts(file);
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        Ok(self.fetch_files(&parts)?.join(place))
    }

    fn fetch_files(&self, files: &[&str]) -> Result<PathBuf, HubError> {
        let source = Source::new(self);
        let commit = match (self.layout.commit(self.revision), files.first()) {
            (Some(commit), _) => commit,
            (None, first) => source.commit_of(first.unwrap_or(&CONFIG))?,
        };
        for file in files {
            self.need(&source, &commit, file)?;
        }
        Ok(self.layout.snapshot(&commit))
    }

    fn need(&self, source: &Source, commit: &Commit, name: &str) -> Result<(), HubError> {
        match source.get(commit, name)? {
            Found::Here => Ok(()),
            Found::Absent => Err(HubError::Missing {
                repo: self.repo.to_string(),
                name: name.to_string(),
            }),
        }
    }

    /// The files that an index names, none of which leads out of the folder.
    fn shards(&self, index: &Path) -> Result<BTreeSet<String>, HubError> {
        let broken = |why: String| HubError::Index {
            path: index.to_path_buf(),
            why,
        };
        let bytes = read_regular(index, INDEX_BYTES).map_err(|e| broken(e.to_string()))?;
        let json: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|e| broken(format!("it is not JSON: {e}")))?;
        let map = json["weight_map"].as_object();
        let map = map.ok_or_else(|| broken("it has no weight_map".into()))?;
        let mut shards = BTreeSet::new();
        for (tensor, shard) in map {
            let shard = shard.as_str();
            let shard =
                shard.ok_or_else(|| broken(format!("the shard of {tensor:?} is no name")))?;
            let plain = plain_name(shard).map_err(|source| HubError::Name {
                repo: self.repo.to_string(),
                source,
            })?;
            shards.insert(plain.to_string_lossy().into_owned());
        }
        Ok(shards)
    }
}

/// The cache, and behind it the hub where that may be asked.
struct Source<'a> {
    model: &'a HubModel<'a>,
    #[cfg(feature = "hub")]
    client: std::cell::OnceCell<client::Client>,
}

impl<'a> Source<'a> {
    fn new(model: &'a HubModel<'a>) -> Self {
        Source {
            model,
            #[cfg(feature = "hub")]
            client: std::cell::OnceCell::new(),
        }
    }

    /// Sees to it that a file is in the cache, if there is one.
    fn get(&self, commit: &Commit, name: &str) -> Result<Found, HubError> {
        let layout = &self.model.layout;
        let place = plain_name(name).map_err(|source| HubError::Name {
            repo: self.model.repo.to_string(),
            source,
        })?;
        if layout.has(commit, place) {
            return Ok(Found::Here);
        }
        if layout.is_absent(commit, place) {
            return Ok(Found::Absent);
        }
        if self.model.settings.offline {
            return match is_needed(name) {
                true => Err(self.offline(name)),
                // Whether it exists cannot be known, and nothing may be asked.
                false => Ok(Found::Absent),
            };
        }
        self.ask(commit, name, place)
    }

    fn offline(&self, name: &str) -> HubError {
        HubError::Offline {
            repo: self.model.repo.to_string(),
            name: name.to_string(),
            cache: self.model.settings.cache.clone(),
        }
    }
}

/// The names of all parts of a model, by the name of one.
fn parts(file: &str) -> Vec<String> {
    let split = || {
        let stem = file.strip_suffix(".gguf")?;
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let digits = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
        (digits(number) && digits(count)).then_some((stem, count))
    };
    match split() {
        Some((stem, count)) => {
            let all = 1..=count.parse().unwrap_or(1u32);
            all.map(|i| format!("{stem}-{i:05}-of-{count}.gguf"))
                .collect()
        }
        None => vec![file.to_string()],
    }
}

/// Whether a model cannot be without a file of this name; an index is not needed where there is one file of weights.
fn is_needed(name: &str) -> bool {
    name != INDEX && !super::OPTIONAL.contains(&name)
}

#[cfg(feature = "hub")]
impl Source<'_> {
    fn client(&self) -> Result<&client::Client, HubError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = client::Client::new(self.model.settings)?;
        Ok(self.client.get_or_init(|| client))
    }

    /// What the revision is now, by a file that it must have.
    fn commit_of(&self, name: &str) -> Result<Commit, HubError> {
        let HubModel { repo, revision, .. } = *self.model;
        if self.model.settings.offline {
            return Err(self.offline(name));
        }
        let Some(remote) = self.client()?.head(repo, revision, name)? else {
            return Err(HubError::Missing {
                repo: repo.to_string(),
                name: name.to_string(),
            });
        };
        self.model.layout.set_commit(revision, &remote.commit)?;
        Ok(remote.commit)
    }

    fn ask(&self, commit: &Commit, name: &str, place: &Path) -> Result<Found, HubError> {
        let (model, client) = (self.model, self.client()?);
        let Some(remote) = client.head(model.repo, commit.as_str(), name)? else {
            model.layout.set_absent(commit, place)?;
            return Ok(Found::Absent);
        };
        if remote.commit != *commit {
            return Err(HubError::Answer {
                url: remote.url,
                why: format!(
                    "asked for {}, it gives {}",
                    commit.as_str(),
                    remote.commit.as_str()
                ),
            });
        }
        download::blob(client, model.settings, &model.layout, name, &remote)?;
        model.layout.link(commit, place, &remote.etag)?;
        Ok(Found::Here)
    }
}

#[cfg(not(feature = "hub"))]
impl Source<'_> {
    fn no_client(&self, name: &str) -> HubError {
        HubError::NoClient {
            repo: self.model.repo.to_string(),
            name: name.to_string(),
            cache: self.model.settings.cache.clone(),
        }
    }

    fn commit_of(&self, name: &str) -> Result<Commit, HubError> {
        match self.model.settings.offline {
            true => Err(self.offline(name)),
            false => Err(self.no_client(name)),
        }
    }

    fn ask(&self, _commit: &Commit, name: &str, _place: &Path) -> Result<Found, HubError> {
        match is_needed(name) {
            true => Err(self.no_client(name)),
            false => Ok(Found::Absent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_id_is_owner_slash_name() {
        assert!(is_repo_id("HuggingFaceTB/SmolLM2-135M-Instruct"));
        let others = [
            "model", "./model", "/model", "a/b/c", "a/", "../b", "a b/c", "a/..", "a--b/c",
            "a/b--c", "-a/b", "a/b?c", "a/b#c", "a/b\\c",
        ];
        for other in others {
            assert!(!is_repo_id(other), "{other}");
        }
    }
}
