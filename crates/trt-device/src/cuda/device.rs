//! The device as everybody sees it.

use super::Cuda;
use super::driver::{AddressSpace, DeviceBytes};
use super::event::CudaEvent;
use super::launch::{DeviceMemory, Loaded};
use super::record::CudaGraph;
use super::stream::{CudaStream, Kept};
use crate::contract::lock;
use crate::{
    Device, Error, Event, Executable, Graph, HostFallback, Info, MappedFile, Memory, Paging, Slice,
    Stream, Work,
};
use memmap2::Mmap;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use trt_kernel::Kernel;
use trt_kernel::ptx::PtxError;

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
        Ok(self.memory(DeviceMemory::Fixed(memory), bytes))
    }

    fn reserve(&self, bytes: usize) -> Result<Memory, Error> {
        let space = AddressSpace::reserve(&self.context, bytes)?;
        Ok(self.memory(DeviceMemory::Reserved(space), bytes))
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
        _paging: Paging,
    ) -> Result<Memory, Error> {
        let file = MappedFile::new(name, file, map);
        Ok(self.files.map(self.info.id, file))
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
        let (info, own) = match loaded {
            Ok(own) => (own.info(), Loaded::Own(own)),
            Err(Error::Ptx(why @ PtxError::Unsupported { .. })) => {
                let own = HostFallback::new(kernel, why.to_string())?;
                (own.info(), Loaded::ByHost(own))
            }
            Err(error) => return Err(error),
        };
        Ok(Executable::new(self.info.id, info, own))
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
        Ok(Stream::new(self.info.id, id))
    }

    fn retire(&self, stream: Stream) {
        if stream.open(&self.info).and_then(|n| self.on(n)).is_ok() {
            lock(&self.idle).put(stream);
        }
    }

    fn event(&self) -> Result<Event, Error> {
        let event = CudaEvent::new(&self.context)?;
        Ok(Event::new(self.info.id, event))
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
        let graph = CudaGraph::record(&self.context, slot, &self.info, works, locate)?;
        Ok(Graph::new(self.info.id, Arc::new(graph)))
    }

    fn submit(&self, stream: Stream, work: Work) -> Result<(), Error> {
        if let Some(done) = self.launch_by_host(stream, &work) {
            return done;
        }
        let bound = self.context.bind()?;
        let id = stream.open(&self.info)?;
        let on = self.on(id)?;
        // SAFETY: the work is kept below, whatever became of it.
        let put = unsafe { self.put(&bound, &on, id, &work) };
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
        let on = self.on(stream.open(&self.info)?)?;
        on.synchronize(&bound, &self.all())
    }

    fn read(&self, stream: Stream, src: &Slice, dst: &mut [u8]) -> Result<(), Error> {
        let bound = self.context.bind()?;
        let on = self.on(stream.open(&self.info)?)?;
        if src.len() != dst.len() {
            return Err(Error::Length {
                work: "read",
                src: src.len(),
                dst: dst.len(),
            });
        }
        match src.memory().file() {
            Some(file) => {
                self.mapping("read", src)?;
                on.synchronize(&bound, &self.all())?;
                file.read(src.offset(), dst)
            }
            None => on.read(&bound, self.own(src)?, dst, &self.all()),
        }
    }
}
