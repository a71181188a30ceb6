//! Which names are suggested, and that looking for them ends.

use super::*;
use std::time::{Duration, Instant};

fn all(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| n.to_string()).collect()
}

#[test]
fn the_nearest_names_come_first() {
    let all = all(&["model.norm.weight", "model.norm.bias", "lm_head.weight"]);
    let near = names("model.nrm.weight", all.iter());
    assert_eq!(near[0], "model.norm.weight");
    assert!(names("x", all.iter()).is_empty());
}

#[test]
fn a_name_under_another_prefix_is_suggested_and_said_to_be_that() {
    let all = all(&[
        "language_model.model.layers.0.mlp.up_proj.weight",
        "language_model.model.layers.1.mlp.up_proj.weight",
        "transformer.wte.weight",
        "norm.weight",
    ]);
    for (wanted, there, note) in [
        (
            "model.layers.0.mlp.up_proj.weight",
            "language_model.model.layers.0.mlp.up_proj.weight",
            "(with the prefix 'language_model.')",
        ),
        (
            "wte.weight",
            "transformer.wte.weight",
            "(with the prefix 'transformer.')",
        ),
        (
            "model.norm.weight",
            "norm.weight",
            "(without the prefix 'model.')",
        ),
        (
            "model.wte.weight",
            "transformer.wte.weight",
            "(with 'transformer.' in place of 'model.')",
        ),
        (
            "model.language_model.layers.1.mlp.up_proj.weight",
            "language_model.model.layers.1.mlp.up_proj.weight",
            "(with 'language_model.model.' in place of 'model.language_model.')",
        ),
    ] {
        let near = names(wanted, all.iter());
        assert_eq!(near.first().map(String::as_str), Some(there), "{wanted}");
        assert_eq!(described(wanted, there), format!("{there} {note}"));
    }
    // Another layer is no prefix.
    let other = "language_model.model.layers.1.mlp.up_proj.weight";
    let wanted = "language_model.model.layers.2.mlp.up_proj.weight";
    assert_eq!(described(wanted, other), other);
}

#[test]
fn edits_are_those_of_the_whole_table_up_to_the_limit() {
    fn table(a: &[u8], b: &[u8]) -> usize {
        let mut row: Vec<usize> = (0..=b.len()).collect();
        for (i, x) in a.iter().enumerate() {
            let mut diagonal = row[0];
            row[0] = i + 1;
            for (j, y) in b.iter().enumerate() {
                let replaced = diagonal + usize::from(x != y);
                diagonal = row[j + 1];
                row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
            }
        }
        row[b.len()]
    }
    // Words of few letters, so that they are near each other.
    let mut state = 1u64;
    let mut draw = |n: u64| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (state >> 40) % n
    };
    for _ in 0..20_000 {
        let mut word = || -> String {
            let len = draw(14);
            (0..len).map(|_| char::from(b'a' + draw(3) as u8)).collect()
        };
        let (a, b) = (word(), word());
        let limit = draw(8) as usize;
        let expected = table(a.as_bytes(), b.as_bytes());
        let found = edits(&a, &b, limit, &mut usize::MAX.clone());
        assert_eq!(
            found,
            (expected <= limit).then_some(expected),
            "{a} {b} {limit}"
        );
    }
}

#[test]
fn names_without_end_are_looked_at_for_a_bounded_time() {
    let hostile: Vec<String> = (0..200_000).map(|i| format!("{i:0>60}.weight")).collect();
    let long: Vec<String> = (0..100).map(|i| "ab".repeat(50_000 + i)).collect();
    let start = Instant::now();
    names(&"9.5".repeat(22), hostile.iter());
    names(&"ba".repeat(50_000), long.iter());
    // Machines are shared: this takes a fraction of a second.
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
}
