//! How long calls will take at a budget, and the budget for a time that they may take.
//!
//! What a schedule costs is played in `trt-stream` from a few [`Costs`], which calibrating finds.

use crate::error::Error;
use crate::run::change::Run;
use crate::run::engine::{Core, Engine, KnownCosts};
use std::time::Duration;
use trt_stream::{Costs, Prediction, Request, Use};

impl Engine {
    /// Predicts from costs that are known, e.g. from an earlier [`Engine::calibrate`], instead of
    /// measuring. Rates and times must be above zero and finite, and a contention from 0 to 1, or
    /// nothing changes. Where they say that packed weights are faster than plain ones, weights stay
    /// packed; where they say the contrary, they turn plain as the budget has room.
    ///
    /// # Errors
    /// [`Error::NoStreaming`] without weight streaming, [`Error::OutsideProfile`] if no class serves such a
    /// call, [`Error::Costs`] for costs that no calls can have, [`Error::Stream`] if weights cannot take the
    /// form that is faster.
    pub fn set_costs(&self, ints: &[(&str, i64)], costs: Costs) -> Result<(), Error> {
        self.require_streaming()?;
        let (class, _) = self.class_of(ints)?;
        if let Some((field, value)) = costs.unusable() {
            return Err(Error::Costs { field, value });
        }
        self.core().learn(&mut self.run(), class, costs)
    }

    /// How long each of many calls in a row will take at a budget, and why. The calls are those of the
    /// last [`Engine::calibrate`]; if there was none, this measures calls of the profile's first
    /// class first.
    ///
    /// # Errors
    /// [`Error::Stream`] for a budget below the floor; those of [`Engine::calibrate`] where it measures.
    pub fn predict(&self, budget: Request) -> Result<Prediction, Error> {
        let known = self.known()?;
        let run = self.run();
        let layout = run.weights().layout();
        let room = self.core().automatic_room(&run);
        let granted = budget.grant(room, &layout.limits());
        let granted = granted.map_err(trt_stream::Error::from)?;
        Ok(layout.predict(&self.uses(known), granted.bytes, &known.costs))
    }

    /// The smallest budget whose prediction is within this time; an error that names the best
    /// there is if no budget is fast enough that fits the engine's limit and the device beside what
    /// the other engines hold and their calls need. Measures as [`Engine::predict`] does.
    ///
    /// # Errors
    /// [`Error::LatencyOutOfReach`] if no budget is fast enough; those of [`Engine::calibrate`] where it
    /// measures.
    pub fn budget_for(&self, latency: Duration) -> Result<u64, Error> {
        let known = self.known()?;
        let run = self.run();
        let layout = run.weights().layout();
        let in_force = run.weights().applied().map_or(0, |now| now.applied);
        let most = self.core().largest_budget(&run, in_force);
        let uses = self.uses(known);
        let found = layout.budget_for(&uses, latency, most, &known.costs);
        found.ok_or_else(|| Error::LatencyOutOfReach {
            latency,
            best: layout.predict(&uses, most, &known.costs).time(),
            budget: most,
        })
    }

    fn known(&self) -> Result<KnownCosts, Error> {
        match self.core().known_costs() {
            Some(known) => Ok(known),
            None => Ok(KnownCosts {
                class: self.class_of(&[])?.0,
                costs: self.calibrate(&[])?,
            }),
        }
    }

    fn uses(&self, known: KnownCosts) -> Vec<Use> {
        self.core().programs()[known.class].streamed()
    }
}

impl Core {
    /// Notes what calls of a class cost, and has weights in the form that is faster.
    ///
    /// # Errors
    /// If that cannot be had.
    pub fn learn(&self, run: &mut Run, class: usize, costs: Costs) -> Result<(), Error> {
        if let Some(plain) = costs.plain_is_faster() {
            run.prefer_plain(plain)?;
            self.set_demand(run.weights().layout().demand(1.));
        }
        self.know_costs(class, costs);
        Ok(())
    }
}
