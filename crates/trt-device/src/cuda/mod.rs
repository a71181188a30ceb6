//! NVIDIA GPUs, through nothing but their driver.
//!
//! Work is checked, handed to the driver and forgotten: a launch costs little more than the
//! driver's own call. Three things make that safe. Streams keep what their work uses until it is
//! done ([`stream`]); launches are checked against the reach of their kernels ([`bounds`]); and
//! an error that ends the device for this process is returned by every later call ([`driver`]).
//!
//! Weights come from mapped files that are registered with the driver, so the device reads the
//! page cache ([`files`]). Device memory that is reserved is backed by parts and goes back to
//! others when it shrinks.

mod ahead;
mod aligned;
mod bounds;
mod chunks;
mod driver;
mod fed;
mod files;
mod graph;
mod launch;
mod maps;
mod memory;
mod modules;
mod needs;
mod params;
mod part;
mod pull;
mod registry;
mod retire;
mod ring;
mod settle;
mod slots;
mod stream;
mod submit;

pub use files::Transfers;
pub(crate) use graph::CudaGraph;
pub(crate) use launch::CudaExecutable;
pub(crate) use memory::DeviceMemory;
pub(crate) use stream::CudaEvent;

use crate::by_host::ByHost;
use crate::device::{EventOf, ExecutableOf, GraphOf};
use crate::mapping::MappedFile;
use crate::memory::lock;
use crate::owned::Idle;
use crate::{
    Device, Error, Event, Executable, Graph, Info, Memory, Paging, Residency, Slice, Stream, Work,
    host,
};
use driver::{AddressSpace, Context, DeviceBytes, Driver, Facts, RawStream};
use files::Files;
use memmap2::Mmap;
use modules::Modules;
use pull::Pull;
use slots::Slots;
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use stream::{CudaStream, Kept};
use trt_kernel::Kernel;
use trt_kernel::ptx::PtxError;

/// A CUDA device. Dropping it waits for everything that was submitted.
///
/// What can be seen to be wrong when work is submitted is returned at once, and nothing of that
/// work happens. What a kernel finds wrong, such as an id outside of its table, comes back from
/// the next [`Device::synchronize`] or [`Device::read`] of its stream or of one that waited for
/// it; work behind it has run by then, on bytes that mean nothing. An error that ends the device
/// for this process is returned by every call from then on.
///
/// [`Device::load`] may be called by several threads: different kernels are then assembled
/// beside each other, equal ones once.
pub struct Cuda {
    info: Info,
    streams: RwLock<Vec<Arc<CudaStream>>>,
    idle: Mutex<Idle>,
    /// On which new memory is cleared.
    clearing: RawStream,
    files: Arc<Files>,
    modules: Arc<Modules>,
    slots: Slots,
    context: Arc<Context>,
    /// Kinds of kernels that it claims not to have.
    lacks: Vec<String>,
}

/// A device that the driver shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaInfo {
    /// Its number, for [`Cuda::new`].
    pub ordinal: usize,
    /// Its name.
    pub name: String,
    /// Its compute capability, major and minor.
    pub capability: (u32, u32),
    /// Bytes of memory.
    pub total_memory: u64,
    /// Whether [`Cuda::new`] takes it.
    pub supported: bool,
}

impl Cuda {
    /// The devices that the driver shows; an error without a driver that can be used.
    pub fn devices() -> Result<Vec<CudaInfo>, Error> {
        let driver = Driver::get()?;
        let info = |ordinal| {
            let facts = Facts::of(driver, ordinal)?;
            let supported = modules::target(&facts).is_ok();
            Ok(CudaInfo {
                ordinal,
                name: facts.name,
                capability: facts.capability,
                total_memory: facts.total_memory,
                supported,
            })
        };
        (0..driver.devices()).map(info).collect()
    }

    /// The device of this number. Half of the host's memory may be locked for mapped files.
    pub fn new(ordinal: usize) -> Result<Cuda, Error> {
        Cuda::with_host_budget(ordinal, host::total_memory() / 2)
    }

    /// As [`Cuda::new`], with at most `bytes` bytes of mapped files locked in host memory. Beyond
    /// them weights come through a small buffer, at the speed at which files are read.
    pub fn with_host_budget(ordinal: usize, bytes: u64) -> Result<Cuda, Error> {
        let context = Context::retain(Driver::get()?, ordinal)?;
        let facts = context.facts();
        let target = modules::target(facts)?;
        Ok(Cuda {
            info: Info {
                name: facts.name.clone(),
                total_memory: facts.total_memory,
                residency: Residency::Copied,
            },
            streams: RwLock::default(),
            idle: Mutex::default(),
            clearing: RawStream::new(&context)?,
            files: Arc::new(Files::new(
                context.clone(),
                bytes,
                Pull::new(&context, target),
            )),
            modules: Modules::new(context.clone(), target, None),
            slots: Slots::default(),
            context,
            lacks: Vec::new(),
        })
    }

    /// The same device, but without its kernels of a [kind](Kernel::kind): the host computes
    /// them, as it does those for which there is no PTX. For rehearsal and tests.
    pub fn without(mut self, kind: &str) -> Self {
        self.lacks.push(kind.into());
        self
    }

    /// The same device, but large products of whole weights are fed by its copy engine (by tensor
    /// maps, on compute capability 9.0), with the same results. For comparison: an H100 was
    /// measured to be no faster with it. Without effect where the device or the driver has no
    /// such thing. A launch whose operands no map can show is fed as without this.
    pub fn with_tensor_maps(mut self) -> Result<Self, Error> {
        let maps = Driver::get()?.maps();
        let target = modules::target(self.context.facts())?;
        if maps.is_some() {
            self.modules = Modules::new(self.context.clone(), target.with_maps(), maps);
        }
        Ok(self)
    }

    /// Whether products may be fed by tensor maps.
    pub fn tensor_maps(&self) -> bool {
        self.modules.has_maps()
    }

    /// How many launches were fed by tensor maps so far; those of a recorded call count once.
    pub fn mapped_launches(&self) -> u64 {
        self.modules.mapped()
    }

    /// How bytes of mapped files reached the device so far.
    pub fn transfers(&self) -> Transfers {
        self.files.transfers()
    }

    /// How many kernel texts the driver was given to assemble so far. A text that is in use is not
    /// given again.
    pub fn assembled(&self) -> u64 {
        self.modules.assembled()
    }

    fn all(&self) -> Vec<Arc<CudaStream>> {
        let streams = self.streams.read();
        streams.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn on(&self, stream: Stream) -> Result<Arc<CudaStream>, Error> {
        let streams = self.streams.read().unwrap_or_else(PoisonError::into_inner);
        let found = streams.get(stream.0 as usize).cloned();
        found.ok_or(Error::UnknownStream {
            stream: stream.0,
            streams: streams.len(),
        })
    }

    /// Device memory, after giving back what is done with if there seems to be none.
    fn take<T>(&self, take: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
        match take() {
            Err(Error::OutOfMemory { .. }) => {
                stream::sweep(&self.context, &self.all());
                take()
            }
            other => other,
        }
    }
}

impl Device for Cuda {
    fn info(&self) -> &Info {
        &self.info
    }

    fn free_memory(&self) -> Option<u64> {
        let told = self.context.bind().and_then(|bound| bound.free_memory());
        told.ok().map(|(free, _)| free)
    }

    fn allocate(&self, bytes: usize) -> Result<Memory, Error> {
        let memory = self.take(|| DeviceBytes::new(&self.context, bytes))?;
        let bound = self.context.bind()?;
        if bytes > 0 {
            // SAFETY: the memory was just made, and is waited for before anybody sees it.
            unsafe { self.clearing.zero(&bound, memory.address(), bytes)? };
            self.clearing.synchronize(&bound)?;
        }
        Ok(Memory::device(DeviceMemory::Fixed(memory), bytes))
    }

    fn reserve(&self, bytes: usize) -> Result<Memory, Error> {
        let space = AddressSpace::reserve(&self.context, bytes)?;
        Ok(Memory::device(DeviceMemory::Reserved(space), bytes))
    }

    fn commit(&self, memory: &Memory, bytes: usize) -> Result<(), Error> {
        let device = self.of_own(memory)?;
        let len = memory.len();
        if bytes > len {
            let (start, end) = (0, bytes);
            return Err(Error::Range { start, end, len });
        }
        self.take(|| device.commit(bytes)).map_err(|e| match e {
            // What was refused is one step; what was asked is what matters.
            Error::OutOfMemory { device, reason, .. } => Error::OutOfMemory {
                device,
                bytes,
                reason,
            },
            other => other,
        })
    }

    fn map(
        &self,
        name: &Path,
        file: Arc<File>,
        map: Arc<Mmap>,
        paging: Paging,
    ) -> Result<Memory, Error> {
        Ok(self.files.map(MappedFile::new(name, file, map), paging))
    }

    fn load(&self, kernel: &Kernel) -> Result<Executable, Error> {
        let kind = kernel.kind();
        let loaded = match self.lacks.iter().any(|l| l == kind) {
            false => self.modules.load(kernel),
            true => Err(Error::Ptx(PtxError::Unsupported {
                kernel: kind,
                what: "the device was told to have none".into(),
            })),
        };
        let executable = match loaded {
            Ok(own) => ExecutableOf::Cuda(own),
            Err(Error::Ptx(why @ PtxError::Unsupported { .. })) => {
                let own = ByHost::new(kernel, why.to_string())?;
                ExecutableOf::ByHost(Arc::new(own))
            }
            Err(error) => return Err(error),
        };
        Ok(Executable(executable))
    }

    fn stream(&self, name: &str) -> Result<Stream, Error> {
        let idle = lock(&self.idle).take();
        if let Some(stream) = idle {
            // Errors of its last owner's work are nobody's any more, unless they end the device:
            // then the next call returns them too.
            let _ = self.synchronize(stream);
            return Ok(stream);
        }
        let slot = self.slots.take(&self.context)?;
        let mut streams = self.streams.write().unwrap_or_else(PoisonError::into_inner);
        let id = streams.len() as u32;
        let stream = CudaStream::new(&self.context, slot, name, id)?;
        streams.push(Arc::new(stream));
        Ok(Stream(id))
    }

    fn retire(&self, stream: Stream) {
        if self.on(stream).is_ok() {
            lock(&self.idle).put(stream);
        }
    }

    fn event(&self) -> Result<Event, Error> {
        let event = CudaEvent::new(&self.context)?;
        Ok(Event(EventOf::Cuda(Arc::new(event))))
    }

    fn record(&self, works: Vec<Work>) -> Result<Graph, Error> {
        for work in &works {
            work.recordable()?;
            match work {
                Work::Launch { executable, .. } => drop(self.executable_of(executable)?),
                Work::Copy { dst, src } => drop(self.ends(dst, src)?),
                _ => {}
            }
        }
        let bound = self.context.bind()?;
        let slices = works.iter().flat_map(Work::slices);
        let _settled = self.files.settle(&bound, slices)?;
        let slot = self.slots.take(&self.context)?;
        let locate = |slice: &Slice, align| self.locate(&bound, slice, align);
        let graph = CudaGraph::record(&self.context, slot, works, locate).map(Arc::new)?;
        Ok(Graph(GraphOf::Cuda(graph)))
    }

    fn submit(&self, stream: Stream, work: Work) -> Result<(), Error> {
        if let Some(done) = self.launch_by_host(stream, &work) {
            return done;
        }
        let bound = self.context.bind()?;
        let on = self.on(stream)?;
        // SAFETY: the work is kept below, whatever became of it.
        let put = unsafe { self.put(&bound, &on, stream.0, &work) };
        let garbage = match work {
            Work::Record(_) | Work::Wait(_) => Ok(Vec::new()),
            work => on.keep(&bound, Kept::Work(work)),
        };
        put?;
        drop(garbage?);
        Ok(())
    }

    fn synchronize(&self, stream: Stream) -> Result<(), Error> {
        let bound = self.context.bind()?;
        self.on(stream)?.synchronize(&bound, &self.all())
    }

    fn read(&self, stream: Stream, src: &Slice, dst: &mut [u8]) -> Result<(), Error> {
        let bound = self.context.bind()?;
        let on = self.on(stream)?;
        if src.len() != dst.len() {
            return Err(Error::Length {
                work: "read",
                src: src.len(),
                dst: dst.len(),
            });
        }
        match src.memory().as_mapping() {
            Some(mapping) => {
                on.synchronize(&bound, &self.all())?;
                mapping.file().read(src.offset(), dst)
            }
            None => on.read(&bound, self.own(src)?, dst, &self.all()),
        }
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        for stream in self.all() {
            let waited = self
                .context
                .bind()
                .and_then(|b| stream.synchronize(&b, &[]));
            if let Err(error) = waited {
                tracing::warn!(%error, stream = stream.name, "work on a dropped device failed");
            }
        }
    }
}

impl fmt::Debug for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let streams = self.all().len();
        write!(f, "{} with {streams} streams", self.info.name)
    }
}
