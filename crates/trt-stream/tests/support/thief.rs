//! A device whose memory another party takes at a moment of the test's choice.

use crate::forward::{Ask, Forward, Hooks};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use trt_device::{Device, Error, Host, Memory};

/// A discrete host on which, once told to, somebody takes what is free while memory is asked for.
pub type Thief = Forward<Theft>;

/// What is taken, and when.
#[derive(Debug)]
pub struct Theft {
    tells: AtomicBool,
    /// Bytes to leave when memory is asked for next, if any are to be taken.
    but: Mutex<Option<u64>>,
    taken: Mutex<Vec<Memory>>,
}

impl Thief {
    pub fn new(bytes: u64) -> Arc<Thief> {
        let theft = Theft {
            tells: AtomicBool::new(true),
            but: Mutex::default(),
            taken: Mutex::default(),
        };
        Forward::to(Arc::new(Host::discrete().with_memory(bytes)), theft)
    }
}

impl Theft {
    /// Whether it says what is free.
    pub fn tell(&self, tells: bool) {
        self.tells.store(tells, Ordering::SeqCst);
    }

    /// When memory is asked for next, all that is free but for `but` bytes goes first.
    pub fn take_before_next(&self, but: u64) {
        *self.but.lock().unwrap() = Some(but);
    }

    pub fn give_back(&self) {
        self.taken.lock().unwrap().clear();
    }
}

impl Hooks for Theft {
    fn tells(&self) -> bool {
        self.tells.load(Ordering::SeqCst)
    }

    fn before(&self, inner: &dyn Device, ask: Ask<'_>) -> Result<(), Error> {
        if matches!(ask, Ask::Allocate(_) | Ask::Commit(_))
            && let Some(but) = self.but.lock().unwrap().take()
        {
            let free = inner.free_memory().unwrap();
            let bytes = free.saturating_sub(but) as usize;
            self.taken.lock().unwrap().push(inner.allocate(bytes)?);
        }
        Ok(())
    }
}
