//! What the system lets a process have, and what it ends up holding.
//!
//! The peak resident size is kept per process, so every case runs in a child: this test binary
//! again, with only the test [`child`] and the case in its environment. A case says what it held
//! in one line of JSON.

use crate::common::random::{self, Random};
use candle_trt::device::{AnonPeak, Host, HostMode, ProcessMemory};
use candle_trt::models::{Config, Llama, LoadOptions};
use candle_trt::{CompileLimits, Compiler, FromTensors, Profile, Request, Weights};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::Command;

const CASE: &str = "CANDLE_TRT_LIMITS_CASE";
const MARK: &str = "limits-held ";
const CONTEXT: usize = 576;
const MIB: u64 = 1 << 20;
const BUDGET: u64 = 64 * MIB;
/// What a process may hold besides the budget, activations and states: its code, its stacks, the
/// compiled programs, what the allocator keeps.
const BESIDES: u64 = 80 * MIB;

/// What a child is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Case {
    dir: PathBuf,
    discrete: bool,
    /// Whether the weights are given as tensors.
    tensors: bool,
    /// The limit of compiling on the host.
    compile_limit: Option<u64>,
    /// `None` for all weights.
    budget: Option<u64>,
    prompt: usize,
    decode: usize,
    /// `RLIMIT_DATA`: anonymous memory, what is not yet touched included.
    data_limit: Option<u64>,
    /// A control group to join.
    group: Option<PathBuf>,
}

/// What it held, in bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Held {
    resident_peak: u64,
    anon_peak: u64,
    /// Peak before the first call: compiling, loading, a session.
    anon_peak_loaded: u64,
    /// What the report says of compiling, on the host and on the device.
    compile_peaks: (u64, u64),
    /// If the weights came as tensors.
    copied: Option<Copied>,
    /// Of files in memory, mapped in the end.
    shared: u64,
    applied: u64,
    activations: u64,
    states: u64,
    constants: u64,
    high_water: u64,
    total: u64,
    /// Streamed for the last token.
    streamed: u64,
    /// Of the bits of each call's logits.
    hashes: Vec<u64>,
}

/// Anonymous memory around the copying of tensors.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Copied {
    before: u64,
    peak: u64,
    after: u64,
}

impl Held {
    /// The promise.
    fn bound(&self) -> u64 {
        BUDGET + self.activations + self.states + BESIDES
    }
}

#[test]
fn child() {
    if let Ok(case) = std::env::var(CASE) {
        let case = serde_json::from_str(&case).expect("a case");
        let held = run(&case);
        let held = serde_json::to_string(&held).expect("numbers serialise");
        println!("\n{MARK}{held}");
    }
}

fn run(case: &Case) -> Held {
    if let Some(bytes) = case.data_limit {
        limit_data(bytes);
    }
    if let Some(group) = &case.group {
        let pid = std::process::id().to_string();
        std::fs::write(group.join("cgroup.procs"), pid).expect("the group takes this process");
    }
    let (weights, copied) = weights(case);
    let anon = AnonPeak::start().expect("the system tells");
    let config = Config::from_file(case.dir.join("config.json")).expect("a config");
    let mode = match case.discrete {
        true => HostMode::Discrete,
        false => HostMode::Unified,
    };
    let options = LoadOptions {
        max_positions: Some(CONTEXT),
    };
    let engine = Compiler::new(weights)
        .device(Host::new(mode))
        .limits(CompileLimits {
            host_bytes: case.compile_limit,
            device_bytes: None,
        })
        .profile(Profile::decoder(CONTEXT, 512).expect("a profile"))
        .weight_streaming(true)
        .budget(case.budget.map_or(Request::Full, Request::Bytes))
        .compile(|vb| Llama::load_with(vb, &config, &options))
        .expect("it compiles");
    let mut session = engine.session().expect("a session");
    let anon_peak_loaded = anon.peak();
    let vocab = config.vocab_size as u64;
    // Rows all over the table, so that gathering them would map much of it.
    let token = |i: usize| (i as u64 * 2_654_435_761 % vocab) as u32;
    let prompt: Vec<u32> = (0..case.prompt).map(token).collect();
    let mut hashes = vec![hash(&session.prefill(&prompt).expect("a prompt"))];
    for i in 0..case.decode {
        let logits = session.decode(token(case.prompt + i)).expect("a token");
        hashes.push(hash(&logits));
    }
    let (memory, report) = (engine.memory(), engine.report());
    let process = ProcessMemory::now().expect("the system tells");
    Held {
        resident_peak: process.resident_peak,
        compile_peaks: (
            report.host_peak_bytes.expect("the system tells"),
            report.device_peak_bytes,
        ),
        copied,
        shared: process.shared,
        anon_peak: anon.peak(),
        anon_peak_loaded,
        applied: engine.device_budget().expect("a budget").applied,
        activations: memory.activations,
        states: memory.states,
        constants: memory.constants,
        high_water: memory.high_water,
        total: memory.total_weights,
        streamed: engine.last_traffic().bytes,
        hashes,
    }
}

fn weights(case: &Case) -> (Weights, Option<Copied>) {
    if !case.tensors {
        return (Weights::open(&case.dir).expect("it opens"), None);
    }
    let file = case.dir.join("model.safetensors");
    let tensors = candle_core::safetensors::load(file, &candle_core::Device::Cpu);
    let tensors = tensors.expect("candle loads it");
    let now = || ProcessMemory::now().expect("the system tells").anonymous;
    let before = now();
    let anon = AnonPeak::start().expect("the system tells");
    let weights = Weights::from_tensors(tensors).expect("they are copied");
    let copied = Copied {
        before,
        peak: anon.peak(),
        after: now(),
    };
    (weights, Some(copied))
}

fn hash(logits: &[f32]) -> u64 {
    assert!(logits.iter().all(|v| v.is_finite()), "logits are numbers");
    let mix = |hash: u64, v: &f32| {
        (hash ^ u64::from(v.to_bits()))
            .wrapping_mul(0x0100_0000_01b3)
            .rotate_left(17)
    };
    logits.iter().fold(0, mix)
}

fn limit_data(bytes: u64) {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: bytes,
    };
    // SAFETY: the limit is a valid struct, and lowering it changes nothing that exists.
    let answer = unsafe { libc::setrlimit(libc::RLIMIT_DATA, &limit) };
    assert_eq!(answer, 0, "the system takes a limit of {bytes} bytes");
}

/// Runs a case in a child of its own: what it printed on either stream, and whether it succeeded.
fn in_a_child(case: &Case) -> (String, String, bool) {
    let output = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "limits::child", "--nocapture"])
        .env(
            CASE,
            serde_json::to_string(case).expect("a case serialises"),
        )
        .output()
        .expect("the child starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    (out, err, output.status.success())
}

/// What a case held that must succeed.
fn held(case: &Case) -> Held {
    let (out, err, success) = in_a_child(case);
    let line = out.lines().find_map(|l| l.strip_prefix(MARK));
    let line = line.filter(|_| success);
    let line = line.unwrap_or_else(|| panic!("{case:?}:\n{out}\n{err}"));
    let held: Held = serde_json::from_str(line).expect("what it held");
    let mib = |bytes: u64| bytes as f64 / MIB as f64;
    println!(
        "{:9} {:4} tokens, limit {:?}: VmHWM {:.1}, anon {:.1} (loaded {:.1}), budget {:.1}, \
         activations {:.1}, states {:.1}, constants {:.1}, pool peak {:.1}, streamed {:.1} MiB; \
         bound {:.1} MiB; compiling: host {:.1}, device {:.1} MiB; in memory {:.1} MiB {:?}",
        if case.discrete { "discrete" } else { "unified" },
        case.prompt,
        case.data_limit.map(mib),
        mib(held.resident_peak),
        mib(held.anon_peak),
        mib(held.anon_peak_loaded),
        mib(held.applied),
        mib(held.activations),
        mib(held.states),
        mib(held.constants),
        mib(held.high_water),
        mib(held.streamed),
        mib(held.bound()),
        mib(held.compile_peaks.0),
        mib(held.compile_peaks.1),
        mib(held.shared),
        held.copied,
    );
    held
}

/// A written model; the files go with it.
fn written(model: &Random) -> (tempfile::TempDir, u64) {
    let dir = tempfile::tempdir().expect("a folder");
    let bytes = model.write(dir.path()).expect("a checkpoint");
    println!("{}: {bytes} bytes of weights", model.name);
    (dir, bytes)
}

fn case(dir: &Path, discrete: bool, prompt: usize) -> Case {
    Case {
        dir: dir.into(),
        discrete,
        tensors: false,
        compile_limit: None,
        budget: Some(BUDGET),
        prompt,
        decode: 4,
        data_limit: None,
        group: None,
    }
}

/// Asserts the promise for one budget-bound child.
fn keeps_its_budget(held: &Held, discrete: bool) {
    assert!(held.applied <= BUDGET && held.streamed > 0, "{held:?}");
    assert!(held.streamed + BUDGET >= held.total, "{held:?}");
    let counted = match discrete {
        true => held.anon_peak,
        false => held.resident_peak,
    };
    assert!(
        counted < held.bound(),
        "{counted} of {}: {held:?}",
        held.bound()
    );
}

#[test]
fn a_model_of_538_mb_stays_within_64_mib_and_gives_the_same_bits() {
    let (dir, bytes) = written(&random::smol());
    assert!((537_000_000..540_000_000).contains(&bytes), "{bytes}");
    for prompt in [24, 512] {
        let mut hashes = Vec::new();
        for discrete in [false, true] {
            let held = held(&case(dir.path(), discrete, prompt));
            keeps_its_budget(&held, discrete);
            hashes.push(held.hashes);
        }
        let full = held(&Case {
            budget: None,
            ..case(dir.path(), false, prompt)
        });
        assert_eq!(full.streamed, 0);
        if prompt == 24 {
            hashes.push(tensors_are_copied_once(dir.path(), bytes));
        }
        let same = hashes.iter().all(|h| *h == full.hashes);
        assert!(same, "{prompt} tokens: {hashes:?} {full:?}");
    }
}

/// The same weights as tensors: one copy that is not anonymous, of which the budget bounds what is
/// mapped, and nothing else of their size.
fn tensors_are_copied_once(dir: &Path, bytes: u64) -> Vec<u64> {
    let held = held(&Case {
        tensors: true,
        ..case(dir, false, 24)
    });
    let copied = held.copied.as_ref().expect("they came as tensors");
    assert!(copied.before >= bytes, "{held:?}");
    assert!(copied.peak <= copied.before + 16 * MIB, "{held:?}");
    assert!(copied.after + bytes <= copied.before + 16 * MIB, "{held:?}");
    assert!(held.anon_peak <= bytes / 10, "{held:?}");
    let slots = 4 * 4 * MIB; // what a budget may be exceeded by
    assert!(held.shared <= BUDGET + slots, "{held:?}");
    held.hashes
}

#[test]
fn a_model_of_2_gb_runs_under_hard_limits() {
    let (dir, bytes) = written(&random::wide());
    assert!(bytes > 2_000_000_000, "{bytes}");
    let mut all = Vec::new();
    for discrete in [false, true] {
        let free = Case {
            compile_limit: Some(bytes / 10),
            ..case(dir.path(), discrete, 24)
        };
        let first = held(&free);
        keeps_its_budget(&first, discrete);
        assert!(first.anon_peak_loaded <= bytes / 10, "{first:?}");
        let (host, device) = first.compile_peaks;
        let plan = first.activations + first.constants;
        assert!(host <= bytes / 10, "{first:?}");
        assert!(device <= first.applied + plan, "{first:?}");
        let limited = Case {
            data_limit: Some(first.bound()),
            // So the estimate that is checked first is not twice what is taken.
            compile_limit: Some(2 * host),
            ..free
        };
        let second = held(&limited);
        keeps_its_budget(&second, discrete);
        match discrete {
            false => {
                in_a_group(dir.path(), &first);
                is_refused_on_the_host(&limited, host / 2);
            }
            true => is_refused_at_full_budget(&limited),
        }
        all.extend([first.hashes, second.hashes]);
    }
    assert!(all.iter().all(|h| *h == all[0]), "{all:?}");
}

/// That the limit binds: copies of all weights do not fit, which is an error and no crash.
fn is_refused_at_full_budget(limited: &Case) {
    let (out, err, success) = in_a_child(&Case {
        budget: None,
        ..limited.clone()
    });
    assert!(!success, "{out}");
    let text = out + &err;
    assert!(text.contains("OutOfMemory"), "{text}");
}

/// That half of what compiling takes is known to be too little.
fn is_refused_on_the_host(limited: &Case, bytes: u64) {
    let (out, err, success) = in_a_child(&Case {
        compile_limit: Some(bytes),
        ..limited.clone()
    });
    assert!(!success, "{out}");
    let text = out + &err;
    assert!(
        text.contains("CompileLimit") && text.contains("host"),
        "{text}"
    );
}

/// The same in a control group that counts everything, page cache included: the files are written
/// back and forgotten first, so that what the child reads is charged to its group.
fn in_a_group(dir: &Path, free: &Held) {
    let limit = free.bound();
    let group = match Group::new(limit) {
        Ok(group) => group,
        Err(why) => {
            println!("no control group could be made, so its case did not run: {why}");
            return;
        }
    };
    forget(dir);
    let held = held(&Case {
        decode: 1,
        group: Some(group.0.clone()),
        ..case(dir, false, 24)
    });
    println!(
        "control group of {limit} bytes: held at most {}",
        group.peak()
    );
    keeps_its_budget(&held, false);
    assert_eq!(held.hashes, free.hashes[..2]);
}

/// Writes the files of a folder back and drops them from the page cache.
fn forget(dir: &Path) {
    use std::os::fd::AsRawFd;
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let file = std::fs::File::open(entry.expect("an entry").path()).expect("it opens");
        file.sync_all().expect("it syncs");
        // SAFETY: the descriptor is open; the advice changes no byte.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    }
}

/// A memory control group of either version, removed when dropped.
struct Group(PathBuf);

impl Group {
    fn new(limit: u64) -> std::io::Result<Group> {
        let name = format!("candle-trt-limits-{}", std::process::id());
        let (parent, file) = match Path::new("/sys/fs/cgroup/memory").exists() {
            true => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            false => ("/sys/fs/cgroup", "memory.max"),
        };
        let path = Path::new(parent).join(name);
        std::fs::create_dir(&path)?;
        let group = Group(path);
        std::fs::write(group.0.join(file), limit.to_string())?;
        Ok(group)
    }

    fn peak(&self) -> String {
        let files = ["memory.max_usage_in_bytes", "memory.peak"].map(|f| self.0.join(f));
        let text = files.iter().find_map(|f| std::fs::read_to_string(f).ok());
        text.map_or("unknown".into(), |t| t.trim().to_string())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Nothing can be done about a group that stays.
        let _ = std::fs::remove_dir(&self.0);
    }
}
