//! PTX without a GPU: runs what the back end emits, and checks it while it runs.
//!
//! This is the living definition of the subset of PTX that the back end uses. An instruction,
//! modifier or operand that is not known here is an error, never a guess; so is every access
//! that a device would let pass or that would only sometimes go wrong: outside of an argument,
//! misaligned, to read-only memory, of a register or shared byte that nothing wrote, of bytes
//! that an asynchronous copy is still to bring, or not ordered after another thread's access
//! ([`race`]). [`EmuError`] says which line, block and thread.
//!
//! How a block runs: lanes of a warp that stand at the lowest instruction go together ([`warp`]),
//! warps take turns in a fixed order or one drawn from a seed ([`block`]). Asynchronous copies
//! and products are done when they start; until they are waited for, what they write may not be
//! touched and what they read may not be overwritten.
//!
//! What it does not model: the rounding of approximate functions (it is exact), the order of
//! sums inside of a tensor core's product (it rounds once), a product and sum without `.rn` that
//! the driver makes one instruction, caches, time.
#![allow(dead_code, reason = "each test binary uses its own part")]

mod block;
mod bulk;
mod convert;
mod decode;
mod device;
mod double;
mod engine;
mod error;
mod exec;
mod float;
mod half;
mod inst;
mod lanes;
mod memory;
mod names;
mod ops;
mod order;
mod race;
pub mod raw;
mod reaches;
mod registers;
mod scopes;
mod tensor;
mod text;
mod tokens;
mod warp;
mod wgmma;

pub use error::{EmuError, Why};

use crate::reference::Buffer;
use device::Device;
use std::ops::Range;
use trt_kernel::ptx::Emitted;
use trt_kernel::{Arg, Env};

/// The weight rows of a ranged launch, where they lie in tiles of `step` rows.
#[derive(Clone, Debug)]
pub struct Tiles {
    /// The argument whose rows these are.
    pub weight: Arg,
    pub rows: Range<usize>,
    pub step: usize,
    pub bytes: Vec<Vec<u8>>,
}

/// What a launch is given besides its arguments.
#[derive(Clone, Debug, Default)]
pub struct Call {
    pub env: Env,
    /// The arguments that may be written.
    pub written: Vec<Arg>,
    /// For each ranged weight, in order.
    pub tiles: Vec<Tiles>,
    /// Arguments that lie where another one does.
    pub shared: Vec<(Arg, Arg)>,
    /// An argument that lies this many bytes after a multiple of 256, as a table in a file may.
    pub skew: Option<(Arg, u64)>,
    /// The order in which blocks and warps take turns; 0 is one after another.
    pub seed: u64,
}

/// The fault record after a call: a mark, an id, a row, of how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fault(pub [i64; 4]);

/// What a call did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    pub fault: Fault,
    /// Instructions, counted by warp.
    pub instructions: u64,
    /// Atomics on global memory, counted by thread.
    pub atomics: u64,
}

/// Runs a kernel as a device would.
pub fn run(emitted: &Emitted, call: &Call, args: &mut [Buffer]) -> Result<Done, EmuError> {
    let module = text::parse(&emitted.text).map_err(|e| e.with_source(&emitted.text))?;
    if module.target != emitted.target.name() {
        let what = format!(
            "text for {} where {} is meant",
            module.target, emitted.target
        );
        return Err(EmuError::text(0, Why::Text(what)));
    }
    let mut device = Device::new(emitted, call, args);
    for launch in &emitted.launches {
        if !launch.when.iter().all(|w| w.holds(&call.env)) {
            continue;
        }
        let program = decode::program(&module, &launch.entry);
        let run = program.and_then(|p| device.launch(emitted, launch, &p, call));
        run.map_err(|e| e.with_source(&emitted.text))?;
    }
    Ok(device.finish(args, call))
}
