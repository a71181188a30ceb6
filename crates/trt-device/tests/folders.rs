//! Arrows between the folders of this crate go one way: each names only those that are listed here,
//! and what the crate's root shows of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What each folder may name; folders of `cuda` by their path, its own files as `cuda`.
const ARROWS: [(&str, &[&str]); 10] = [
    ("contract", &[]),
    ("system", &["contract"]),
    ("cpu", &["contract", "system"]),
    ("gpu", &["contract", "system"]),
    ("host", &["contract", "system", "cpu"]),
    ("cuda/driver", &["contract"]),
    (
        "cuda/launch",
        &["contract", "system", "cpu", "gpu", "cuda/driver"],
    ),
    ("cuda/upload", &["contract", "gpu", "cuda/driver"]),
    (
        "cuda/record",
        &["contract", "gpu", "cuda/driver", "cuda/launch"],
    ),
    (
        "cuda",
        &[
            "contract",
            "system",
            "cpu",
            "gpu",
            "cuda/driver",
            "cuda/launch",
            "cuda/upload",
            "cuda/record",
        ],
    ),
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(files(&path)),
            false => all.push(path),
        }
    }
    all
}

/// The text without comments.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|l| l.split("//").next().unwrap_or(""));
    lines.collect::<Vec<_>>().join("\n")
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The names that follow a prefix: one, or those in braces.
fn following(text: &str, prefix: &str) -> Vec<String> {
    let starts = text.match_indices(prefix).filter(|(at, _)| {
        // `trt_kernel::` ends like `kernel::`.
        !text[..*at].ends_with(is_name)
    });
    let after = starts.map(|(at, _)| &text[at + prefix.len()..]);
    let names = after.flat_map(|rest| match rest.strip_prefix('{') {
        Some(list) => {
            let list = &list[..list.find("};").unwrap_or(list.len())];
            list.split(',').map(str::trim).collect::<Vec<_>>()
        }
        None => vec![rest],
    });
    let name = |n: &str| n.chars().take_while(|c| is_name(*c)).collect::<String>();
    names.map(name).filter(|n| !n.is_empty()).collect()
}

/// The folder that each name of the crate's root is from.
fn shown() -> BTreeMap<String, String> {
    let root = code(&source().join("lib.rs"));
    let folders = ["contract", "system", "cpu", "gpu", "host", "cuda", "open"];
    let each = folders.iter().flat_map(|folder| {
        let names = following(&root, &format!("use {folder}::"));
        names.into_iter().map(|name| (name, folder.to_string()))
    });
    let modules = folders.iter().map(|f| (f.to_string(), f.to_string()));
    each.chain(modules).collect()
}

/// The folder of a file, as [`ARROWS`] calls it.
fn folder(path: &Path) -> String {
    let inside = path.strip_prefix(source()).unwrap().parent().unwrap();
    inside.to_str().unwrap().replace('\\', "/")
}

/// The folders that a file names.
fn named(path: &Path, shown: &BTreeMap<String, String>) -> Vec<String> {
    let (text, own) = (code(path), folder(path));
    let mut all = Vec::new();
    for name in following(&text, "crate::") {
        let from = shown.get(&name);
        all.push(
            from.unwrap_or_else(|| panic!("{path:?} names {name}"))
                .clone(),
        );
    }
    // What a file of `cuda` names of `cuda` is one of its folders, or one of its own files.
    all.retain(|f| f != "cuda" || !own.starts_with("cuda"));
    let inner = ["driver", "launch", "upload", "record"];
    let prefixes: &[&str] = match own.as_str() {
        "cuda" => &["super::", "use "],
        _ if own.starts_with("cuda") => &["crate::cuda::", "super::super::"],
        _ => &[],
    };
    for name in prefixes.iter().flat_map(|prefix| following(&text, prefix)) {
        all.push(match inner.contains(&name.as_str()) {
            true => format!("cuda/{name}"),
            false => "cuda".into(),
        });
    }
    all
}

#[test]
fn each_folder_names_only_those_below_it() {
    let shown = shown();
    assert!(shown.len() > 30, "{shown:?}");
    let mut seen = 0;
    for (folder_name, allowed) in ARROWS {
        let own = files(&source()).into_iter();
        for path in own.filter(|p| folder(p) == folder_name) {
            for name in named(&path, &shown) {
                seen += usize::from(name != folder_name);
                assert!(
                    name == folder_name || allowed.contains(&name.as_str()),
                    "{path:?} names {name}"
                );
            }
        }
    }
    assert!(seen > 100, "only {seen} arrows were found");
}

#[test]
fn every_folder_is_in_the_list() {
    for path in files(&source()) {
        let own = folder(&path);
        let known = own.is_empty() || ARROWS.iter().any(|(f, _)| *f == own);
        assert!(known, "{path:?}");
    }
}

#[test]
fn arrows_point_down_the_list() {
    let place = |name: &str| ARROWS.iter().position(|(f, _)| *f == name);
    for (i, (name, allowed)) in ARROWS.iter().enumerate() {
        assert!(allowed.iter().all(|f| place(f) < Some(i)), "{name}");
    }
}
