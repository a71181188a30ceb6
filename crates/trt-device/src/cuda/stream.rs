//! A stream: what is put on it, what it keeps alive, and how its errors come back.
//!
//! Work is handed to the driver at once and runs later, in order. Invariants: what work uses is
//! kept until the work is known to be done; the runtime integers in device memory are those of
//! the latest launch that was put on the stream, written in the stream's order. What kernels find
//! wrong is reported when the stream, or one that waited for it, is next waited for.

use super::driver::{Bound, Context, Grid, Pinned, RawEvent, RawStream};
use super::event::CudaEvent;
use super::launch::{CudaExecutable, Fault, Integers, Ready, Slot, write_integers};
use super::record::CudaGraph;
use crate::gpu::Retire;
use crate::{Call, Error, LaunchError, Slice, Work};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use trt_kernel::Env;

/// The most that is read through page-locked memory; more comes straight to the caller.
const STAGED: usize = 1 << 20;

/// A stream of the device.
#[derive(Debug)]
pub(super) struct CudaStream {
    pub name: String,
    context: Arc<Context>,
    /// One bit that stands for this stream in [`CudaStream::upstream`].
    bit: u64,
    raw: RawStream,
    slot: Slot,
    /// The streams that this one has waited for since it was last waited for, as bits. Beyond 64
    /// streams bits are shared, so that a failure is rather told to one too many.
    upstream: AtomicU64,
    state: Mutex<StreamState>,
    staging: Mutex<Option<Pinned>>,
}

#[derive(Debug, Default)]
struct StreamState {
    /// What the runtime integers are at the end of the stream.
    env: Option<Env>,
    retire: Retire<Kept, RawEvent>,
    /// Graphs replayed since the stream was last waited for.
    replayed: Vec<Arc<CudaGraph>>,
    ready: Ready,
}

/// What a stream keeps alive.
#[derive(Debug)]
#[allow(dead_code, reason = "held to be dropped")]
#[allow(clippy::large_enum_variant, reason = "nearly all that is kept is work")]
pub(super) enum Kept {
    /// Work with its slices, bytes and executable.
    Work(Work),
    /// Runtime integers that are copied to the device.
    Integers(Integers),
}

/// What a stream had kept, and noted, when it was waited for.
struct Waited {
    garbage: Garbage,
    replayed: Vec<Arc<CudaGraph>>,
    upstream: u64,
}

/// Batches that are to be dropped once no lock is held, since what is tied to memory may do
/// anything then.
pub(super) type Garbage = Vec<Vec<Kept>>;

impl CudaStream {
    pub fn new(context: &Arc<Context>, slot: Slot, name: &str, id: u32) -> Result<Self, Error> {
        Ok(CudaStream {
            name: name.to_string(),
            context: context.clone(),
            bit: 1 << (id % 64),
            raw: RawStream::new(context)?,
            slot,
            upstream: AtomicU64::new(0),
            state: Mutex::default(),
            staging: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, StreamState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a launch on the stream. As for everything that is put on it, the caller hands what
    /// the work uses to [`CudaStream::keep`] afterwards, also after an error.
    ///
    /// # Safety
    /// The executable, and the memory of what `call` holds, is kept.
    pub unsafe fn launch(
        &self,
        bound: &Bound<'_>,
        executable: &CudaExecutable,
        call: Call<'_>,
        locate: impl FnMut(&Slice, u64) -> Result<u64, Error>,
    ) -> Result<(), Error> {
        let mut state = self.lock();
        let around = self.slot.surroundings();
        executable.prepare(call, around, &mut state.ready, locate)?;
        self.set_integers(bound, &mut state, *call.env)?;
        let Ready {
            words,
            starts,
            launches,
        } = &mut state.ready;
        launches.iter().try_for_each(|put| {
            // What comes through a ring is awaited by events, which an early start would not heed.
            let grid = Grid {
                overlap: false,
                ..put.grid
            };
            let (words, starts) = (&mut words[put.words.clone()], &starts[put.starts.clone()]);
            // SAFETY: `prepare` made the words by the entry's parameters, of memory of this
            // device that is long enough and that the caller keeps, as it does the executable.
            unsafe { self.raw.launch(bound, put.function, grid, words, starts) }
        })
    }

    /// Makes the runtime integers of the stream those of a call.
    fn set_integers(
        &self,
        bound: &Bound<'_>,
        state: &mut StreamState,
        env: Env,
    ) -> Result<(), Error> {
        if state.env != Some(env) {
            state.env = None;
            let retire = &mut state.retire;
            let keep = |values| {
                retire.push(Kept::Integers(values));
            };
            write_integers(bound, &self.raw, self.slot.integers(), env, keep)?;
            state.env = Some(env);
        }
        Ok(())
    }

    /// Puts recorded work on the stream.
    ///
    /// # Safety
    /// The graph is kept.
    pub unsafe fn replay(
        &self,
        bound: &Bound<'_>,
        graph: &Arc<CudaGraph>,
        env: Env,
    ) -> Result<(), Error> {
        let mut state = self.lock();
        if !state.replayed.iter().any(|g| Arc::ptr_eq(g, graph)) {
            state.replayed.push(graph.clone());
        }
        let on = (&self.raw, self.name.as_str());
        let keep = |values| {
            state.retire.push(Kept::Integers(values));
        };
        // SAFETY: the caller keeps the graph.
        unsafe { graph.replay(bound, on, env, keep) }
    }

    /// Where copies are put on the stream.
    pub fn raw(&self) -> &RawStream {
        &self.raw
    }

    /// Keeps what work that was just put on the stream uses. Returns what is done with.
    pub fn keep(&self, bound: &Bound<'_>, kept: Kept) -> Result<Garbage, Error> {
        let mut state = self.lock();
        if !state.retire.push(kept) {
            return Ok(Garbage::new());
        }
        let event = match state.retire.spare() {
            Some(event) => event,
            None => RawEvent::new(&self.context)?,
        };
        self.raw.record(bound, &event)?;
        state.retire.seal(event);
        Ok(state.retire.done(|e| e.reached(bound).unwrap_or(false)))
    }

    /// Moves an event to this point; `id` is the stream's number.
    pub fn record(&self, bound: &Bound<'_>, event: &CudaEvent, id: u32) -> Result<(), Error> {
        let _order = self.lock();
        self.raw.record(bound, &event.raw)?;
        event.recorded(id);
        Ok(())
    }

    /// Holds what follows until an event that was recorded on `other` is reached.
    pub fn wait(
        &self,
        bound: &Bound<'_>,
        event: &CudaEvent,
        other: &CudaStream,
    ) -> Result<(), Error> {
        let _order = self.lock();
        self.raw.wait(bound, &event.raw)?;
        let theirs = other.upstream.load(Ordering::Acquire) | other.bit;
        self.upstream.fetch_or(theirs & !self.bit, Ordering::AcqRel);
        Ok(())
    }

    /// Waits for everything on the stream. What it kept is dropped before this returns, as is
    /// what `all` other streams keep without need. The first fault found is returned and cleared.
    /// Where the wait fails, everything stays as it was.
    pub fn synchronize(&self, bound: &Bound<'_>, all: &[Arc<CudaStream>]) -> Result<(), Error> {
        let waited = self.finish(bound)?;
        self.told(waited, all)
    }

    /// Waits for everything on the stream. What is returned is to be dropped by
    /// [`CudaStream::told`], where no lock is held.
    fn finish(&self, bound: &Bound<'_>) -> Result<Waited, Error> {
        let waited = {
            let mut state = self.lock();
            Waited {
                garbage: state.retire.take_all(),
                replayed: std::mem::take(&mut state.replayed),
                upstream: self.upstream.swap(0, Ordering::AcqRel),
            }
        };
        match self.raw.synchronize(bound) {
            Ok(()) => Ok(waited),
            Err(error) => {
                self.take_back(waited);
                Err(error)
            }
        }
    }

    fn take_back(&self, waited: Waited) {
        let mut state = self.lock();
        state.retire.take_back(waited.garbage);
        state.replayed.extend(waited.replayed);
        self.upstream.fetch_or(waited.upstream, Ordering::AcqRel);
    }

    /// Drops what the stream had kept, and returns the first fault that was found.
    fn told(&self, waited: Waited, all: &[Arc<CudaStream>]) -> Result<(), Error> {
        drop(waited.garbage);
        sweep(&self.context, all);
        let own = self.slot.take();
        // All are cleared, whichever is the first.
        let replayed: Vec<_> = (waited.replayed.iter())
            .filter_map(|g| g.take_fault())
            .collect();
        if let Some(fault) = own.into_iter().chain(replayed).next() {
            return Err(self.fault(fault));
        }
        let others = all.iter().filter(|s| s.bit & waited.upstream != 0);
        match others.filter_map(|s| Some((s, s.look()?))).next() {
            None => Ok(()),
            Some((stream, error)) => Err(Error::Upstream {
                stream: stream.name.clone(),
                source: Box::new(error),
            }),
        }
    }

    /// The error that waits to be returned by this stream, if there is one.
    fn look(&self) -> Option<Error> {
        let state = self.lock();
        let own = self.slot.look();
        let fault = own.or_else(|| state.replayed.iter().find_map(|g| g.look_fault()));
        fault.map(|fault| self.fault(fault))
    }

    fn fault(&self, fault: Fault) -> Error {
        let source = fault.error();
        Error::Launch {
            kernel: match source {
                LaunchError::Index { .. } => "row",
                _ => "gather",
            },
            stream: self.name.clone(),
            source,
        }
    }

    /// Waits for the stream, then copies device memory to the caller.
    pub fn read(
        &self,
        bound: &Bound<'_>,
        src: u64,
        dst: &mut [u8],
        all: &[Arc<CudaStream>],
    ) -> Result<(), Error> {
        if dst.is_empty() {
            return self.synchronize(bound, all);
        }
        if dst.len() > STAGED {
            // SAFETY: the source is a slice that the caller of `Device::read` holds, and the
            // destination is borrowed; both until the stream was waited for, right here.
            let put = unsafe { self.raw.copy_out(bound, dst.as_mut_ptr(), src, dst.len()) };
            let waited = self.synchronize(bound, all);
            return put.and(waited);
        }
        let waited = self.read_staged(bound, src, dst)?;
        self.told(waited, all)
    }

    /// Reads little through page-locked memory.
    fn read_staged(&self, bound: &Bound<'_>, src: u64, dst: &mut [u8]) -> Result<Waited, Error> {
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        if staging.is_none() {
            *staging = Some(Pinned::new(&self.context, STAGED)?);
        }
        let Some(pinned) = staging.as_mut() else {
            return self.finish(bound);
        };
        // SAFETY: the source is a slice that the caller of `Device::read` holds until the stream was
        // waited for; the lock keeps others from the page-locked memory meanwhile.
        unsafe { self.raw.copy_out(bound, pinned.start(), src, dst.len())? };
        let waited = self.finish(bound)?;
        // SAFETY: the only copy to it is done.
        let bytes = unsafe { pinned.bytes_mut() };
        dst.copy_from_slice(&bytes[..dst.len()]);
        Ok(waited)
    }

    /// What this stream keeps without need.
    fn idle_garbage(&self, bound: &Bound<'_>) -> Garbage {
        // Somebody who submits now will do it.
        let Ok(mut state) = self.state.try_lock() else {
            return Garbage::new();
        };
        if state.retire.is_empty() {
            return Garbage::new();
        }
        match self.raw.idle(bound) {
            Ok(true) => state.retire.take_all(),
            _ => state.retire.done(|e| e.reached(bound).unwrap_or(false)),
        }
    }
}

/// Drops what streams keep though it is done.
pub(super) fn sweep(context: &Context, all: &[Arc<CudaStream>]) {
    for stream in all {
        // What was dropped before may have made another device's context current.
        if let Ok(bound) = context.bind() {
            drop(stream.idle_garbage(&bound));
        }
    }
}
