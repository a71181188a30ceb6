//! The arrows inside of crates, read off their sources: which room (a folder or file at the top of a
//! crate) knows which.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Crates whose rooms know each other one way only.
const ONE_WAY: [&str; 2] = ["trt-kernel", "trt-graph"];

/// Crates that plan what runs, whatever it will run on.
const PLANNING: [&str; 4] = ["trt-graph", "trt-alloc", "trt-stream", "trt-engine"];

fn sources(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("crates/{name}/src"))
}

/// Every file of a folder, with its text without comments and without tests at its end.
fn files(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all.extend(files(&path));
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a source file");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let lines = code.lines().map(|l| l.split("//").next().unwrap_or(l));
        all.push((path, lines.collect::<Vec<_>>().join("\n")));
    }
    all
}

/// The names behind each `crate::`: one, or those of a list at its first level.
fn named(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, root) in code.match_indices("crate::") {
        let rest = &code[at + root.len()..];
        let Some(list) = rest.strip_prefix('{') else {
            names.push(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut start = true;
        for (i, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                c if start && depth == 0 && !c.is_whitespace() => {
                    names.push(word(&list[i..]));
                    start = false;
                }
                _ => {}
            }
        }
    }
    names
}

fn word(text: &str) -> String {
    let inside = |c: &char| c.is_alphanumeric() || *c == '_';
    text.chars().take_while(inside).collect()
}

/// The room that each name at the root of a crate comes from: `pub use room::{names}`.
fn exported(root: &str) -> BTreeMap<String, String> {
    let mut rooms = BTreeMap::new();
    for statement in root.split("pub use ").skip(1) {
        let statement = statement.split(';').next().unwrap_or_default();
        let Some((room, names)) = statement.split_once("::") else {
            continue;
        };
        let names = names.trim_matches(|c| "{}".contains(c)).split(',');
        rooms.extend(names.map(|n| (word(n.trim()), room.trim().to_string())));
    }
    rooms
}

/// Which room knows which, in a crate.
fn arrows(name: &str) -> BTreeMap<String, BTreeSet<String>> {
    let folder = sources(name);
    let all = files(&folder);
    let room = |path: &Path| {
        let inside = path.strip_prefix(&folder).expect("it is inside");
        let top = inside.iter().next().expect("a name").to_string_lossy();
        top.trim_end_matches(".rs").to_string()
    };
    let rooms: BTreeSet<String> = all.iter().map(|(path, _)| room(path)).collect();
    let root = all.iter().find(|(path, _)| room(path) == "lib");
    let exported = exported(&root.expect("a crate has a root").1);
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, code) in &all {
        let from = room(path);
        for name in named(code) {
            // A function may be exported under the name of its room.
            let to = exported.get(&name).cloned().unwrap_or(name);
            if rooms.contains(&to) && to != from && from != "lib" {
                arrows.entry(from.clone()).or_default().insert(to);
            }
        }
    }
    arrows
}

/// Rooms that know each other, in a circle.
fn circle(arrows: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    let mut open = arrows.clone();
    // What knows nobody that is left is in no circle.
    while let Some(done) = open
        .iter()
        .find(|(_, to)| to.iter().all(|t| !open.contains_key(t)))
    {
        let done = done.0.clone();
        open.remove(&done);
    }
    (!open.is_empty()).then(|| open.into_keys().collect())
}

#[test]
fn rooms_of_a_crate_know_each_other_one_way() {
    for name in ONE_WAY {
        let arrows = arrows(name);
        assert!(arrows.len() > 5, "{name}: these are no rooms: {arrows:?}");
        let found = circle(&arrows);
        assert_eq!(found, None, "{name}: {arrows:#?}");
    }
}

#[test]
fn a_circle_of_rooms_would_be_seen() {
    let mut arrows = arrows("trt-graph");
    assert!(arrows["lower"].contains("launches"), "{arrows:?}");
    let back = arrows.entry("launches".into()).or_default();
    back.insert("lower".into());
    let found = circle(&arrows).expect("a circle");
    assert!(found.contains(&"lower".into()), "{found:?}");
}

#[test]
fn no_crate_that_plans_names_a_back_end_for_gpus() {
    for name in PLANNING {
        for (path, code) in files(&sources(name)) {
            assert!(!code.contains("ptx::"), "{path:?}");
        }
    }
}
