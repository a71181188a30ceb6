//! What the system lets a process have, and what it ends up holding.

mod case;

use crate::common::random::{self, Random};
use case::{BUDGET, Case, Held, MIB, held, in_a_child};
use std::path::{Path, PathBuf};

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
