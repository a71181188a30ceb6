//! What compiling may take, and what it took.
//!
//! Two checks come before the work that they are about: host memory is estimated from the weight
//! index and the profile before anything is traced, and what the device must hold is known
//! exactly, from the plan and the budget's floor, before a byte of it is asked for. What cannot be
//! estimated well is watched: compiling stops after the class of calls that exceeded the limit.

use crate::{Error, Profile, Request, Weights};
use std::fmt;
use trt_device::AnonPeak;
use trt_graph::Class;
use trt_stream::Limits;

/// The most memory that compiling and loading may take; see
/// [`Compiler::limits`](crate::Compiler::limits).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompileLimits {
    /// Bytes of anonymous host memory beyond what the process held before. On the host device
    /// this includes the memory that stands for a device's, once it is touched.
    pub host_bytes: Option<u64>,
    /// Bytes of device memory: weights, activations, constants, and the states of one session.
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
pub(crate) fn estimate(weights: &Weights, profile: &Profile) -> Result<u64, Error> {
    let count = weights.len() as u64;
    let mut largest = 0;
    for class in &profile.classes {
        let points = class.sample_points()?;
        let records = points.len() as u64 * count * RECORDS * PER_RECORD;
        let masks: u64 = points.iter().map(|p| mask(class, p)).sum();
        largest = largest.max(records + masks);
    }
    let programs = profile.classes.len() as u64 * count * PER_WEIGHT;
    Ok(BASE + largest + programs)
}

/// Bytes of the mask that a decoder makes for a call.
fn mask(class: &Class, point: &[i64]) -> u64 {
    let named = |name: &str| {
        let at = class.ints.iter().position(|i| i.name == name);
        at.and_then(|i| point.get(i)).copied()
    };
    let keys = |(past, seq): (i64, i64)| seq.saturating_mul(past.saturating_add(seq));
    let elements = named("past").zip(named("seq")).map_or(0, keys);
    u64::try_from(elements).unwrap_or(0)
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
    pub fn start(limit: Option<u64>, weights: &Weights, profile: &Profile) -> Result<Self, Error> {
        if let Some(limit) = limit {
            let needed = estimate(weights, profile)?;
            let parts = format!(
                "estimated for {} weights and {} classes of calls",
                weights.len(),
                profile.classes.len()
            );
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

    /// Whether the limit was kept so far.
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
}

impl DeviceNeeds {
    /// Bytes of weights for the first budget: the floor where it may shrink.
    pub fn weights(request: Request, limits: &Limits) -> Result<u64, Error> {
        let request = match request {
            Request::Automatic => Request::Minimum,
            other => other,
        };
        let granted = request.grant(limits.total, limits);
        Ok(granted.map_err(trt_stream::Error::from)?.bytes)
    }

    pub fn total(&self) -> u64 {
        self.weights + self.beside_weights()
    }

    pub fn beside_weights(&self) -> u64 {
        self.activations + self.constants + self.states
    }

    pub fn check(&self, limit: Option<u64>) -> Result<(), Error> {
        match limit {
            Some(limit) => check("device", self.total(), limit, self.to_string()),
            None => Ok(()),
        }
    }
}

impl fmt::Display for DeviceNeeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "weights {}, activations {}, constants {}, states of one session {}",
            self.weights, self.activations, self.constants, self.states
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
