//! A compiled model on a device: programs, weights, memory.
//!
//! Calls of all sessions take turns: whoever runs holds the `Run` lock, which owns the streamer.
//! Budget changes take the same lock, so they fall between two calls.

use crate::contents::{Roles, constant_bytes, constants, state_bytes};
use crate::guard::WeightStreaming;
use crate::limits::{DeviceNeeds, Watch};
use crate::memory::{ArenaLayout, ArenaShape, Layouts};
use crate::predict::Known;
use crate::recorded::Recorded;
use crate::report::{CompileReport, MemoryReport};
use crate::seat::Seat;
use crate::{Allocation, Applied, Error, Profile, Request, Session, TileTarget, Traffic, Weights};
use candle_core::DType;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use trt_alloc::{Lease, Pool, Purpose};
use trt_device::{Device, Executable, Stream};
use trt_graph::program::{BufferId, Program, State, WeightId as ProgramWeight};
use trt_kernel::Var;
use trt_stream::{Config, Rates, Streamer, WeightId};

/// How an argument of a launch is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WeightUse {
    /// A buffer.
    Buffer(BufferId),
    /// The streamed weight of this launch.
    Ranged,
    /// A gather table, through the mapping.
    Rows(ProgramWeight),
    /// A pinned weight.
    Whole(ProgramWeight),
}

/// The program of one class of calls, ready to run.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub class: trt_graph::Class,
    pub program: Program,
    pub executables: Vec<Executable>,
    /// The runtime integers that decide how its launches are made.
    pub shape_vars: Vec<Var>,
    /// What lives when in the arena of a call.
    pub shape: ArenaShape,
    /// The arena of the largest call.
    pub arena: Arc<ArenaLayout>,
    /// The program's weights in the weight index.
    pub weights: Vec<WeightId>,
    /// For each launch, its arguments.
    pub uses: Vec<Vec<WeightUse>>,
}

/// What a compiler hands over.
pub(crate) struct Parts {
    pub device: Arc<dyn Device>,
    pub weights: Arc<Weights>,
    /// The dtype in which weights appear to the model.
    pub dtype: DType,
    pub profile: Profile,
    pub programs: Vec<Compiled>,
    pub report: CompileReport,
    pub streaming: bool,
    pub budget: Request,
    pub limit: Option<u64>,
    /// What the device may hold until the engine is made.
    pub compile_limit: Option<u64>,
    pub tile_target: TileTarget,
    pub replay: bool,
    pub allocation: Allocation,
}

/// A compiled model. Clones are the same engine.
#[derive(Clone, Debug)]
pub struct Engine(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub device: Arc<dyn Device>,
    pub pool: Pool,
    pub dtype: DType,
    pub profile: Profile,
    pub programs: Vec<Compiled>,
    /// For each program and buffer, the constant's memory.
    pub constants: Vec<Vec<Option<Arc<Lease>>>>,
    pub compute: Stream,
    report: CompileReport,
    streaming: bool,
    mapped_tables: u64,
    run: Mutex<Run>,
    /// What calls cost, once it was measured.
    pub known: Mutex<Option<Known>>,
}

/// What one call at a time may use.
#[derive(Debug)]
pub(crate) struct Run {
    pub streamer: Streamer,
    pub recorded: Recorded,
    /// Layouts of calls whose arena is of their own size.
    pub layouts: Layouts,
    /// Dropped after what was recorded in its memory.
    pub seat: Seat,
}

impl Engine {
    pub(crate) fn new(parts: Parts, watch: Watch) -> Result<Engine, Error> {
        let Parts {
            device,
            weights,
            dtype,
            profile,
            programs,
            mut report,
            streaming,
            budget,
            limit,
            compile_limit,
            tile_target,
            replay,
            allocation,
        } = parts;
        let pool = Pool::new(device.clone(), compile_limit.unwrap_or(u64::MAX));
        let compute = device.stream("compute")?;
        let arena = programs.iter().map(|p| p.arena.bytes).max().unwrap_or(1);
        let roles = Roles::of(&programs);
        let mapped_only = roles
            .mapped
            .iter()
            .filter(|id| !roles.streamed.contains(id));
        let mapped_tables = mapped_only.map(|id| weights.info(*id).bytes() as u64).sum();
        // With a limit the first budget is only known once the floor is: start with the least.
        let request = if limit.is_some() {
            Request::Minimum
        } else {
            budget
        };
        let mut config = Config {
            pool: pool.clone(),
            weights,
            compute,
            programs: programs.iter().map(Compiled::streamed).collect(),
            whole: Vec::new(),
            pinned: roles.pinned.into_iter().collect(),
            mapped: roles.mapped.into_iter().collect(),
            tile_target,
            request,
            free: 0,
        };
        let needs = DeviceNeeds {
            weights: DeviceNeeds::weights(request, &config.limits())?,
            activations: arena,
            constants: constant_bytes(&programs),
            states: programs
                .first()
                .map_or(0, |p| state_bytes(&p.program.states)),
        };
        needs.check(compile_limit)?;
        let constants = constants(&pool, compute, &programs)?;
        let seat = Seat::new(allocation, &pool, arena)?;
        config.free = match compile_limit {
            Some(most) => {
                let room = most.min(device.info().total_memory);
                room.saturating_sub(needs.beside_weights())
            }
            None => {
                let held = pool.in_use() - pool.in_use_by(Purpose::Activations) + arena;
                device.info().total_memory.saturating_sub(held)
            }
        };
        let streamer = Streamer::new(config)?;
        pool.set_limit(u64::MAX)?;
        report.device_peak_bytes = pool.high_water();
        report.host_peak_bytes = watch.peak();
        watch.check("making the engine")?;
        let engine = Engine(Arc::new(Inner {
            device,
            pool,
            dtype,
            profile,
            programs,
            constants,
            compute,
            report,
            streaming,
            mapped_tables,
            run: Mutex::new(Run {
                streamer,
                recorded: Recorded::new(replay),
                layouts: Layouts::default(),
                seat,
            }),
            known: Mutex::new(None),
        }));
        match limit {
            Some(bytes) if streaming => engine.set_device_limit(bytes).map(|_| ())?,
            Some(bytes) => engine.0.pool.set_limit(bytes)?,
            None => {}
        }
        Ok(engine)
    }

    /// A new session with empty states.
    pub fn session(&self) -> Result<Session, Error> {
        Session::new(self.clone())
    }

    /// The device it runs on.
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.0.device
    }

    /// What compiling did.
    pub fn report(&self) -> &CompileReport {
        &self.0.report
    }

    /// The calls it serves.
    pub fn profile(&self) -> &Profile {
        &self.0.profile
    }

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
    /// error and changes nothing; 0 is the floor.
    pub fn set_device_budget(&self, request: Request) -> Result<Applied, Error> {
        self.require_streaming()?;
        let mut run = self.run();
        let free = self.free_for_weights(&run.seat);
        Ok(run.set_budget(request, free)?)
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

    /// The budget that [`Request::Automatic`] gives now: what is free beside everything else.
    pub fn automatic_device_budget(&self) -> u64 {
        let run = self.run();
        self.free_for_weights(&run.seat).min(run.streamer.total())
    }

    /// The most that the engine may hold on the device, everything included.
    pub fn device_limit(&self) -> u64 {
        self.0.pool.limit()
    }

    /// Bounds everything on the device; the budget becomes what is left for weights beside
    /// activations, constants, and the states of the sessions that exist, or of one.
    pub fn set_device_limit(&self, limit: u64) -> Result<Applied, Error> {
        self.require_streaming()?;
        let mut run = self.run();
        let other = self.other_bytes(&run.seat);
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
        let request = Request::Bytes(left.min(run.streamer.total()));
        // Room first where the limit grows, less to hold first where it shrinks.
        let pool = &self.0.pool;
        let old = pool.limit();
        pool.set_limit(old.max(limit))?;
        let applied = run.set_budget(request, left).and_then(|applied| {
            pool.set_limit(limit)?;
            Ok(applied)
        });
        if applied.is_err() {
            run.set_budget(Request::Bytes(before.applied), before.applied)?;
            pool.set_limit(old)?;
        }
        Ok(applied?)
    }

    /// Measures how fast weights come to the device and are read there; takes up to a second and
    /// two gigabytes of the device for as long.
    pub fn measure_rates(&self) -> Result<Rates, Error> {
        let run = self.run();
        Ok(Rates::measure(&self.0.pool, run.streamer.weights())?)
    }

    /// Bytes of the device in use, by purpose, and the high-water mark.
    pub fn memory(&self) -> MemoryReport {
        let pool = &self.0.pool;
        let of = |p: Purpose| pool.in_use_by(p);
        MemoryReport {
            total_weights: self.run().streamer.total(),
            mapped_tables: self.0.mapped_tables,
            weights: of(Purpose::Weights) + of(Purpose::Ring),
            activations: of(Purpose::Activations) + of(Purpose::Io) + of(Purpose::Scratch),
            constants: of(Purpose::Constants),
            states: of(Purpose::States),
            states_per_session: self.state_bytes(),
            in_use: pool.in_use(),
            high_water: pool.high_water(),
            limit: pool.limit(),
        }
    }

    /// Fetches of the last finished call.
    pub fn last_traffic(&self) -> Traffic {
        self.run().streamer.last_pass()
    }

    /// Fetches since the engine was made.
    pub fn traffic(&self) -> Traffic {
        self.run().streamer.traffic()
    }

    pub(crate) fn run(&self) -> MutexGuard<'_, Run> {
        // A call that panicked left the streamer between two works; its pass reset the ring.
        self.0.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn require_streaming(&self) -> Result<(), Error> {
        if self.0.streaming {
            Ok(())
        } else {
            Err(Error::NoStreaming)
        }
    }

    pub(crate) fn states(&self) -> &[State] {
        self.0.programs.first().map_or(&[], |p| &p.program.states)
    }

    fn state_bytes(&self) -> u64 {
        state_bytes(self.states())
    }

    /// What the device holds, or will hold with one session in its largest call, beside weights.
    fn other_bytes(&self, seat: &Seat) -> u64 {
        let usage = self.0.pool.usage();
        let of = |p: Purpose| usage.of(p);
        let states = of(Purpose::States).max(self.state_bytes());
        let activations = of(Purpose::Activations).max(seat.most());
        let rest = of(Purpose::Constants) + of(Purpose::Io) + of(Purpose::Scratch);
        states + activations + rest
    }

    pub(crate) fn free_for_weights(&self, seat: &Seat) -> u64 {
        let room = self.0.device.info().total_memory.min(self.0.pool.limit());
        room.saturating_sub(self.other_bytes(seat))
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
}

impl Compiled {
    /// The streamed weights in launch order.
    pub fn streamed(&self) -> Vec<WeightId> {
        self.program
            .ranged_uses()
            .map(|w| self.weights[w.0 as usize])
            .collect()
    }
}
