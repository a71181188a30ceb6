//! A stream: a queue of items and the thread that works through it.
//!
//! An item's number is given while the queue is locked, so a record's point, a wait's captured
//! point and the order of the queue always agree. The worker takes everything that is queued at
//! once, so that submitting and working rarely meet at the lock.

use super::event::{HostEvent, Point, Timeline, lock, spin_until};
use crate::Work;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// What a worker gets.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all that is queued is work"
)]
pub(super) enum Item {
    /// Work; a record needs nothing to be done.
    Work(Work),
    /// A wait for what its event pointed to when it was submitted.
    Wait(Option<Point>),
}

/// The two ends of a stream.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<QueueState>,
    arrived: Condvar,
    /// `QueueState::submitted`, readable without the lock.
    submitted: AtomicU64,
    timeline: Arc<Timeline>,
}

#[derive(Debug, Default)]
struct QueueState {
    items: VecDeque<Item>,
    submitted: u64,
    asleep: bool,
    closed: bool,
}

impl Queue {
    pub(super) fn new(timeline: Arc<Timeline>) -> Self {
        Queue {
            state: Mutex::default(),
            arrived: Condvar::new(),
            submitted: AtomicU64::new(0),
            timeline,
        }
    }

    pub(super) fn timeline(&self) -> &Arc<Timeline> {
        &self.timeline
    }

    /// Appends work; `event` is the one that it records or waits for.
    pub(super) fn push(&self, work: Work, event: Option<&HostEvent>) {
        let mut state = lock(&self.state);
        state.submitted += 1;
        let item = state.submitted;
        match work {
            Work::Wait(_) => {
                let point = event.and_then(HostEvent::get);
                state.items.push_back(Item::Wait(point));
            }
            work => {
                if let (Work::Record(_), Some(event)) = (&work, event) {
                    let timeline = self.timeline.clone();
                    event.set(Point { timeline, item });
                }
                state.items.push_back(Item::Work(work));
            }
        }
        self.submitted.store(item, Ordering::Release);
        self.wake(&mut state);
    }

    /// The point after everything that was submitted so far.
    pub(super) fn end(&self) -> Point {
        Point {
            timeline: self.timeline.clone(),
            item: lock(&self.state).submitted,
        }
    }

    /// Lets the worker end when it has worked through what is queued.
    pub(super) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        self.wake(&mut state);
    }

    fn wake(&self, state: &mut QueueState) {
        if std::mem::take(&mut state.asleep) {
            self.arrived.notify_one();
        }
    }

    /// The worker's end: swaps all queued items into `items`, which must be empty and of which
    /// `taken` have been taken before. Returns false when the stream is closed and nothing is
    /// left.
    pub(super) fn take(&self, items: &mut VecDeque<Item>, taken: u64) -> bool {
        spin_until(|| self.submitted.load(Ordering::Acquire) > taken);
        let mut state = lock(&self.state);
        loop {
            if !state.items.is_empty() {
                std::mem::swap(&mut state.items, items);
                return true;
            }
            if state.closed {
                return false;
            }
            state.asleep = true;
            state = self
                .arrived
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}
