//! The contract between the engine and a place to run.

use crate::by_host::ByHost;
use crate::cuda::{CudaEvent, CudaExecutable, CudaGraph};
use crate::host::{HostEvent, HostExecutable};
use crate::{Claim, Error, Memory, Slice};
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use trt_kernel::fusible::MAX_TILES;
use trt_kernel::{Dim, Env, Kernel, Var};

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
pub struct Executable(pub(crate) ExecutableOf);

#[derive(Clone, Debug)]
pub(crate) enum ExecutableOf {
    Host(Arc<HostExecutable>),
    /// The device has no kernel for it.
    ByHost(Arc<ByHost>),
    Cuda(Arc<CudaExecutable>),
}

impl Executable {
    /// Why the host computes this for the device, which has no kernel for it; nothing if the
    /// device does.
    pub fn by_host(&self) -> Option<&str> {
        match &self.0 {
            ExecutableOf::Host(_) | ExecutableOf::Cuda(_) => None,
            ExecutableOf::ByHost(own) => Some(own.why()),
        }
    }

    /// The code that it has on the device, piece by piece: a number that executables which share a
    /// piece have in common while they live, and at most how many bytes it is. None on the host.
    pub fn code(&self) -> Vec<(usize, u64)> {
        match &self.0 {
            ExecutableOf::Host(_) | ExecutableOf::ByHost(_) => Vec::new(),
            ExecutableOf::Cuda(own) => own.code().collect(),
        }
    }

    /// Bytes of working memory that a launch needs.
    pub fn scratch(&self) -> Dim {
        match &self.0 {
            ExecutableOf::Host(_) | ExecutableOf::ByHost(_) => Dim::from(0),
            ExecutableOf::Cuda(own) => own.scratch().clone(),
        }
    }

    /// The runtime integers that decide how a launch is made: recorded work can be replayed for
    /// calls that agree in them with the call that it was recorded for.
    pub fn grid_vars(&self) -> Vec<Var> {
        match &self.0 {
            ExecutableOf::Host(_) | ExecutableOf::ByHost(_) => Vec::new(),
            ExecutableOf::Cuda(own) => own.grid_vars().to_vec(),
        }
    }
}

/// A point in a stream that another stream or the caller can wait for. Recording again moves
/// the point; waiting refers to the latest record submitted before the wait.
#[derive(Clone, Debug)]
pub struct Event(pub(crate) EventOf);

#[derive(Clone, Debug)]
pub(crate) enum EventOf {
    Host(Arc<HostEvent>),
    Cuda(Arc<CudaEvent>),
}

/// Recorded work that can be submitted again at the cost of one launch. It keeps the memory
/// that it uses.
#[derive(Clone, Debug)]
pub struct Graph(pub(crate) GraphOf);

#[derive(Clone, Debug)]
pub(crate) enum GraphOf {
    Host(Arc<Vec<Work>>),
    Cuda(Arc<CudaGraph>),
}

/// Rows of a streamed weight, cut into tiles of equal height but for the last, each in memory
/// of its own. The default is no rows.
#[derive(Clone, Debug, Default)]
pub struct Tiles {
    /// The rows.
    pub rows: Range<usize>,
    /// Rows of a tile.
    pub step: usize,
    /// Where each tile's first row is; at most [`trt_kernel::fusible::MAX_TILES`].
    pub places: Vec<Slice>,
}

/// One thing to do on a stream.
#[derive(Clone, Debug)]
pub enum Work {
    /// Runs a kernel. `args` are in the kernel's order. For ranged products `tiles` may name the
    /// rows of each weight ([`Kernel::streamed`]) that the launch covers; those arguments are
    /// then not used. Of a group with tiles only the products run that have rows, and its other
    /// parts do not. A kernel's elements are computed side by side: no byte that is written for one
    /// may be read or written for another, which the submitter vouches for, as for events.
    Launch {
        /// The kernel.
        executable: Executable,
        /// Values of the runtime integers.
        env: Env,
        /// One slice per argument.
        args: Vec<Slice>,
        /// The rows of each weight, in the order of [`Kernel::streamed`]; none: everything.
        tiles: Vec<Tiles>,
        /// Working memory of at least [`Executable::scratch`] bytes, if it needs any.
        scratch: Option<Slice>,
    },
    /// Submits recorded work again, with other runtime integers.
    Replay {
        /// The work.
        graph: Graph,
        /// Values of the runtime integers.
        env: Env,
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

impl Work {
    /// What it is, e.g. `launch`.
    pub fn name(&self) -> &'static str {
        match self {
            Work::Launch { .. } => "launch",
            Work::Replay { .. } => "replay",
            Work::Copy { .. } => "copy",
            Work::Upload { .. } => "upload",
            Work::Write { .. } => "write",
            Work::Populate(_) => "populate",
            Work::Discard(_) => "discard",
            Work::Trim(_) => "trim",
            Work::Record(_) => "record",
            Work::Wait(_) => "wait",
        }
    }

    /// The same work in another call.
    pub(crate) fn with_env(&self, new: Env) -> Work {
        let mut work = self.clone();
        if let Work::Launch { env, .. } | Work::Replay { env, .. } = &mut work {
            *env = new;
        }
        work
    }

    /// The memory that it uses, but for what a graph keeps.
    pub(crate) fn slices(&self) -> impl Iterator<Item = &Slice> {
        let (some, args, tiles): ([Option<&Slice>; 2], &[Slice], &[Tiles]) = match self {
            Work::Launch {
                args,
                tiles,
                scratch,
                ..
            } => ([scratch.as_ref(), None], args, tiles),
            Work::Copy { dst, src } | Work::Upload { dst, src } => {
                ([Some(dst), Some(src)], &[], &[])
            }
            Work::Write { dst: slice, .. }
            | Work::Populate(slice)
            | Work::Discard(slice)
            | Work::Trim(slice) => ([Some(slice), None], &[], &[]),
            Work::Replay { .. } | Work::Record(_) | Work::Wait(_) => ([None; 2], &[], &[]),
        };
        let places = tiles.iter().flat_map(|t| &t.places);
        some.into_iter().flatten().chain(args).chain(places)
    }

    /// Whether it can be recorded.
    pub(crate) fn recordable(&self) -> Result<(), Error> {
        match self {
            Work::Launch { executable, .. } if executable.by_host().is_some() => {
                Err(Error::NotRecordable {
                    work: "a launch by the host",
                })
            }
            Work::Launch { .. } | Work::Copy { .. } => Ok(()),
            other => Err(Error::NotRecordable { work: other.name() }),
        }
    }
}

impl Tiles {
    /// Whether there are as many places as the rows need.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let rows = self.rows.end.saturating_sub(self.rows.start);
        let needed = rows.div_ceil(self.step.max(1));
        let found = self.places.len();
        match found == needed && found <= MAX_TILES {
            true => Ok(()),
            false => Err(Error::Tiles {
                start: self.rows.start,
                end: self.rows.end,
                step: self.step,
                needed: needed.min(MAX_TILES),
                found,
            }),
        }
    }

    /// The rows and place of each tile.
    pub fn each(&self) -> impl Iterator<Item = (Range<usize>, &Slice)> {
        let starts = self.rows.clone().step_by(self.step.max(1));
        starts.zip(&self.places).map(|(start, place)| {
            let end = start.saturating_add(self.step).min(self.rows.end);
            (start..end, place)
        })
    }
}

/// A place to run kernels.
pub trait Device: Send + Sync + fmt::Debug {
    /// What the device is.
    fn info(&self) -> &Info;

    /// Bytes of device memory that nobody holds at this moment; none if the device does not tell.
    /// A GPU counts every process, the host device what was taken of it.
    fn free_memory(&self) -> Option<u64>;

    /// Device memory of `bytes` bytes, zero-filled, aligned to at least 256 bytes. Freed when
    /// the last [`Slice`] of it is gone.
    fn allocate(&self, bytes: usize) -> Result<Memory, Error>;

    /// A range of addresses without memory, to be made real by [`Device::commit`].
    fn reserve(&self, bytes: usize) -> Result<Memory, Error>;

    /// Makes the first `bytes` bytes of reserved memory real; what was real beyond them goes back
    /// to the system, and no work that uses it may be left. Bytes that stay keep their content,
    /// new ones have any. After an error nothing has changed, but for [`Error::Uncommittable`].
    fn commit(&self, memory: &Memory, bytes: usize) -> Result<(), Error>;

    /// Counts bytes of device memory that are no allocation of it: pages of mappings that kernels
    /// read in place. A device without such pages counts nothing.
    fn claim(&self, bytes: u64) -> Result<Claim, Error> {
        let mut claim = Claim::default();
        claim.resize(bytes)?;
        Ok(claim)
    }

    /// Makes a read-only mapping of a whole file usable in work. The file itself is what copies
    /// are read from where that is cheaper; errors call it `name`. Work on a mapping whose file was
    /// cut, or cannot be read, fails with [`Error::FileCut`] or [`Error::FileRead`]; only a file
    /// that is cut just while a kernel reads it ends the process.
    fn map(
        &self,
        name: &Path,
        file: Arc<File>,
        map: Arc<memmap2::Mmap>,
        paging: Paging,
    ) -> Result<Memory, Error>;

    /// Checks and prepares a kernel.
    fn load(&self, kernel: &Kernel) -> Result<Executable, Error>;

    /// A stream that nobody else uses, new or [retired](Device::retire); `name` appears in logs
    /// of a new one.
    fn stream(&self, name: &str) -> Result<Stream, Error>;

    /// Takes a stream back, to be handed out again. What was submitted to it is still done. Work
    /// submitted to it afterwards would meet that of its next owner: see [`crate::OwnedStream`].
    fn retire(&self, stream: Stream);

    /// A new event, already reached.
    fn event(&self) -> Result<Event, Error>;

    /// Makes launches and copies ready to be submitted again and again, in this order.
    fn record(&self, works: Vec<Work>) -> Result<Graph, Error>;

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
