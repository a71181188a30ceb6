//! Measuring what calls cost, by timing calls of the engine itself.
//!
//! They run at up to five budgets, the least, almost everything resident, everything resident packed if
//! weights are packed, everything plain, and the one between at which the link is as busy as
//! computing, with states of their own and inputs of zeros. The engine is locked meanwhile, so no other call
//! sees these budgets, and nobody plans on the device, since what is free then is not free for
//! good. What the engine takes leaves the others what they hold and what their calls need. The
//! budget is restored on every way out.

use super::neighbours;
use super::planning::Planning;
use crate::error::Error;
use crate::run::call::{CallContext, call};
use crate::run::change::Run;
use crate::run::engine::{Core, Engine};
use crate::run::states;
use std::sync::Arc;
use std::time::{Duration, Instant};
use trt_alloc::Purpose;
use trt_device::Slice;
use trt_kernel::Env;
use trt_stream::{Applied, Costs, Rates, Request, Timed};

/// Calls at a budget before those that are timed: tiles load, then what comes again is recorded.
const FIRST: usize = 3;
/// Calls timed at a budget: at least these, and more until [`ENOUGH`] has passed.
const LEAST: usize = 3;
const MOST: usize = 50;
const ENOUGH: Duration = Duration::from_millis(200);

/// Bytes that the rates are measured with where there is no room for more: the reserve has them.
const LEAST_READ: u64 = 64 << 10;

/// A call to time.
struct Sample {
    class: usize,
    env: Env,
    /// Zeros for each input.
    inputs: Vec<Vec<u8>>,
}

/// Budgets that an engine has for a trial. On every way out, a panic too, it has the one before.
struct Trial<'a> {
    core: &'a Arc<Core>,
    run: &'a mut Run,
    before: Applied,
    /// Whether weights turned plain before: in a trial they do, so that both forms are timed.
    plain: bool,
    /// Of its calls.
    states: Vec<Slice>,
    ended: bool,
}

impl Engine {
    /// Measures what later predictions are made of: calls with these runtime integers, of which the
    /// ones left out are the least of their range. `&[]` is a decoder's token; `&[("seq", 512)]` a
    /// prompt.
    ///
    /// Weights that are packed are read plain where the budget has room for it, unless that turns out
    /// to be slower.
    ///
    /// Takes about six calls at each of five budgets and the time to load what is resident there, and
    /// up to a gigabyte of the device for a moment; other calls wait, and so do engines that are to
    /// be made on the device or ask for an automatic budget. Budgets that do not fit the engine's
    /// limit, or the device beside what the other engines hold and their calls need, are left out.
    ///
    /// # Errors
    /// [`Error::NoStreaming`] without weight streaming, [`Error::OutsideProfile`] if no class serves such a
    /// call; if the device fails, or has no memory for the floor and the states of the calls.
    pub fn calibrate(&self, ints: &[(&str, i64)]) -> Result<Costs, Error> {
        self.require_streaming()?;
        let (class, env) = self.class_of(ints)?;
        let planning = Planning::on(self.core().device());
        let mut run = self.run();
        let mut trial = Trial::new(self.core(), &mut run)?;
        let timed = trial.time_budgets(class, env);
        let restored = trial.end();
        let (rates, timed) = timed?;
        restored?;
        drop(planning);
        let uses = self.core().programs()[class].streamed();
        let costs = Costs::fit(run.weights().layout(), &uses, &rates, &timed);
        tracing::debug!(?rates, ?timed, ?costs, "calibrated");
        self.core().learn(&mut run, class, costs)?;
        Ok(costs)
    }
}

impl<'a> Trial<'a> {
    fn new(core: &'a Arc<Core>, run: &'a mut Run) -> Result<Self, Error> {
        let before = run.weights().applied()?;
        let plain = run.weights().layout().prefers_plain();
        Ok(Trial {
            core,
            run,
            before,
            plain,
            states: Vec::new(),
            ended: false,
        })
    }

    fn end(mut self) -> Result<(), Error> {
        self.restore()
    }

    fn restore(&mut self) -> Result<(), Error> {
        self.ended = true;
        let states = std::mem::take(&mut self.states);
        let now = self.run.end_trial(states, &self.before, self.plain)?;
        let wanted = self.before.applied;
        if now.applied != wanted {
            tracing::warn!(wanted, now = now.applied, "a budget was restored in part");
        }
        Ok(())
    }

    /// Measures the rates, and times calls at each budget.
    fn time_budgets(&mut self, class: usize, env: Env) -> Result<(Rates, Vec<Timed>), Error> {
        // Room for the rates and the states first, in turn.
        self.run.set_budget(Request::Minimum, 0)?;
        self.run.prefer_plain(true)?;
        let core = self.core;
        // They only bound what is looked for: a part of what a full measurement moves is enough.
        let most = (core.device().info().total_memory / 256).clamp(1 << 20, 1 << 30);
        let most = most.min(self.spare(neighbours::room_beside(core, 0)));
        let most = most.max(LEAST_READ);
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let rates = Rates::measure_with(core.pool(), self.run.weights().files(), most)?;
        let inputs = core.programs()[class].input_bytes(&env).into_iter();
        let sample = Sample {
            class,
            env,
            inputs: inputs.map(|bytes| vec![0; bytes]).collect(),
        };
        self.states = self.acquire_states()?;
        let timed = self.time_sample(&sample, &rates)?;
        Ok((rates, timed))
    }

    /// What is left of a room beside the floor.
    fn spare(&self, room: u64) -> u64 {
        room.saturating_sub(self.before.floor)
    }

    /// States for the trial, unless others need the memory for their calls.
    fn acquire_states(&self) -> Result<Vec<Slice>, Error> {
        let core = self.core;
        // One session's are planned for; these are beyond that if there is one.
        let more = core
            .state_bytes()
            .min(core.pool().in_use_by(Purpose::States));
        let all = neighbours::all_room(core.device(), std::slice::from_ref(core));
        let spare = self.spare(all);
        if more > spare {
            return Err(trt_device::Error::OutOfMemory {
                device: core.device().info().name.clone(),
                bytes: usize::try_from(more).unwrap_or(usize::MAX),
                reason: format!("{spare} are left beside what the calls of its engines need"),
            }
            .into());
        }
        states::acquire(core)
    }

    /// Times calls at the ends first: they tell where the knee is.
    fn time_sample(&mut self, sample: &Sample, rates: &Rates) -> Result<Vec<Timed>, Error> {
        let limits = self.run.weights().layout().limits();
        let floor = limits.floor();
        let most = self.core.largest_budget(self.run, self.before.applied);
        let almost = most.min(limits.still().saturating_sub(1)).max(floor);
        let packed = most.min(limits.still());
        let mut timed = Vec::new();
        let there = self.time_at(floor, sample, &mut timed)?
            && self.time_at(almost, sample, &mut timed)?
            && self.time_at(packed, sample, &mut timed)?
            && self.time_at(most, sample, &mut timed)?;
        let largest = timed.iter().map(|t| t.budget).max().unwrap_or(floor);
        let most = if there { most } else { largest };
        let layout = self.run.weights().layout();
        let uses = self.core.programs()[sample.class].streamed();
        let costs = Costs::fit(layout, &uses, rates, &timed);
        let knee = layout.knee(&uses, floor..=most, &costs);
        let between = knee.unwrap_or(floor + most.saturating_sub(floor) / 2);
        self.time_at(between, sample, &mut timed)?;
        Ok(timed)
    }

    /// Times calls at a budget, unless they were; whether there is memory for it. What was timed so
    /// far has to do where others have taken it.
    fn time_at(
        &mut self,
        budget: u64,
        sample: &Sample,
        timed: &mut Vec<Timed>,
    ) -> Result<bool, Error> {
        if timed.iter().any(|t| t.budget == budget) {
            return Ok(true);
        }
        match self.run.set_budget(Request::Bytes(budget), budget) {
            Ok(_) => {
                let seconds = self.time(sample)?;
                timed.push(Timed { budget, seconds });
                Ok(true)
            }
            Err(why) if !timed.is_empty() => {
                tracing::debug!(budget, %why, "left out of calibrating");
                self.run.set_budget(Request::Minimum, 0)?;
                Ok(false)
            }
            Err(why) => Err(why.into()),
        }
    }

    /// The median time of some calls at the budget in force.
    fn time(&mut self, sample: &Sample) -> Result<f64, Error> {
        for _ in 0..FIRST {
            self.call(sample)?;
        }
        let mut times: Vec<Duration> = Vec::new();
        while times.len() < LEAST || (times.len() < MOST && times.iter().sum::<Duration>() < ENOUGH)
        {
            times.push(self.call(sample)?);
        }
        times.sort();
        Ok(times[times.len() / 2].as_secs_f64())
    }

    /// A call that no session makes, so it does not count among the engine's.
    fn call(&mut self, sample: &Sample) -> Result<Duration, Error> {
        let context = CallContext {
            core: self.core,
            class: sample.class,
            env: sample.env,
            inputs: &sample.inputs,
            states: &self.states,
            begins: false,
        };
        let start = Instant::now();
        call(&context, self.run)?;
        Ok(start.elapsed())
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if !self.ended
            && let Err(e) = self.restore()
        {
            let wanted = self.before.applied;
            tracing::error!(wanted, "a budget could not be restored: {e}");
        }
    }
}
