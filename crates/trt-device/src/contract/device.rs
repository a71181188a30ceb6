//! The contract between the engine and a place to run.

use super::{Claim, DeviceId, Error, Event, Executable, Graph, Memory, Slice, Stream, Work};
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use trt_kernel::Kernel;

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
    /// Which device it is.
    pub id: DeviceId,
    /// A name for reports, e.g. `host (unified)` or the GPU's name.
    pub name: String,
    /// Bytes of memory the device has.
    pub total_memory: u64,
    /// How weights become usable.
    pub residency: Residency,
}

impl Info {
    /// The error for something of another device; `what` is e.g. `an event`.
    pub fn wrong(&self, what: &'static str) -> Error {
        Error::WrongDevice {
            what,
            device: self.name.clone(),
        }
    }
}

/// A place to run kernels.
///
/// Whatever is given to it that another device made is [`Error::WrongDevice`], and nothing happens.
pub trait Device: Send + Sync + fmt::Debug {
    /// What the device is.
    fn info(&self) -> &Info;

    /// Bytes of device memory that nobody holds at this moment; none if the device does not tell.
    /// A GPU counts every process, the host device what was taken of it.
    fn free_memory(&self) -> Option<u64>;

    /// Device memory of `bytes` bytes, zero-filled, aligned to at least 256 bytes. Freed when
    /// the last [`Slice`] of it is gone.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if there is too little.
    fn allocate(&self, bytes: usize) -> Result<Memory, Error>;

    /// A range of addresses without memory, to be made real by [`Device::commit`].
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if there is no such range.
    fn reserve(&self, bytes: usize) -> Result<Memory, Error>;

    /// Makes the first `bytes` bytes of reserved memory real; what was real beyond them goes back
    /// to the system, and no work that uses it may be left. Bytes that stay keep their content,
    /// new ones have any. After an error nothing has changed, but for [`Error::Uncommittable`].
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if there is too little, [`Error::NotReserved`] and [`Error::Range`] if
    /// it is no reserved memory of that many bytes, [`Error::Uncommittable`] if it became less than
    /// was asked for.
    fn commit(&self, memory: &Memory, bytes: usize) -> Result<(), Error>;

    /// Counts bytes of device memory that are no allocation of it: pages of mappings that kernels
    /// read in place. A device without such pages counts nothing.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the device has less.
    fn claim(&self, bytes: u64) -> Result<Claim, Error> {
        let mut claim = Claim::default();
        claim.resize(bytes)?;
        Ok(claim)
    }

    /// Makes a read-only mapping of a whole file usable in work. The file itself is what copies
    /// are read from where that is cheaper; errors call it `name`. Work on a mapping whose file was
    /// cut, or cannot be read, fails with [`Error::FileCut`] or [`Error::FileRead`]; only a file
    /// that is cut just while a kernel reads it ends the process.
    ///
    /// # Errors
    /// What keeps the device from using it; the host and CUDA devices take every file.
    fn map(
        &self,
        name: &Path,
        file: Arc<File>,
        map: Arc<memmap2::Mmap>,
        paging: Paging,
    ) -> Result<Memory, Error>;

    /// Checks and prepares a kernel.
    ///
    /// # Errors
    /// [`Error::Kernel`] if it is wrong, and what the device has against it; one that it merely lacks
    /// is computed by the host ([`Executable::by_host`]).
    fn load(&self, kernel: &Kernel) -> Result<Executable, Error>;

    /// A stream that nobody else uses, new or [retired](Device::retire); `name` appears in logs
    /// of a new one.
    ///
    /// # Errors
    /// What the system or the driver lacks for one more.
    fn stream(&self, name: &str) -> Result<Stream, Error>;

    /// Takes a stream back, to be handed out again. What was submitted to it is still done. Work
    /// submitted to it afterwards would meet that of its next owner: see [`crate::OwnedStream`].
    fn retire(&self, stream: Stream);

    /// A new event, already reached.
    ///
    /// # Errors
    /// What the driver lacks for one more.
    fn event(&self) -> Result<Event, Error>;

    /// Makes launches and copies ready to be submitted again and again, in this order.
    ///
    /// # Errors
    /// [`Error::NotRecordable`] for other work, what [`Device::submit`] fails with, and what the
    /// device lacks for it.
    fn record(&self, works: Vec<Work>) -> Result<Graph, Error>;

    /// Appends work to a stream. Errors of the work itself surface at the next
    /// [`Device::synchronize`] or [`Device::read`] of the stream; until then the stream skips
    /// launches and copies but still reaches its records, and a stream that waits for it fails
    /// with it.
    ///
    /// # Errors
    /// What can be seen to be wrong at once: [`Error::WrongDevice`] for what another device made,
    /// lengths, arguments and mappings that do not fit. Nothing of the work happens then.
    fn submit(&self, stream: Stream, work: Work) -> Result<(), Error>;

    /// Waits until everything submitted to the stream is done, and returns (and clears) the first
    /// error since the last call.
    ///
    /// # Errors
    /// That error, and [`Error::UnknownStream`] or [`Error::WrongDevice`] if it is no stream of the
    /// device.
    fn synchronize(&self, stream: Stream) -> Result<(), Error>;

    /// Waits for the stream, then copies a slice to the caller.
    ///
    /// # Errors
    /// Those of [`Device::synchronize`], [`Error::Length`] if both differ in length, and what keeps
    /// the bytes from being read.
    fn read(&self, stream: Stream, src: &Slice, dst: &mut [u8]) -> Result<(), Error>;
}
