//! Capturing what is put on a stream, to be launched again as one.

use super::context::{Bound, Context};
use super::memory::warn;
use super::module::Function;
use super::queue::{Grid, RawStream};
use crate::Error;
use cudarc::driver::sys;
use std::sync::{Arc, MutexGuard};

/// A stream that notes what is put on it instead of doing it, and takes nothing but what can be
/// noted. Ended by [`Capture::end`], or given
/// up when dropped.
pub(crate) struct Capture<'a> {
    bound: Bound<'a>,
    context: &'a Arc<Context>,
    stream: RawStream,
    open: bool,
    /// Dropped last, when nothing is captured any more.
    _alone: MutexGuard<'a, ()>,
}

/// What was captured, ready to be launched any number of times; launches of one graph follow each
/// other.
#[derive(Debug)]
pub(crate) struct RawGraph {
    context: Arc<Context>,
    raw: sys::CUgraphExec,
}

// SAFETY: graphs may be launched from any thread on which their context is current, by one at a
// time; whoever owns one holds a lock for that.
unsafe impl Send for RawGraph {}
// SAFETY: as above.
unsafe impl Sync for RawGraph {}

impl<'a> Capture<'a> {
    /// Starts on a stream of its own.
    pub fn begin(context: &'a Arc<Context>) -> Result<Capture<'a>, Error> {
        let bound = context.bind()?;
        let stream = RawStream::new(context)?;
        let alone = context.without_captures();
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is alive and its context current.
        let told = unsafe { sys::cuStreamBeginCapture_v2(stream.raw, mode) };
        bound.check(told, || "cuStreamBeginCapture".into())?;
        Ok(Capture {
            bound,
            context,
            stream,
            open: true,
            _alone: alone,
        })
    }

    /// Captures a launch; see [`RawStream::launch`].
    ///
    /// # Safety
    /// As there, but for as long as there is a launch of what was captured.
    pub unsafe fn launch(
        &self,
        function: Function,
        grid: Grid,
        words: &mut [u64],
        starts: &[usize],
    ) -> Result<(), Error> {
        let stream = &self.stream;
        // SAFETY: as the caller vouches.
        unsafe { stream.launch(&self.bound, function, grid, words, starts) }
    }

    /// Captures a copy within the device.
    ///
    /// # Safety
    /// `len` bytes at `dst` and at `src` are device memory for as long as there is a launch of what
    /// was captured.
    pub unsafe fn copy(&self, dst: u64, src: u64, len: usize) -> Result<(), Error> {
        // SAFETY: as the caller vouches.
        unsafe { self.stream.copy(&self.bound, dst, src, len) }
    }

    /// Ends the capture and makes it ready to launch.
    pub fn end(mut self) -> Result<RawGraph, Error> {
        let graph = self.close()?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the graph was just made; the driver writes one handle.
        let told = unsafe { sys::cuGraphInstantiateWithFlags(&mut raw, graph, 0) };
        // SAFETY: the graph is destroyed once; what was made of it does not need it.
        let destroyed = unsafe { sys::cuGraphDestroy(graph) };
        self.bound.check_memory(told, 0, "cuGraphInstantiate")?;
        warn(self.bound.check(destroyed, || "cuGraphDestroy".into()));
        let graph = RawGraph {
            context: self.context.clone(),
            raw,
        };
        // SAFETY: graph and stream are alive. What it does is only to spare the first launch.
        let told = unsafe { sys::cuGraphUpload(graph.raw, self.stream.raw) };
        self.bound.check_memory(told, 0, "cuGraphUpload")?;
        self.stream.synchronize(&self.bound)?;
        Ok(graph)
    }

    fn close(&mut self) -> Result<sys::CUgraph, Error> {
        self.open = false;
        let mut graph = std::ptr::null_mut();
        // SAFETY: the stream is alive and captures; the driver writes one handle.
        let told = unsafe { sys::cuStreamEndCapture(self.stream.raw, &mut graph) };
        self.bound.check(told, || "cuStreamEndCapture".into())?;
        Ok(graph)
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        // A capture that something has broken ends with an error and without a graph.
        if let Ok(graph) = self.close()
            && !graph.is_null()
        {
            // SAFETY: the graph was just made and is destroyed once.
            let told = unsafe { sys::cuGraphDestroy(graph) };
            warn(self.bound.check(told, || "cuGraphDestroy".into()));
        }
    }
}

impl RawGraph {
    /// Launches it on a stream.
    ///
    /// # Safety
    /// Everything that was captured, and all memory that it uses, stays until the stream has come
    /// here; no other thread launches it at the same time.
    pub unsafe fn launch(&self, bound: &Bound<'_>, stream: &RawStream) -> Result<(), Error> {
        // SAFETY: graph and stream are alive and their context current.
        let told = unsafe { sys::cuGraphLaunch(self.raw, stream.raw) };
        bound.check(told, || "cuGraphLaunch".into())
    }
}

impl Drop for RawGraph {
    fn drop(&mut self) {
        if let Ok(bound) = self.context.bind() {
            // SAFETY: made in `end`, destroyed only here, when no launch of it is under way.
            let told = unsafe { sys::cuGraphExecDestroy(self.raw) };
            warn(bound.check(told, || "cuGraphExecDestroy".into()));
        }
    }
}
