//! The budget of one engine: bytes of its weights on the device, and the limit of everything.

use super::neighbours;
use super::planning::Planning;
use crate::error::Error;
use crate::run::change::{Membership, Run};
use crate::run::engine::{Core, Engine};
use std::sync::Arc;
use trt_alloc::Purpose;
use trt_stream::{Applied, Request};

impl Engine {
    /// The budget in force: bytes of weights on the device, resident plus ring. In Torch-TensorRT
    /// it is the `device_budget` of `torch_tensorrt.runtime.weight_streaming(module)`.
    ///
    /// # Errors
    /// [`Error::Stream`] while the device has no memory for any budget.
    pub fn device_budget(&self) -> Result<Applied, Error> {
        Ok(self.run().weights().applied()?)
    }

    /// Sets the budget from the next call on, as setting `device_budget` does in Torch-TensorRT.
    /// Sessions keep their states. Anything up to the total is kept exactly; more is clamped, and the
    /// reply says so; less than the floor is an error and changes nothing; 0 is the floor. What the
    /// device has no memory for is an error too, but for [`Request::Automatic`], which is what there
    /// is: engines on one device whose last request it was share what is free, and those that have
    /// more than their share shrink to it first, after their running calls.
    ///
    /// # Errors
    /// [`Error::NoStreaming`] without weight streaming; [`Error::Stream`] for less than the floor, or for
    /// what the device has no memory for: then the budget is what it was.
    pub fn set_device_budget(&self, request: Request) -> Result<Applied, Error> {
        self.require_streaming()?;
        if request == Request::Automatic {
            let planning = Planning::on(self.core().device());
            planning.make_way(self.core());
            let mut run = self.run();
            let room = self.core().automatic_room(&run);
            return self.core().apply(&mut run, request, room);
        }
        self.core().apply(&mut self.run(), request, 0)
    }

    /// Grows the budget towards what was asked for last, as far as the device has memory now beside
    /// what calls will take: after [memory pressure](crate::Pressure), when others have given
    /// memory back. It never becomes smaller.
    ///
    /// # Errors
    /// [`Error::NoStreaming`] without weight streaming; [`Error::Stream`] if the device refuses what it
    /// seemed to have, or has no memory for the floor where no budget is in force.
    pub fn regrow(&self) -> Result<Applied, Error> {
        self.require_streaming()?;
        let planning = Planning::on(self.core().device());
        let automatic = self.core().automatic();
        if automatic {
            planning.make_way(self.core());
        }
        let mut run = self.run();
        let free = match automatic {
            true => self.core().automatic_room(&run),
            false => {
                let all =
                    neighbours::all_room(self.core().device(), std::slice::from_ref(self.core()));
                all.min(self.core().within_limit(run.membership()))
            }
        };
        let applied = run.regrow(free)?;
        tracing::info!(budget = applied.applied, "weights regrow");
        Ok(applied)
    }

    /// Bytes of all weights that a budget counts; 0 without streaming. In Torch-TensorRT it is
    /// `total_device_budget`.
    pub fn total_device_budget(&self) -> u64 {
        if self.core().streaming() {
            self.run().weights().total()
        } else {
            0
        }
    }

    /// The smallest budget: pinned weights and the smallest ring; what 0 means, as in Torch-TensorRT.
    pub fn minimum_device_budget(&self) -> u64 {
        self.run().weights().floor()
    }

    /// The budget that [`Request::Automatic`] gives now: this engine's part of the device memory
    /// that is free or held by weights of engines on automatic, beside activations and states that
    /// are planned but not held, and a 64th of the device's memory that is left alone. In
    /// Torch-TensorRT it is `get_automatic_weight_streaming_budget()`.
    pub fn automatic_device_budget(&self) -> u64 {
        let room = self.core().automatic_room(&self.run());
        room.min(self.core().demand().total)
    }

    /// The most that the engine may hold on the device: weights, their ring, activations, scratch,
    /// constants, states and the code of kernels, which is a bound. What a GPU's driver holds by
    /// itself is not counted: on an H100 graphs took next to nothing, a stream 2 to 4 MB, page
    /// tables 2 MB for each GB of weight files that are locked (12 to 21 MB in all for a model of
    /// 0.3 GB, 40 MB for one of 16 GB).
    pub fn device_limit(&self) -> u64 {
        self.core().pool().limit()
    }

    /// Bounds what [`Engine::device_limit`] counts; the budget becomes what is left for weights beside
    /// activations, constants, code, and the states of the sessions that exist, or of one. Where the
    /// last budget that was asked for is [`Request::Automatic`], which is so where none was, it stays
    /// automatic and becomes the largest that fits: of what is left as much as the device has
    /// without others giving way. Any other becomes what is left, and what the device has no memory
    /// for is an error.
    ///
    /// # Errors
    /// [`Error::NoStreaming`] without weight streaming; [`Error::LimitTooSmall`] if it leaves less than the
    /// floor; [`Error::Stream`] or [`Error::Memory`] if the device has no memory for the budget, or more is
    /// held than the limit. Then limit and budget are what they were.
    pub fn set_device_limit(&self, limit: u64) -> Result<Applied, Error> {
        self.require_streaming()?;
        let automatic = self.core().automatic();
        // From looking at what is free to taking it.
        let _planning = automatic.then(|| Planning::on(self.core().device()));
        self.limit_to(limit, automatic)
    }

    /// Sets the limit and the budget with it; whoever calls plans on the device.
    ///
    /// # Errors
    /// Those of [`Engine::set_device_limit`].
    pub(crate) fn limit_to(&self, limit: u64, automatic: bool) -> Result<Applied, Error> {
        let mut run = self.run();
        let other = self.core().other_bytes(run.membership());
        let (floor, left) = (run.weights().floor(), limit.saturating_sub(other));
        if left < floor {
            return Err(Error::LimitTooSmall {
                limit,
                left,
                other,
                floor,
            });
        }
        let before = run.weights().applied()?;
        let (request, free) = match automatic {
            true => {
                let room = neighbours::room_beside(self.core(), before.applied);
                (Request::Automatic, left.min(room).max(floor))
            }
            false => (Request::Bytes(left.min(run.weights().total())), left),
        };
        // Room first where the limit grows, less to hold first where it shrinks.
        let pool = self.core().pool();
        let old = pool.limit();
        pool.set_limit(old.max(limit))?;
        let mut applied = run.set_budget(request, free).map_err(Error::from);
        if applied.is_ok()
            && let Err(error) = pool.set_limit(limit)
        {
            applied = Err(error.into());
        }
        if applied.is_err() {
            // Both are tried, whichever fails; what could not be had back is what matters then.
            let restored = run.restore(&before).map(drop).map_err(Error::from);
            let limited = pool.set_limit(old).map_err(Error::from);
            if let Err(error) = restored.and(limited) {
                applied = Err(error);
            }
        }
        self.core().note(&run);
        applied
    }
}

impl Core {
    /// Remembers what was asked for where others see it without waiting for a call.
    pub fn note(&self, run: &Run) {
        let automatic = run.weights().requested() == Request::Automatic;
        self.set_automatic(automatic);
    }

    /// What the device holds, or will hold with one session in its largest call, beside weights.
    fn other_bytes(&self, member: &Membership) -> u64 {
        let usage = self.pool().usage();
        let of = |p: Purpose| usage.of(p);
        let states = of(Purpose::States).max(self.state_bytes());
        let activations = of(Purpose::Activations).max(member.most());
        let rest = of(Purpose::Constants) + of(Purpose::Io) + of(Purpose::Scratch);
        states + activations + rest + of(Purpose::Code)
    }

    /// What [`Request::Automatic`] means now: the engine's share of what is free or held by weights
    /// of engines on automatic, within its limit.
    pub fn automatic_room(self: &Arc<Self>, run: &Run) -> u64 {
        let (share, _) = neighbours::joint(self);
        share.min(self.within_limit(run.membership()))
    }

    /// The largest budget that no other engine on the device has to give way for, within the
    /// limit. `in_force` is the budget that the engine has, or will have back.
    pub fn largest_budget(self: &Arc<Self>, run: &Run, in_force: u64) -> u64 {
        let limits = run.weights().layout().limits();
        let room = neighbours::room_beside(self, in_force);
        let within = self.within_limit(run.membership());
        room.min(within).clamp(limits.floor(), limits.total)
    }

    /// Changes the budget, and remembers what was asked for.
    ///
    /// # Errors
    /// Those of [`Run::set_budget`].
    pub fn apply(&self, run: &mut Run, request: Request, free: u64) -> Result<Applied, Error> {
        let applied = run.set_budget(request, free);
        self.note(run);
        Ok(applied?)
    }

    /// What the engine's limit leaves for weights.
    fn within_limit(&self, member: &Membership) -> u64 {
        let limit = self.pool().limit();
        limit.saturating_sub(self.other_bytes(member))
    }
}
