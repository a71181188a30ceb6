//! Writes the model files of candle-transformers that type-check, with other `use` lines.

use candle_models_trial::{changed, port, Outcome, LIST};
use std::path::{Path, PathBuf};

fn main() {
    // Asked for when it runs: another checkout may have compiled it into the same target folder.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where the package is");
    let here = Path::new(&here);
    let trial = here.join("../trial/outcome.txt");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", trial.display());
    println!("cargo::rerun-if-changed=../../../Cargo.lock");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo says where to write"));
    println!("cargo::rerun-if-env-changed={LIST}");
    let tried = std::env::var_os(LIST).map(PathBuf::from);
    if let Some(list) = &tried {
        println!("cargo::rerun-if-changed={}", list.display());
    }
    // A list of names alone is an outcome without reasons.
    let outcome = Outcome::read(tried.as_deref().unwrap_or(&trial)).expect("a list of files");
    let sources = port::sources(here).expect("candle-transformers is a dependency");
    let list = outcome.type_checks();
    let root = port::write(&sources, &out.join("ported"), &list).expect("the files are written");
    let mut include = format!("#[path = {root:?}]\nmod files;\npub use files::*;\n");
    // A trial is of files as their `use` lines make them.
    if tried.is_none() {
        let root = changed::write(&sources, &out.join("changed"), &list)
            .expect("every change fits its text");
        include += &format!(
            "/// Files that other lines changed too.\n#[path = {root:?}]\npub mod changed;\n"
        );
    }
    std::fs::write(out.join("ported.rs"), include).expect("the root is written");
}
