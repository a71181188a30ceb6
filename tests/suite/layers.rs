//! The arrows of the house: which crate may use which, read off the manifests that cargo sees.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Every allowed arrow between the crates of the workspace, outside of tests.
const ALLOWED: &[(&str, &[&str])] = &[
    ("trt-pack", &[]),
    ("trt-kernel", &["trt-pack"]),
    ("trt-graph", &["trt-kernel"]),
    ("trt-device", &["trt-kernel"]),
    ("trt-alloc", &["trt-device"]),
    (
        "trt-stream",
        &["trt-alloc", "trt-device", "trt-kernel", "trt-pack"],
    ),
    (
        "trt-engine",
        &[
            "trt-alloc",
            "trt-device",
            "trt-graph",
            "trt-kernel",
            "trt-stream",
        ],
    ),
    ("trt-models", &["trt-graph"]),
    ("trt-text", &["trt-engine"]),
    (
        "candle-trt",
        &[
            "trt-alloc",
            "trt-device",
            "trt-engine",
            "trt-graph",
            "trt-kernel",
            "trt-models",
            "trt-stream",
        ],
    ),
    ("candle-trt-cli", &["candle-trt", "trt-text"]),
    ("candle-trt-fuzz", &[]),
    (
        "candle-models",
        &["candle-models-ported", "candle-models-trial", "candle-trt"],
    ),
    ("candle-models-ported", &["candle-trt"]),
    ("candle-models-trial", &[]),
];

#[test]
fn no_crate_uses_one_that_it_must_not_know() {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().expect("there are packages");
    let ours: BTreeSet<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages {
        let name = package["name"].as_str().expect("a package has a name");
        let uses = package["dependencies"].as_array().into_iter().flatten();
        let normal = uses
            .filter(|d| d["kind"].is_null())
            .filter_map(|d| d["name"].as_str());
        found.insert(name, normal.filter(|d| ours.contains(d)).collect());
    }
    let allowed: BTreeMap<&str, BTreeSet<&str>> = ALLOWED
        .iter()
        .map(|(name, uses)| (*name, uses.iter().copied().collect()))
        .collect();
    assert_eq!(found, allowed);
}

#[test]
fn the_first_command_compiles_few_crates() {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "--package",
            "candle-trt-cli",
        ])
        .args([
            "--edges",
            "normal,build",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let tree = String::from_utf8(output.stdout).expect("cargo prints text");
    let crates: BTreeSet<&str> = tree
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .filter(|line| !line.is_empty())
        .collect();
    assert!(crates.len() > 50, "that is no tree: {crates:?}");
    assert!(crates.len() <= 190, "{} crates: {crates:#?}", crates.len());
    for name in ["candle-transformers", "criterion", "proptest"] {
        let found = crates.iter().find(|c| c.split(' ').next() == Some(name));
        assert_eq!(found, None, "{name} has no part in it");
    }
}
