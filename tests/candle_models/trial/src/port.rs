//! How a model file of candle-transformers becomes one over candle-trt's tensors.
//!
//! What changes is what a user changes: where `use` lines name `candle` and `candle_nn`, these are candle-trt's, and a
//! line that imports both is put before the others for paths that are spelled in code (`candle::bail!`). No other line
//! is touched. What files share (`crate::utils`, `crate::quantized_nn`, `with_tracing`) is at the root of the crate that
//! the files are in. The build script, which compiles a list of files, and the trial, which finds out what the list is,
//! write files by this module alone, so what was tried is what is compiled.

use std::collections::BTreeSet;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What candle-trt has for all files. The file of that name is ported as any other, under [`own_name`].
const SHARED: &str = "models/with_tracing";
const OWN_SHARED: &str = "models/own_with_tracing";

/// Files by their paths below `src/` without an end: `models/whisper/model`.
pub type List = BTreeSet<String>;

/// Where the sources of candle-transformers are which the package at `here` depends on.
///
/// # Errors
///
/// If cargo does not run or knows no candle-transformers.
pub fn sources(here: &Path) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let ask = |more: &[&str]| {
        Command::new(&cargo)
            .args(["metadata", "--format-version", "1"])
            .args(more)
            .current_dir(here)
            .output()
    };
    // What this builds is here already; what else the workspace names may not be.
    let mut output = ask(&["--offline"])?;
    if !output.status.success() {
        output = ask(&[])?;
    }
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(Error::other(format!("cargo metadata: {said}")));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let manifest = packages
        .filter(|p| p["name"] == "candle-transformers")
        .find_map(|p| p["manifest_path"].as_str())
        .ok_or_else(|| Error::other("no candle-transformers among the dependencies"))?;
    Ok(Path::new(manifest).with_file_name("src"))
}

/// All files that could be ported: the models, and what they name beside themselves that candle-trt has nothing for.
///
/// # Errors
///
/// If a folder cannot be read.
pub fn all(sources: &Path) -> Result<List> {
    let mut found = List::from(["generation/mod".into(), "object_detection".into()]);
    let mut folders = vec![PathBuf::from("models")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(sources.join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if let Some(name) = path.to_str().and_then(|p| p.strip_suffix(".rs")) {
                found.insert(name.to_string());
            }
        }
    }
    // It is a list of the others, and so is what is written here in its place.
    found.remove("models/mod");
    Ok(found)
}

/// Writes the files of a list below a folder and gives the file that declares them all.
///
/// # Errors
///
/// If a file cannot be read or written.
pub fn write(sources: &Path, out: &Path, list: &List) -> Result<PathBuf> {
    write_as(sources, out, list, &|_, text| Ok(text))
}

/// As [`write`]; `changed` gives the text of a file from the one that its `use` lines make.
pub(crate) fn write_as(
    sources: &Path,
    out: &Path,
    list: &List,
    changed: &dyn Fn(&str, String) -> Result<String>,
) -> Result<PathBuf> {
    if out.exists() {
        std::fs::remove_dir_all(out)?;
    }
    let folders: BTreeSet<&str> = list
        .iter()
        .filter_map(|f| Some(f.rsplit_once('/')?.0))
        .collect();
    for folder in folders.iter().chain([&"models"]) {
        std::fs::create_dir_all(out.join(folder))?;
        let name = format!("{folder}/mod");
        if !list.contains(&name) {
            let shared = match *folder {
                "models" => "pub use candle_trt::candle_transformers::models::with_tracing;\n",
                _ => "",
            };
            std::fs::write(
                out.join(&name).with_extension("rs"),
                declared(list, folder, shared),
            )?;
        }
    }
    for name in list {
        let text = std::fs::read_to_string(sources.join(name).with_extension("rs"))?;
        let text = changed(name, without_missing(&port(&text), name, list))?;
        std::fs::write(out.join(own_name(name)).with_extension("rs"), text)?;
    }
    let shared = "pub use candle_trt::candle_transformers::{fused_moe, quantized_nn, quantized_var_builder, utils};\n";
    let root = out.join("mod.rs");
    std::fs::write(&root, declared(list, "", shared))?;
    Ok(root)
}

/// Where a file lies among the written ones.
pub fn own_name(file: &str) -> String {
    match file {
        SHARED => OWN_SHARED.to_string(),
        file => file.to_string(),
    }
}

/// The file that lies there.
pub fn file_of(own_name: &str) -> String {
    match own_name {
        OWN_SHARED => SHARED.to_string(),
        name => name.to_string(),
    }
}

/// The text of a folder's module: what is listed in it.
fn declared(list: &List, folder: &str, first: &str) -> String {
    let names = list.iter().filter_map(|file| {
        let name = own_name(file);
        let below = match folder {
            "" => name.as_str(),
            folder => name.strip_prefix(folder)?.strip_prefix('/')?,
        };
        Some(below.split('/').next().unwrap_or(below).to_string())
    });
    let names: BTreeSet<String> = match folder {
        "" => names.chain(["models".to_string()]).collect(),
        _ => names.collect(),
    };
    let line = |text: String, name: &String| text + &format!("pub mod {name};\n");
    names.iter().fold(first.to_string(), line)
}

/// The text of a folder's module without the declarations of files that are not on the list.
fn without_missing(text: &str, name: &str, list: &List) -> String {
    let Some(folder) = name.strip_suffix("/mod") else {
        return text.to_string();
    };
    let there = |line: &&str| {
        let declared = line.strip_prefix("pub ").unwrap_or(line);
        let module = declared
            .strip_prefix("mod ")
            .and_then(|m| m.strip_suffix(';'));
        module.is_none_or(|m| list.contains(&format!("{folder}/{m}")))
    };
    let lines = text.lines().filter(there);
    lines.fold(String::new(), |text, line| text + line + "\n")
}

/// A file with other `use` lines.
fn port(text: &str) -> String {
    // A file's own tests are at its end and have no part in this.
    let lines = text.lines().take_while(|l| !l.starts_with("#[cfg(test)]"));
    let lines: Vec<&str> = lines.filter(|l| !l.starts_with("//!")).collect();
    let inner = lines.iter().rposition(|l| l.starts_with("#!["));
    let first = inner.map_or(0, |i| i + 1);
    // A file that gives both on imports them by lines of its own.
    let imports = lines.contains(&"pub use candle;");
    let mut out = String::new();
    for (i, line) in lines.iter().enumerate() {
        if i == first && !imports {
            out += "use candle_trt::{candle, candle_nn};\n";
        }
        let renamed = |line: String, name: &&str| {
            let (from, to) = (format!("use {name}"), format!("use candle_trt::{name}"));
            [":", ";", " as"].iter().fold(line, |line, end| {
                line.replace(&(from.clone() + end), &(to.clone() + end))
            })
        };
        out += &["candle", "candle_nn"]
            .iter()
            .fold(line.to_string(), renamed);
        out += "\n";
    }
    out
}
