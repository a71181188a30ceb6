//! The scope of a budget.

use crate::error::Error;
use crate::run::engine::Engine;
use trt_stream::{Applied, Request};

/// Changes the budget of an engine for a scope. Dropping it, on any way out of the scope,
/// restores the request, the budget and the limit that were in force when it was made; only where
/// another process took the memory meanwhile, as much of the budget as there is memory for.
///
/// Its counterpart in Torch-TensorRT is what `torch_tensorrt.runtime.weight_streaming(module)` gives
/// for a `with`; that one ends with all weights on the device instead.
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
    fn new(engine: &'a Engine) -> Result<Self, Error> {
        engine.require_streaming()?;
        Ok(WeightStreaming {
            engine,
            before: engine.device_budget()?,
            limit: engine.device_limit(),
        })
    }

    /// The budget in force.
    ///
    /// # Errors
    /// Those of [`Engine::device_budget`].
    pub fn device_budget(&self) -> Result<Applied, Error> {
        self.engine.device_budget()
    }

    /// Sets the budget from the next call on, until the guard is dropped.
    ///
    /// # Errors
    /// Those of [`Engine::set_device_budget`].
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
    ///
    /// # Errors
    /// Those of [`Engine::set_device_limit`].
    pub fn set_device_limit(&mut self, limit: u64) -> Result<Applied, Error> {
        self.engine.set_device_limit(limit)
    }
}

impl Engine {
    /// The scope of a budget: what is set through the guard is undone when it is dropped.
    ///
    /// # Errors
    /// [`Error::NoStreaming`] without weight streaming; [`Error::Stream`] while no budget is in force.
    pub fn weight_streaming(&self) -> Result<WeightStreaming<'_>, Error> {
        WeightStreaming::new(self)
    }
}

impl Drop for WeightStreaming<'_> {
    fn drop(&mut self) {
        // Room first, then the budget, then the limit: the order that works whichever way each goes.
        let core = self.engine.core();
        let (pool, mut run) = (core.pool(), core.run());
        let room = pool.set_limit(pool.limit().max(self.limit));
        let budget = run.restore(&self.before);
        core.note(&run);
        let limit = pool.set_limit(self.limit);
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
