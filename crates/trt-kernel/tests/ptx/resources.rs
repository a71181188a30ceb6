//! Every kernel assembles without spills or a stack, fits the shared memory of every device, and its
//! registers and shared memory are those of the golden file.

use crate::assemble::{self, Module, Taken};
use crate::corpus;
use std::collections::BTreeMap;
use std::fmt::Write;
use trt_kernel::ptx::{Target, pull};

/// One line for each entry: registers on each target, and shared memory where there is some.
fn table(all: &[(Target, BTreeMap<String, Taken>)]) -> String {
    let mut out = String::from(
        "# entry: registers (bytes of shared memory + of those that the launch adds) for",
    );
    all.iter().for_each(|(t, _)| {
        let _ = write!(out, " {t}");
    });
    out.push('\n');
    let names: std::collections::BTreeSet<&String> = all.iter().flat_map(|t| t.1.keys()).collect();
    for name in names {
        let _ = write!(out, "{name}:");
        for (_, entries) in all {
            let _ = match entries.get(name) {
                None => write!(out, " -"),
                Some(Taken {
                    registers,
                    shared,
                    dynamic,
                    ..
                }) => match (shared, dynamic) {
                    (0, 0) => write!(out, " {registers}"),
                    (_, 0) => write!(out, " {registers} ({shared})"),
                    _ => write!(out, " {registers} ({shared} + {dynamic})"),
                },
            };
        }
        out.push('\n');
    }
    out
}

#[test]
fn every_kernel_assembles_without_spills_and_takes_what_the_golden_file_says() {
    let Some(all) = assemble::everywhere(&corpus::kernels()) else {
        return;
    };
    crate::golden("resources.txt", &table(&all));
}

#[test]
fn the_copy_of_words_assembles_without_spills() {
    let all = assemble::modules_everywhere("pull", |target| Module {
        text: pull(target).text,
        ..Module::default()
    });
    for (target, entries) in all.into_iter().flatten() {
        let taken = &entries["pull"];
        // Eight blocks of 256 threads fit a multiprocessor of 65,536 registers.
        assert!(taken.registers <= 32, "{target}: {taken:?}");
    }
}
