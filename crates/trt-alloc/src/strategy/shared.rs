//! One arena for several engines that take turns.
//!
//! The arena is a range of addresses as large as the device's memory, of which the first bytes
//! are made memory: as many as the largest member needs. So it grows and shrinks in place when
//! members come and go, and what a member has recorded in it stays right. Only one call at a
//! time has the turn; others wait for it.
//!
//! Each pool counts what its own members would need alone, once: with one pool for all engines
//! that is exactly the memory that is held, with a pool for each engine every limit holds for
//! its engine whatever the others do.

use super::{Arena, Hold, Strategy};
use crate::{Error, Pool, Purpose, Reservation};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use trt_device::Memory;

/// Holds the largest, not the sum, of what the engines that share it need. Clones are the same
/// arena; all its engines must be on one device.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<Turns>,
    turn_free: Condvar,
}

#[derive(Debug, Default)]
struct Turns {
    /// The addresses, while there are members.
    range: Option<Memory>,
    /// Bytes of it that are memory.
    committed: u64,
    members: Vec<Member>,
    /// One for each pool that has members.
    counted: Vec<(Pool, Reservation)>,
    busy: bool,
}

#[derive(Debug)]
struct Member {
    pool: Pool,
    most: u64,
}

/// The right to use the arena, given up on drop.
#[derive(Debug)]
struct Turn(Shared);

impl Shared {
    /// An arena without members, which holds nothing.
    pub fn new() -> Shared {
        Shared::default()
    }

    /// Bytes that it holds: the need of its largest member.
    pub fn bytes(&self) -> u64 {
        self.state().committed
    }

    /// Engines that share it.
    pub fn members(&self) -> usize {
        self.state().members.len()
    }

    pub(super) fn same(&self, other: &Shared) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn state(&self) -> MutexGuard<'_, Turns> {
        // What panics can leave behind is a count that is too high, never memory in use twice.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state when nobody has the turn.
    fn idle(&self) -> MutexGuard<'_, Turns> {
        let mut state = self.state();
        while state.busy {
            let woken = self.0.turn_free.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        state
    }
}

impl Strategy for Shared {
    fn name(&self) -> &'static str {
        "shared"
    }

    fn hold(&self) -> Hold {
        Hold::Member
    }

    fn join(&self, pool: &Pool, most: u64) -> Result<(), Error> {
        self.state().join(pool, most)
    }

    /// Waits for the call that has the turn: what goes back may end in the middle of its arena.
    fn leave(&self, pool: &Pool, most: u64) {
        self.idle().leave(pool, most);
    }

    fn begin(&self, _pool: &Pool, bytes: u64) -> Result<Arena, Error> {
        let mut state = self.idle();
        let range = match &state.range {
            Some(range) if bytes <= state.committed => range.whole(),
            _ => {
                return Err(Error::ArenaTooSmall {
                    asked: bytes,
                    held: state.committed,
                    strategy: self.name(),
                });
            }
        };
        let whole = range.slice(0..usize::try_from(bytes).unwrap_or(usize::MAX))?;
        state.busy = true;
        Ok(Arena::part(whole, Turn(self.clone())))
    }

    fn end(&self, arena: Arena) {
        drop(arena);
    }
}

impl Turns {
    fn join(&mut self, pool: &Pool, most: u64) -> Result<(), Error> {
        if let Some(first) = self.members.first()
            && !Arc::ptr_eq(first.pool.device(), pool.device())
        {
            let name = |pool: &Pool| pool.device().info().name.clone();
            return Err(Error::OtherDevice {
                strategy: "shared",
                held: name(&first.pool),
                asked: name(pool),
            });
        }
        let before = self.need_of(pool);
        self.count(pool, before.max(most))?;
        if let Err(error) = self.grow(pool, most) {
            // Less than before cannot be refused.
            let _ = self.count(pool, before);
            return Err(error);
        }
        let pool = pool.clone();
        self.members.push(Member { pool, most });
        Ok(())
    }

    fn leave(&mut self, pool: &Pool, most: u64) {
        let found = |m: &Member| m.most == most && m.pool.same(pool);
        let Some(at) = self.members.iter().position(found) else {
            return;
        };
        self.members.swap_remove(at);
        let need = self.members.iter().map(|m| m.most).max().unwrap_or(0);
        if let Some(range) = &self.range
            && need < self.committed
        {
            match pool.device().commit(range, need as usize) {
                Ok(()) => self.committed = need,
                Err(e) => tracing::warn!(need, "the shared arena could not shrink: {e}"),
            }
        }
        if self.members.is_empty() {
            self.range = None;
            self.committed = 0;
        }
        // Less than before cannot be refused.
        let _ = self.count(pool, self.need_of(pool));
    }

    /// Makes at least `most` bytes memory.
    fn grow(&mut self, pool: &Pool, most: u64) -> Result<(), Error> {
        let device = pool.device();
        let all = usize::try_from(device.info().total_memory).unwrap_or(usize::MAX);
        let range = match &self.range {
            Some(range) => range.clone(),
            None => device.reserve(all)?,
        };
        if most > self.committed {
            device.commit(&range, usize::try_from(most).unwrap_or(usize::MAX))?;
            self.committed = most;
        }
        self.range = Some(range);
        Ok(())
    }

    /// What the members of a pool need alone.
    fn need_of(&self, pool: &Pool) -> u64 {
        let own = self.members.iter().filter(|m| m.pool.same(pool));
        own.map(|m| m.most).max().unwrap_or(0)
    }

    /// Makes a pool count so many bytes.
    fn count(&mut self, pool: &Pool, bytes: u64) -> Result<(), Error> {
        let at = self.counted.iter().position(|(p, _)| p.same(pool));
        match at {
            Some(at) if bytes == 0 => drop(self.counted.swap_remove(at)),
            Some(at) => self.counted[at].1.resize(bytes)?,
            None if bytes == 0 => {}
            None => {
                let reservation = pool.reserve(bytes, Purpose::Activations)?;
                self.counted.push((pool.clone(), reservation));
            }
        }
        Ok(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.state().busy = false;
        // Not all who wait take the turn: some are refused, some leave.
        self.0.0.turn_free.notify_all();
    }
}
