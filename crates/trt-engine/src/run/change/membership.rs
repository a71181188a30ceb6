//! An engine's membership in an allocation strategy, and the guard of the arena that a call has of
//! it.
//!
//! A member has joined its strategy exactly as often as it has left it, whatever fails; a guard ends
//! on every way out of a call, when nothing uses its memory any more.

use crate::error::Error;
use std::sync::Arc;
use trt_alloc::{Allocation, Arena, Hold, Pool, Strategy};
use trt_device::{Device, Stream};

/// Whether memory is poisoned where its content must not matter any more: what is held for one
/// call before and after it, what stays when a member leaves the strategy.
const POISON: bool = cfg!(debug_assertions);

/// A membership in a strategy; only a change of what is where changes it.
#[derive(Debug)]
pub(crate) struct Membership {
    allocation: Allocation,
    strategy: Arc<dyn Strategy>,
    pool: Pool,
    /// Bytes of the largest call.
    most: u64,
    /// Not after going back to a strategy that had no memory left: the next call tries again.
    joined: bool,
}

impl Membership {
    /// Joins the strategy of an allocation.
    ///
    /// # Errors
    /// If the strategy refuses, e.g. since there is no memory.
    pub fn new(allocation: Allocation, pool: &Pool, most: u64) -> Result<Membership, Error> {
        let mut membership = Membership {
            strategy: allocation.strategy(),
            allocation,
            pool: pool.clone(),
            most,
            joined: false,
        };
        membership.join()?;
        Ok(membership)
    }

    pub fn allocation(&self) -> &Allocation {
        &self.allocation
    }

    pub fn hold(&self) -> Hold {
        self.strategy.hold()
    }

    /// Bytes of the largest call.
    pub fn most(&self) -> u64 {
        self.most
    }

    fn join(&mut self) -> Result<(), Error> {
        if !self.joined {
            self.strategy.join(&self.pool, self.most)?;
            self.joined = true;
        }
        Ok(())
    }

    fn leave(&mut self) {
        if std::mem::take(&mut self.joined) {
            self.strategy.leave(&self.pool, self.most);
        }
    }

    /// Changes to another allocation; after an error it is where it was. Work on `stream`
    /// has ended.
    ///
    /// # Errors
    /// If the strategy refuses.
    pub(super) fn enter(&mut self, allocation: Allocation, stream: Stream) -> Result<(), Error> {
        // What is given up may be what the other needs, so it goes first.
        self.poison(stream);
        self.leave();
        let before = (
            std::mem::replace(&mut self.strategy, allocation.strategy()),
            std::mem::replace(&mut self.allocation, allocation),
        );
        let result = self.join();
        if result.is_err() {
            (self.strategy, self.allocation) = before;
            self.join_later_if_refused();
        }
        result
    }

    /// Goes back to an allocation that was in force before. If memory for it is refused now, the
    /// next call asks again.
    pub(super) fn restore(&mut self, allocation: Allocation, stream: Stream) {
        self.poison(stream);
        self.leave();
        self.strategy = allocation.strategy();
        self.allocation = allocation;
        self.join_later_if_refused();
    }

    fn join_later_if_refused(&mut self) {
        if let Err(e) = self.join() {
            let (strategy, most) = (self.strategy.name(), self.most);
            tracing::warn!(strategy, most, "no arena until the next call: {e}");
        }
    }

    /// An arena for a call whose work goes to `stream`.
    ///
    /// # Errors
    /// If the strategy refuses, or the device fails.
    pub(super) fn begin(&mut self, bytes: u64, stream: Stream) -> Result<ArenaGuard, Error> {
        self.join()?;
        let guard = self.lend(bytes, stream, POISON && self.hold() == Hold::Call)?;
        guard.poison()?;
        Ok(guard)
    }

    fn lend(&self, bytes: u64, stream: Stream, poison: bool) -> Result<ArenaGuard, Error> {
        Ok(ArenaGuard {
            arena: Some(self.strategy.begin(&self.pool, bytes)?),
            poison,
            strategy: self.strategy.clone(),
            device: self.pool.device().clone(),
            stream,
        })
    }

    /// Poisons an arena in which calls may have been recorded, before it is given up: one that
    /// were replayed after all would read garbage. Where the engine itself ends nobody could, so
    /// dropping a membership does not do it.
    fn poison(&self, stream: Stream) {
        if !POISON || !self.joined || self.hold() != Hold::Member {
            return;
        }
        match self.lend(self.most, stream, true) {
            Ok(guard) => drop(guard),
            Err(e) => tracing::debug!("an arena was given up as it is: {e}"),
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The arena of one call, given back on drop.
#[derive(Debug)]
pub(crate) struct ArenaGuard {
    strategy: Arc<dyn Strategy>,
    /// There until it is dropped.
    arena: Option<Arena>,
    device: Arc<dyn Device>,
    stream: Stream,
    poison: bool,
}

impl ArenaGuard {
    /// What is lent.
    ///
    /// # Errors
    /// If it was given back.
    pub fn arena(&self) -> Result<&Arena, Error> {
        let gone = || Error::lower("a call has no arena".into());
        self.arena.as_ref().ok_or_else(gone)
    }

    fn poison(&self) -> Result<(), Error> {
        match &self.arena {
            Some(arena) if self.poison => Ok(arena.poison(&*self.device, self.stream)?),
            _ => Ok(()),
        }
    }
}

impl Drop for ArenaGuard {
    fn drop(&mut self) {
        let poisoned = self.poison();
        // A call that returns has waited for its work; one that panicked has not.
        if self.poison || std::thread::panicking() {
            let waited = self.device.synchronize(self.stream).map_err(Error::from);
            if let Err(e) = poisoned.and(waited) {
                tracing::debug!("while an arena was given back: {e}");
            }
        }
        if let Some(arena) = self.arena.take() {
            self.strategy.end(arena);
        }
    }
}
