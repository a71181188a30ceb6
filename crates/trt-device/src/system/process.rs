//! What the system says this process holds.

use crate::contract::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Memory of this process, in bytes, as the system counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessMemory {
    /// Most that was ever resident (`VmHWM`).
    pub resident_peak: u64,
    /// Resident now (`VmRSS`).
    pub resident: u64,
    /// Of it, anonymous: the process's own (`RssAnon`).
    pub anonymous: u64,
    /// Of it, pages of mapped files (`RssFile`).
    pub file: u64,
    /// Of it, pages of files in memory (`RssShmem`), such as weights that were given as tensors.
    pub shared: u64,
}

impl ProcessMemory {
    /// Reads the numbers of this moment.
    ///
    /// # Errors
    /// [`Error::Os`] on systems without `/proc/self/status`.
    pub fn now() -> Result<ProcessMemory, Error> {
        const PATH: &str = "/proc/self/status";
        let text =
            std::fs::read_to_string(PATH).map_err(|e| Error::os(format!("read {PATH}"), &e))?;
        ProcessMemory::parse(&text)
    }

    fn parse(status: &str) -> Result<ProcessMemory, Error> {
        let field = |name: &str| {
            let value = status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .and_then(|v| v.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
            value.map(|kib| kib << 10).ok_or_else(|| Error::Os {
                call: "reading this process's memory".into(),
                reason: format!("the system does not tell {name}"),
            })
        };
        Ok(ProcessMemory {
            resident_peak: field("VmHWM")?,
            resident: field("VmRSS")?,
            anonymous: field("RssAnon")?,
            file: field("RssFile")?,
            shared: field("RssShmem")?,
        })
    }
}

/// Gives memory that was freed, but that the allocator keeps for later, back to the system, and
/// returns how many bytes less of this process are resident. Compiling frees many small pieces;
/// this is worth a call after it. Only the GNU C library's allocator can be asked; elsewhere the
/// answer is 0.
pub fn trim_host_memory() -> u64 {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let held = || ProcessMemory::now().map_or(0, |m| m.anonymous);
        let before = held();
        // SAFETY: the call only releases pages that the allocator itself knows to be free, under
        // its own locks.
        unsafe { libc::malloc_trim(0) };
        before.saturating_sub(held())
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    0
}

/// Watches the anonymous memory of this process, of which the system keeps no peak, by sampling
/// it every few milliseconds until dropped. Peaks between two samples are missed.
#[derive(Debug)]
pub struct AnonPeak {
    shared: Arc<Shared>,
    sampler: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    peak: AtomicU64,
    stop: AtomicBool,
}

/// Time between two samples; one costs about 20 µs.
const PERIOD: Duration = Duration::from_millis(4);

impl AnonPeak {
    /// Starts watching.
    ///
    /// # Errors
    /// [`Error::Os`] on systems that do not tell, or that give no thread.
    pub fn start() -> Result<AnonPeak, Error> {
        let shared = Arc::new(Shared {
            peak: AtomicU64::new(ProcessMemory::now()?.anonymous),
            stop: AtomicBool::new(false),
        });
        let theirs = shared.clone();
        let sampler = std::thread::Builder::new()
            .name("anon-peak".into())
            .spawn(move || {
                while !theirs.stop.load(Ordering::Relaxed) {
                    theirs.sample();
                    std::thread::park_timeout(PERIOD);
                }
            })
            .map_err(|e| Error::os("starting the memory sampler", &e))?;
        Ok(AnonPeak {
            shared,
            sampler: Some(sampler),
        })
    }

    /// Most anonymous bytes seen since the start, this moment included.
    pub fn peak(&self) -> u64 {
        self.shared.sample();
        self.shared.peak.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn sample(&self) {
        if let Ok(now) = ProcessMemory::now() {
            self.peak.fetch_max(now.anonymous, Ordering::Relaxed);
        }
    }
}

impl Drop for AnonPeak {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(sampler) = self.sampler.take() {
            sampler.thread().unpark();
            // The sampler cannot panic, and there is nothing to do here if it did.
            let _ = sampler.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kibibytes_become_bytes() {
        let text = "Name:\tx\nVmHWM:\t  20 kB\nVmRSS:\t 10 kB\nRssAnon:\t 4 kB\nRssFile:\t 5 kB\nRssShmem:\t 1 kB\n";
        let expected = ProcessMemory {
            resident_peak: 20 << 10,
            resident: 10 << 10,
            anonymous: 4 << 10,
            file: 5 << 10,
            shared: 1 << 10,
        };
        assert_eq!(ProcessMemory::parse(text).unwrap(), expected);
    }

    #[test]
    fn a_missing_number_is_named() {
        let error = ProcessMemory::parse("VmHWM:\t 20 kB\n").unwrap_err();
        assert!(error.to_string().contains("VmRSS"), "{error}");
    }
}
