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
    /// Bytes of shared memory that the text declares.
    pub shared: u32,
    /// Bytes of shared memory that the launch adds.
    pub dynamic: u32,
    pub stack: u32,
    pub spills: u32,
    /// Bytes of instructions.
    pub code: u64,
}

/// Devices that get the text of a target.
struct Device {
    target: Target,
    /// What the assembler calls it.
    name: &'static str,
    /// Bytes of shared memory that a block may have: the least of all devices with this text.
    shared: u32,
}

/// Every target with the smallest of its devices, and later devices that get the same text.
fn devices() -> Vec<Device> {
    let device = |target: Target, name, kib: u32| Device {
        target,
        name,
        shared: kib << 10,
    };
    let each = Target::ALL.map(|target| match target {
        Target::Sm75 => device(target, target.name(), 64),
        // 8.6 and 8.9 have less than 8.0, and 12.0 less than 9.0 and 10.0.
        Target::Sm80 | Target::Sm90 => device(target, target.name(), 99),
        Target::Sm90a | Target::Sm90aMaps => device(target, target.name(), 227),
    });
    let later = [(8, 9, "sm_89"), (12, 0, "sm_120")].map(|(major, minor, name)| {
        let target = Target::of(major, minor).expect("later devices have a target");
        device(target, name, 99)
    });
    each.into_iter().chain(later).collect()
}

/// A module, and what is said of its entries.
#[derive(Default)]
pub struct Module {
    pub text: String,
    /// Bytes of shared memory that the launches of entries add.
    pub dynamic: BTreeMap<String, u32>,
    /// The most bytes of instructions of all entries whose names start so.
    pub code: BTreeMap<String, u64>,
}

/// Entries of several kernels as one module: one head, and names that tell them apart.
fn module(kernels: &[(String, Kernel)], target: Target) -> Module {
    let Module {
        mut text,
        mut dynamic,
        mut code,
    } = Module::default();
    for (name, kernel) in kernels {
        let emitted = emit(kernel, target).unwrap_or_else(|e| panic!("{name}: {e}"));
        let at = emitted
            .text
            .find(".visible")
            .expect("a module has an entry");
        let (head, array) = match emitted.text[..at].split_once(".extern") {
            Some((head, array)) => (head, format!(".extern{array}")),
            None => (&emitted.text[..at], String::new()),
        };
        if text.is_empty() {
            text.push_str(head);
        }
        // All declare the same.
        if !text.contains(&array) {
            text.push_str(&array);
        }
        let own = format!(".entry {name}__");
        text.push_str(&emitted.text[at..].replace(".entry ", &own));
        let launches = emitted.launches.iter();
        dynamic.extend(launches.map(|l| (format!("{name}__{}", l.entry), l.shared)));
        code.insert(format!("{name}__"), emitted.code_bytes());
    }
    Module {
        text,
        dynamic,
        code,
    }
}

/// Assembles a module, kept under a name while that runs.
fn assemble(ptxas: &Path, name: &str, module: &Module, device: &Device) -> BTreeMap<String, Taken> {
    let own = format!(
        "trt-ptx-{}-{name}-{}-{}",
        std::process::id(),
        device.target,
        device.name
    );
    let folder = std::env::temp_dir().join(own);
    std::fs::create_dir_all(&folder).unwrap();
    let source = folder.join("module.ptx");
    let object = source.with_extension("o");
    std::fs::write(&source, &module.text).unwrap();
    let run = Command::new(ptxas)
        .args(["-v", "-arch", device.name, "-o"])
        .args([&object, &source])
        .output()
        .unwrap_or_else(|e| panic!("{} does not run: {e}", ptxas.display()));
    let log = String::from_utf8_lossy(&run.stderr).into_owned();
    let hint = "the module is kept beside it";
    assert!(run.status.success(), "{}, {hint}: {log}", source.display());
    let code = code(&std::fs::read(&object).unwrap());
    std::fs::remove_dir_all(folder).unwrap();
    let mut all = parse(&log);
    for (entry, taken) in &mut all {
        taken.code = code[entry];
        taken.dynamic = module.dynamic.get(entry).copied().unwrap_or(0);
    }
    fits(device, module, &all);
    all
}

/// The bytes of instructions of each entry in an object file: an ELF file of 64 bits with a section
/// `.text.entry` for each.
fn code(object: &[u8]) -> BTreeMap<String, u64> {
    let number = |at: usize, bytes: usize| {
        let mut all = [0; 8];
        all[..bytes].copy_from_slice(&object[at..at + bytes]);
        u64::from_le_bytes(all)
    };
    let (table, count, names) = (number(0x28, 8), number(0x3c, 2), number(0x3e, 2));
    let header = |i: u64| table as usize + 64 * i as usize;
    let strings = number(header(names) + 0x18, 8) as usize;
    let name = |i: u64| {
        let from = &object[strings + number(header(i), 4) as usize..];
        let end = from.iter().position(|b| *b == 0).unwrap_or(from.len());
        String::from_utf8_lossy(&from[..end]).into_owned()
    };
    let sections = (0..count).map(|i| (name(i), number(header(i) + 0x20, 8)));
    let of = |(name, bytes): (String, u64)| Some((name.strip_prefix(".text.")?.to_string(), bytes));
    sections.filter_map(of).collect()
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
                dynamic: 0,
                code: 0,
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
/// assemble, there or for a later device, uses a stack or spills, takes more shared memory than a
/// device has, or more code than `Emitted::code_bytes` says. None without an assembler.
pub fn everywhere(kernels: &[(String, Kernel)]) -> Option<Vec<(Target, BTreeMap<String, Taken>)>> {
    modules_everywhere("kernels", |target| module(kernels, target))
}

/// As [`everywhere`], of a module for each target.
pub fn modules_everywhere(
    name: &str,
    module: impl Fn(Target) -> Module + Sync,
) -> Option<Vec<(Target, BTreeMap<String, Taken>)>> {
    let (ptxas, devices) = (ptxas()?, devices());
    let run = |device: &Device| assemble(&ptxas, name, &module(device.target), device);
    let mut all: Vec<(Target, BTreeMap<String, Taken>)> = Vec::new();
    // Two at a time: each takes a core for a few seconds.
    for two in devices.chunks(2) {
        let runs = std::thread::scope(|s| {
            let runs: Vec<_> = two.iter().map(|d| s.spawn(|| run(d))).collect();
            let runs = runs.into_iter().map(|r| r.join().unwrap());
            runs.collect::<Vec<_>>()
        });
        for (device, entries) in two.iter().zip(runs) {
            // Registers on later devices are those that the assembler happens to take.
            if device.name == device.target.name() {
                all.push((device.target, entries));
            }
        }
    }
    Some(all)
}

/// Fails if an entry uses a stack, spills, or has more shared memory than a device, or if a kernel
/// has more instructions than is said of it.
fn fits(device: &Device, module: &Module, entries: &BTreeMap<String, Taken>) {
    let (target, name) = (device.target, device.name);
    let stack = entries.iter().filter(|(_, t)| t.stack + t.spills > 0);
    let stack: Vec<_> = stack.collect();
    assert!(stack.is_empty(), "{target} on {name}: {stack:?}");
    let large = |t: &Taken| t.shared > 48 << 10 || t.shared + t.dynamic > device.shared;
    let large: Vec<_> = entries.iter().filter(|(_, t)| large(t)).collect();
    assert!(large.is_empty(), "{target} on {name}: {large:?}");
    for (kernel, most) in &module.code {
        let own = entries.range(kernel.clone()..);
        let own = own.take_while(|(entry, _)| entry.starts_with(kernel));
        let code: u64 = own.map(|(_, t)| t.code).sum();
        let bound = 0 < code && code <= *most;
        assert!(
            bound,
            "{kernel} on {name}: {code} bytes of code, not {most}"
        );
    }
}
