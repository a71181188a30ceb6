//! A strategy that acquires memory for each call, and does something of the test's first.

use candle_trt::alloc::{Arena, Error, Pool, Strategy};
use std::fmt;
use std::sync::Arc;

type Hook = Box<dyn Fn() + Send + Sync>;

pub struct Hooked {
    join: Hook,
    begin: Hook,
}

impl Hooked {
    /// Does this while an engine is made, after it was planned and before it takes memory.
    pub fn on_join(hook: impl Fn() + Send + Sync + 'static) -> Arc<Hooked> {
        Arc::new(Hooked {
            join: Box::new(hook),
            begin: Box::new(|| {}),
        })
    }

    /// Does this at the start of each call.
    pub fn on_begin(hook: impl Fn() + Send + Sync + 'static) -> Arc<Hooked> {
        Arc::new(Hooked {
            join: Box::new(|| {}),
            begin: Box::new(hook),
        })
    }
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooked")
    }
}

impl Strategy for Hooked {
    fn name(&self) -> &'static str {
        "hooked"
    }

    fn join(&self, _pool: &Pool, _most: u64) -> Result<(), Error> {
        (self.join)();
        Ok(())
    }

    fn begin(&self, pool: &Pool, bytes: u64) -> Result<Arena, Error> {
        (self.begin)();
        Arena::acquire(pool, bytes)
    }

    fn end(&self, arena: Arena) {
        drop(arena);
    }
}
