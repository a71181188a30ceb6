//! NVIDIA GPUs, through nothing but their driver.
//!
//! Work is checked, handed to the driver and forgotten: a launch costs little more than the
//! driver's own call. Three things make that safe. Streams keep what their work uses until it is
//! done ([`stream`]); launches are checked against the reach of their kernels ([`crate::gpu`]); and
//! an error that ends the device for this process is returned by every later call ([`driver`]).
//!
//! Weights come from mapped files that are registered with the driver, so the device reads the
//! page cache ([`upload`]). Device memory that is reserved is backed by parts and goes back to
//! others when it shrinks.

mod device;
mod driver;
mod event;
mod launch;
mod record;
mod stream;
mod submit;
mod upload;

pub use upload::Transfers;

use crate::contract::Idle;
use crate::system::total_memory;
use crate::{DeviceId, Error, Info, Residency};
use driver::{Context, Driver, Facts, RawStream};
use launch::{Modules, Slots};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use stream::CudaStream;
use upload::{Files, Pull};

/// A CUDA device. Dropping it waits for everything that was submitted.
///
/// What can be seen to be wrong when work is submitted is returned at once, and nothing of that
/// work happens. What a kernel finds wrong, such as an id outside of its table, comes back from
/// the next [`Device::synchronize`](crate::Device::synchronize) or [`Device::read`](crate::Device::read) of its stream or of one that waited for
/// it; work behind it has run by then, on bytes that mean nothing. An error that ends the device
/// for this process is returned by every call from then on.
///
/// [`Device::load`](crate::Device::load) may be called by several threads: different kernels are then assembled
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
    /// The devices that the driver shows.
    ///
    /// # Errors
    /// [`Error::NoDriver`], [`Error::BrokenDriver`] or [`Error::OldDriver`] without a driver that can
    /// be used.
    pub fn devices() -> Result<Vec<CudaInfo>, Error> {
        let driver = Driver::get()?;
        let info = |ordinal| {
            let facts = Facts::of(driver, ordinal)?;
            let supported = launch::target(&facts).is_ok();
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
    ///
    /// # Errors
    /// As for [`Cuda::devices`]; [`Error::NoDevice`] if the driver does not show it,
    /// [`Error::OldDevice`] if it is too old, [`Error::Cuda`] for what the driver refuses.
    pub fn new(ordinal: usize) -> Result<Cuda, Error> {
        Cuda::with_host_budget(ordinal, total_memory() / 2)
    }

    /// As [`Cuda::new`], with at most `bytes` bytes of mapped files locked in host memory. Beyond
    /// them weights come through a small buffer, at the speed at which files are read.
    ///
    /// # Errors
    /// As for [`Cuda::new`].
    pub fn with_host_budget(ordinal: usize, bytes: u64) -> Result<Cuda, Error> {
        let context = Context::retain(Driver::get()?, ordinal)?;
        let facts = context.facts();
        let target = launch::target(facts)?;
        Ok(Cuda {
            info: Info {
                id: DeviceId::unique(),
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

    /// The same device, but without its kernels of a [kind](trt_kernel::Kernel::kind): the host computes
    /// them, as it does those for which there is no PTX. For rehearsal and tests.
    pub fn without(mut self, kind: &str) -> Self {
        self.lacks.push(kind.into());
        self
    }

    /// The same device, but large products of whole weights are fed by its copy engine (by tensor
    /// maps, on compute capability 9.0), with the same results. For comparison: an H100 was
    /// measured to be no faster with it. Without effect where the device or the driver has no
    /// such thing. A launch whose operands no map can show is fed as without this.
    ///
    /// # Errors
    /// As for [`Cuda::devices`].
    pub fn with_tensor_maps(mut self) -> Result<Self, Error> {
        let maps = Driver::get()?.maps();
        let target = launch::target(self.context.facts())?;
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

    /// The stream of this number.
    fn on(&self, number: u32) -> Result<Arc<CudaStream>, Error> {
        let streams = self.streams.read().unwrap_or_else(PoisonError::into_inner);
        let found = streams.get(number as usize).cloned();
        found.ok_or(Error::UnknownStream {
            stream: number,
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
