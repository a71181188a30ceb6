//! The arrows between the folders of this crate, read off its sources.

use std::path::Path;

/// What no file of a folder may name.
const FORBIDDEN: [(&str, &[&str]); 2] = [
    ("files", &["crate::plan", "crate::run", "trt_alloc"]),
    (
        "plan",
        &[
            "crate::files",
            "crate::run",
            "trt_alloc",
            "trt_device",
            "memmap2",
            "std::fs",
            "std::sync::Mutex",
            "tracing",
        ],
    ),
];

fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, found),
            false => found.push((
                path.display().to_string(),
                std::fs::read_to_string(&path).unwrap(),
            )),
        }
    }
}

#[test]
fn files_know_no_plan_and_a_plan_knows_neither_files_nor_devices() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (folder, names) in FORBIDDEN {
        let mut found = Vec::new();
        sources(&src.join(folder), &mut found);
        assert!(found.len() > 5, "{folder} has files");
        for (path, text) in found {
            let named = names.iter().find(|name| text.contains(**name));
            assert_eq!(named, None, "{path}");
        }
    }
}
