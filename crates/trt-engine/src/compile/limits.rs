//! What compiling may take, and what it took.
//!
//! Checks come before the work that they are about. Host memory is estimated before anything is
//! traced, from the weight index and the profile, or before a saved engine is read, from its length.
//! What the device must hold at least is known once programs are lowered, before a kernel is loaded;
//! exactly once the kernels have told what working memory they need, before a stream is made or a
//! byte of memory is asked for. What cannot be estimated well is watched: compiling stops after the
//! class of calls that exceeded the limit.

use super::contents::{Contract, constant_bytes};
use super::ready::HasProgram;
use crate::error::Error;
use crate::run::states;
use std::fmt;
use trt_device::{AnonPeak, Residency};
use trt_graph::{Class, Profile};
use trt_stream::{Request, TileTarget, Weights};

/// The most memory that compiling and loading may take; see
/// [`Compiler::limits`](crate::Compiler::limits). Torch-TensorRT bounds the host's memory with
/// `cpu_memory_budget` and `enable_resource_partitioning`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompileLimits {
    /// Bytes of anonymous host memory beyond what the process held before. On the host device
    /// this includes the memory that stands for a device's, once it is touched.
    pub host_bytes: Option<u64>,
    /// Bytes of device memory: weights, activations of the largest call, constants, the states of one
    /// session, and the code of kernels. Of the weights [`Request::Automatic`] counts its floor, since it takes what
    /// the limit leaves; any other budget counts in full, and so do all weights where they are
    /// not streamed. What a driver takes by itself is not counted.
    pub device_bytes: Option<u64>,
}

// Fitted to measured peaks of Llama-family models, which they meet within a fifth.

/// Bytes that compiling takes whatever is compiled.
const BASE: u64 = 4 << 20;
/// Bytes of a recorded tensor at one sample point: name, shape, operands.
const PER_RECORD: u64 = 320;
/// Recorded tensors for each weight of a model.
const RECORDS: u64 = 12;
/// Bytes for each weight in the finished program.
const PER_WEIGHT: u64 = 8 << 10;

/// About how many bytes of anonymous host memory compiling takes: records of the model at each
/// sample point of the largest class, masks of the sampled lengths, and the program.
///
/// # Errors
/// [`Error::Graph`] for a class that has no sample points.
pub(crate) fn estimate(weights: &Weights, profile: &Profile) -> Result<u64, Error> {
    let count = weights.len() as u64;
    let mut largest = 0;
    for class in &profile.classes {
        let points = class.sample_points()?;
        let records = points.len() as u64 * count * RECORDS * PER_RECORD;
        let masks = points.iter().map(|p| mask(class, p));
        let walked = records.saturating_add(class.walked_bytes());
        largest = largest.max(masks.fold(walked, u64::saturating_add));
    }
    let programs = profile.classes.len() as u64 * count * PER_WEIGHT;
    Ok(largest.saturating_add(BASE + programs))
}

/// Bytes of the mask that a decoder makes for a call.
fn mask(class: &Class, point: &[i64]) -> u64 {
    let both = class.positions().and_then(|p| p.in_call(point));
    let keys = |(past, seq): (i64, i64)| seq.saturating_mul(past.saturating_add(seq));
    let elements = both.map_or(0, keys);
    u64::try_from(elements).unwrap_or(0)
}

/// What is needed of the host, and what for.
pub(crate) type Estimate = (u64, String);

/// What compiling needs of the host.
///
/// # Errors
/// Those of [`estimate`].
pub(crate) fn compiling(weights: &Weights, profile: &Profile) -> Result<Estimate, Error> {
    let (count, classes) = (weights.len(), profile.classes.len());
    let parts = format!("estimated for {count} weights and {classes} classes of calls");
    Ok((estimate(weights, profile)?, parts))
}

/// What loading a saved engine of so many bytes needs of the host: the bytes, and at least as many
/// for the programs that they are.
///
/// # Errors
/// None: it is asked for as [`compiling`] is.
pub(crate) fn loading(bytes: u64) -> Result<Estimate, Error> {
    let parts = format!("estimated for a saved engine of {bytes} bytes");
    Ok((bytes.saturating_mul(2), parts))
}

/// Watches what compiling takes of the host.
pub(crate) struct Watch {
    limit: Option<u64>,
    /// Nothing on systems that do not tell.
    anon: Option<AnonPeak>,
    before: u64,
}

impl Watch {
    /// Checks the estimate, and starts to measure.
    ///
    /// # Errors
    /// [`Error::CompileLimit`] if the estimate is above the limit; those of the estimate.
    pub fn start(
        limit: Option<u64>,
        estimate: impl FnOnce() -> Result<Estimate, Error>,
    ) -> Result<Self, Error> {
        if let Some(limit) = limit {
            let (needed, parts) = estimate()?;
            check("host", needed, limit, parts)?;
        }
        let anon = AnonPeak::start().ok();
        let before = anon.as_ref().map_or(0, AnonPeak::peak);
        Ok(Watch {
            limit,
            anon,
            before,
        })
    }

    /// Bytes that were held at most since the start, where the system tells.
    pub fn peak(&self) -> Option<u64> {
        let anon = self.anon.as_ref()?;
        Some(anon.peak().saturating_sub(self.before))
    }

    /// Checks what a step is known to take before it begins.
    ///
    /// # Errors
    /// [`Error::CompileLimit`] if it is above the limit.
    pub fn expect(&self, bytes: u64, step: &str) -> Result<(), Error> {
        match self.limit {
            Some(limit) => check("host", bytes, limit, format!("estimated for {step}")),
            None => Ok(()),
        }
    }

    /// Whether the limit was kept so far.
    ///
    /// # Errors
    /// [`Error::CompileLimit`] if it was not.
    pub fn check(&self, after: &str) -> Result<(), Error> {
        match (self.limit, self.peak()) {
            (Some(limit), Some(peak)) => {
                check("host", peak, limit, format!("measured after {after}"))
            }
            _ => Ok(()),
        }
    }
}

/// What an engine needs of its device to run at all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceNeeds {
    pub weights: u64,
    pub activations: u64,
    pub constants: u64,
    pub states: u64,
    /// Known, and on the device, once kernels are loaded.
    pub code: u64,
}

impl DeviceNeeds {
    /// What programs need whose largest arena has so many bytes.
    ///
    /// # Errors
    /// If the budget is below its floor, or weights cannot be streamed.
    pub fn of<P: HasProgram>(
        programs: &[P],
        contract: &Contract,
        arena: u64,
        residency: Residency,
        tile_target: TileTarget,
        request: Request,
    ) -> Result<DeviceNeeds, Error> {
        let uses = trt_stream::Uses {
            weights: &contract.weights,
            programs: &contract.uses,
            turning: &contract.turning,
            residency,
            tile_target,
        };
        // Automatic may shrink to the floor.
        let request = match request {
            Request::Automatic => Request::Minimum,
            other => other,
        };
        let limits = uses.limits()?;
        let granted = request.grant(limits.total, &limits);
        let states = programs.first().map(|p| &p.program().states[..]);
        Ok(DeviceNeeds {
            weights: granted.map_err(trt_stream::Error::from)?.bytes,
            activations: arena,
            constants: constant_bytes(programs),
            states: states.map_or(0, states::bytes),
            code: 0,
        })
    }

    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.beside_weights())
    }

    pub fn beside_weights(&self) -> u64 {
        let parts = [self.constants, self.states, self.code];
        parts
            .into_iter()
            .fold(self.activations, u64::saturating_add)
    }

    /// Whether it can be within the limit of compiling, where the arena may turn out larger.
    ///
    /// # Errors
    /// [`Error::CompileLimit`] if it cannot.
    pub fn check_least(&self, limit: Option<u64>) -> Result<(), Error> {
        match limit {
            Some(limit) => check("device", self.total(), limit, format!("at least {self}")),
            None => Ok(()),
        }
    }

    /// Whether it is within the limit of compiling.
    ///
    /// # Errors
    /// [`Error::CompileLimit`] if it is not.
    pub fn check(&self, limit: Option<u64>) -> Result<(), Error> {
        match limit {
            Some(limit) => check("device", self.total(), limit, self.to_string()),
            None => Ok(()),
        }
    }

    /// Whether the first budget is within the engine's own limit.
    ///
    /// # Errors
    /// [`Error::LimitBelowBudget`] if it is not.
    pub fn check_budget(&self, limit: Option<u64>) -> Result<(), Error> {
        match limit {
            Some(limit) if self.total() > limit => Err(Error::LimitBelowBudget {
                limit,
                budget: self.weights,
                other: self.beside_weights(),
                short: self.total() - limit,
            }),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for DeviceNeeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "weights {}, activations {}, constants {}, states of one session {}, code {}",
            self.weights, self.activations, self.constants, self.states, self.code
        )
    }
}

fn check(memory: &'static str, needed: u64, limit: u64, parts: String) -> Result<(), Error> {
    match needed.checked_sub(limit) {
        None | Some(0) => Ok(()),
        Some(short) => Err(Error::CompileLimit {
            memory,
            needed,
            limit,
            short,
            parts,
        }),
    }
}
