//! How long calls will take at a budget, and the budget for a time that they may take.
//!
//! What a schedule costs is played in `trt-stream` from a few [`Costs`], which calibrating finds.

use crate::{Engine, Error, Request};
use std::sync::PoisonError;
use std::time::Duration;
use trt_kernel::Env;
use trt_stream::{Costs, Prediction, Use};

/// The costs of one kind of calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// The class of calls.
    class: usize,
    costs: Costs,
}

impl Engine {
    /// Predicts from costs that are known, e.g. from an earlier [`Engine::calibrate`], instead of
    /// measuring. Rates and times that are not above zero and finite, and a contention outside of 0
    /// to 1, are an error, and nothing changes.
    pub fn set_costs(&self, ints: &[(&str, i64)], costs: Costs) -> Result<(), Error> {
        self.require_streaming()?;
        let (class, _) = self.class_of(ints)?;
        if let Some((field, value)) = costs.unusable() {
            return Err(Error::Costs { field, value });
        }
        self.know(class, costs);
        Ok(())
    }

    /// How long each of many calls in a row will take at a budget, and why. The calls are those of the
    /// last [`Engine::calibrate`]; if there was none, this measures calls of the profile's first
    /// class first.
    pub fn predict(&self, budget: Request) -> Result<Prediction, Error> {
        let known = self.known()?;
        let run = self.run();
        let layout = run.streamer.layout();
        let room = self.0.automatic_room(&run);
        let granted = budget.grant(room, &layout.limits());
        let granted = granted.map_err(trt_stream::Error::from)?;
        Ok(layout.predict(&self.uses(known), granted.bytes, &known.costs))
    }

    /// The smallest budget whose prediction is within this time; an error that names the best
    /// there is if no budget is fast enough that fits the engine's limit and the device beside what
    /// the other engines hold and their calls need. Measures as [`Engine::predict`] does.
    pub fn budget_for(&self, latency: Duration) -> Result<u64, Error> {
        let known = self.known()?;
        let run = self.run();
        let layout = run.streamer.layout();
        let in_force = run.streamer.applied().map_or(0, |now| now.applied);
        let most = self.0.largest_budget(&run, in_force);
        let uses = self.uses(known);
        let found = layout.budget_for(&uses, latency, most, &known.costs);
        found.ok_or_else(|| Error::LatencyOutOfReach {
            latency,
            best: layout.predict(&uses, most, &known.costs).time(),
            budget: most,
        })
    }

    fn known(&self) -> Result<Known, Error> {
        let known = *self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known {
            Some(known) => Ok(known),
            None => Ok(Known {
                class: self.class_of(&[])?.0,
                costs: self.calibrate(&[])?,
            }),
        }
    }

    pub(crate) fn know(&self, class: usize, costs: Costs) {
        let known = Known { class, costs };
        *self.0.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
    }

    fn uses(&self, known: Known) -> Vec<Use> {
        self.0.programs[known.class].streamed()
    }

    /// The first class that has these integers and serves the call.
    pub(crate) fn class_of(&self, ints: &[(&str, i64)]) -> Result<(usize, Env), Error> {
        for (index, class) in self.0.profile.classes.iter().enumerate() {
            let given = |name: &str| ints.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
            let has = |name: &str| class.ints.iter().any(|i| i.name == name);
            let values = class.ints.iter();
            let values: Vec<i64> = values
                .map(|i| given(&i.name).unwrap_or(i.range.min))
                .collect();
            if ints.iter().all(|(name, _)| has(name)) && class.accepts(&values) {
                return Ok((index, Env::new(&values)));
            }
        }
        let given: Vec<String> = ints.iter().map(|(n, v)| format!("{n}={v}")).collect();
        Err(Error::outside(given.join(" "), &self.0.profile))
    }
}
