//! Kernels through the assembler: what they take of a processor, without a stack or spills.
//!
//! The assembler is found through `TRT_PTXAS`. Without it nothing is checked, unless
//! `TRT_REQUIRE_PTXAS` asks for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use trt_kernel::Kernel;
use trt_kernel::ptx::{Target, emit};

/// What one entry takes for one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub registers: u32,
    pub shared: u32,
    pub stack: u32,
    pub spills: u32,
}

/// Entries of several kernels as one module: one head, and names that tell them apart.
fn module(kernels: &[(String, Kernel)], target: Target) -> String {
    let mut text = String::new();
    for (name, kernel) in kernels {
        let emitted = emit(kernel, target).unwrap_or_else(|e| panic!("{name}: {e}"));
        let at = emitted
            .text
            .find(".visible")
            .expect("a module has an entry");
        let (head, dynamic) = match emitted.text[..at].split_once(".extern") {
            Some((head, dynamic)) => (head, format!(".extern{dynamic}")),
            None => (&emitted.text[..at], String::new()),
        };
        if text.is_empty() {
            text.push_str(head);
        }
        // All declare the same.
        if !text.contains(&dynamic) {
            text.push_str(&dynamic);
        }
        let own = format!(".entry {name}__");
        text.push_str(&emitted.text[at..].replace(".entry ", &own));
    }
    text
}

/// Assembles a module, kept under a name while that runs.
fn assemble(ptxas: &Path, name: &str, text: &str, target: Target) -> BTreeMap<String, Taken> {
    let own = format!("trt-ptx-{}-{name}-{target}", std::process::id());
    let folder = std::env::temp_dir().join(own);
    std::fs::create_dir_all(&folder).unwrap();
    let source = folder.join("module.ptx");
    let object = source.with_extension("o");
    std::fs::write(&source, text).unwrap();
    let run = Command::new(ptxas)
        .args(["-v", "-arch", target.name(), "-o"])
        .args([&object, &source])
        .output()
        .unwrap_or_else(|e| panic!("{} does not run: {e}", ptxas.display()));
    let log = String::from_utf8_lossy(&run.stderr).into_owned();
    let hint = "the module is kept beside it";
    assert!(run.status.success(), "{}, {hint}: {log}", source.display());
    std::fs::remove_dir_all(folder).unwrap();
    parse(&log)
}

/// Reads the assembler's report: a line that names the entry, then its stack, then the rest.
fn parse(log: &str) -> BTreeMap<String, Taken> {
    let number = |line: &str, before: &str| -> u32 {
        let words: Vec<&str> = line.split([' ', ',']).filter(|w| !w.is_empty()).collect();
        let at = words.windows(before.split(' ').count() + 1);
        at.filter(|w| w[1..].join(" ") == before)
            .filter_map(|w| w[0].parse::<u32>().ok())
            .next()
            .unwrap_or(0)
    };
    let (mut all, mut entry) = (BTreeMap::new(), String::new());
    let (mut stack, mut spills) = (0, 0);
    for line in log.lines() {
        if let Some(name) = line.split("Compiling entry function '").nth(1) {
            entry = name.split('\'').next().unwrap_or_default().to_string();
        } else if line.contains("bytes stack frame") {
            stack = number(line, "bytes stack frame");
            spills = number(line, "bytes spill stores") + number(line, "bytes spill loads");
        } else if line.contains("Used ") {
            let taken = Taken {
                registers: number(line, "registers"),
                shared: number(line, "bytes smem"),
                stack,
                spills,
            };
            all.insert(std::mem::take(&mut entry), taken);
        }
    }
    all
}

fn ptxas() -> Option<PathBuf> {
    let found = std::env::var_os("TRT_PTXAS").map(PathBuf::from);
    let required = std::env::var_os("TRT_REQUIRE_PTXAS").is_some_and(|v| v == "1");
    assert!(
        found.is_some() || !required,
        "TRT_PTXAS does not name an assembler"
    );
    if found.is_none() {
        eprintln!("not run: TRT_PTXAS does not name an assembler");
    }
    found
}

/// What each entry of kernels with these names takes on every target. Fails if one does not
/// assemble, or uses a stack or spills. None without an assembler.
pub fn everywhere(kernels: &[(String, Kernel)]) -> Option<Vec<(Target, BTreeMap<String, Taken>)>> {
    texts_everywhere("kernels", |target| module(kernels, target))
}

/// As [`everywhere`], of a module by its text for each target.
pub fn texts_everywhere(
    name: &str,
    text: impl Fn(Target) -> String + Sync,
) -> Option<Vec<(Target, BTreeMap<String, Taken>)>> {
    let ptxas = ptxas()?;
    // Two at a time: each takes a core for a few seconds.
    let mut all: Vec<(Target, BTreeMap<String, Taken>)> = Vec::new();
    for targets in Target::ALL.chunks(2) {
        std::thread::scope(|s| {
            let start = |t: &Target| {
                let (t, ptxas, text) = (*t, &ptxas, &text);
                (t, s.spawn(move || assemble(ptxas, name, &text(t), t)))
            };
            let runs: Vec<_> = targets.iter().map(start).collect();
            all.extend(runs.into_iter().map(|(t, r)| (t, r.join().unwrap())));
        });
    }
    for (target, entries) in &all {
        let on_stack = entries.iter().filter(|(_, t)| t.stack + t.spills > 0);
        let on_stack: Vec<_> = on_stack.collect();
        assert!(on_stack.is_empty(), "{target}: {on_stack:?}");
    }
    Some(all)
}
