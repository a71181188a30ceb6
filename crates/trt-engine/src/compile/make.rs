//! From programs that are loaded to an engine: its memory is planned with the others of its device,
//! taken, and what it will need is made known to them.

use super::contents::{Contract, constants};
use super::limits::{DeviceNeeds, Watch};
use crate::budget::neighbours;
use crate::budget::planning::{Newcomer, Planning};
use crate::error::Error;
use crate::report::CompileReport;
use crate::run::change::Membership;
use crate::run::engine::{Engine, Parts};
use crate::run::program::{Compiled, Recipe};
use candle_core::DType;
use std::sync::Arc;
use trt_alloc::{Allocation, Pool, Purpose};
use trt_device::{Device, OwnedStream};
use trt_graph::Profile;
use trt_stream::{Config, Request, Streamer, TileTarget, Weights};

/// What a compiler hands over.
pub(super) struct Prepared {
    pub device: Arc<dyn Device>,
    pub files: Arc<Weights>,
    pub contract: Contract,
    /// The dtype in which weights appear to the model.
    pub dtype: DType,
    pub profile: Profile,
    pub programs: Vec<Compiled>,
    pub recipes: Vec<Recipe>,
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

/// Makes the engine.
///
/// # Errors
/// If the device fails or has no memory for it, or a limit cannot be kept.
pub(super) fn make(prepared: Prepared, watch: Watch) -> Result<Engine, Error> {
    let Prepared {
        device,
        files,
        contract,
        dtype,
        profile,
        programs,
        recipes,
        mut report,
        streaming,
        budget,
        limit,
        compile_limit,
        needs,
        tile_target,
        replay,
        allocation,
    } = prepared;
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
        turning: contract.turning,
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
    let within = compile_limit.map_or(u64::MAX, |most| most.saturating_sub(needs.beside_weights()));
    let constants = constants(&pool, compute.id(), &programs)?;
    let membership = Membership::new(allocation, &pool, needs.activations)?;
    config.free = room.min(within);
    let streamer = Streamer::new(config)?;
    pool.set_limit(u64::MAX)?;
    report.device_peak_bytes = pool.high_water();
    report.host_peak_bytes = watch.peak();
    watch.check("making the engine")?;
    let engine = Engine::of(Parts {
        device,
        pool,
        dtype,
        profile,
        programs,
        recipes,
        constants,
        compute,
        report,
        streaming,
        mapped_tables,
        code,
        state_bytes: needs.states,
        arena: needs.activations,
        demand,
        automatic,
        streamer,
        membership,
        replay,
    });
    neighbours::enter(engine.core());
    match limit {
        Some(bytes) if budget == Request::Automatic => {
            engine.limit_to(bytes, true).map(|_| ())?;
        }
        Some(bytes) => engine.core().pool().set_limit(bytes)?,
        None => {}
    }
    Ok(engine)
}
