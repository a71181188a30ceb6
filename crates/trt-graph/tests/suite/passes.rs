//! What each pass does, as text: `golden/<pass>[.<case>].txt` holds a graph, a line `---`, and the
//! graph that the pass makes of it. `UPDATE_GOLDEN=1` rewrites the second half.

use crate::support::{difference, golden_folder, middle, reference, updates_golden};
use std::path::PathBuf;
use trt_graph::passes::PASSES;
use trt_graph::{Graph, compile, verify};

fn pass_files() -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(golden_folder())
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|path| path.is_file());
    let mut files: Vec<(String, PathBuf)> = entries
        .map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), p))
        .filter(|(name, _)| name != "program.txt")
        .map(|(name, p)| (name.split('.').next().unwrap_or_default().to_string(), p))
        .collect();
    files.sort();
    files
}

/// A graph must mean the same before and after: calls of both give the same numbers.
fn same_meaning(before: &Graph, after: &Graph, name: &str) {
    let env = before.env(&middle(before));
    let ((a, s), (b, t)) = (reference(before, &env), reference(after, &env));
    for (x, y) in a.iter().chain(&s).zip(b.iter().chain(&t)) {
        assert_eq!(
            difference(y, x, 1e-5),
            None,
            "{name} changes what the graph computes"
        );
    }
}

#[test]
fn every_pass_does_what_its_golden_says() {
    for (pass, path) in pass_files() {
        let (name, run) = PASSES
            .iter()
            .find(|p| p.0 == pass)
            .unwrap_or_else(|| panic!("no pass {pass}"));
        let text = std::fs::read_to_string(&path).unwrap();
        let (input, expected) = text.split_once("---\n").unwrap();
        let before = Graph::parse(input, &|_| None).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        verify(&before, "the golden").unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let after = run(before.clone());
        verify(&after, name).unwrap();
        same_meaning(&before, &after, name);
        let found = after.to_string();
        match updates_golden() {
            true => std::fs::write(&path, format!("{input}---\n{found}")).unwrap(),
            false => assert_eq!(found, expected, "{path:?}"),
        }
    }
}

#[test]
fn every_pass_has_a_golden() {
    let files = pass_files();
    for (pass, _) in PASSES {
        assert!(
            files.iter().any(|(name, _)| name == pass),
            "no golden for {pass}"
        );
    }
}

#[test]
fn a_decoder_layer_lowers_to_the_golden_program() {
    let path = golden_folder().join("program.txt");
    let (program, _) = compile(crate::programs::decoder(1, false)).unwrap();
    let found = program.to_string();
    if updates_golden() {
        std::fs::write(&path, &found).unwrap();
    }
    assert_eq!(found, std::fs::read_to_string(&path).unwrap());
}

#[test]
fn hand_spelled_and_named_layers_become_one_graph() {
    let optimised = |slow| {
        trt_graph::passes::optimise(crate::programs::decoder(1, slow))
            .unwrap()
            .0
    };
    assert_eq!(optimised(true), optimised(false));
}
