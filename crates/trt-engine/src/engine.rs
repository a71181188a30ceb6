//! A compiled model on a device: programs, weights, memory.
//!
//! Calls of all sessions take turns: whoever runs holds the `Run` lock, which owns the streamer.
//! Budget changes take the same lock, so they fall between two calls.

use crate::contents::{Contract, constants, streamed};
use crate::limits::{DeviceNeeds, Watch};
use crate::memory::{ArenaLayout, ArenaShape, Layouts};
use crate::neighbours;
use crate::planning::{Newcomer, Planning};
use crate::predict::Known;
use crate::pressure::Pressure;
use crate::recorded::Recorded;
use crate::report::{CompileReport, MemoryReport};
use crate::seat::Seat;
use crate::{Allocation, Error, Profile, Request, Session, TileTarget, Traffic, Weights};
use candle_core::DType;
use parking_lot::{FairMutex, FairMutexGuard};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use trt_alloc::{Lease, Pool, Purpose, Reservation};
use trt_device::{Device, Executable, OwnedStream};
use trt_graph::program::{BufferId, ParamId, Program};
use trt_kernel::{Role, Var};
use trt_stream::{Config, Demand, Rates, Streamer, Use, WeightId};

/// How an argument of a launch is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArgUse {
    /// A buffer.
    Buffer(BufferId),
    /// A weight, where weights of this role are.
    Weight(ParamId, Role),
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
    /// The weight that each parameter of the program is.
    pub weights: Vec<WeightId>,
    /// For each launch, its arguments.
    pub uses: Vec<Vec<ArgUse>>,
}

/// What a compiler hands over.
pub(crate) struct Parts {
    pub device: Arc<dyn Device>,
    pub files: Arc<Weights>,
    pub contract: Contract,
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
    /// What the device will hold at least, within all limits.
    pub needs: DeviceNeeds,
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
    pub compute: OwnedStream,
    report: CompileReport,
    pub streaming: bool,
    mapped_tables: u64,
    /// What the pool counts for the code of its kernels.
    code: Reservation,
    /// Bytes of the states of one session.
    pub state_bytes: u64,
    /// Bytes of the arena of the largest call.
    pub arena: u64,
    /// What memory for weights gains.
    pub demand: Demand,
    /// Whether the last budget that was asked for was [`Request::Automatic`].
    pub automatic: AtomicBool,
    /// Calls of its sessions since it was made.
    pub calls: AtomicU64,
    /// Fair, since a change of the budget waits for its turn among calls that come without a pause.
    run: FairMutex<Run>,
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
    pub pressure: Pressure,
}

impl Engine {
    pub(crate) fn new(parts: Parts, watch: Watch) -> Result<Engine, Error> {
        let Parts {
            device,
            files,
            contract,
            dtype,
            profile,
            programs,
            mut report,
            streaming,
            budget,
            limit,
            compile_limit,
            needs,
            tile_target,
            replay,
            allocation,
        } = parts;
        let pool = Pool::new(device.clone(), compile_limit.unwrap_or(u64::MAX));
        let code = pool.reserve(needs.code, Purpose::Code)?;
        let compute = OwnedStream::new(&device, "compute")?;
        let mapped_tables = contract.mapped_tables()?;
        // An automatic budget follows a limit once the engine is made: start with the least.
        let request = match (limit, budget) {
            (Some(_), Request::Automatic) => Request::Minimum,
            _ => budget,
        };
        let mut config = Config {
            pool: pool.clone(),
            files,
            weights: contract.weights,
            compute: compute.id(),
            programs: contract.uses,
            tile_target,
            request,
            free: 0,
        };
        let demand = config.demand(1.)?;
        let automatic = streaming && limit.is_none() && request == Request::Automatic;
        let newcomer = match automatic {
            // Code is not among what is free any more.
            true => Newcomer::Automatic(&demand, needs.beside_weights() - needs.code),
            false => Newcomer::Fixed(needs.total() - needs.code),
        };
        // To the end: then others see what this engine has and will need.
        let planning = Planning::on(&device);
        let room = planning.make_room(newcomer);
        let within =
            compile_limit.map_or(u64::MAX, |most| most.saturating_sub(needs.beside_weights()));
        let constants = constants(&pool, compute.id(), &programs)?;
        let seat = Seat::new(allocation, &pool, needs.activations)?;
        config.free = room.min(within);
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
            code,
            state_bytes: needs.states,
            arena: needs.activations,
            demand,
            automatic: AtomicBool::new(automatic),
            calls: AtomicU64::new(0),
            run: FairMutex::new(Run {
                streamer,
                recorded: Recorded::new(replay),
                layouts: Layouts::default(),
                seat,
                pressure: Pressure::default(),
            }),
            known: Mutex::new(None),
        }));
        neighbours::enter(&engine.0);
        match limit {
            Some(bytes) if budget == Request::Automatic => {
                engine.limit_to(bytes, true).map(|_| ())?;
            }
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

    /// Measures how fast weights come to the device and are read there; takes up to a second and
    /// two gigabytes of the device for as long.
    pub fn measure_rates(&self) -> Result<Rates, Error> {
        let run = self.run();
        Ok(Rates::measure(&self.0.pool, run.streamer.files())?)
    }

    /// Bytes of the device in use, by purpose, and the high-water mark.
    pub fn memory(&self) -> MemoryReport {
        let pool = &self.0.pool;
        let of = |p: Purpose| pool.in_use_by(p);
        let run = self.run();
        MemoryReport {
            total_weights: run.streamer.total(),
            budget: run.streamer.applied().map_or(0, |a| a.applied),
            budget_changes: run.streamer.changes(),
            pressure: run.pressure,
            mapped_tables: self.0.mapped_tables,
            weights: of(Purpose::Weights) + of(Purpose::Ring),
            activations: of(Purpose::Activations) + of(Purpose::Io) + of(Purpose::Scratch),
            constants: of(Purpose::Constants),
            code: self.0.code.bytes(),
            states: of(Purpose::States),
            states_per_session: self.0.state_bytes,
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

    pub(crate) fn run(&self) -> FairMutexGuard<'_, Run> {
        self.0.run()
    }
}

impl Inner {
    pub fn run(&self) -> FairMutexGuard<'_, Run> {
        // A call that panicked left the streamer between two works; its pass reset the ring.
        self.run.lock()
    }
}

impl Compiled {
    /// What it reads by rows, in launch order.
    pub fn streamed(&self) -> Vec<Use> {
        streamed(&self.program, &self.weights)
    }
}
