//! The table as Markdown.

use super::left_out::LEFT_OUT;
use super::{MODELS, Row, Tried};
use crate::Fault;
use candle_models_trial::changed;
use std::fmt::Write;

/// A reason is cut here.
const LONGEST: usize = 180;

/// What is above the table.
const HEAD: &str = "# Model files of candle-transformers 0.11.1

Every file below `models/`, ported by its `use` lines ([docs/porting.md](docs/porting.md)) and held to candle on the CPU. This
page is written by

```console
cargo run -p candle-models-trial            # which files type-check: tests/candle_models/trial/outcome.txt
cargo run -p candle-models -- table         # runs every case and writes this page; with --check it compares
```

A case is a small model with random weights in f32. An engine runs it on the host, which copies weights as a GPU would have
them copied, at full budget and at 25 % of it (or at its floor, if that is more): the second must give the bits of the first,
and the first what candle gives, within 2e-5 of the largest value of a result (2e-4 with weights in blocks, for which the host takes
16 bits of many rows, and where a case says why).

- **traces**, **matches**: the ways of calling the model in which it does. Decoders take *prompts* of several lengths behind each
  other and eight tokens after that, at positions that were not traced, or a prompt *at the start* only, or *tokens*; other models
  vary in one size or two within one engine: *batches* of 1 to 4, *lengths* of texts, *sizes* of images. What candle itself
  refuses, for a batch of three say, is no way of that file; the last column says what it answers.
- Where code brings values to the CPU to decide by them, the case is of the file with some *lines changed*, as the porting guide
  shows; candle runs its own.
- **launches per layer**: what a second layer adds to a call's launches (of a decoder for a token / for a prompt), where the
  number of layers can be chosen; otherwise all launches, in brackets.
";

/// The whole page.
pub fn text(rows: &[Row]) -> String {
    let mut out = format!("{HEAD}\n{}\n", summary(rows));
    out += "| file | type-checks | traces | matches | launches per layer | why not |\n";
    out += "|---|---|---|---|---|---|\n";
    for row in rows {
        let name = row.file.strip_prefix(MODELS).unwrap_or(&row.file);
        let checks = if row.refused.is_empty() { "yes" } else { "no" };
        let traces = ways(row, |t| {
            !matches!(t.held, Err(Fault::Compile(_) | Fault::Oracle(_)))
        });
        let matches = ways(row, |t| t.held.is_ok());
        let (launches, why) = (launches(row), why_not(row));
        let _ = writeln!(
            out,
            "| {name} | {checks} | {traces} | {matches} | {launches} | {why} |"
        );
    }
    out
}

/// How many there are of each kind.
fn summary(rows: &[Row]) -> String {
    let count = |what: &dyn Fn(&Row) -> bool| rows.iter().filter(|r| what(r)).count();
    let held = |r: &Row| r.ways.iter().filter(|t| t.held.is_ok()).count();
    let fails = |r: &Row, how: fn(&Fault) -> bool| {
        let faults = r.ways.iter().filter_map(|t| t.held.as_ref().err());
        faults.filter(|f| how(f)).count()
    };
    let ours = |r: &Row| fails(r, |f| !f.is_candles());
    let cases = count(&|r| !r.ways.is_empty());
    let every = count(&|r| held(r) > 0 && ours(r) == 0);
    let changed = count(&|r| held(r) > 0 && ours(r) == 0 && changed::lines(&r.file).is_some());
    let some = count(&|r| held(r) > 0 && ours(r) > 0);
    let none = count(&|r| held(r) == 0 && ours(r) > 0);
    let silent = count(&|r| fails(r, Fault::is_silent) > 0);
    let checks = count(&|r| r.refused.is_empty());
    format!(
        "{checks} of {} files type-check. {cases} have a case: {every} match in every way that candle itself runs ({changed} of them \
         with lines changed), {some} in some, \
         {none} in none, and of {} candle runs none; {silent} differ without an error.\n",
        rows.len(),
        cases - every - some - none
    )
}

/// The names of the ways of which something holds.
fn ways(row: &Row, holds: impl Fn(&Tried) -> bool) -> String {
    let all = row.ways.iter().filter(|t| holds(t));
    let names: Vec<&str> = all.map(|t| t.way).collect();
    names.join("; ")
}

/// What a layer adds, or all there are.
fn launches(row: &Row) -> String {
    let Some(tried) = row.ways.iter().find(|t| t.held.is_ok()) else {
        return String::new();
    };
    let numbers = |n: &[usize]| {
        let n: Vec<String> = n.iter().map(usize::to_string).collect();
        n.join(" / ")
    };
    let all = tried
        .held
        .as_ref()
        .map(|h| h.launches.as_slice())
        .unwrap_or_default();
    match tried.launches.iter().any(|n| *n > 0) {
        true => numbers(&tried.launches),
        false if all.is_empty() => String::new(),
        false => format!("({})", numbers(all)),
    }
}

/// Why a file does not compile, has no case, or does not match in some way.
fn why_not(row: &Row) -> String {
    let faults = row
        .ways
        .iter()
        .filter_map(|t| Some((t.way, t.held.as_ref().err()?)));
    let mut said: Vec<String> = row.refused.clone();
    if let Some(lines) = changed::lines(&row.file).filter(|_| !row.ways.is_empty()) {
        said.push(format!("{lines} lines changed"));
    }
    said.extend(faults.map(|(way, fault)| format!("{way}: {fault}")));
    if row.refused.is_empty() && row.ways.is_empty() {
        let left = LEFT_OUT.iter().find(|(file, _)| *file == row.file);
        said.push(left.map_or("no case yet", |l| l.1).to_string());
    }
    let mut parts: Vec<String> = Vec::new();
    for part in said {
        let cut: String = placed(&part).chars().take(LONGEST).collect();
        parts.push(cut.replace('|', "\\|").replace('\n', " "));
    }
    parts.join("; ")
}

/// What is said, with lines of model code as they are among candle's sources and not where they were built.
fn placed(said: &str) -> String {
    let word = |word: &'_ str| match word.split_once("/ported/models/") {
        Some((_, file)) => format!("models/{file}"),
        None => word.to_string(),
    };
    let words: Vec<String> = said.split(' ').map(word).collect();
    words.join(" ")
}
