//! Laws of the house that no compiler holds: how long files are, what the rooms of a crate know of
//! each other, and where `unsafe` is.

mod arrows;
mod code;
mod rooms;

use arrows::Crate;
use rooms::{HOUSES, House, broken, circles};
use std::path::{Path, PathBuf};

/// The most lines of a file.
const MOST_LINES: usize = 400;

/// Where code may be `unsafe`, beside tests: see DESIGN.md.
const UNSAFE: [&str; 3] = [
    "crates/trt-device/src/",
    "crates/trt-kernel/src/host/",
    "crates/trt-stream/src/files/open.rs",
];

/// Crates that plan what runs, whatever it will run on.
const PLANNING: [&str; 4] = ["trt-graph", "trt-alloc", "trt-stream", "trt-engine"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All source files below a folder by their path in it, with their text.
fn files(folder: &Path) -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            match path.is_dir() {
                true if name == "target" || name.starts_with('.') => {}
                true => walk(&path, found),
                false if name.ends_with(".rs") => found.push(path),
                false => {}
            }
        }
    }
    let mut found = Vec::new();
    walk(folder, &mut found);
    let text = |path: &PathBuf| std::fs::read_to_string(path).expect("a source file");
    let inside = |path: &PathBuf| path.strip_prefix(folder).expect("inside").to_owned();
    let named = |path: PathBuf| {
        let name = inside(&path).to_string_lossy().replace('\\', "/");
        (name, text(&path))
    };
    found.into_iter().map(named).collect()
}

fn of(house: &House) -> Crate {
    Crate::new(files(&root().join(house.path).join("src")))
}

/// Files of more lines than a file may have.
fn too_long(files: &[(String, String)]) -> Vec<(&str, usize)> {
    let lines = files
        .iter()
        .map(|(path, text)| (path.as_str(), text.lines().count()));
    lines.filter(|(_, lines)| *lines > MOST_LINES).collect()
}

/// Files with `unsafe` code where none may be.
fn unsafe_elsewhere(files: &[(String, String)]) -> Vec<&str> {
    let shipped = |path: &str| {
        let mut parts = path.split('/');
        let inside = matches!(parts.next(), Some("src")) || parts.any(|part| part == "src");
        inside && !path.starts_with("fuzz/")
    };
    let allowed = |path: &str| UNSAFE.iter().any(|place| path.starts_with(place));
    let code = files
        .iter()
        .filter(|(path, _)| shipped(path) && !allowed(path));
    code.filter(|(_, text)| code::names(&code::code(text), "unsafe"))
        .map(|(path, _)| path.as_str())
        .collect()
}

#[test]
fn no_file_has_more_than_400_lines() {
    let files = files(root());
    assert!(files.len() > 500, "these are not all: {}", files.len());
    assert_eq!(too_long(&files), []);
}

#[test]
fn unsafe_code_is_only_where_the_design_allows_it() {
    let files = files(root());
    assert_eq!(unsafe_elsewhere(&files), [""; 0]);
}

#[test]
fn rooms_of_a_crate_know_each_other_one_way() {
    let broken: Vec<String> = HOUSES
        .iter()
        .flat_map(|house| {
            let broken = broken(house, &of(house)).into_iter();
            broken.map(move |what| format!("{}: {what}", house.path))
        })
        .collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn no_circle_of_files_leaves_a_folder() {
    for house in HOUSES {
        let files = of(house);
        assert_eq!(circles(&files), Vec::<Vec<&str>>::new(), "{}", house.path);
    }
}

#[test]
fn every_crate_has_an_order_of_rooms() {
    let crates = std::fs::read_dir(root().join("crates")).expect("a folder");
    for entry in crates {
        let path = format!("crates/{}", entry.expect("an entry").file_name().display());
        assert!(HOUSES.iter().any(|h| h.path == path), "{path}");
    }
}

#[test]
fn files_that_name_others_are_found_at_all() {
    let named = |house: &House| {
        let files = of(house);
        files.modules().map(|m| files.named(m).len()).sum::<usize>()
    };
    let all: usize = HOUSES.iter().map(named).sum();
    assert!(all > 1000, "only {all} arrows were found");
}

#[test]
fn no_crate_that_plans_names_a_back_end_for_gpus() {
    for name in PLANNING {
        for (path, text) in files(&root().join(format!("crates/{name}/src"))) {
            assert!(!code::names(&code::code(&text), "ptx::"), "{name}: {path}");
        }
    }
}

/// A crate of three rooms: `low`, `mid/one`, `top`.
fn planted(low: &str, mid: &str, top: &str) -> Vec<String> {
    let house = House {
        path: "",
        order: &["low", "mid/one", "mid", "top"],
        never: &[("low", &["std::fs"]), ("top", &["mid/one"])],
    };
    let root = "mod low; mod mid; mod top; pub use top::Roof; pub use mid::one::{Wall, Door as D};";
    let files = [
        ("lib.rs", root),
        ("low.rs", low),
        (
            "mid/mod.rs",
            "mod one; pub use one::Wall; pub fn floor() {}",
        ),
        ("mid/one.rs", mid),
        ("top/mod.rs", top),
    ];
    let files = files.map(|(path, text)| (path.to_string(), text.to_string()));
    broken(&house, &Crate::new(files))
}

#[test]
fn what_turns_an_arrow_is_seen() {
    assert_eq!(
        planted("", "use crate::low::X;", "use crate::mid::floor;"),
        [""; 0]
    );
    let up = "low of low names top of top";
    for low in [
        "use crate::top::Roof;",
        "use crate::Roof;",
        "use super::Roof;",
        "fn f() { crate::top::g() }",
        "use crate::{mid_not as m, top::{self}};",
        "use super::{top};",
    ] {
        assert_eq!(planted(low, "", ""), [up], "{low}");
    }
    let inner = "mid/one of mid/one names mid of mid";
    for mid in [
        "use super::floor;",
        "use crate::mid::floor;",
        "use super::*;",
    ] {
        assert_eq!(planted("", mid, ""), [inner], "{mid}");
    }
    for top in [
        "use crate::Wall;",
        "use crate::mid::Wall;",
        "use crate::mid::one::x;",
    ] {
        let never = "top of top names mid/one of mid/one";
        assert_eq!(planted("", "", top), [never], "{top}");
    }
    let words = "fn f() { std::fs::read(x) }";
    assert_eq!(planted(words, "", ""), ["low of low names std::fs"]);
    assert_eq!(planted("// crate::top::Roof, std::fs", "", ""), [""; 0]);
}

#[test]
fn a_circle_that_leaves_a_folder_is_seen() {
    let circle = |one: &str, other: &str| {
        let files = [
            ("lib.rs", ""),
            ("a/mod.rs", "mod one; mod two;"),
            ("a/one.rs", one),
            ("a/two.rs", "use super::one::X;"),
            ("b/mod.rs", other),
        ];
        let files = files.map(|(path, text)| (path.to_string(), text.to_string()));
        let files = Crate::new(files);
        let circles = circles(&files).into_iter();
        circles.map(|c| c.join(" ")).collect::<Vec<_>>()
    };
    // Within a folder files may know each other, and what is below may know what is above.
    assert_eq!(circle("use super::two::Y; use super::Z;", ""), [""; 0]);
    let through = circle("use crate::b::W;", "use crate::a::two::Y;");
    assert_eq!(through, ["a/one a/two b"]);
}

#[test]
fn a_room_that_is_not_listed_or_not_there_is_seen() {
    let house = House {
        path: "",
        order: &["low", "attic"],
        never: &[],
    };
    let files = [("lib.rs", ""), ("low.rs", ""), ("cellar/mod.rs", "")];
    let files = files.map(|(path, text)| (path.to_string(), text.to_string()));
    let found = broken(&house, &Crate::new(files));
    assert_eq!(found, ["cellar is in no room", "there is no attic"]);
}

#[test]
fn long_files_and_unsafe_code_are_seen() {
    let file = |path: &str, text: String| (path.to_string(), text);
    let long = [
        file("a.rs", "x\n".repeat(400)),
        file("b.rs", "x\n".repeat(401)),
    ];
    assert_eq!(too_long(&long), [("b.rs", 401)]);
    let code = "fn f() { unsafe { g() } }".to_string();
    let files = [
        file("crates/trt-graph/src/a.rs", code.clone()),
        file("crates/trt-graph/tests/a.rs", code.clone()),
        file("crates/trt-kernel/src/host/a.rs", code.clone()),
        file("src/lib.rs", code),
        file("cli/src/a.rs", "// unsafe".into()),
    ];
    assert_eq!(
        unsafe_elsewhere(&files),
        ["crates/trt-graph/src/a.rs", "src/lib.rs"]
    );
}
