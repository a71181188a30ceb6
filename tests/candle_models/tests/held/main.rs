//! Ported model files against candle's own.

mod launches;
mod refused;

use candle_models::table;
use std::collections::BTreeSet;

/// What a row of the table says matches, by file.
fn said() -> Vec<(String, BTreeSet<String>)> {
    let page = std::fs::read_to_string(table::place()).expect("the table is read");
    let rows = page
        .lines()
        .filter(|l| l.starts_with("| ") && !l.starts_with("| file"));
    let row = |line: &str| {
        let cells: Vec<&str> = line
            .split(" |")
            .map(|c| c.trim_start_matches('|').trim())
            .collect();
        let ways = cells[3]
            .split("; ")
            .filter(|w| !w.is_empty())
            .map(String::from);
        (cells[0].to_string(), ways.collect())
    };
    rows.map(row).collect()
}

/// What the table says matches does, at every budget, and nothing differs without an error. What matches beyond it is found
/// by the command that writes the table.
#[test]
fn what_the_table_says_matches_does() {
    let said = said();
    assert!(said.len() > 190, "that is no table: {} rows", said.len());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let ran = table::run("", (candle_models::Target::TABLE, threads), |_, _| ());
    let mut failed = Vec::new();
    for (file, tried) in &ran {
        let name = file.trim_start_matches("models/");
        let matches = said
            .iter()
            .find(|(f, _)| f == name)
            .is_some_and(|(_, w)| w.contains(tried.way));
        match &tried.held {
            Err(fault) if matches || fault.is_silent() => {
                failed.push(format!("{name} [{}]: {fault}", tried.way));
            }
            Ok(_) | Err(_) => {}
        }
    }
    assert!(
        failed.is_empty(),
        "MODELS.md says otherwise:\n{}",
        failed.join("\n")
    );
}

/// Each file has a case, or a reason why it has none.
#[test]
fn no_file_is_left_out_without_a_reason() {
    let page = std::fs::read_to_string(table::place()).expect("the table is read");
    let none = page.lines().filter(|l| l.contains("no case yet"));
    assert_eq!(none.collect::<Vec<_>>(), Vec::<&str>::new());
}
