//! One arena for the life of an engine.

use super::{Arena, Hold, Strategy};
use crate::{Error, Pool};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Holds one arena for the largest call of one engine: a call never allocates.
#[derive(Debug, Default)]
pub struct Static(Mutex<Held>);

#[derive(Debug, Default)]
enum Held {
    #[default]
    Nobody,
    Idle(Arena),
    /// In use by a call; so many bytes.
    Busy(u64),
}

impl Static {
    fn place(&self) -> MutexGuard<'_, Held> {
        // Every change is one assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Strategy for Static {
    fn name(&self) -> &'static str {
        "static"
    }

    fn hold(&self) -> Hold {
        Hold::Member
    }

    fn join(&self, pool: &Pool, most: u64) -> Result<(), Error> {
        let mut place = self.place();
        match &*place {
            Held::Nobody => *place = Held::Idle(Arena::acquire(pool, most)?),
            Held::Idle(_) | Held::Busy(_) => {
                return Err(Error::Joined {
                    strategy: self.name(),
                });
            }
        }
        Ok(())
    }

    fn leave(&self, _pool: &Pool, _most: u64) {
        *self.place() = Held::Nobody;
    }

    fn begin(&self, _pool: &Pool, bytes: u64) -> Result<Arena, Error> {
        let (asked, strategy) = (bytes, self.name());
        let mut place = self.place();
        let (back, result) = match std::mem::take(&mut *place) {
            Held::Idle(arena) if arena.bytes() >= bytes => (Held::Busy(arena.bytes()), Ok(arena)),
            Held::Busy(held) => (Held::Busy(held), Err(Error::ArenaBusy { held, strategy })),
            other => {
                let held = match &other {
                    Held::Idle(arena) => arena.bytes(),
                    Held::Nobody | Held::Busy(_) => 0,
                };
                let error = Error::ArenaTooSmall {
                    asked,
                    held,
                    strategy,
                };
                (other, Err(error))
            }
        };
        *place = back;
        result
    }

    fn end(&self, arena: Arena) {
        let mut place = self.place();
        if let Held::Busy(_) = *place {
            *place = Held::Idle(arena);
        }
    }
}
