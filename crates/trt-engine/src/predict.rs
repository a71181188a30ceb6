//! How long calls will take at a budget, and the budget for a time that they may take.
//!
//! What a schedule costs is played in `trt-stream` from a few [`Costs`]. They are found by timing
//! calls of the engine itself at up to four budgets, with states of their own and inputs of
//! zeros: everything resident, almost everything, half and the least. The engine is locked
//! meanwhile, so no other call sees these budgets; the budget is restored on every way out.

use crate::call::call;
use crate::engine::{Compiled, Run};
use crate::{Engine, Error, Request, states};
use std::sync::PoisonError;
use std::time::{Duration, Instant};
use trt_device::Slice;
use trt_kernel::Env;
use trt_stream::{Costs, Layout, Prediction, Rates, Timed, WeightId};

/// Calls at a budget before those that are timed: tiles load, then what comes again is recorded.
const FIRST: usize = 3;
/// Calls timed at a budget: at least these, and more until [`ENOUGH`] has passed.
const LEAST: usize = 3;
const MOST: usize = 50;
const ENOUGH: Duration = Duration::from_millis(200);

/// The costs of one kind of calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// The class of calls.
    class: usize,
    costs: Costs,
}

/// A call to time.
struct Sample {
    class: usize,
    env: Env,
    /// Bytes of each input.
    inputs: Vec<usize>,
    states: Vec<Slice>,
}

impl Engine {
    /// Measures what later predictions are made of: calls with these runtime integers, of which the
    /// ones left out are the least of their range. `&[]` is a decoder's token; `&[("seq", 512)]` a
    /// prompt.
    ///
    /// Takes about six calls at each of four budgets and the time to load what is resident there, and
    /// up to a gigabyte of the device for a moment; other calls wait. Budgets that
    /// do not fit the device or its limit are left out.
    pub fn calibrate(&self, ints: &[(&str, i64)]) -> Result<Costs, Error> {
        self.require_streaming()?;
        let (class, env) = self.class_of(ints)?;
        let mut run = self.run();
        let before = run.streamer.applied()?;
        // Room for the states and the rates first.
        let timed = self.time_budgets(&mut run, class, env);
        let restored = run.restore(&before);
        let (rates, timed) = timed?;
        restored?;
        let uses = self.0.programs[class].streamed();
        let costs = Costs::fit(run.streamer.layout(), &uses, &rates, &timed);
        tracing::debug!(?rates, ?timed, ?costs, "calibrated");
        drop(run);
        self.know(class, costs);
        Ok(costs)
    }

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
        let free = self.0.automatic_room(&run);
        let layout = run.streamer.layout();
        let granted = budget.grant(free, &layout.limits());
        let granted = granted.map_err(trt_stream::Error::from)?;
        Ok(layout.predict(&self.uses(known), granted.bytes, &known.costs))
    }

    /// The smallest budget whose prediction is within this time; an error that names the best
    /// there is if no budget that fits the device and its limit is fast enough. Measures as
    /// [`Engine::predict`] does.
    pub fn budget_for(&self, latency: Duration) -> Result<u64, Error> {
        let known = self.known()?;
        let run = self.run();
        let layout = run.streamer.layout();
        let most = self.largest_budget(&run, layout);
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

    fn know(&self, class: usize, costs: Costs) {
        let known = Known { class, costs };
        *self.0.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
    }

    fn uses(&self, known: Known) -> Vec<WeightId> {
        self.0.programs[known.class].streamed()
    }

    fn largest_budget(&self, run: &Run, layout: &Layout) -> u64 {
        let _ = layout;
        let in_force = run.streamer.applied().map_or(0, |now| now.applied);
        self.0.largest_budget(run, in_force)
    }

    /// The first class that has these integers and serves the call.
    fn class_of(&self, ints: &[(&str, i64)]) -> Result<(usize, Env), Error> {
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

    /// Times calls at each budget, from the least up.
    fn time_budgets(
        &self,
        run: &mut Run,
        class: usize,
        env: Env,
    ) -> Result<(Rates, Vec<Timed>), Error> {
        run.set_budget(Request::Minimum, 0)?;
        // They only bound what is looked for: a part of what a full measurement moves is enough.
        let most = usize::try_from(self.0.device.info().total_memory / 256).unwrap_or(usize::MAX);
        let most = most.clamp(1 << 20, 1 << 30);
        let rates = Rates::measure_with(&self.0.pool, run.streamer.weights(), most)?;
        let sample = Sample {
            class,
            env,
            inputs: self.0.programs[class].input_bytes(&env),
            states: states::acquire(&self.0)?,
        };
        let timed = self.time_sample(run, &sample);
        // What was recorded keeps the states.
        let places: Vec<u64> = sample.states.iter().map(|s| s.address()).collect();
        run.recorded.forget(Some(&places));
        Ok((rates, timed?))
    }

    fn time_sample(&self, run: &mut Run, sample: &Sample) -> Result<Vec<Timed>, Error> {
        let limits = run.streamer.layout().limits();
        let floor = limits.floor();
        let most = self.largest_budget(run, run.streamer.layout());
        let mut budgets = vec![
            floor,
            floor + (most - floor) / 2,
            most.min(limits.total.saturating_sub(1)),
        ];
        budgets.push(most);
        budgets.retain(|b| *b >= floor);
        budgets.dedup();
        let mut timed = Vec::new();
        for budget in budgets {
            match run.set_budget(Request::Bytes(budget), budget) {
                Ok(_) => {}
                // Others have taken the memory: what was timed so far has to do.
                Err(why) if !timed.is_empty() => {
                    tracing::debug!(budget, %why, "left out of calibrating");
                    run.set_budget(Request::Minimum, 0)?;
                    break;
                }
                Err(why) => return Err(why.into()),
            }
            let seconds = self.time(run, sample)?;
            timed.push(Timed { budget, seconds });
        }
        Ok(timed)
    }

    /// The median time of some calls at the budget in force.
    fn time(&self, run: &mut Run, sample: &Sample) -> Result<f64, Error> {
        let mut one = || -> Result<Duration, Error> {
            let inputs = sample.inputs.iter().map(|bytes| vec![0; *bytes]).collect();
            let start = Instant::now();
            call(
                &self.0,
                run,
                sample.class,
                sample.env,
                inputs,
                &sample.states,
            )?;
            Ok(start.elapsed())
        };
        for _ in 0..FIRST {
            one()?;
        }
        let mut times: Vec<Duration> = Vec::new();
        while times.len() < LEAST || (times.len() < MOST && times.iter().sum::<Duration>() < ENOUGH)
        {
            times.push(one()?);
        }
        times.sort();
        Ok(times[times.len() / 2].as_secs_f64())
    }
}

impl Compiled {
    /// Bytes of each input of a call.
    fn input_bytes(&self, env: &Env) -> Vec<usize> {
        let bytes = |i: &trt_graph::InputDecl| {
            i.shape.iter().map(|d| d.size(env)).product::<usize>() * i.dtype.size()
        };
        self.program.inputs.iter().map(bytes).collect()
    }
}
