//! An arena for each call.

use super::{Arena, Strategy};
use crate::{Error, Pool};

/// Acquires an arena of a call's own size for it and returns it to the device when it ends, so
/// nothing is held between calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dynamic;

impl Strategy for Dynamic {
    fn name(&self) -> &'static str {
        "dynamic"
    }

    fn begin(&self, pool: &Pool, bytes: u64) -> Result<Arena, Error> {
        Arena::acquire(pool, bytes)
    }

    fn end(&self, arena: Arena) {
        drop(arena);
    }
}
