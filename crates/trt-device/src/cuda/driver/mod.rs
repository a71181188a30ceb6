//! The driver, each call of it wrapped once.
//!
//! What is here owns things of the driver (a context, memory, streams, events, modules, graphs),
//! gives them back when dropped, and turns every result into an [`Error`] that says what was
//! called with which numbers. Two proofs keep the calls sound: a [`Driver`] exists only where
//! every symbol does, and a [`Bound`] only where a context is current on the calling thread. What
//! else a call asks of its caller is an `unsafe fn` that says so.

mod clearing;
mod context;
mod graph;
mod maps;
mod memory;
mod module;
mod pieces;
mod probe;
mod queue;
mod space;

pub(in crate::cuda) use context::{Bound, Context, Facts};
pub(in crate::cuda) use graph::{Capture, RawGraph};
pub(in crate::cuda) use maps::{Boxes, MAP_WORDS};
pub(in crate::cuda) use memory::{DeviceBytes, Pinned, Registration};
pub(in crate::cuda) use module::{Function, Module, Rejected};
pub(in crate::cuda) use probe::{Driver, Maps};
pub(in crate::cuda) use queue::{Grid, RawEvent, RawStream};
pub(in crate::cuda) use space::AddressSpace;

use crate::Error;
use cudarc::driver::sys;
use std::ffi::CStr;

/// An error unless the result is a success; `call` describes the call with its numbers.
fn check(result: sys::CUresult, call: impl FnOnce() -> String) -> Result<(), Error> {
    match result {
        sys::CUresult::CUDA_SUCCESS => Ok(()),
        failed => Err(failure(failed, call())),
    }
}

#[cold]
fn failure(result: sys::CUresult, call: String) -> Error {
    let (mut name, mut text) = (std::ptr::null(), std::ptr::null());
    // SAFETY: results come from the driver, so it is there; it writes a pointer to a string that
    // lives as long as it, or null for a result that it does not know.
    unsafe {
        let _ = sys::cuGetErrorName(result, &mut name);
        let _ = sys::cuGetErrorString(result, &mut text);
    }
    let string = |p: *const std::ffi::c_char| match p.is_null() {
        true => "unknown".to_string(),
        // SAFETY: not null, so a string that lives as long as the driver.
        false => unsafe { CStr::from_ptr(p) }.to_string_lossy().into_owned(),
    };
    Error::Cuda {
        call,
        code: result as u32,
        name: string(name),
        text: string(text),
    }
}

/// Whether a result means that the context is of no more use: every later call fails with it. These
/// are the results of which the driver's header says that the process must end to go on, those of
/// hardware that has failed, and those of a context or a driver that is gone.
fn ends_context(result: sys::CUresult) -> bool {
    use sys::CUresult as R;
    matches!(
        result,
        R::CUDA_ERROR_DEINITIALIZED
            | R::CUDA_ERROR_DEVICE_UNAVAILABLE
            | R::CUDA_ERROR_ECC_UNCORRECTABLE
            | R::CUDA_ERROR_NVLINK_UNCORRECTABLE
            | R::CUDA_ERROR_CONTAINED
            | R::CUDA_ERROR_ILLEGAL_ADDRESS
            | R::CUDA_ERROR_LAUNCH_TIMEOUT
            | R::CUDA_ERROR_CONTEXT_IS_DESTROYED
            | R::CUDA_ERROR_ASSERT
            | R::CUDA_ERROR_HARDWARE_STACK_ERROR
            | R::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | R::CUDA_ERROR_MISALIGNED_ADDRESS
            | R::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | R::CUDA_ERROR_INVALID_PC
            | R::CUDA_ERROR_LAUNCH_FAILED
            | R::CUDA_ERROR_TENSOR_MEMORY_LEAK
            | R::CUDA_ERROR_MPS_CLIENT_TERMINATED
            | R::CUDA_ERROR_EXTERNAL_DEVICE
    )
}
