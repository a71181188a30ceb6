//! The back end for NVIDIA GPUs: kernels as PTX text, with how to launch them as data.
//!
//! [`emit`] turns a [`Kernel`] into a module of one or more entries and the list of
//! [launches](crate::launch) that run it. Nothing here talks to a driver: the text is assembled
//! elsewhere, and whoever launches it follows [`Emitted::params`] and [`Emitted::launches`].
//!
//! All entries of a module take the same parameters. The runtime integers of a call are read
//! from device memory ([`Param::Env`](crate::launch::Param::Env)), so what is launched for a call
//! depends on them only through grids and conditions; where those stay the same, a recorded launch
//! can be replayed.
//!
//! The row-range law holds here as on the host: which entry runs depends on the whole sizes of
//! a call, never on the range of weight rows, and each output is computed by the same
//! instructions in the same order wherever its row lies.

mod access;
mod asm;
mod attention;
mod block;
mod divide;
mod emitted;
mod encoded;
mod fold;
mod functions;
mod gather;
mod group;
mod lanes;
mod limits;
mod math;
mod matmul;
mod moves;
mod packed;
mod pick;
mod pull;
mod reduce;
mod row;
mod scope;
mod space;

pub use emitted::{Emitted, MAP_BYTES, MAP_RANGES, MapParam, Mapped, Target, TensorMap};
pub use pull::{Pull, pull};

use crate::Kernel;

/// Why no text was emitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PtxError {
    /// The kernel breaks its own rules.
    #[error(transparent)]
    Kernel(#[from] crate::KernelError),
    /// The kernel is valid, but there is no template for it.
    #[error("no PTX for this {kernel} kernel: {what}")]
    Unsupported {
        /// The kernel kind.
        kernel: &'static str,
        /// What it asks for, with numbers.
        what: String,
    },
}

/// PTX text for a kernel, and how to launch it.
///
/// # Errors
/// [`PtxError::Kernel`] as [`Kernel::check`]; [`PtxError::Unsupported`] for a kernel that there is no
/// template for, or whose sizes 32-bit indices cannot hold in any call.
pub fn emit(kernel: &Kernel, target: Target) -> Result<Emitted, PtxError> {
    emit_within(kernel, target, matmul::ROOM)
}

/// As [`emit`], where a weight in blocks that tensor cores multiply is written out in `room` bytes of working memory at a
/// time, or in as many as 256 of its rows take. Results have the same bits in any room.
///
/// # Errors
/// As [`emit`].
pub fn emit_within(kernel: &Kernel, target: Target, room: usize) -> Result<Emitted, PtxError> {
    kernel.check()?;
    // First, since templates compute with sizes that are too large in no call.
    let limits = limits::of(kernel)?;
    let emitted = match kernel {
        Kernel::Row(k) => row::emit(k, target),
        Kernel::Matmul(k) => matmul::emit(k, target, room),
        Kernel::Routed(k) => matmul::routed(k, target),
        Kernel::Attention(k) => attention::emit(k, target),
        Kernel::Gather(k) => gather::emit(k, target),
        Kernel::Move(k) => Ok(moves::emit(k, target)),
        Kernel::Group(k) => group::emit(k, target, room),
    };
    Ok(Emitted { limits, ..emitted? })
}
