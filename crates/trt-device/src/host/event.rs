//! How far a stream has got, and points in it that others can wait for.
//!
//! Each stream has a [`Timeline`]: the number of its items that are done, which only grows. A
//! record is nothing but a remembered item number, so an event costs its stream nothing. A wait
//! captures the event's latest point when it is submitted, and that item is then already
//! queued; so waits never form a cycle and every one of them ends.

use crate::Error;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long to look for something in a loop before sleeping until told. Waking a thread costs
/// tens of microseconds, longer than most of the waits of a decoding step.
const SPIN: Duration = Duration::from_micros(50);

/// How long of it to keep the processor: a hand-over between busy threads takes about one
/// microsecond, but there may be fewer processors than spinning threads.
const KEEP: Duration = Duration::from_micros(10);

/// Locks, also when a panicking thread held the lock: what it guards here is never half-changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether `ready` becomes true within a short spin.
pub(super) fn spin_until(ready: impl Fn() -> bool) -> bool {
    let mut start = None;
    loop {
        for _ in 0..32 {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
        let spent = start.get_or_insert_with(Instant::now).elapsed();
        if spent > SPIN {
            return ready();
        }
        if spent > KEEP {
            std::thread::yield_now();
        }
    }
}

/// A stream's progress and its first error.
#[derive(Debug)]
pub(super) struct Timeline {
    pub(super) name: String,
    done: AtomicU64,
    /// The least item that a sleeper waits for, or `u64::MAX`: a stream does hundreds of items
    /// while someone waits for its last, and must not wake them at each.
    wake_at: AtomicU64,
    /// Items that sleepers wait for.
    awaited: Mutex<Vec<u64>>,
    advanced: Condvar,
    failed: AtomicBool,
    error: Mutex<Option<(u64, Error)>>,
}

impl Timeline {
    pub(super) fn new(name: &str) -> Self {
        Timeline {
            name: name.to_string(),
            done: AtomicU64::new(0),
            wake_at: AtomicU64::new(u64::MAX),
            awaited: Mutex::default(),
            advanced: Condvar::new(),
            failed: AtomicBool::new(false),
            error: Mutex::default(),
        }
    }

    /// Marks item `item` (counted from 1) and everything before it as done.
    pub(super) fn advance(&self, item: u64) {
        // Sequentially consistent with `wake_at`: either this sees what the sleeper waits for,
        // or the sleeper's check under the lock sees this item.
        self.done.store(item, Ordering::SeqCst);
        if self.wake_at.load(Ordering::SeqCst) <= item {
            let mut awaited = lock(&self.awaited);
            awaited.retain(|a| *a > item);
            self.plan_wake(&awaited);
            self.advanced.notify_all();
        }
    }

    fn plan_wake(&self, awaited: &[u64]) {
        let least = awaited.iter().copied().min().unwrap_or(u64::MAX);
        self.wake_at.store(least, Ordering::SeqCst);
    }

    pub(super) fn reached(&self, item: u64) -> bool {
        self.done.load(Ordering::Acquire) >= item
    }

    /// Returns when item `item` is done.
    pub(super) fn wait(&self, item: u64) {
        if spin_until(|| self.reached(item)) {
            return;
        }
        let mut awaited = lock(&self.awaited);
        awaited.push(item);
        self.plan_wake(&awaited);
        while self.done.load(Ordering::SeqCst) < item {
            awaited = self
                .advanced
                .wait(awaited)
                .unwrap_or_else(PoisonError::into_inner);
        }
        // Still listed if the item was done before it could be seen to be awaited.
        if let Some(at) = awaited.iter().position(|a| *a == item) {
            awaited.swap_remove(at);
            self.plan_wake(&awaited);
        }
    }

    /// Whether an error is waiting to be taken.
    pub(super) fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Keeps the error of item `item`, unless there is one already.
    pub(super) fn fail(&self, item: u64, error: Error) {
        let mut slot = lock(&self.error);
        slot.get_or_insert((item, error));
        // Under the lock, so that the mark stands exactly as long as an error does: one that
        // outlived its error would have everything skipped, and nobody told.
        self.failed.store(true, Ordering::Release);
    }

    /// Returns and clears the error.
    pub(super) fn take_error(&self) -> Option<Error> {
        let mut slot = lock(&self.error);
        self.failed.store(false, Ordering::Release);
        slot.take().map(|(_, error)| error)
    }
}

/// An item of a stream.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub(super) timeline: Arc<Timeline>,
    pub(super) item: u64,
}

impl Point {
    pub(super) fn wait(&self) {
        self.timeline.wait(self.item);
    }

    /// The error that the stream has met at or before this point, if nobody has taken it yet.
    pub(super) fn failure(&self) -> Option<Error> {
        if !self.timeline.failed() {
            return None;
        }
        match &*lock(&self.timeline.error) {
            Some((item, error)) if *item <= self.item => Some(match error {
                Error::Upstream { .. } => error.clone(),
                _ => Error::Upstream {
                    stream: self.timeline.name.clone(),
                    source: Box::new(error.clone()),
                },
            }),
            _ => None,
        }
    }
}

/// The latest point that an event was recorded at; none before the first record.
#[derive(Debug, Default)]
pub(super) struct HostEvent(Mutex<Option<Point>>);

impl HostEvent {
    pub(super) fn set(&self, point: Point) {
        *lock(&self.0) = Some(point);
    }

    pub(super) fn get(&self) -> Option<Point> {
        lock(&self.0).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_marked_as_failed_exactly_while_it_has_an_error() {
        const ERRORS: u64 = 20_000;
        let timeline = Arc::new(Timeline::new("s"));
        let theirs = timeline.clone();
        let failing = std::thread::spawn(move || {
            for item in 1..=ERRORS {
                theirs.fail(item, Error::NotReserved);
            }
        });
        while !failing.is_finished() {
            timeline.take_error();
        }
        failing.join().unwrap();
        timeline.take_error();
        assert!(!timeline.failed() && timeline.take_error().is_none());
    }
}
