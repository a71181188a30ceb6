//! A compiled model on a device: programs, weights, memory.
//!
//! Calls of all sessions take turns: whoever runs holds the lock of the [`Run`], which owns the
//! streamer. Budget changes take the same lock, so they fall between two calls. What is beside the
//! lock never changes, or is a number that others on the device read without waiting for a call.

use super::change::{Membership, Run};
use super::program::{Compiled, Recipe};
use crate::error::Error;
use crate::report::{CompileReport, MemoryReport};
use candle_core::DType;
use parking_lot::{FairMutex, FairMutexGuard};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use trt_alloc::{Lease, Pool, Purpose, Reservation};
use trt_device::{Device, OwnedStream, Stream};
use trt_graph::Profile;
use trt_kernel::Env;
use trt_stream::{Costs, Demand, Rates, Streamer, Traffic};

/// A compiled model, which runs on one device. Clones are the same engine.
///
/// Its counterpart in Torch-TensorRT is the compiled module with its TensorRT engine and execution
/// context.
#[derive(Clone, Debug)]
pub struct Engine(Arc<Core>);

/// The costs of one kind of calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnownCosts {
    /// The class of calls.
    pub class: usize,
    pub costs: Costs,
}

/// What an engine is made of, on its device.
pub(crate) struct Parts {
    pub device: Arc<dyn Device>,
    pub pool: Pool,
    /// The dtype in which weights appear to the model.
    pub dtype: DType,
    pub profile: Profile,
    pub programs: Vec<Compiled>,
    /// How weights that its programs read are derived of others.
    pub recipes: Vec<Recipe>,
    /// For each program and buffer, the constant's memory.
    pub constants: Vec<Vec<Option<Arc<Lease>>>>,
    pub compute: OwnedStream,
    pub report: CompileReport,
    /// Whether weights may stream.
    pub streaming: bool,
    /// Bytes of tables that are only read through the mapping.
    pub mapped_tables: u64,
    /// What the pool counts for the code of its kernels.
    pub code: Reservation,
    /// Bytes of the states of one session.
    pub state_bytes: u64,
    /// Bytes of the arena of the largest call.
    pub arena: u64,
    /// What memory for weights gains.
    pub demand: Demand,
    /// Whether the budget is automatic.
    pub automatic: bool,
    pub streamer: Streamer,
    pub membership: Membership,
    pub replay: bool,
}

/// What all clones of an engine share.
#[derive(Debug)]
pub(crate) struct Core {
    device: Arc<dyn Device>,
    pool: Pool,
    dtype: DType,
    profile: Profile,
    programs: Vec<Compiled>,
    recipes: Vec<Recipe>,
    constants: Vec<Vec<Option<Arc<Lease>>>>,
    compute: OwnedStream,
    report: CompileReport,
    streaming: bool,
    mapped_tables: u64,
    code: Reservation,
    state_bytes: u64,
    arena: u64,
    /// Changes only with the form in which weights are faster.
    demand: Mutex<Demand>,
    /// Whether the last budget that was asked for was automatic.
    automatic: AtomicBool,
    /// Calls of its sessions since it was made.
    calls: AtomicU64,
    /// Fair, since a change of the budget waits for its turn among calls that come without a pause.
    run: FairMutex<Run>,
    /// What calls cost, once it was measured.
    known: Mutex<Option<KnownCosts>>,
}

impl Engine {
    pub(crate) fn of(parts: Parts) -> Engine {
        Engine(Arc::new(Core {
            device: parts.device,
            pool: parts.pool,
            dtype: parts.dtype,
            profile: parts.profile,
            programs: parts.programs,
            recipes: parts.recipes,
            constants: parts.constants,
            compute: parts.compute,
            report: parts.report,
            streaming: parts.streaming,
            mapped_tables: parts.mapped_tables,
            code: parts.code,
            state_bytes: parts.state_bytes,
            arena: parts.arena,
            demand: Mutex::new(parts.demand),
            automatic: AtomicBool::new(parts.automatic),
            calls: AtomicU64::new(0),
            run: FairMutex::new(Run::new(parts.streamer, parts.membership, parts.replay)),
            known: Mutex::new(None),
        }))
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
    ///
    /// # Errors
    /// If the device fails or has no memory to measure with, or a file of weights was cut.
    pub fn measure_rates(&self) -> Result<Rates, Error> {
        let run = self.run();
        Ok(Rates::measure(&self.0.pool, run.weights().files())?)
    }

    /// Bytes of the device in use, by purpose, and the high-water mark.
    pub fn memory(&self) -> MemoryReport {
        let pool = &self.0.pool;
        let of = |p: Purpose| pool.in_use_by(p);
        let run = self.run();
        MemoryReport {
            total_weights: run.weights().total(),
            budget: run.weights().applied().map_or(0, |a| a.applied),
            budget_changes: run.weights().changes(),
            pressure: run.pressure(),
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
        self.run().weights().last_pass()
    }

    /// Fetches since the engine was made.
    pub fn traffic(&self) -> Traffic {
        self.run().weights().traffic()
    }

    /// Whether calls that come again are recorded and replayed, from the next call on. On a GPU a
    /// replay is one launch of a CUDA graph.
    pub fn set_replay(&self, replay: bool) {
        self.run().recorded_mut().enable(replay);
    }

    /// Calls that were replayed since the engine was made.
    pub fn replayed_calls(&self) -> u64 {
        self.run().recorded().replayed()
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.0
    }

    pub(crate) fn run(&self) -> FairMutexGuard<'_, Run> {
        self.0.run()
    }

    /// Whether weights may stream, for what needs that.
    ///
    /// # Errors
    /// [`Error::NoStreaming`] if weights may not stream.
    pub(crate) fn require_streaming(&self) -> Result<(), Error> {
        match self.0.streaming {
            true => Ok(()),
            false => Err(Error::NoStreaming),
        }
    }

    /// The first class that has these integers and serves the call.
    ///
    /// # Errors
    /// [`Error::OutsideProfile`] if there is none.
    pub(crate) fn class_of(&self, ints: &[(&str, i64)]) -> Result<(usize, Env), Error> {
        for (index, class) in self.0.profile.classes.iter().enumerate() {
            let given = |name: &str| ints.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
            let has = |name: &str| class.ints.iter().any(|i| i.name == name);
            let values = class.ints.iter();
            let values: Vec<i64> = values
                .map(|i| given(&i.name).unwrap_or(i.range.min))
                .collect();
            if ints.iter().all(|(name, _)| has(name)) && class.accepts(&values) {
                let program = &self.0.programs[index].program;
                return Ok((index, program.env(&values)));
            }
        }
        let given: Vec<String> = ints.iter().map(|(n, v)| format!("{n}={v}")).collect();
        Err(Error::outside(given.join(" "), &self.0.profile))
    }
}

impl Core {
    /// The right to run, or to change what is where.
    pub fn run(&self) -> FairMutexGuard<'_, Run> {
        // A call that panicked left the streamer between two works; its pass reset the ring.
        self.run.lock()
    }

    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The dtype in which weights appear to the model.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// One for each class of the profile.
    pub fn programs(&self) -> &[Compiled] {
        &self.programs
    }

    /// How weights that its programs read are derived of others.
    pub fn recipes(&self) -> &[Recipe] {
        &self.recipes
    }

    /// The memory of a program's buffer that is a constant.
    pub fn constant(&self, program: usize, buffer: usize) -> Option<&Arc<Lease>> {
        self.constants.get(program)?.get(buffer)?.as_ref()
    }

    /// The stream of launches.
    pub fn compute(&self) -> Stream {
        self.compute.id()
    }

    /// Whether weights may stream.
    pub fn streaming(&self) -> bool {
        self.streaming
    }

    /// Bytes of the states of one session.
    pub fn state_bytes(&self) -> u64 {
        self.state_bytes
    }

    /// Bytes of the arena of the largest call.
    pub fn arena_bytes(&self) -> u64 {
        self.arena
    }

    /// What memory for weights gains.
    pub fn demand(&self) -> Demand {
        let demand = self.demand.lock();
        demand.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that it gains something else.
    pub fn set_demand(&self, demand: Demand) {
        *self.demand.lock().unwrap_or_else(PoisonError::into_inner) = demand;
    }

    /// Whether the last budget that was asked for was automatic.
    pub fn automatic(&self) -> bool {
        self.automatic.load(Ordering::Relaxed)
    }

    /// Notes that.
    pub fn set_automatic(&self, automatic: bool) {
        self.automatic.store(automatic, Ordering::Relaxed);
    }

    /// Calls of its sessions since it was made.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Counts a call of a session.
    pub fn count_call(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// What calls cost, if it was measured or told.
    pub fn known_costs(&self) -> Option<KnownCosts> {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what calls of a class cost.
    pub fn know_costs(&self, class: usize, costs: Costs) {
        let known = KnownCosts { class, costs };
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
    }
}
