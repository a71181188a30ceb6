//! The budget of one engine: bytes of its weights on the device, and the limit of everything.

use crate::engine::{Inner, Run};
use crate::guard::WeightStreaming;
use crate::neighbours;
use crate::planning::Planning;
use crate::seat::Seat;
use crate::{Applied, Engine, Error, Request};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use trt_alloc::Purpose;

impl Engine {
    /// The scope of a budget: what is set through the guard is undone when it is dropped.
    pub fn weight_streaming(&self) -> Result<WeightStreaming<'_>, Error> {
        WeightStreaming::new(self)
    }

    /// The budget in force: bytes of weights on the device, resident plus ring.
    pub fn device_budget(&self) -> Result<Applied, Error> {
        Ok(self.run().streamer.applied()?)
    }

    /// Sets the budget from the next call on. Sessions keep their states. Anything up to the
    /// total is kept exactly; more is clamped, and the reply says so; less than the floor is an
    /// error and changes nothing; 0 is the floor. What the device has no memory for is an error
    /// too, but for [`Request::Automatic`], which is what there is: engines on one device whose
    /// last request it was share what is free, and those that have more than their share shrink
    /// to it first, after their running calls.
    pub fn set_device_budget(&self, request: Request) -> Result<Applied, Error> {
        self.require_streaming()?;
        if request == Request::Automatic {
            let planning = Planning::on(&self.0.device);
            planning.make_way(&self.0);
            let mut run = self.run();
            let room = self.0.automatic_room(&run);
            return self.0.apply(&mut run, request, room);
        }
        self.0.apply(&mut self.run(), request, 0)
    }

    /// Grows the budget towards what was asked for last, as far as the device has memory now beside
    /// what calls will take: after [memory pressure](crate::Pressure), when others have given
    /// memory back. It never becomes smaller.
    pub fn regrow(&self) -> Result<Applied, Error> {
        self.require_streaming()?;
        let planning = Planning::on(&self.0.device);
        let automatic = self.0.automatic.load(Ordering::Relaxed);
        if automatic {
            planning.make_way(&self.0);
        }
        let mut run = self.run();
        let free = match automatic {
            true => self.0.automatic_room(&run),
            false => {
                let all = neighbours::all_room(&self.0.device, std::slice::from_ref(&self.0));
                all.min(self.0.within_limit(&run.seat))
            }
        };
        let changes = run.streamer.changes();
        let applied = run.streamer.regrow(free);
        run.forget_if_moved(changes);
        let applied = applied?;
        tracing::info!(budget = applied.applied, "weights regrow");
        Ok(applied)
    }

    /// Bytes of all weights that a budget counts; 0 without streaming.
    pub fn total_device_budget(&self) -> u64 {
        if self.0.streaming {
            self.run().streamer.total()
        } else {
            0
        }
    }

    /// The smallest budget: pinned weights and the smallest ring.
    pub fn minimum_device_budget(&self) -> u64 {
        self.run().streamer.floor()
    }

    /// The budget that [`Request::Automatic`] gives now: this engine's part of the device memory
    /// that is free or held by weights of engines on automatic, beside activations and states that
    /// are planned but not held, and a 64th of the device's memory that is left alone.
    pub fn automatic_device_budget(&self) -> u64 {
        let room = self.0.automatic_room(&self.run());
        room.min(self.0.demand.total)
    }

    /// The most that the engine may hold on the device: weights, their ring, activations, scratch,
    /// constants, states and the code of kernels, which is a bound. What a GPU's driver holds by
    /// itself is not counted: on an H100 graphs took next to nothing, a stream 2 to 4 MB, page
    /// tables 2 MB for each GB of weight files that are locked (12 to 21 MB in all for a model of
    /// 0.3 GB, 40 MB for one of 16 GB).
    pub fn device_limit(&self) -> u64 {
        self.0.pool.limit()
    }

    /// Bounds what [`Engine::device_limit`] counts; the budget becomes what is left for weights beside
    /// activations, constants, code, and the states of the sessions that exist, or of one. Where the
    /// last budget that was asked for is [`Request::Automatic`], which is so where none was, it stays
    /// automatic and becomes the largest that fits: of what is left as much as the device has
    /// without others giving way. Any other becomes what is left, and what the device has no memory
    /// for is an error.
    pub fn set_device_limit(&self, limit: u64) -> Result<Applied, Error> {
        self.require_streaming()?;
        let automatic = self.0.automatic.load(Ordering::Relaxed);
        // From looking at what is free to taking it.
        let _planning = automatic.then(|| Planning::on(&self.0.device));
        self.limit_to(limit, automatic)
    }

    /// Sets the limit and the budget with it; whoever calls plans on the device.
    pub(crate) fn limit_to(&self, limit: u64, automatic: bool) -> Result<Applied, Error> {
        let mut run = self.run();
        let other = self.0.other_bytes(&run.seat);
        let (floor, left) = (run.streamer.floor(), limit.saturating_sub(other));
        if left < floor {
            return Err(Error::LimitTooSmall {
                limit,
                left,
                other,
                floor,
            });
        }
        let before = run.streamer.applied()?;
        let (request, free) = match automatic {
            true => {
                let room = neighbours::room_beside(&self.0, before.applied);
                (Request::Automatic, left.min(room).max(floor))
            }
            false => (Request::Bytes(left.min(run.streamer.total())), left),
        };
        // Room first where the limit grows, less to hold first where it shrinks.
        let pool = &self.0.pool;
        let old = pool.limit();
        pool.set_limit(old.max(limit))?;
        let mut applied = run.set_budget(request, free).map_err(Error::from);
        if applied.is_ok()
            && let Err(error) = pool.set_limit(limit)
        {
            applied = Err(error.into());
        }
        if applied.is_err() {
            run.restore(&before)?;
            pool.set_limit(old)?;
        }
        self.0.note(&run);
        applied
    }

    pub(crate) fn require_streaming(&self) -> Result<(), Error> {
        if self.0.streaming {
            Ok(())
        } else {
            Err(Error::NoStreaming)
        }
    }
}

impl Inner {
    /// Remembers what was asked for where others see it without waiting for a call.
    pub fn note(&self, run: &Run) {
        let automatic = run.streamer.requested() == Request::Automatic;
        self.automatic.store(automatic, Ordering::Relaxed);
    }

    /// What the device holds, or will hold with one session in its largest call, beside weights.
    fn other_bytes(&self, seat: &Seat) -> u64 {
        let usage = self.pool.usage();
        let of = |p: Purpose| usage.of(p);
        let states = of(Purpose::States).max(self.state_bytes);
        let activations = of(Purpose::Activations).max(seat.most());
        let rest = of(Purpose::Constants) + of(Purpose::Io) + of(Purpose::Scratch);
        states + activations + rest + of(Purpose::Code)
    }

    /// What [`Request::Automatic`] means now: the engine's share of what is free or held by weights
    /// of engines on automatic, within its limit.
    pub fn automatic_room(self: &Arc<Self>, run: &Run) -> u64 {
        let (share, _) = neighbours::joint(self);
        share.min(self.within_limit(&run.seat))
    }

    /// The largest budget that no other engine on the device has to give way for, within the
    /// limit. `in_force` is the budget that the engine has, or will have back.
    pub fn largest_budget(self: &Arc<Self>, run: &Run, in_force: u64) -> u64 {
        let limits = run.streamer.layout().limits();
        let room = neighbours::room_beside(self, in_force);
        let within = self.within_limit(&run.seat);
        room.min(within).clamp(limits.floor(), limits.total)
    }

    /// Changes the budget, and remembers what was asked for.
    pub fn apply(&self, run: &mut Run, request: Request, free: u64) -> Result<Applied, Error> {
        let applied = run.set_budget(request, free);
        self.note(run);
        Ok(applied?)
    }

    /// What the engine's limit leaves for weights.
    fn within_limit(&self, seat: &Seat) -> u64 {
        let limit = self.pool.limit();
        limit.saturating_sub(self.other_bytes(seat))
    }
}

impl Run {
    /// Changes the budget. What was recorded keeps the weights that it uses, so it goes first.
    pub fn set_budget(
        &mut self,
        request: Request,
        free: u64,
    ) -> Result<Applied, trt_stream::Error> {
        if self.streamer.would_move(request, free)? {
            self.recorded.forget(None);
        }
        self.streamer.set_budget(request, free)
    }

    /// Goes back to a budget that was in force, as far as the device has memory for it.
    pub fn restore(&mut self, before: &Applied) -> Result<Applied, trt_stream::Error> {
        if self.streamer.applied().ok().map(|a| a.applied) != Some(before.applied) {
            self.recorded.forget(None);
        }
        self.streamer.restore(before)
    }
}
