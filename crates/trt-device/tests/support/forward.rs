//! A device that has another do everything, with hooks: what tests put between an engine and its
//! device. Handles are those of the other device, and so is what it says of itself.

use std::fs::File;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use trt_device::{Claim, Device, Error, Event, Executable, Graph, Info, Memory, Paging};
use trt_device::{Slice, Stream, Work};
use trt_kernel::Kernel;

/// What a device is about to be asked for.
#[derive(Debug)]
#[allow(dead_code, reason = "each test looks at some of it")]
pub enum Ask<'a> {
    /// Memory of so many bytes.
    Allocate(usize),
    /// So many bytes of reserved memory.
    Commit(usize),
    /// An executable.
    Load(&'a Kernel),
    /// A stream.
    Stream,
    /// Recorded work.
    Record,
    /// Work on a stream.
    Submit(Stream, &'a Work),
}

/// What happens between who asks and the device that does it.
pub trait Hooks: std::fmt::Debug + Send + Sync {
    /// Whether the device says what is free.
    fn tells(&self) -> bool {
        true
    }

    /// Before the device is asked, which it is not after an error.
    fn before(&self, _inner: &dyn Device, _ask: Ask<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// A stream was made.
    fn made(&self, _stream: Stream) {}
}

/// The device; what belongs to its hooks is asked of it directly.
#[derive(Debug)]
pub struct Forward<H> {
    inner: Arc<dyn Device>,
    hooks: H,
}

impl<H: Hooks> Forward<H> {
    pub fn to(inner: Arc<dyn Device>, hooks: H) -> Arc<Forward<H>> {
        Arc::new(Forward { inner, hooks })
    }

    fn before(&self, ask: Ask<'_>) -> Result<(), Error> {
        self.hooks.before(&*self.inner, ask)
    }
}

impl<H> Deref for Forward<H> {
    type Target = H;

    fn deref(&self) -> &H {
        &self.hooks
    }
}

impl<H: Hooks> Device for Forward<H> {
    fn info(&self) -> &Info {
        self.inner.info()
    }

    fn free_memory(&self) -> Option<u64> {
        self.inner.free_memory().filter(|_| self.hooks.tells())
    }

    fn allocate(&self, bytes: usize) -> Result<Memory, Error> {
        self.before(Ask::Allocate(bytes))?;
        self.inner.allocate(bytes)
    }

    fn reserve(&self, bytes: usize) -> Result<Memory, Error> {
        self.inner.reserve(bytes)
    }

    fn commit(&self, memory: &Memory, bytes: usize) -> Result<(), Error> {
        self.before(Ask::Commit(bytes))?;
        self.inner.commit(memory, bytes)
    }

    fn claim(&self, bytes: u64) -> Result<Claim, Error> {
        self.inner.claim(bytes)
    }

    fn map(
        &self,
        name: &Path,
        file: Arc<File>,
        map: Arc<memmap2::Mmap>,
        paging: Paging,
    ) -> Result<Memory, Error> {
        self.inner.map(name, file, map, paging)
    }

    fn load(&self, kernel: &Kernel) -> Result<Executable, Error> {
        self.before(Ask::Load(kernel))?;
        self.inner.load(kernel)
    }

    fn stream(&self, name: &str) -> Result<Stream, Error> {
        self.before(Ask::Stream)?;
        let stream = self.inner.stream(name)?;
        self.hooks.made(stream);
        Ok(stream)
    }

    fn retire(&self, stream: Stream) {
        self.inner.retire(stream);
    }

    fn event(&self) -> Result<Event, Error> {
        self.inner.event()
    }

    fn record(&self, works: Vec<Work>) -> Result<Graph, Error> {
        self.before(Ask::Record)?;
        self.inner.record(works)
    }

    fn submit(&self, stream: Stream, work: Work) -> Result<(), Error> {
        self.before(Ask::Submit(stream, &work))?;
        self.inner.submit(stream, work)
    }

    fn synchronize(&self, stream: Stream) -> Result<(), Error> {
        self.inner.synchronize(stream)
    }

    fn read(&self, stream: Stream, src: &Slice, dst: &mut [u8]) -> Result<(), Error> {
        self.inner.read(stream, src, dst)
    }
}
