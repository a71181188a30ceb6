//! A fork-join pool for work that lasts microseconds.
//!
//! A decode step launches hundreds of kernels of a few microseconds each, so workers spin for
//! the next one a while before they sleep, and the caller works too. One word holds the
//! protocol: `epoch | open | entered`. A run stores the job, then opens a new epoch; a worker
//! enters only by adding one to `entered` while that epoch is open; the caller closes it when
//! no part is left to claim and waits until `entered` is zero. Invariant: the job is written
//! only while the word is closed with nobody inside, so a worker that comes late never sees a
//! job that is gone, and the caller never waits for one that sleeps. Neither depends on what parts
//! do: the two who leave, the caller and a worker, do so by dropping a guard, also when they unwind.

use super::{HostError, contain};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const OPEN: u64 = 1 << 16;
const ENTERED: u64 = OPEN - 1;
const EPOCH: u64 = OPEN << 1;
/// How long a worker spins before it sleeps.
const SPIN: Duration = Duration::from_micros(100);

type Parts = *const (dyn Fn(usize) + Sync);

struct Shared {
    /// `epoch | open | entered`.
    word: AtomicU64,
    job: UnsafeCell<Option<(Parts, usize)>>,
    next: AtomicUsize,
    failure: Mutex<Option<String>>,
    sleeping: AtomicUsize,
    door: Mutex<()>,
    bell: Condvar,
    stop: AtomicBool,
}

// SAFETY: `job` is the only field that is not already shareable; it is written by the one
// caller that holds the run lock while the word is closed and nobody is inside, and read only
// by workers that entered the open word afterwards.
unsafe impl Sync for Shared {}
// SAFETY: the job pointer is only used under the same protocol.
unsafe impl Send for Shared {}

/// A set of threads that run the parts of one job at a time, together with the caller.
pub struct Team {
    shared: Arc<Shared>,
    running: Mutex<()>,
    threads: usize,
    workers: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Team({} threads)", self.threads)
    }
}

impl Team {
    /// A team of `threads` threads, the caller of each run counted as one of them. Threads that
    /// the system refuses to start are done without: [`Team::threads`] says how many there are.
    pub fn new(threads: usize) -> Team {
        let shared = Arc::new(Shared {
            word: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            next: AtomicUsize::new(0),
            failure: Mutex::new(None),
            sleeping: AtomicUsize::new(0),
            door: Mutex::new(()),
            bell: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let workers: Vec<_> = (1..threads.clamp(1, ENTERED as usize))
            .map_while(|i| {
                let shared = shared.clone();
                std::thread::Builder::new()
                    .name(format!("kernel-{i}"))
                    .spawn(move || shared.work())
                    .ok()
            })
            .collect();
        Team {
            shared,
            running: Mutex::new(()),
            threads: workers.len() + 1,
            workers,
        }
    }

    /// How many threads work, the caller counted.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `f(0)`, …, `f(parts - 1)`, each once, on any thread, and returns when all are done.
    /// While another run of this team is under way (also from inside a part), the caller does
    /// all parts itself. A part that panics is reported; the other parts still run.
    ///
    /// # Errors
    /// [`HostError::Panicked`] for a part that panicked.
    pub fn run(&self, parts: usize, f: impl Fn(usize) + Sync) -> Result<(), HostError> {
        self.run_dyn(parts, &f)
    }

    /// [`Team::run`] for parts that can fail: the error of the lowest failing part is returned.
    ///
    /// # Errors
    /// The error of the lowest failing part; [`HostError::Panicked`] for a part that panicked.
    pub fn try_run(
        &self,
        parts: usize,
        f: impl Fn(usize) -> Result<(), HostError> + Sync,
    ) -> Result<(), HostError> {
        if parts == 1 {
            return contain(|| f(0)).unwrap_or_else(|message| Err(HostError::Panicked { message }));
        }
        let first: Mutex<Option<(usize, HostError)>> = Mutex::new(None);
        self.run(parts, |part| {
            if let Err(error) = f(part) {
                let mut first = lock(&first);
                if first.as_ref().is_none_or(|(p, _)| part < *p) {
                    *first = Some((part, error));
                }
            }
        })?;
        match lock(&first).take() {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }

    fn run_dyn(&self, parts: usize, f: &(dyn Fn(usize) + Sync)) -> Result<(), HostError> {
        let turn = match parts > 1 && self.threads > 1 {
            true => self.turn(),
            false => None,
        };
        if turn.is_none() {
            let mut failure = None;
            for part in 0..parts {
                if let Err(message) = contain(|| f(part)) {
                    failure.get_or_insert(message);
                }
            }
            return finish(failure);
        }
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. The pointer is used by threads that entered this
        // epoch, and the guard below does not let go of this frame before all of them left it.
        let job: Parts =
            unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Parts>(f) };
        // SAFETY: the word is closed with nobody inside (the end of the previous run), and the
        // run lock keeps other callers out.
        unsafe { *shared.job.get() = Some((job, parts)) };
        shared.next.store(0, Ordering::Relaxed);
        let epoch = (shared.word.load(Ordering::Relaxed) & !(EPOCH - 1)).wrapping_add(EPOCH);
        let open = Opened(shared);
        shared.word.store(epoch | OPEN, Ordering::SeqCst);
        if shared.sleeping.load(Ordering::SeqCst) > 0 {
            drop(lock(&shared.door));
            shared.bell.notify_all();
        }
        shared.claim(f, parts);
        drop(open);
        let failure = lock(&shared.failure).take();
        drop(turn);
        finish(failure)
    }

    /// The right to run, unless somebody has it.
    fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        match self.running.try_lock() {
            Ok(turn) => Some(turn),
            // Who had it left by its guard, so the word is closed.
            Err(TryLockError::Poisoned(turn)) => Some(turn.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// An epoch that is open: closed, and waited for, when this is dropped.
struct Opened<'a>(&'a Shared);

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.0.word.fetch_and(!OPEN, Ordering::AcqRel);
        let mut turns = 0u32;
        while self.0.word.load(Ordering::Acquire) & ENTERED != 0 {
            pause(&mut turns);
        }
    }
}

/// A worker inside an epoch: it leaves when this is dropped.
struct Entered<'a>(&'a Shared);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.word.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(lock(&self.shared.door));
        self.shared.bell.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches every panic of a part, so there is nothing to learn from join.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Claims parts until none is left.
    fn claim(&self, f: &(dyn Fn(usize) + Sync), parts: usize) {
        loop {
            let part = self.next.fetch_add(1, Ordering::Relaxed);
            if part >= parts {
                return;
            }
            if let Err(message) = contain(|| f(part)) {
                lock(&self.failure).get_or_insert(message);
            }
        }
    }

    /// The life of a worker.
    fn work(&self) {
        let mut seen = 0;
        while let Some(word) = self.await_epoch(seen) {
            seen = word & !(EPOCH - 1);
            if word & OPEN == 0 {
                continue;
            }
            let entered =
                self.word
                    .compare_exchange(word, word + 1, Ordering::AcqRel, Ordering::Relaxed);
            if entered.is_err() {
                // Someone else moved the word; look again at the same epoch.
                seen = seen.wrapping_sub(EPOCH);
                continue;
            }
            let inside = Entered(self);
            // SAFETY: entered while open, so the job stays in place until this thread leaves.
            if let Some((job, parts)) = unsafe { *self.job.get() } {
                // SAFETY: as above; the closure outlives the epoch.
                self.claim(unsafe { &*job }, parts);
            }
            drop(inside);
        }
    }

    /// Waits for a word of another epoch than `seen`; `None` when the team ends.
    fn await_epoch(&self, seen: u64) -> Option<u64> {
        let changed = |word: u64| word & !(EPOCH - 1) != seen;
        let mut turns = 0u32;
        let mut start: Option<Instant> = None;
        loop {
            let word = self.word.load(Ordering::Acquire);
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            if changed(word) {
                return Some(word);
            }
            pause(&mut turns);
            if turns.is_multiple_of(64) && start.get_or_insert_with(Instant::now).elapsed() > SPIN {
                self.sleeping.fetch_add(1, Ordering::SeqCst);
                let mut door = lock(&self.door);
                while !changed(self.word.load(Ordering::SeqCst))
                    && !self.stop.load(Ordering::SeqCst)
                {
                    door = self.bell.wait(door).unwrap_or_else(PoisonError::into_inner);
                }
                drop(door);
                self.sleeping.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }
}

/// One turn of a spin: mostly a pause, now and then the core is offered to others.
fn pause(turns: &mut u32) {
    *turns = turns.wrapping_add(1);
    match turns.is_multiple_of(256) {
        true => std::thread::yield_now(),
        false => std::hint::spin_loop(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn finish(failure: Option<String>) -> Result<(), HostError> {
    match failure {
        Some(message) => Err(HostError::Panicked { message }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
