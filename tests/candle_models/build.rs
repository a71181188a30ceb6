//! Says which files are ported: a case of a file compiles only where the file does.

use candle_models_trial::Outcome;
use std::path::Path;

fn main() {
    // Asked for when it runs: another checkout may have compiled it into the same target folder.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo says where the package is");
    let trial = Path::new(&here).join("trial/outcome.txt");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", trial.display());
    let outcome = Outcome::read(&trial).expect("the outcome of the trial is read");
    let all: Vec<String> = outcome.files.keys().map(|f| format!("{f:?}")).collect();
    println!(
        "cargo::rustc-check-cfg=cfg(ported, values({}))",
        all.join(", ")
    );
    for file in outcome.type_checks() {
        println!("cargo::rustc-cfg=ported={file:?}");
    }
}
