//! The host as a device: worker threads for streams, the CPU back end for kernels.
//!
//! It behaves as a GPU does: work is queued and runs later, streams run beside each other, and
//! only events order them. What a weight's fetch means is its one choice. As *unified* memory
//! kernels read mapped files in place, so a fetch maps pages; as *discrete* memory a fetch
//! copies. Kernels cannot tell the difference, so both give the same bits.

mod check;
mod copy;
mod event;
mod memory;
mod pages;
mod queue;
mod reserved;
mod wanted;
mod worker;

use crate::contract::Idle;
use crate::cpu::HostExecutable;
use crate::system::total_memory;
use crate::{
    Claim, Device, DeviceId, Error, Event, Executable, ExecutableInfo, Graph, HostFallback, Info,
    MappedFile, Memory, Paging, Residency, Room, Slice, Stream, Work, host_team,
};
use event::{HostEvent, Timeline};
use memmap2::Mmap;
use queue::Queue;
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;
use trt_kernel::Kernel;
use trt_kernel::host::Team;
use wanted::Resident;

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

/// What is in an executable of the host.
#[derive(Debug)]
enum Loaded {
    Own(HostExecutable),
    /// Computed as for a device that has no kernel for it.
    ByHost(HostFallback),
}

/// What is in recorded work of the host.
#[derive(Debug)]
struct HostGraph(Vec<Work>);

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
                id: DeviceId::unique(),
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
        let number = stream.open(&self.info)?;
        let workers = self.workers();
        match workers.get(number as usize) {
            Some(worker) => Ok(f(&worker.queue)),
            None => Err(Error::UnknownStream {
                stream: number,
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
        let memory = memory::allocate(&self.info, bytes)?;
        memory.tie(claim);
        Ok(memory)
    }

    fn reserve(&self, bytes: usize) -> Result<Memory, Error> {
        memory::reserve(&self.info, bytes, self.room.claim(0)?)
    }

    fn commit(&self, memory: &Memory, bytes: usize) -> Result<(), Error> {
        memory::commit(&self.info, memory, bytes)
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
        let file = MappedFile::new(name, file, map);
        let memory = Memory::mapped(self.info.id, file, Resident::new(paging));
        if self.info.residency == Residency::InPlace {
            pages::advise_paging(&memory, paging);
        }
        Ok(memory)
    }

    fn load(&self, kernel: &Kernel) -> Result<Executable, Error> {
        let kind = kernel.kind();
        if self.lacks.iter().any(|l| l == kind) {
            let why = format!("{} was told to have no {kind} kernels", self.info.name);
            let own = HostFallback::new(kernel, why)?;
            let (info, own) = (own.info(), Loaded::ByHost(own));
            return Ok(Executable::new(self.info.id, info, own));
        }
        let own = Loaded::Own(HostExecutable::new(kernel)?);
        let info = ExecutableInfo::default();
        Ok(Executable::new(self.info.id, info, own))
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
        let (theirs, info, team) = (queue.clone(), self.info.clone(), self.team.clone());
        let thread = std::thread::Builder::new()
            .name(name.chars().filter(|c| *c != '\0').collect())
            .spawn(move || {
                let team = team.as_deref().unwrap_or_else(|| host_team());
                worker::run(&theirs, &info, team);
            })
            .map_err(|e| Error::os(format!("starting the thread of stream '{name}'"), &e))?;
        workers.push(Worker {
            queue,
            thread: Some(thread),
        });
        Ok(Stream::new(self.info.id, workers.len() as u32 - 1))
    }

    fn retire(&self, stream: Stream) {
        if self.with_queue(stream, |_| ()).is_ok() {
            event::lock(&self.idle).put(stream);
        }
    }

    fn event(&self) -> Result<Event, Error> {
        Ok(Event::new(self.info.id, HostEvent::default()))
    }

    fn record(&self, works: Vec<Work>) -> Result<Graph, Error> {
        for work in &works {
            work.recordable()?;
            check::work(&self.info, work)?;
        }
        Ok(Graph::new(self.info.id, HostGraph(works)))
    }

    fn submit(&self, stream: Stream, work: Work) -> Result<(), Error> {
        check::work(&self.info, &work)?;
        self.with_queue(stream, |queue| {
            let event = match &work {
                Work::Record(event) | Work::Wait(event) => Some(event.clone()),
                _ => None,
            };
            let own = event.as_ref().map(|event| event.open(&self.info));
            queue.push(work, own.transpose()?);
            Ok(())
        })?
    }

    fn synchronize(&self, stream: Stream) -> Result<(), Error> {
        // The wait is outside the lock of the streams, which others may need meanwhile.
        let end = self.with_queue(stream, |queue| queue.end())?;
        end.wait();
        end.timeline.take_error().map_or(Ok(()), Err)
    }

    fn read(&self, stream: Stream, src: &Slice, dst: &mut [u8]) -> Result<(), Error> {
        check::same_length("read", src.len(), dst.len())?;
        check::own(&self.info, src)?;
        self.synchronize(stream)?;
        copy::read(dst, src)
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
