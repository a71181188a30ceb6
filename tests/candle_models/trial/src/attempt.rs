//! Files are checked together, and those with errors are taken out, until none is left that has one.
//!
//! A name that is not found ends the check before types are looked at, so each round may show what the one before hid. A
//! file that names one which was taken out fails by that in the next round, and its reason says which.

use crate::Outcome;
use crate::port::{self, List};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Error, Result};
use std::path::Path;
use std::process::Command;

/// The variable that names a list of files which is compiled instead of those that type-check.
pub const LIST: &str = "CANDLE_MODELS_LIST";
/// The package that compiles the files.
const PORTED: &str = "candle-models-ported";
/// Where its build script puts them, as the compiler names files.
const PLACE: &str = "/out/ported/";
/// Reasons that are kept of a file.
const REASONS: usize = 3;

/// Tries all files of the candle-transformers that the package at `here` depends on.
///
/// # Errors
///
/// If cargo does not run, or for an error of the compiler that is in none of the files.
pub fn attempt(here: &Path, scratch: &Path) -> Result<Outcome> {
    let mut left = port::all(&port::sources(here)?)?;
    let mut outcome = Outcome {
        files: left.iter().map(|f| (f.clone(), Vec::new())).collect(),
    };
    std::fs::create_dir_all(scratch)?;
    loop {
        let errors = check(here, &scratch.join("list.txt"), &left)?;
        println!("{} files, {} with errors", left.len(), errors.len());
        if errors.is_empty() {
            return Ok(outcome);
        }
        for (file, why) in errors {
            if !left.remove(&file) {
                return Err(Error::other(format!(
                    "an error in {file}, which is not tried: {why:?}"
                )));
            }
            outcome.files.insert(file, kept(why));
        }
    }
}

/// The first reasons of a file, each once.
fn kept(why: Vec<String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut why: Vec<String> = why.into_iter().filter(|w| seen.insert(w.clone())).collect();
    let more = why.len().saturating_sub(REASONS);
    why.truncate(REASONS);
    if more > 0 {
        why.push(format!("{more} more"));
    }
    why
}

/// The errors of these files, by file.
fn check(here: &Path, list: &Path, files: &List) -> Result<BTreeMap<String, Vec<String>>> {
    let lines: Vec<&str> = files.iter().map(String::as_str).collect();
    std::fs::write(list, lines.join("\n"))?;
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["check", "--package", PORTED, "--message-format", "json"])
        .env(LIST, list)
        .current_dir(here)
        .stderr(std::process::Stdio::inherit())
        .output()?;
    let mut errors: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in output
        .stdout
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
    {
        let line: Value = serde_json::from_slice(line)?;
        let message = &line["message"];
        let text = message["message"].as_str().unwrap_or_default();
        if message["level"] != "error" || text.starts_with("aborting due to") {
            continue;
        }
        let Some(file) = place(message) else {
            return Err(Error::other(format!(
                "an error in no file: {}",
                message["rendered"]
            )));
        };
        errors.entry(file).or_default().push(reason(text));
    }
    match output.status.success() == errors.is_empty() {
        true => Ok(errors),
        false => Err(Error::other(format!("cargo check: {}", output.status))),
    }
}

/// The file that an error is in: that of its first span, or of the code that wrote it by a macro.
fn place(message: &Value) -> Option<String> {
    let mut spans = message["spans"].as_array()?.iter();
    let mut span = spans.find(|s| s["is_primary"] == true)?;
    loop {
        let path = span["file_name"].as_str()?;
        if let Some((_, file)) = path.split_once(PLACE) {
            return Some(port::file_of(file.strip_suffix(".rs")?));
        }
        span = &span["expansion"]["span"];
    }
}

/// What the compiler says, in one line without what sets reasons apart.
fn reason(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let line = line.replace("candle_trt::", "").replace("; ", ", ");
    line.replace(" in the current scope", "")
        .replace(": ", " - ")
}
