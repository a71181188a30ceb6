//! What each fusion does, as text: `golden/fusions/<fusion>[.<case>].txt` holds a graph, a line
//! `---`, the launches that the fusions ahead of this one make of it, another line `---`, and the
//! launches that it makes of these. `UPDATE_GOLDEN=1` rewrites all but the graph.

use crate::support::{compare_program, golden_folder, middle, updates_golden};
use std::path::PathBuf;
use trt_graph::launches::{Draft, FUSIONS, Fusion};
use trt_graph::{Graph, lower, unfused, verify};

fn files() -> Vec<(String, PathBuf)> {
    let folder = golden_folder().join("fusions");
    let entries = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<(String, PathBuf)> = entries
        .map(|e| e.unwrap().path())
        .map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), p))
        .map(|(name, p)| (name.split('.').next().unwrap_or_default().to_string(), p))
        .collect();
    files.sort();
    files
}

/// A decoder's step of one token, ready to be lowered.
fn optimised_decoder() -> Graph {
    let traced = crate::programs::decoder(0, false);
    trt_graph::passes::optimise(traced).unwrap().0
}

fn text(draft: &Draft) -> String {
    draft.launches().iter().map(ToString::to_string).collect()
}

#[test]
fn every_fusion_does_what_its_golden_says() {
    for (fusion, path) in files() {
        let at = FUSIONS.iter().position(|f| f.0 == fusion);
        let at = at.unwrap_or_else(|| panic!("no fusion {fusion}"));
        let kept = std::fs::read_to_string(&path).unwrap();
        let (input, expected) = kept.split_once("---\n").unwrap();
        let graph = Graph::parse(input, &|_| None).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        verify(&graph, "the golden").unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let mut draft = unfused(&graph).unwrap();
        for ahead in &FUSIONS[..at] {
            draft.apply(ahead).unwrap();
        }
        let before = draft.clone();
        draft.apply(&FUSIONS[at]).unwrap();
        assert_ne!(
            before.launches(),
            draft.launches(),
            "{path:?} shows nothing"
        );
        for program in [before.program(), draft.program()] {
            compare_program(&graph, &program, &middle(&graph), 2e-2)
                .unwrap_or_else(|e| panic!("{path:?}: {e}"));
        }
        let found = format!("{}---\n{}", text(&before), text(&draft));
        match updates_golden() {
            true => std::fs::write(&path, format!("{input}---\n{found}")).unwrap(),
            false => assert_eq!(found, expected, "{path:?}"),
        }
    }
}

#[test]
fn every_fusion_has_a_golden() {
    let files = files();
    for (fusion, _) in FUSIONS {
        assert!(
            files.iter().any(|(name, _)| name == fusion),
            "no golden for {fusion}"
        );
    }
}

#[test]
fn the_report_counts_launches_around_each_fusion() {
    let (program, report) = lower(&optimised_decoder()).unwrap();
    let names: Vec<&str> = report.fusions.iter().map(|n| n.fusion).collect();
    let expected: Vec<&str> = FUSIONS.iter().map(|f| f.0).collect();
    assert_eq!(names, expected);
    let ends = report.fusions.windows(2).all(|w| w[0].after == w[1].before);
    assert!(ends, "{:?}", report.fusions);
    let last = report.fusions.last().unwrap();
    assert_eq!(last.after, program.launches.len());
    assert!(report.fusions[0].before > last.after);
}

#[test]
fn a_fusion_that_breaks_a_program_is_named() {
    let graph = optimised_decoder();
    let mut draft = unfused(&graph).unwrap();
    // Without its first launch, something is read before it is written.
    let broken: Fusion = ("loses_a_launch", |_, all| all[1..].to_vec());
    let error = draft.apply(&broken).unwrap_err().to_string();
    assert!(
        error.starts_with("after loses_a_launch: the program is broken: "),
        "{error}"
    );
}
