//! The host as a device: worker threads for streams, the CPU back end for kernels.
//!
//! It behaves as a GPU does: work is queued and runs later, streams run beside each other, and
//! only events order them. What a weight's fetch means is its one choice. As *unified* memory
//! kernels read mapped files in place, so a fetch maps pages; as *discrete* memory a fetch
//! copies. Kernels cannot tell the difference, so both give the same bits.

mod copy;
mod event;
mod launch;
mod pages;
mod queue;
mod reserved;
mod worker;

use crate::by_host::ByHost;
use crate::device::{EventOf, ExecutableOf, GraphOf};
use crate::groups::ControlGroups;
use crate::mapping::MappedFile;
use crate::owned::Idle;
use crate::room::Room;
use crate::{
    Claim, Device, Error, Event, Executable, Graph, Info, Memory, Paging, Residency, Slice, Stream,
    Work,
};
pub(crate) use event::HostEvent;
use event::Timeline;
pub(crate) use launch::{Failure, HostExecutable, Part};
use memmap2::Mmap;
pub(crate) use pages::fault_in;
use queue::Queue;
pub(crate) use reserved::Reserved;
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;
use trt_kernel::Kernel;
use trt_kernel::host::Team;

/// What kind of memory the host device claims to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostMode {
    /// Kernels read mapped files in place.
    Unified,
    /// Weights are copied to device memory, as on a GPU.
    Discrete,
}

/// The host device. Dropping it works through everything that is still queued. (If its own work
/// drops it, which holds the last reference then, the rest is done after that.)
pub struct Host {
    info: Info,
    /// Shared by all streams; the team of all processors if none was asked for.
    team: Option<Arc<Team>>,
    streams: RwLock<Vec<Worker>>,
    idle: Mutex<Idle>,
    /// Kinds of kernels that it claims not to have.
    lacks: Vec<String>,
    room: Room,
}

struct Worker {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

/// Bytes of memory that this process may count on: those of the machine, or of the tightest of its
/// control groups if that has fewer; 0 if the system does not tell.
pub(crate) fn total_memory() -> u64 {
    let root = Path::new("/");
    let machine = pages::machine_memory();
    let limit = ControlGroups::of_this_process(root).memory(root);
    limit.map_or(machine, |limit| limit.min(machine))
}

/// The threads that all devices share which were not given their own, started at first use.
pub(crate) fn team() -> &'static Team {
    static TEAM: OnceLock<Team> = OnceLock::new();
    TEAM.get_or_init(|| {
        let root = Path::new("/");
        let may = std::thread::available_parallelism().map_or(1, |n| n.get());
        let quota = ControlGroups::of_this_process(root).processors(root);
        Team::new(quota.map_or(may, |quota| quota.min(may)))
    })
}

impl Host {
    /// A host device of either mode, with as many threads for kernels as there are processors that
    /// this process may use: those that it may run on, and no more than the quotas of its control
    /// groups pay for. Where the system refuses threads there are fewer.
    pub fn new(mode: HostMode) -> Self {
        let (name, residency) = match mode {
            HostMode::Unified => ("host (unified)", Residency::InPlace),
            HostMode::Discrete => ("host (discrete)", Residency::Copied),
        };
        let total_memory = total_memory();
        Host {
            room: Room::new(name, total_memory, false),
            info: Info {
                name: name.into(),
                total_memory,
                residency,
            },
            team: None,
            streams: RwLock::default(),
            idle: Mutex::default(),
            lacks: Vec::new(),
        }
    }

    /// [`HostMode::Unified`].
    pub fn unified() -> Self {
        Host::new(HostMode::Unified)
    }

    /// [`HostMode::Discrete`].
    pub fn discrete() -> Self {
        Host::new(HostMode::Discrete)
    }

    /// The same device with `threads` threads for kernels, at least one, or as many of them as the
    /// system gives; for streams made from now on.
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.team = Some(Arc::new(Team::new(threads.max(1))));
        self
    }

    /// The same device, but pretending to have no kernels of a [kind](Kernel::kind), as a GPU may
    /// lack some: the host then computes them in the way it does for a GPU, on copies of their
    /// arguments. For rehearsal and tests.
    pub fn without(mut self, kind: &str) -> Self {
        self.lacks.push(kind.into());
        self
    }

    /// The same device with `bytes` bytes of memory: as on a GPU, more than that is refused,
    /// whoever asks. Without this the device has what the machine or its control group has, and
    /// the system alone decides what it refuses. For rehearsal and tests.
    pub fn with_memory(mut self, bytes: u64) -> Self {
        self.room = Room::new(&self.info.name, bytes, true);
        self.info.total_memory = bytes;
        self
    }

    fn workers(&self) -> RwLockReadGuard<'_, Vec<Worker>> {
        self.streams.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `f` on the stream's queue.
    fn with_queue<T>(&self, stream: Stream, f: impl FnOnce(&Arc<Queue>) -> T) -> Result<T, Error> {
        let workers = self.workers();
        match workers.get(stream.0 as usize) {
            Some(worker) => Ok(f(&worker.queue)),
            None => Err(Error::UnknownStream {
                stream: stream.0,
                streams: workers.len(),
            }),
        }
    }
}

impl Device for Host {
    fn info(&self) -> &Info {
        &self.info
    }

    fn free_memory(&self) -> Option<u64> {
        // What others hold on the machine is not counted: pages of files, which are most of it,
        // are dropped by the system when they are in the way.
        Some(self.room.free())
    }

    fn allocate(&self, bytes: usize) -> Result<Memory, Error> {
        let claim = self.room.claim(bytes as u64)?;
        let memory = Memory::host(bytes, &self.info.name)?;
        memory.tie(claim);
        Ok(memory)
    }

    fn reserve(&self, bytes: usize) -> Result<Memory, Error> {
        Memory::host_reserved(bytes, &self.info.name, self.room.claim(0)?)
    }

    fn commit(&self, memory: &Memory, bytes: usize) -> Result<(), Error> {
        memory.host_commit(bytes, &self.info.name)
    }

    fn claim(&self, bytes: u64) -> Result<Claim, Error> {
        self.room.claim(bytes)
    }

    fn map(
        &self,
        name: &Path,
        file: Arc<File>,
        map: Arc<Mmap>,
        paging: Paging,
    ) -> Result<Memory, Error> {
        let memory = Memory::mapping(MappedFile::new(name, file, map), paging);
        if self.info.residency == Residency::InPlace {
            pages::advise_paging(&memory, paging);
        }
        Ok(memory)
    }

    fn load(&self, kernel: &Kernel) -> Result<Executable, Error> {
        let kind = kernel.kind();
        if self.lacks.iter().any(|l| l == kind) {
            let why = format!("{} was told to have no {kind} kernels", self.info.name);
            let own = Arc::new(ByHost::new(kernel, why)?);
            return Ok(Executable(ExecutableOf::ByHost(own)));
        }
        let own = Arc::new(HostExecutable::new(kernel)?);
        Ok(Executable(ExecutableOf::Host(own)))
    }

    fn stream(&self, name: &str) -> Result<Stream, Error> {
        let idle = event::lock(&self.idle).take();
        if let Some(stream) = idle {
            // Errors of its last owner's work are nobody's any more.
            let _ = self.synchronize(stream);
            return Ok(stream);
        }
        let mut workers = self.streams.write().unwrap_or_else(PoisonError::into_inner);
        let queue = Arc::new(Queue::new(Arc::new(Timeline::new(name))));
        let (theirs, team) = (queue.clone(), self.team.clone());
        let thread = std::thread::Builder::new()
            .name(name.chars().filter(|c| *c != '\0').collect())
            .spawn(move || worker::run(&theirs, team.as_deref().unwrap_or_else(|| self::team())))
            .map_err(|e| Error::os(format!("starting the thread of stream '{name}'"), &e))?;
        workers.push(Worker {
            queue,
            thread: Some(thread),
        });
        Ok(Stream(workers.len() as u32 - 1))
    }

    fn retire(&self, stream: Stream) {
        if self.with_queue(stream, |_| ()).is_ok() {
            event::lock(&self.idle).put(stream);
        }
    }

    fn event(&self) -> Result<Event, Error> {
        Ok(Event(EventOf::Host(Arc::default())))
    }

    fn record(&self, works: Vec<Work>) -> Result<Graph, Error> {
        for work in &works {
            work.recordable()?;
            check(work)?;
        }
        Ok(Graph(GraphOf::Host(Arc::new(works))))
    }

    fn submit(&self, stream: Stream, work: Work) -> Result<(), Error> {
        check(&work)?;
        self.with_queue(stream, |queue| queue.push(work))
    }

    fn synchronize(&self, stream: Stream) -> Result<(), Error> {
        // The wait is outside the lock of the streams, which others may need meanwhile.
        let end = self.with_queue(stream, |queue| queue.end())?;
        end.wait();
        end.timeline.take_error().map_or(Ok(()), Err)
    }

    fn read(&self, stream: Stream, src: &Slice, dst: &mut [u8]) -> Result<(), Error> {
        same_length("read", src.len(), dst.len())?;
        own(src)?;
        self.synchronize(stream)?;
        copy::read(dst, src)
    }
}

/// What can be refused before work is queued.
fn check(work: &Work) -> Result<(), Error> {
    work.slices().try_for_each(own)?;
    match work {
        Work::Launch {
            executable,
            args,
            tiles,
            ..
        } => match &executable.0 {
            ExecutableOf::Host(own) => own.check(args, tiles),
            ExecutableOf::ByHost(own) => own.check(args, tiles),
            ExecutableOf::Cuda(_) => Err(wrong("an executable")),
        },
        Work::Copy { dst, src } => {
            same_length("copy", src.len(), dst.len())?;
            writable("copy", dst)
        }
        Work::Upload { dst, src } => {
            same_length("upload", src.len(), dst.len())?;
            mapping("upload", src)?;
            writable("upload", dst)
        }
        Work::Write { dst, bytes } => {
            same_length("write", bytes.len(), dst.len())?;
            writable("write", dst)
        }
        Work::Populate(slice) => mapping("populate", slice),
        Work::Discard(slice) => mapping("discard", slice),
        Work::Trim(slice) => mapping("trim", slice),
        Work::Record(event) | Work::Wait(event) => match &event.0 {
            EventOf::Host(_) => Ok(()),
            EventOf::Cuda(_) => Err(wrong("an event")),
        },
        Work::Replay { graph, .. } => match &graph.0 {
            GraphOf::Host(_) => Ok(()),
            GraphOf::Cuda(_) => Err(wrong("a graph")),
        },
    }
}

/// Whether the host can use the bytes.
fn own(slice: &Slice) -> Result<(), Error> {
    match slice.memory().on_device() {
        None => Ok(()),
        Some(_) => Err(wrong("memory")),
    }
}

fn wrong(what: &'static str) -> Error {
    Error::WrongDevice {
        what,
        device: "the host".into(),
    }
}

fn same_length(work: &'static str, src: usize, dst: usize) -> Result<(), Error> {
    match src == dst {
        true => Ok(()),
        false => Err(Error::Length { work, src, dst }),
    }
}

fn writable(work: &str, dst: &Slice) -> Result<(), Error> {
    match dst.is_mapping() {
        false => Ok(()),
        true => Err(Error::ReadOnly { work: work.into() }),
    }
}

fn mapping(work: &'static str, slice: &Slice) -> Result<(), Error> {
    match slice.is_mapping() {
        true => Ok(()),
        false => Err(Error::NotMapping { work }),
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let workers = self
            .streams
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        // All are told before any is joined, since they may wait for each other's events; what
        // they wait for is queued already, so each of them ends.
        for worker in workers.iter() {
            worker.queue.close();
        }
        let threads: Vec<_> = workers.iter_mut().filter_map(|w| w.thread.take()).collect();
        let this = std::thread::current().id();
        // Work may have held the last reference to the device. A thread cannot join itself, nor
        // others, who may wait for what is queued behind this: all of them end by themselves.
        if threads.iter().any(|t| t.thread().id() == this) {
            return;
        }
        for thread in threads {
            // Panics of work are caught, so there is no other outcome to report.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} with {} streams",
            self.info.name,
            self.workers().len()
        )
    }
}
