//! The contract between the engine and a place to run.

use crate::{Error, Memory, Slice};
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use trt_kernel::{Env, Kernel};

/// How weights become usable by kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residency {
    /// Kernels read mapped files in place: a fetch is [`Work::Populate`] and a release is
    /// [`Work::Discard`].
    InPlace,
    /// Kernels read device memory: a fetch is [`Work::Upload`].
    Copied,
}

/// How pages of a mapping come and go where kernels read it in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paging {
    /// Page by page: for what stays, so that no more is resident than was asked for.
    Exact,
    /// By huge pages where the page cache has them, at a tenth of the cost: for what streams by.
    /// Up to a huge page (2 MiB) at each end of a range comes and goes with it.
    Coarse,
}

/// What a device is.
#[derive(Clone, Debug)]
pub struct Info {
    /// A name for reports, e.g. `host (unified)` or the GPU's name.
    pub name: String,
    /// Bytes of memory the device has.
    pub total_memory: u64,
    /// How weights become usable.
    pub residency: Residency,
}

/// An ordered queue of work on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stream(pub u32);

/// A kernel made ready to launch on one device.
#[derive(Clone, Debug)]
pub struct Executable(pub(crate) Arc<crate::host::HostExecutable>);

/// A point in a stream that another stream or the caller can wait for. Recording again moves
/// the point; waiting refers to the latest record submitted before the wait.
#[derive(Clone, Debug)]
pub struct Event(pub(crate) Arc<crate::host::HostEvent>);

/// One thing to do on a stream.
#[derive(Clone, Debug)]
pub enum Work {
    /// Runs a kernel. `args` are in the kernel's order; `rows` is the row range of a ranged
    /// matmul, whose weight argument then points to row `rows.start`.
    Launch {
        /// The kernel.
        executable: Executable,
        /// Values of the runtime integers.
        env: Env,
        /// One slice per argument.
        args: Vec<Slice>,
        /// The range of output columns (weight rows), or everything.
        rows: Option<Range<usize>>,
    },
    /// Copies between slices of equal length on the device.
    Copy {
        /// Destination.
        dst: Slice,
        /// Source.
        src: Slice,
    },
    /// Copies mapped file bytes to device memory of equal length.
    Upload {
        /// Destination in device memory.
        dst: Slice,
        /// Source in a mapping.
        src: Slice,
    },
    /// Copies bytes of the caller to the device.
    Write {
        /// Destination, as long as `bytes`.
        dst: Slice,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Makes the pages of a mapping resident in this process, until they are discarded.
    Populate(Slice),
    /// Lets the pages of a mapping go, but for what another slice that was populated shares with
    /// them. Reading them later is slower, not wrong.
    Discard(Slice),
    /// Lets the pages in a slice of a mapping go that came along with others and that nobody
    /// populated, such as rows that a kernel gathered.
    Trim(Slice),
    /// Moves the event to this point.
    Record(Event),
    /// Holds the stream until the event's latest record is reached.
    Wait(Event),
}

/// A place to run kernels.
pub trait Device: Send + Sync + fmt::Debug {
    /// What the device is.
    fn info(&self) -> &Info;

    /// Device memory of `bytes` bytes, zero-filled, aligned to at least 256 bytes. Freed when
    /// the last [`Slice`] of it is gone.
    fn allocate(&self, bytes: usize) -> Result<Memory, Error>;

    /// Makes a read-only mapping of a whole file usable in work. The file itself is what copies
    /// are read from where that is cheaper.
    fn map(
        &self,
        file: Arc<File>,
        map: Arc<memmap2::Mmap>,
        paging: Paging,
    ) -> Result<Memory, Error>;

    /// Checks and prepares a kernel.
    fn load(&self, kernel: &Kernel) -> Result<Executable, Error>;

    /// A new stream; `name` appears in logs.
    fn stream(&self, name: &str) -> Result<Stream, Error>;

    /// A new event, already reached.
    fn event(&self) -> Result<Event, Error>;

    /// Appends work to a stream. Errors of the work itself surface at the next
    /// [`Device::synchronize`] or [`Device::read`] of the stream; until then the stream skips
    /// launches and copies but still reaches its records, and a stream that waits for it fails
    /// with it.
    fn submit(&self, stream: Stream, work: Work) -> Result<(), Error>;

    /// Waits until everything submitted to the stream is done, and returns (and clears) the first
    /// error since the last call.
    fn synchronize(&self, stream: Stream) -> Result<(), Error>;

    /// Waits for the stream, then copies a slice to the caller.
    fn read(&self, stream: Stream, src: &Slice, dst: &mut [u8]) -> Result<(), Error>;
}
