//! When the arena of a call is acquired and given back.
//!
//! A call brackets its work between [`Strategy::begin`] and [`Strategy::end`]; in between the
//! arena is its alone. Ending a call does not wait for its work: the next call on the same
//! stream is ordered behind it, and memory that is let go stays, and counts, until queued work
//! no longer refers to it.

use crate::{Error, Lease, Pool, Purpose};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use trt_device::Slice;

/// Decides how long the memory of intermediate values is held.
pub trait Strategy: Send + Sync + fmt::Debug {
    /// A name for reports, e.g. `static`.
    fn name(&self) -> &'static str;

    /// An arena of at least `bytes` bytes for one call.
    fn begin(&self, pool: &Pool, bytes: u64) -> Result<Arena, Error>;

    /// Takes the arena of a call back, to keep it or to let it go.
    fn end(&self, arena: Arena);
}

/// The memory of one call's intermediate values.
#[derive(Debug)]
pub struct Arena {
    lease: Arc<Lease>,
}

impl Arena {
    /// An arena that is a lease of its own, or shares one.
    pub fn new(lease: Arc<Lease>) -> Arena {
        Arena { lease }
    }

    /// Bytes.
    pub fn bytes(&self) -> u64 {
        self.lease.bytes()
    }

    /// The bytes of one value of a plan.
    pub fn slice(&self, offset: u64, bytes: u64) -> Result<Slice, trt_device::Error> {
        // What does not fit a usize does not fit the arena either, and is refused as a range.
        let clamp = |b: u64| usize::try_from(b).unwrap_or(usize::MAX);
        let range = clamp(offset)..clamp(offset.saturating_add(bytes));
        self.lease.whole().slice(range)
    }
}

/// One arena, held for the life of the engine: a call never allocates.
#[derive(Debug)]
pub struct Static {
    held: u64,
    /// Taken while a call uses it.
    arena: Mutex<Option<Arena>>,
}

impl Static {
    /// Acquires an arena for calls that need up to `bytes` bytes.
    pub fn new(pool: &Pool, bytes: u64) -> Result<Static, Error> {
        let lease = pool.acquire(bytes, Purpose::Activations)?;
        Ok(Static {
            held: bytes,
            arena: Mutex::new(Some(Arena::new(Arc::new(lease)))),
        })
    }
}

impl Strategy for Static {
    fn name(&self) -> &'static str {
        "static"
    }

    fn begin(&self, _pool: &Pool, bytes: u64) -> Result<Arena, Error> {
        let (held, strategy) = (self.held, self.name());
        if bytes > held {
            return Err(Error::ArenaTooSmall {
                asked: bytes,
                held,
                strategy,
            });
        }
        let mut arena = self.arena.lock().unwrap_or_else(PoisonError::into_inner);
        arena.take().ok_or(Error::ArenaBusy { held, strategy })
    }

    fn end(&self, arena: Arena) {
        let mut slot = self.arena.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(arena);
    }
}
