//! What getting files from a hub can fail with.

use std::io;
use std::path::{Path, PathBuf};

use candle_trt::stream::NameError;

/// An error of the hub's client.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// An environment variable with a value that means nothing.
    #[error("{name}={value} cannot be used: it must be {wanted}")]
    Setting {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it can be.
        wanted: &'static str,
    },
    /// No folder for the cache.
    #[error("no place for the cache of the hub: set HF_HOME to a folder")]
    NoCache,
    /// A revision that is no name.
    #[error("no revision can be named {0:?}: a branch, a tag or a commit is")]
    Revision(String),
    /// A name from an index that is no plain name.
    #[error("the repository {repo} cannot be trusted: {source}")]
    Name {
        /// The repository.
        repo: String,
        /// The name, and what is wrong with it.
        source: NameError,
    },
    /// A file that is needed, and that the repository does not have.
    #[error("{repo} has no {name}")]
    Missing {
        /// The repository.
        repo: String,
        /// The file.
        name: String,
    },
    /// An index that cannot be read.
    #[error("{}: {why}", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A file that would have to be asked for, and nothing may be.
    #[error("{name} of {repo} is not in the cache {}, and HF_HUB_OFFLINE says that nothing may be fetched", cache.display())]
    Offline {
        /// The repository.
        repo: String,
        /// The file.
        name: String,
        /// The cache.
        cache: PathBuf,
    },
    /// A program without a client.
    #[cfg(not(feature = "hub"))]
    #[error(
        "{name} of {repo} is not in the cache {}, and this program was built without access to hubs: build it \
         with `--features hub`, or give a folder with --model DIR", cache.display()
    )]
    NoClient {
        /// The repository.
        repo: String,
        /// The file.
        name: String,
        /// The cache.
        cache: PathBuf,
    },
    /// The hub refuses.
    #[error("{url}: the hub answers {status}{said}")]
    Refused {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
        /// What it says beyond that, after a colon.
        said: String,
    },
    /// An answer that no hub gives.
    #[error("{url}: this is no hub's answer: {why}")]
    Answer {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// Silence.
    #[error("{url}: nothing came within {seconds} s ({variable} says how long to wait)")]
    Silent {
        /// What was asked for.
        url: String,
        /// How long was waited.
        seconds: f64,
        /// What says so.
        variable: &'static str,
    },
    /// No connection, or a broken one.
    #[error("{url}: {why}")]
    Network {
        /// What was asked for.
        url: String,
        /// What the network says.
        why: String,
    },
    /// Bytes that are not what they should be.
    #[error("{url}: the bytes that came are not the file's: {why}")]
    Damaged {
        /// What was asked for.
        url: String,
        /// What is wrong with them.
        why: String,
    },
    /// The cache cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl HubError {
    /// For `map_err`.
    pub fn writing(path: &Path) -> impl Fn(io::Error) -> HubError + use<> {
        let path = path.to_path_buf();
        move |source| HubError::Write {
            path: path.clone(),
            source,
        }
    }

    /// Whether another try may end otherwise.
    pub fn passes(&self) -> bool {
        match self {
            HubError::Silent { .. } | HubError::Network { .. } => true,
            HubError::Refused { status, .. } => *status >= 500 || *status == 429,
            _ => false,
        }
    }
}
