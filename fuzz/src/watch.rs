//! A case that does not end ends the process, with its number.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// How long one case may run before the process is ended: several times what any target allows.
const HANGS: Duration = Duration::from_secs(120);

pub(crate) struct Watch {
    shared: Arc<Shared>,
}

struct Shared {
    case: AtomicU64,
    ended: AtomicBool,
}

impl Watch {
    pub fn new(name: &str, seed: u64) -> Watch {
        let shared = Arc::new(Shared {
            case: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        let (seen, name) = (shared.clone(), name.to_string());
        thread::spawn(move || seen.watch(&name, seed));
        Watch { shared }
    }

    pub fn begins(&self, case: u64) {
        self.shared.case.store(case, Ordering::Relaxed);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn watch(&self, name: &str, seed: u64) {
        let step = Duration::from_millis(500);
        let (mut last, mut waited) = (0, Duration::ZERO);
        while !self.ended.load(Ordering::Relaxed) {
            thread::sleep(step);
            let case = self.case.load(Ordering::Relaxed);
            waited = if case == last {
                waited + step
            } else {
                Duration::ZERO
            };
            last = case;
            if waited > HANGS {
                eprintln!(
                    "{name}: a case does not end; repeat with TRT_FUZZ_SEED={seed} TRT_FUZZ_CASE={case}"
                );
                std::process::exit(101);
            }
        }
    }
}
