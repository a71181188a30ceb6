//! A case in a process of its own.
//!
//! The peak resident size is kept per process, so every case runs in a child: this test binary
//! again, with only the test [`child`] and the case in its environment. A case says what it held
//! in one line of JSON.

use candle_trt::device::{AnonPeak, Host, HostMode, ProcessMemory};
use candle_trt::models::{DecoderConfig, Llama, LoadOptions};
use candle_trt::{CompileLimits, Compiler, FromTensors, Profile, Request, Weights};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::process::Command;

const CASE: &str = "CANDLE_TRT_LIMITS_CASE";
const MARK: &str = "limits-held ";
const CONTEXT: usize = 576;
pub const MIB: u64 = 1 << 20;
pub const BUDGET: u64 = 64 * MIB;
/// What a process may hold besides the budget, activations and states: its code, its stacks, the
/// compiled programs, what the allocator keeps.
const BESIDES: u64 = 80 * MIB;

/// What a child is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Case {
    pub dir: PathBuf,
    pub discrete: bool,
    /// Whether the weights are given as tensors.
    pub tensors: bool,
    /// The limit of compiling on the host.
    pub compile_limit: Option<u64>,
    /// `None` for all weights.
    pub budget: Option<u64>,
    pub prompt: usize,
    pub decode: usize,
    /// `RLIMIT_DATA`: anonymous memory, what is not yet touched included.
    pub data_limit: Option<u64>,
    /// A control group to join.
    pub group: Option<PathBuf>,
}

/// What it held, in bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Held {
    pub resident_peak: u64,
    pub anon_peak: u64,
    /// Peak before the first call: compiling, loading, a session.
    pub anon_peak_loaded: u64,
    /// What the report says of compiling, on the host and on the device.
    pub compile_peaks: (u64, u64),
    /// If the weights came as tensors.
    pub copied: Option<Copied>,
    /// Of files in memory, mapped in the end.
    pub shared: u64,
    pub applied: u64,
    pub activations: u64,
    pub states: u64,
    pub constants: u64,
    pub high_water: u64,
    pub total: u64,
    /// Streamed for the last token.
    pub streamed: u64,
    /// Of the bits of each call's logits.
    pub hashes: Vec<u64>,
}

/// Anonymous memory around the copying of tensors.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Copied {
    pub before: u64,
    pub peak: u64,
    pub after: u64,
}

impl Held {
    /// The promise.
    pub fn bound(&self) -> u64 {
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
    let config = DecoderConfig::from_file(case.dir.join("config.json")).expect("a config");
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
pub fn in_a_child(case: &Case) -> (String, String, bool) {
    let output = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "limits::case::child", "--nocapture"])
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
pub fn held(case: &Case) -> Held {
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
