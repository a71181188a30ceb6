//! A device whose memory another party takes at a moment of the test's choice.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use trt_device::{Claim, Device, Error, Event, Executable, Graph, Host, Info, Memory, Paging};
use trt_device::{Slice, Stream, Work};
use trt_kernel::Kernel;

/// A discrete host on which, once told to, somebody takes what is free while memory is asked for.
#[derive(Debug)]
pub struct Thief {
    inner: Host,
    tells: AtomicBool,
    /// Bytes to leave when memory is asked for next, if any are to be taken.
    but: Mutex<Option<u64>>,
    taken: Mutex<Vec<Memory>>,
}

impl Thief {
    pub fn new(bytes: u64) -> Arc<Thief> {
        Arc::new(Thief {
            inner: Host::discrete().with_memory(bytes),
            tells: AtomicBool::new(true),
            but: Mutex::default(),
            taken: Mutex::default(),
        })
    }

    /// Whether it says what is free.
    pub fn tell(&self, tells: bool) {
        self.tells.store(tells, Ordering::SeqCst);
    }

    /// When memory is asked for next, all that is free but for `but` bytes goes first.
    pub fn take_before_next(&self, but: u64) {
        *self.but.lock().unwrap() = Some(but);
    }

    pub fn give_back(&self) {
        self.taken.lock().unwrap().clear();
    }

    fn asked(&self) -> Result<(), Error> {
        if let Some(but) = self.but.lock().unwrap().take() {
            let free = self.inner.free_memory().unwrap();
            let bytes = free.saturating_sub(but) as usize;
            self.taken.lock().unwrap().push(self.inner.allocate(bytes)?);
        }
        Ok(())
    }
}

impl Device for Thief {
    fn info(&self) -> &Info {
        self.inner.info()
    }

    fn free_memory(&self) -> Option<u64> {
        let tells = self.tells.load(Ordering::SeqCst);
        self.inner.free_memory().filter(|_| tells)
    }

    fn allocate(&self, bytes: usize) -> Result<Memory, Error> {
        self.asked()?;
        self.inner.allocate(bytes)
    }

    fn reserve(&self, bytes: usize) -> Result<Memory, Error> {
        self.inner.reserve(bytes)
    }

    fn commit(&self, memory: &Memory, bytes: usize) -> Result<(), Error> {
        self.asked()?;
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
        self.inner.load(kernel)
    }

    fn stream(&self, name: &str) -> Result<Stream, Error> {
        self.inner.stream(name)
    }

    fn retire(&self, stream: Stream) {
        self.inner.retire(stream);
    }

    fn event(&self) -> Result<Event, Error> {
        self.inner.event()
    }

    fn record(&self, works: Vec<Work>) -> Result<Graph, Error> {
        self.inner.record(works)
    }

    fn submit(&self, stream: Stream, work: Work) -> Result<(), Error> {
        self.inner.submit(stream, work)
    }

    fn synchronize(&self, stream: Stream) -> Result<(), Error> {
        self.inner.synchronize(stream)
    }

    fn read(&self, stream: Stream, src: &Slice, dst: &mut [u8]) -> Result<(), Error> {
        self.inner.read(stream, src, dst)
    }
}
