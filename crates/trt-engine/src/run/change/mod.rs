//! What is where on the device, and the one way to change it.
//!
//! Weights lie where the budget puts them, intermediate results in an arena, states in memory of
//! their session, and what was recorded refers to all of them and keeps them. The invariant: nothing
//! that something recorded uses moves or goes while it is kept. So what holds memory is private to
//! this module, and every change of it goes through [`Run::change`], which forgets first. After a
//! change that fails, what was in force is in force, or what is missing is marked: a streamer
//! without a budget says so, an arena that was refused is asked for again by the next call.

mod membership;
mod recorded;

pub(crate) use membership::{ArenaGuard, Membership};
pub(crate) use recorded::{Key, Recorded};

use super::arena::{ArenaLayout, Layouts};
use super::program::Compiled;
use crate::error::Error;
use crate::report::{Pressure, Shrink};
use std::sync::Arc;
use trt_alloc::Allocation;
use trt_device::{Slice, Stream};
use trt_kernel::Env;
use trt_stream::{Applied, Pass, ProgramId, Request, Streamer};

/// What one call at a time may use. Its fields are dropped in this order: what was recorded before
/// the memory that it uses.
#[derive(Debug)]
pub(crate) struct Run {
    recorded: Recorded,
    held: Held,
    /// Layouts of calls whose arena is of their own size.
    layouts: Layouts,
    pressure: Pressure,
}

/// Memory that what was recorded may use; the states are those of the sessions.
#[derive(Debug)]
struct Held {
    streamer: Streamer,
    membership: Membership,
}

/// What a change moves or lets go of.
#[derive(Clone, Copy)]
enum Moves<'a> {
    Nothing,
    /// What lies at these addresses.
    Only(&'a [u64]),
    Everything,
}

impl Moves<'_> {
    fn all_if(moves: bool) -> Moves<'static> {
        match moves {
            true => Moves::Everything,
            false => Moves::Nothing,
        }
    }
}

impl Run {
    pub fn new(streamer: Streamer, membership: Membership, replay: bool) -> Run {
        Run {
            recorded: Recorded::new(replay),
            held: Held {
                streamer,
                membership,
            },
            layouts: Layouts::default(),
            pressure: Pressure::default(),
        }
    }

    /// Changes what is where. What was recorded keeps the memory that it uses, and is wrong for
    /// any other, so it is forgotten first, whatever comes of the change.
    fn change<T>(&mut self, moves: Moves<'_>, change: impl FnOnce(&mut Held) -> T) -> T {
        match moves {
            Moves::Nothing => {}
            Moves::Only(memory) => self.recorded.forget(Some(memory)),
            Moves::Everything => self.recorded.forget(None),
        }
        change(&mut self.held)
    }

    /// Changes the budget; see [`Streamer::set_budget`].
    ///
    /// # Errors
    /// Those of [`Streamer::set_budget`].
    pub fn set_budget(
        &mut self,
        request: Request,
        free: u64,
    ) -> Result<Applied, trt_stream::Error> {
        let moves = Moves::all_if(self.held.streamer.would_move(request, free)?);
        self.change(moves, |held| held.streamer.set_budget(request, free))
    }

    /// Grows the budget towards the last request; see [`Streamer::regrow`].
    ///
    /// # Errors
    /// Those of [`Streamer::regrow`].
    pub fn regrow(&mut self, free: u64) -> Result<Applied, trt_stream::Error> {
        let moves = Moves::all_if(self.held.streamer.would_regrow(free)?);
        self.change(moves, |held| held.streamer.regrow(free))
    }

    /// Shrinks the budget to at most so many bytes; see [`Streamer::shrink`].
    ///
    /// # Errors
    /// Those of [`Streamer::shrink`].
    pub fn shrink(&mut self, bytes: u64) -> Result<Applied, trt_stream::Error> {
        self.change(Moves::Everything, |held| held.streamer.shrink(bytes))
    }

    /// Goes back to a budget that was in force, as far as the device has memory for it.
    ///
    /// # Errors
    /// Those of [`Streamer::restore`].
    pub fn restore(&mut self, before: &Applied) -> Result<Applied, trt_stream::Error> {
        let now = self.held.streamer.applied().ok();
        let moves = Moves::all_if(now.map(|now| now.applied) != Some(before.applied));
        self.change(moves, |held| held.streamer.restore(before))
    }

    /// Says whether weights of two forms turn plain; see [`Streamer::prefer_plain`].
    ///
    /// # Errors
    /// Those of [`Streamer::prefer_plain`].
    pub fn prefer_plain(&mut self, plain: bool) -> Result<Applied, trt_stream::Error> {
        let moves = Moves::all_if(self.weights().layout().prefers_plain() != plain);
        self.change(moves, |held| held.streamer.prefer_plain(plain))
    }

    /// Ends a trial of budgets: its states go, and the budget before it is restored, and whether
    /// weights turn plain.
    ///
    /// # Errors
    /// Those of [`Streamer::restore`].
    pub fn end_trial(
        &mut self,
        states: Vec<Slice>,
        before: &Applied,
        plain: bool,
    ) -> Result<Applied, trt_stream::Error> {
        self.change(Moves::Everything, |held| {
            drop(states);
            held.streamer.restore(before)?;
            held.streamer.prefer_plain(plain)
        })
    }

    /// Changes to another allocation; work on `stream` has ended.
    ///
    /// # Errors
    /// If there is no memory for it; then the one before is in force.
    pub fn enter(&mut self, allocation: Allocation, stream: Stream) -> Result<(), Error> {
        self.change(Moves::Everything, |held| {
            held.membership.enter(allocation, stream)
        })
    }

    /// Goes back to an allocation that was in force; work on `stream` has ended.
    pub fn go_back(&mut self, allocation: Allocation, stream: Stream) {
        self.change(Moves::Everything, |held| {
            held.membership.restore(allocation, stream);
        });
    }

    /// Lets go of the states of a session.
    pub fn release(&mut self, states: Vec<Slice>) {
        let places: Vec<u64> = states.iter().map(Slice::address).collect();
        self.change(Moves::Only(&places), |_| drop(states));
    }

    /// Recovers after a call that failed: works that were submitted are waited for, and what cannot
    /// be trusted is loaded again. What was recorded may read rows where they were before the
    /// error.
    pub fn recover(&mut self) {
        let errors = self.change(Moves::Everything, |held| held.streamer.reset());
        // They are those of the call.
        for error in errors {
            tracing::debug!("while recovering: {error}");
        }
    }

    /// Where weights are.
    pub fn weights(&self) -> &Streamer {
        &self.held.streamer
    }

    /// How arenas are held.
    pub fn membership(&self) -> &Membership {
        &self.held.membership
    }

    /// How it gave way to others so far.
    pub fn pressure(&self) -> Pressure {
        self.pressure
    }

    /// Notes that it gave way.
    pub fn note_shrink(&mut self, shrink: Shrink) {
        self.pressure.shrinks += 1;
        self.pressure.last = Some(shrink);
    }

    /// Recorded calls, which only a change forgets.
    pub fn recorded(&self) -> &Recorded {
        &self.recorded
    }

    /// Recorded calls, to look for one or to keep one.
    pub fn recorded_mut(&mut self) -> &mut Recorded {
        &mut self.recorded
    }

    /// The number that stands for where the weights of a program lie; see [`Streamer::settled`].
    ///
    /// # Errors
    /// Those of [`Streamer::settled`].
    pub fn settled(&mut self, program: ProgramId) -> Result<Option<u64>, trt_stream::Error> {
        self.held.streamer.settled(program)
    }

    /// A pass over the weights of a program, which moves nothing that is recorded.
    ///
    /// # Errors
    /// Those of [`Streamer::begin`].
    pub fn begin(&mut self, program: ProgramId) -> Result<Pass<'_>, trt_stream::Error> {
        self.held.streamer.begin(program)
    }

    /// An arena for a call whose work goes to `stream`.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn lend(&mut self, bytes: u64, stream: Stream) -> Result<ArenaGuard, Error> {
        self.held.membership.begin(bytes, stream)
    }

    /// Where everything lies in the arena of one call of a program, which is the `index`th.
    ///
    /// # Errors
    /// If the plan fails its check.
    pub fn layout(
        &mut self,
        index: usize,
        program: &Compiled,
        env: &Env,
    ) -> Result<Arc<ArenaLayout>, Error> {
        self.layouts.get(index, &program.shape, env)
    }
}
