//! Streams and events of the driver, and what can be put on a stream.

use super::context::{Bound, Context};
use super::memory::warn;
use super::module::Function;
use crate::Error;
use cudarc::driver::sys;
use std::ffi::c_void;
use std::sync::Arc;

/// A stream that does not wait for the default stream; destroyed when dropped, after which what
/// was put on it still ends.
#[derive(Debug)]
pub(crate) struct RawStream {
    context: Arc<Context>,
    pub(super) raw: sys::CUstream,
}

// SAFETY: streams may be used from any thread on which their context is current, by several at
// once; the handle is never changed.
unsafe impl Send for RawStream {}
// SAFETY: as above.
unsafe impl Sync for RawStream {}

/// An event that keeps no time; destroyed when dropped, also while it is still awaited.
#[derive(Debug)]
pub(crate) struct RawEvent {
    context: Arc<Context>,
    raw: sys::CUevent,
}

// SAFETY: as for streams.
unsafe impl Send for RawEvent {}
// SAFETY: as above.
unsafe impl Sync for RawEvent {}

/// The shape of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    /// Blocks along x, y and z.
    pub blocks: [u32; 3],
    /// Threads of a block, along x.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// Whether it may start before the launch before it has ended. The kernel must then wait for
    /// that itself before it reads what the other writes.
    pub overlap: bool,
}

impl RawEvent {
    /// A new event, already reached.
    pub fn new(context: &Arc<Context>) -> Result<RawEvent, Error> {
        let bound = context.bind()?;
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the context is current; the driver writes one handle.
        let told = unsafe { sys::cuEventCreate(&mut raw, flags) };
        bound.check(told, || "cuEventCreate".into())?;
        let context = context.clone();
        Ok(RawEvent { context, raw })
    }

    /// Whether everything before its latest record is done.
    pub fn reached(&self, bound: &Bound<'_>) -> Result<bool, Error> {
        // SAFETY: the event is alive and its context current.
        done(
            bound,
            unsafe { sys::cuEventQuery(self.raw) },
            "cuEventQuery",
        )
    }

    /// Waits for everything before its latest record.
    pub fn synchronize(&self, bound: &Bound<'_>) -> Result<(), Error> {
        // SAFETY: as for `reached`.
        let told = unsafe { sys::cuEventSynchronize(self.raw) };
        bound.check(told, || "cuEventSynchronize".into())
    }
}

impl Drop for RawEvent {
    fn drop(&mut self) {
        if let Ok(bound) = self.context.bind() {
            // SAFETY: created in `new`, destroyed only here; the driver keeps what is awaited.
            let told = unsafe { sys::cuEventDestroy_v2(self.raw) };
            warn(bound.check(told, || "cuEventDestroy".into()));
        }
    }
}

fn done(bound: &Bound<'_>, told: sys::CUresult, call: &str) -> Result<bool, Error> {
    match told {
        sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
        other => bound.check(other, || call.into()).map(|()| true),
    }
}

impl RawStream {
    /// A new stream.
    pub fn new(context: &Arc<Context>) -> Result<RawStream, Error> {
        let bound = context.bind()?;
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the context is current; the driver writes one handle.
        let told = unsafe { sys::cuStreamCreate(&mut raw, flags) };
        bound.check(told, || "cuStreamCreate".into())?;
        let context = context.clone();
        Ok(RawStream { context, raw })
    }

    /// Moves the event to this point.
    pub fn record(&self, bound: &Bound<'_>, event: &RawEvent) -> Result<(), Error> {
        // SAFETY: stream and event are alive and their context current.
        let told = unsafe { sys::cuEventRecord(event.raw, self.raw) };
        bound.check(told, || "cuEventRecord".into())
    }

    /// Holds what follows until the event's latest record is reached.
    pub fn wait(&self, bound: &Bound<'_>, event: &RawEvent) -> Result<(), Error> {
        // SAFETY: as for `record`.
        let told = unsafe { sys::cuStreamWaitEvent(self.raw, event.raw, 0) };
        bound.check(told, || "cuStreamWaitEvent".into())
    }

    /// Waits on the host until everything on the stream is done.
    pub fn synchronize(&self, bound: &Bound<'_>) -> Result<(), Error> {
        // SAFETY: as for `record`.
        let told = unsafe { sys::cuStreamSynchronize(self.raw) };
        bound.check(told, || "cuStreamSynchronize".into())
    }

    /// Whether everything on the stream is done.
    pub fn idle(&self, bound: &Bound<'_>) -> Result<bool, Error> {
        // SAFETY: as for `record`.
        done(
            bound,
            unsafe { sys::cuStreamQuery(self.raw) },
            "cuStreamQuery",
        )
    }

    /// Fills device memory with zeros.
    ///
    /// # Safety
    /// `len` bytes at `dst` are device memory until the stream has come here.
    pub unsafe fn zero(&self, bound: &Bound<'_>, dst: u64, len: usize) -> Result<(), Error> {
        // SAFETY: as the caller vouches; the stream is alive and its context current.
        let told = unsafe { sys::cuMemsetD8Async(dst, 0, len, self.raw) };
        bound.check(told, || format!("cuMemsetD8Async of {len} bytes"))
    }

    /// Copies within the device.
    ///
    /// # Safety
    /// `len` bytes at `dst` and at `src` are device memory until the stream has come here.
    pub unsafe fn copy(
        &self,
        bound: &Bound<'_>,
        dst: u64,
        src: u64,
        len: usize,
    ) -> Result<(), Error> {
        // SAFETY: as the caller vouches; the stream is alive and its context current.
        let told = unsafe { sys::cuMemcpyDtoDAsync_v2(dst, src, len, self.raw) };
        bound.check(told, || format!("cuMemcpyDtoDAsync of {len} bytes"))
    }

    /// Copies to the device.
    ///
    /// # Safety
    /// `len` bytes at `dst` are device memory, and as many at `src` can be read and do not change,
    /// until the stream has come here.
    pub unsafe fn copy_in(
        &self,
        bound: &Bound<'_>,
        dst: u64,
        src: *const u8,
        len: usize,
    ) -> Result<(), Error> {
        // SAFETY: as the caller vouches; the stream is alive and its context current.
        let told = unsafe { sys::cuMemcpyHtoDAsync_v2(dst, src.cast(), len, self.raw) };
        bound.check(told, || format!("cuMemcpyHtoDAsync of {len} bytes"))
    }

    /// Copies from the device.
    ///
    /// # Safety
    /// `len` bytes at `src` are device memory, and as many at `dst` are writable and touched by
    /// nobody, until the stream has come here.
    pub unsafe fn copy_out(
        &self,
        bound: &Bound<'_>,
        dst: *mut u8,
        src: u64,
        len: usize,
    ) -> Result<(), Error> {
        // SAFETY: as the caller vouches; the stream is alive and its context current.
        let told = unsafe { sys::cuMemcpyDtoHAsync_v2(dst.cast(), src, len, self.raw) };
        bound.check(told, || format!("cuMemcpyDtoHAsync of {len} bytes"))
    }

    /// Launches a kernel whose parameters are `words`, one after the other. With `starts` the driver
    /// lays them out, each from its start on.
    ///
    /// # Safety
    /// The words are the values of the function's parameters in their order; without `starts` also
    /// in their layout, else there is one start for each parameter, with all its words behind it.
    /// The function and all memory that it is given stay until the stream has come here.
    pub unsafe fn launch(
        &self,
        bound: &Bound<'_>,
        function: Function,
        grid: Grid,
        words: &mut [u64],
        starts: &[usize],
    ) -> Result<(), Error> {
        let mut each: Vec<*mut c_void> = starts
            .iter()
            .map(|start| words.as_mut_ptr().wrapping_add(*start).cast())
            .collect();
        let mut bytes = size_of_val(words);
        let mut extra: [*mut c_void; 5] = [
            sys::CU_LAUNCH_PARAM_BUFFER_POINTER_AS_INT as usize as *mut c_void,
            words.as_mut_ptr().cast(),
            sys::CU_LAUNCH_PARAM_BUFFER_SIZE_AS_INT as usize as *mut c_void,
            (&raw mut bytes).cast(),
            sys::CU_LAUNCH_PARAM_END_AS_INT as usize as *mut c_void,
        ];
        let [x, y, z] = grid.blocks;
        // One of both is null, and says that the other one counts.
        let (params, extra) = match each.is_empty() {
            true => (std::ptr::null_mut(), extra.as_mut_ptr()),
            false => (each.as_mut_ptr(), std::ptr::null_mut()),
        };
        let told = if grid.overlap {
            let mut attribute = overlap_attribute();
            let config = sys::CUlaunchConfig {
                gridDimX: x,
                gridDimY: y,
                gridDimZ: z,
                blockDimX: grid.threads,
                blockDimY: 1,
                blockDimZ: 1,
                sharedMemBytes: grid.shared,
                hStream: self.raw,
                attrs: &mut attribute,
                numAttrs: 1,
            };
            // SAFETY: as below; configuration and attribute outlive the call.
            unsafe { sys::cuLaunchKernelEx(&config, function.0, params, extra) }
        } else {
            let (threads, shared, stream) = (grid.threads, grid.shared, self.raw);
            // SAFETY: stream and function are alive and their context current; `extra` names the
            // words and their size, or `params` one place in them for each parameter; the driver
            // copies them before it returns, and what they say is right, as the caller vouches.
            unsafe {
                sys::cuLaunchKernel(
                    function.0, x, y, z, threads, 1, 1, shared, stream, params, extra,
                )
            }
        };
        bound.check(told, || format!("cuLaunchKernel with {grid:?}"))
    }
}

fn overlap_attribute() -> sys::CUlaunchAttribute {
    use sys::CUlaunchAttributeID_enum as Id;
    sys::CUlaunchAttribute {
        id: Id::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
        pad: [0; 4],
        value: sys::CUlaunchAttributeValue {
            programmaticStreamSerializationAllowed: 1,
        },
    }
}

impl Drop for RawStream {
    fn drop(&mut self) {
        if let Ok(bound) = self.context.bind() {
            // SAFETY: created in `new`, destroyed only here; the driver ends what is on it first.
            let told = unsafe { sys::cuStreamDestroy_v2(self.raw) };
            warn(bound.check(told, || "cuStreamDestroy".into()));
        }
    }
}
