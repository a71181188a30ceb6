//! The scope of a budget.

use crate::{Applied, Engine, Error, Request};

/// Changes the budget of an engine for a scope. Dropping it, on any way out of the scope,
/// restores the request, the budget and the limit that were in force when it was made; only where
/// another process took the memory meanwhile, as much of the budget as there is memory for.
///
/// **What outlives the scope.** A session that was made under a raised limit keeps its states. Where
/// the engine then holds more than the limit that is to be restored, the limit stays raised, which
/// is logged as an error, and the budget is restored all the same:
/// [`Engine::device_limit`] tells, and [`Engine::set_device_limit`] works again once such sessions
/// are gone.
///
/// **Several on one engine.** Each restores what it found, whatever is in force. Nested scopes
/// undo each other from the inside out. If the first that was made ends first, the second has the
/// last word, and restores what the first had set until then.
#[derive(Debug)]
pub struct WeightStreaming<'a> {
    engine: &'a Engine,
    before: Applied,
    limit: u64,
}

impl<'a> WeightStreaming<'a> {
    pub(crate) fn new(engine: &'a Engine) -> Result<Self, Error> {
        engine.require_streaming()?;
        Ok(WeightStreaming {
            engine,
            before: engine.device_budget()?,
            limit: engine.device_limit(),
        })
    }

    /// The budget in force.
    pub fn device_budget(&self) -> Result<Applied, Error> {
        self.engine.device_budget()
    }

    /// Sets the budget from the next call on, until the guard is dropped.
    pub fn set_device_budget(&mut self, request: Request) -> Result<Applied, Error> {
        self.engine.set_device_budget(request)
    }

    /// Bytes of all weights that a budget counts.
    pub fn total_device_budget(&self) -> u64 {
        self.engine.total_device_budget()
    }

    /// The smallest budget.
    pub fn minimum_device_budget(&self) -> u64 {
        self.engine.minimum_device_budget()
    }

    /// The budget that [`Request::Automatic`] gives now.
    pub fn automatic_device_budget(&self) -> u64 {
        self.engine.automatic_device_budget()
    }

    /// Bounds everything on the device, until the guard is dropped.
    pub fn set_device_limit(&mut self, limit: u64) -> Result<Applied, Error> {
        self.engine.set_device_limit(limit)
    }
}

impl Drop for WeightStreaming<'_> {
    fn drop(&mut self) {
        // Room first, then the budget, then the limit: the order that works whichever way each goes.
        let inner = &self.engine.0;
        let mut run = inner.run();
        let room = inner.pool.set_limit(inner.pool.limit().max(self.limit));
        let budget = run.restore(&self.before);
        inner.note(&run);
        let limit = inner.pool.set_limit(self.limit);
        let wanted = self.before.applied;
        match budget {
            Ok(now) if now.applied == wanted => {}
            Ok(now) => tracing::warn!(wanted, now = now.applied, "a budget was restored in part"),
            Err(e) => tracing::error!(wanted, "a budget could not be restored: {e}"),
        }
        if let Err(e) = room.and(limit) {
            tracing::error!(limit = self.limit, "a limit could not be restored: {e}");
        }
    }
}
