//! The cache that all users of the hub share, as huggingface_hub lays it out.
//!
//! ```text
//! models--owner--name/refs/main                  the commit that a revision was last
//!                     snapshots/<commit>/<file>  a link to
//!                     blobs/<etag>               the bytes, once they are whole; <etag>.incomplete before
//!                     .no_exist/<commit>/<file>  a mark: this commit has no such file
//! .locks/models--owner--name/<etag>.lock         held by who fetches the blob
//! ```
//!
//! Every part of a path here is checked where it enters: commits and etags come from a hub, names from an index.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use candle_trt::stream::plain_name;

use super::HubError;
use candle_trt::stream::read_regular;

/// The longest file in refs/ that is read; a commit has 40 characters.
const COMMIT: u64 = 4 << 10;

/// One repository's place in the cache.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
    locks: PathBuf,
}

/// A commit's number: 40 hexadecimal digits, so nothing but a folder's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit(String);

impl Commit {
    /// `text` if it is a commit's number.
    pub fn new(text: &str) -> Option<Self> {
        let hex = text.len() == 40 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        hex.then(|| Commit(text.to_string()))
    }

    /// Its digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What names a file's bytes: letters, digits, `-` and `_`, so nothing but a file's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etag(String);

impl Etag {
    /// From a header, with or without its quotes.
    pub fn new(header: &str) -> Option<Self> {
        let text = header.strip_prefix("W/").unwrap_or(header);
        let text = text
            .strip_prefix('"')
            .and_then(|t| t.strip_suffix('"'))
            .unwrap_or(text);
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        let good = (1..=128).contains(&text.len()) && text.bytes().all(plain);
        good.then(|| Etag(text.to_string()))
    }

    /// The SHA-256 of the bytes, where the etag is one.
    pub fn sha256(&self) -> Option<&str> {
        let hex = self.0.len() == 64 && self.0.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then_some(&self.0)
    }
}

impl Layout {
    /// The place of a repository `owner/name`.
    pub fn new(cache: &Path, repo: &str) -> Self {
        let folder = format!("models--{}", repo.replace('/', "--"));
        Layout {
            root: cache.join(&folder),
            locks: cache.join(".locks").join(folder),
        }
    }

    /// The commit that a revision was when it was last asked for.
    pub fn commit(&self, revision: &str) -> Option<Commit> {
        if let Some(commit) = Commit::new(revision) {
            return Some(commit);
        }
        let bytes = read_regular(&self.reference(revision)?, COMMIT).ok()?;
        Commit::new(std::str::from_utf8(&bytes).ok()?.trim())
    }

    /// Notes what a revision is.
    pub fn set_commit(&self, revision: &str, commit: &Commit) -> Result<(), HubError> {
        match self.reference(revision) {
            Some(place) if Commit::new(revision).is_none() => {
                whole(&place, |file| fs::write(file, commit.as_str()))
            }
            _ => Ok(()),
        }
    }

    fn reference(&self, revision: &str) -> Option<PathBuf> {
        Some(self.root.join("refs").join(plain_name(revision).ok()?))
    }

    /// The folder of a commit's files.
    pub fn snapshot(&self, commit: &Commit) -> PathBuf {
        self.root.join("snapshots").join(commit.as_str())
    }

    /// Whether a file is there. An empty one is not: nothing that a model needs is.
    pub fn has(&self, commit: &Commit, name: &Path) -> bool {
        fs::metadata(self.snapshot(commit).join(name)).is_ok_and(|m| m.is_file() && m.len() > 0)
    }

    /// Whether the hub has said that there is no such file.
    pub fn is_absent(&self, commit: &Commit, name: &Path) -> bool {
        self.absent(commit, name).is_file()
    }

    /// Notes that there is no such file.
    pub fn set_absent(&self, commit: &Commit, name: &Path) -> Result<(), HubError> {
        whole(&self.absent(commit, name), |file| fs::write(file, ""))
    }

    fn absent(&self, commit: &Commit, name: &Path) -> PathBuf {
        self.root.join(".no_exist").join(commit.as_str()).join(name)
    }

    /// Where the bytes are.
    pub fn blob(&self, etag: &Etag) -> PathBuf {
        self.root.join("blobs").join(&etag.0)
    }

    /// Where they are until they are whole.
    pub fn incomplete(&self, etag: &Etag) -> PathBuf {
        self.root
            .join("blobs")
            .join(format!("{}.incomplete", etag.0))
    }

    /// The file that who fetches a blob has locked.
    pub fn lock(&self, etag: &Etag) -> PathBuf {
        self.locks.join(format!("{}.lock", etag.0))
    }

    /// Makes a blob a commit's file.
    pub fn link(&self, commit: &Commit, name: &Path, etag: &Etag) -> Result<(), HubError> {
        let up = "../".repeat(name.components().count() + 1);
        let target = PathBuf::from(format!("{up}blobs/{}", etag.0));
        whole(&self.snapshot(commit).join(name), |place| {
            link(&target, &self.blob(etag), place)
        })
    }
}

/// Makes a file under another name beside its place and renames it, so that it is whole or not there.
fn whole(place: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), HubError> {
    let failed = HubError::writing(place);
    let parent = place.parent().unwrap_or(place);
    fs::create_dir_all(parent).map_err(&failed)?;
    let unfinished = tempfile::Builder::new()
        .prefix(".unfinished-")
        .tempdir_in(parent)
        .map_err(&failed)?;
    let file = unfinished.path().join("file");
    make(&file).map_err(&failed)?;
    fs::rename(&file, place).map_err(&failed)
}

#[cfg(unix)]
fn link(target: &Path, _blob: &Path, place: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, place)
}

/// Links need rights that users of other systems often lack.
#[cfg(not(unix))]
fn link(_target: &Path, blob: &Path, place: &Path) -> io::Result<()> {
    fs::copy(blob, place).map(drop)
}

/// Locks a file that is made for it; the lock goes with the value, and with the process. Systems of files without
/// locks have none to give, and two downloads of one file at once are then as bad as they ever were.
pub fn lock(path: &Path, waiting: impl FnOnce()) -> Result<File, HubError> {
    let failed = HubError::writing(path);
    fs::create_dir_all(path.parent().unwrap_or(path)).map_err(&failed)?;
    let file = File::create(path).map_err(&failed)?;
    if let Err(fs::TryLockError::WouldBlock) = file.try_lock() {
        waiting();
        let _ = file.lock();
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_hub_calls_its_commits_and_files_is_a_plain_name_or_refused() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(Commit::new(commit).unwrap().as_str(), commit);
        for bad in [
            "",
            "main",
            "../../../../../../../../../../../../../a",
            &commit[1..],
            &format!("{commit}0"),
        ] {
            assert_eq!(Commit::new(bad), None, "{bad}");
        }
        assert_eq!(Etag::new("\"abc-1\""), Etag::new("abc-1"));
        assert_eq!(Etag::new("W/\"abc\""), Etag::new("abc"));
        let long = "a".repeat(129);
        for bad in ["", "\"\"", "../x", "a/b", "a.b", "a\"b", "\"a", "..", &long] {
            assert_eq!(Etag::new(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_file_of_a_commit_is_a_link_to_its_blob() {
        let cache = tempfile::tempdir().unwrap();
        let layout = Layout::new(cache.path(), "a/b");
        let commit = Commit::new(&"0".repeat(40)).unwrap();
        let (etag, name) = (Etag::new("tag").unwrap(), Path::new("sub/config.json"));
        assert!(!layout.has(&commit, name));
        fs::create_dir_all(layout.blob(&etag).parent().unwrap()).unwrap();
        fs::write(layout.blob(&etag), "").unwrap();
        layout.link(&commit, name, &etag).unwrap();
        assert!(
            !layout.has(&commit, name),
            "an empty file counts for nothing"
        );
        fs::write(layout.blob(&etag), "{}").unwrap();
        assert!(layout.has(&commit, name));
        layout.set_commit("main", &commit).unwrap();
        assert_eq!(layout.commit("main"), Some(commit.clone()));
        assert_eq!(layout.commit("../main"), None);
        layout.set_absent(&commit, Path::new("x")).unwrap();
        assert!(layout.is_absent(&commit, Path::new("x")));
        assert!(cache.path().join("models--a--b/refs/main").is_file());
    }
}
