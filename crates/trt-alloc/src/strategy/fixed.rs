//! One arena for the life of an engine.

use super::{Arena, Hold, Strategy};
use crate::{Error, Pool};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Holds one arena for the largest call of one engine: a call never allocates.
#[derive(Debug, Default)]
pub struct Static(Mutex<Place>);

#[derive(Debug, Default)]
enum Place {
    #[default]
    Nobody,
    Idle(Arena),
    /// In use by a call; so many bytes.
    Busy(u64),
}

impl Static {
    fn place(&self) -> MutexGuard<'_, Place> {
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
            Place::Nobody => *place = Place::Idle(Arena::acquire(pool, most)?),
            Place::Idle(_) | Place::Busy(_) => {
                return Err(Error::Joined {
                    strategy: self.name(),
                });
            }
        }
        Ok(())
    }

    fn leave(&self, _pool: &Pool, _most: u64) {
        *self.place() = Place::Nobody;
    }

    fn begin(&self, _pool: &Pool, bytes: u64) -> Result<Arena, Error> {
        let (asked, strategy) = (bytes, self.name());
        let mut place = self.place();
        let (back, result) = match std::mem::take(&mut *place) {
            Place::Idle(arena) if arena.bytes() >= bytes => (Place::Busy(arena.bytes()), Ok(arena)),
            Place::Busy(held) => (Place::Busy(held), Err(Error::ArenaBusy { held, strategy })),
            other => {
                let held = match &other {
                    Place::Idle(arena) => arena.bytes(),
                    Place::Nobody | Place::Busy(_) => 0,
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
        if let Place::Busy(_) = *place {
            *place = Place::Idle(arena);
        }
    }
}
