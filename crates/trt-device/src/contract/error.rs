//! What can go wrong on a device, with the numbers needed to act on it.

use super::LaunchError;
use std::path::PathBuf;
use trt_kernel::KernelError;
use trt_kernel::launch::TooLarge;
use trt_kernel::ptx::PtxError;

/// An error of a device call, or of work on a stream.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device or the system refused memory.
    #[error("no {bytes} bytes of memory on {device}: {reason}")]
    OutOfMemory {
        /// The device.
        device: String,
        /// Bytes asked.
        bytes: usize,
        /// What the system said.
        reason: String,
    },
    /// A range does not lie in the slice it was taken of.
    #[error("range {start}..{end} does not lie in a slice of {len} bytes")]
    Range {
        /// Start of the range.
        start: usize,
        /// End of the range.
        end: usize,
        /// Bytes of the slice.
        len: usize,
    },
    /// Source and destination differ in length.
    #[error("{work} of {src} bytes into {dst} bytes")]
    Length {
        /// The work, e.g. `copy`.
        work: &'static str,
        /// Bytes of the source.
        src: usize,
        /// Bytes of the destination.
        dst: usize,
    },
    /// Work on mapped pages was given device memory.
    #[error("{work} needs a slice of a mapping, not device memory")]
    NotMapping {
        /// The work, e.g. `populate`.
        work: &'static str,
    },
    /// Only reserved memory is committed.
    #[error("commit needs reserved memory")]
    NotReserved,
    /// Work on reserved memory that is not real.
    #[error("bytes {start}..{end} of reserved memory are used, but only {committed} are committed")]
    Uncommitted {
        /// First byte.
        start: usize,
        /// End of the bytes.
        end: usize,
        /// Bytes that are real, from the first on.
        committed: usize,
    },
    /// Reserved memory was to become less, and became too little: what was beyond is gone, and
    /// the device did not take the rest of it back.
    #[error("of reserved memory {wanted} bytes should be left, but {left} are: {source}")]
    Uncommittable {
        /// Bytes that were to stay.
        wanted: usize,
        /// Bytes that did.
        left: usize,
        /// The driver's error.
        source: Box<Error>,
    },
    /// An executable, an event, a graph, memory or a stream of another device.
    #[error("{what} was made for another device than {device}")]
    WrongDevice {
        /// What it is, e.g. `an executable`.
        what: &'static str,
        /// The device that was given it.
        device: String,
    },
    /// Work that cannot be recorded.
    #[error("{work} cannot be recorded: only launches and copies can")]
    NotRecordable {
        /// The work, e.g. `write`.
        work: &'static str,
    },
    /// A launch with tiles of some of its weights only.
    #[error("{kernel} kernel takes tiles of {expected} weights, not of {found}")]
    Weights {
        /// The kernel kind.
        kernel: &'static str,
        /// Weights that it reads by rows.
        expected: usize,
        /// Weights with tiles.
        found: usize,
    },
    /// Tiles that do not fit the rows of a launch.
    #[error(
        "rows {start}..{end} in tiles of {step} rows are {needed} tiles, but {found} were given"
    )]
    Tiles {
        /// First row.
        start: usize,
        /// End of the rows.
        end: usize,
        /// Rows of a tile.
        step: usize,
        /// Tiles needed.
        needed: usize,
        /// Tiles given.
        found: usize,
    },
    /// Work would write to a mapping.
    #[error("{work} would write to a mapping, which is read-only")]
    ReadOnly {
        /// The work, e.g. `copy`, with the argument for a launch.
        work: String,
    },
    /// A name that stands for no device.
    #[error("no device is called '{name}': auto, host, host-discrete, cuda or cuda:N")]
    UnknownDevice {
        /// The name.
        name: String,
    },
    /// No stream of the device.
    #[error("stream {stream} does not exist: the device has {streams}")]
    UnknownStream {
        /// The stream asked for.
        stream: u32,
        /// How many the device has.
        streams: usize,
    },
    /// A launch with the wrong number of arguments.
    #[error("{kernel} kernel takes {expected} arguments, not {found}")]
    Args {
        /// The kernel kind.
        kernel: &'static str,
        /// Arguments it takes.
        expected: usize,
        /// Arguments given.
        found: usize,
    },
    /// A kernel that cannot be loaded.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A launch failed while it ran.
    #[error("{kernel} kernel on stream '{stream}': {source}")]
    Launch {
        /// The kernel kind.
        kernel: &'static str,
        /// The stream's name.
        stream: String,
        /// What went wrong.
        source: LaunchError,
    },
    /// Work waited for a stream that had failed, so it was not done.
    #[error("stream '{stream}' failed: {source}")]
    Upstream {
        /// The stream that failed first.
        stream: String,
        /// Its error.
        source: Box<Error>,
    },
    /// Work panicked: a bug of this library, reported rather than passed on.
    #[error("{work} on stream '{stream}' panicked: {message}")]
    Panicked {
        /// The work, e.g. `launch`.
        work: &'static str,
        /// The stream's name.
        stream: String,
        /// The panic's message.
        message: String,
    },
    /// The system has no CUDA driver.
    #[error("no CUDA driver: {reason}")]
    NoDriver {
        /// What was looked for and what came of it.
        reason: String,
    },
    /// There is a CUDA driver, but it is incomplete or refuses to start.
    #[error("the CUDA driver cannot be used: {reason}")]
    BrokenDriver {
        /// What is wrong with it.
        reason: String,
    },
    /// The CUDA driver is too old.
    #[error("the driver supports CUDA {}.{}, but {}.{} or later is needed", .found.0, .found.1, .needed.0, .needed.1)]
    OldDriver {
        /// The version it supports, major and minor.
        found: (u32, u32),
        /// The oldest that will do.
        needed: (u32, u32),
    },
    /// There is no CUDA device of this number.
    #[error("no CUDA device {ordinal}: the driver shows {devices}")]
    NoDevice {
        /// The device asked for.
        ordinal: usize,
        /// How many there are.
        devices: usize,
    },
    /// The device lacks instructions that every kernel needs.
    #[error("{device} has compute capability {}.{}, but 7.5 or later is needed", .capability.0, .capability.1)]
    OldDevice {
        /// The device.
        device: String,
        /// Its compute capability, major and minor.
        capability: (u32, u32),
    },
    /// The driver refused a call.
    #[error("{call} failed: {name} ({code}): {text}")]
    Cuda {
        /// The call with its numbers.
        call: String,
        /// The driver's number for the error.
        code: u32,
        /// The driver's name for it.
        name: String,
        /// What the driver says about it.
        text: String,
    },
    /// An earlier error ended the device for this process.
    #[error("{device} was lost to this process: {source}")]
    Lost {
        /// The device.
        device: String,
        /// The error that ended it.
        source: Box<Error>,
    },
    /// A size that a kernel counts with 32 bits is too large in this call.
    #[error("the {kernel} kernel: {source}")]
    TooLarge {
        /// The kernel kind.
        kernel: &'static str,
        /// The size.
        source: TooLarge,
    },
    /// No PTX for a kernel.
    #[error(transparent)]
    Ptx(#[from] PtxError),
    /// The driver did not assemble a kernel: a bug of this library, or a driver that is too old.
    #[error("the driver does not take the {kernel} kernel: {source}\n{log}")]
    Module {
        /// The kernel kind.
        kernel: &'static str,
        /// The driver's error.
        source: Box<Error>,
        /// What its assembler wrote.
        log: String,
    },
    /// A launch beyond what a device can do at once.
    #[error(
        "{kernel} kernel: {blocks:?} blocks of {threads} threads are more than a launch can have"
    )]
    Grid {
        /// The kernel kind.
        kernel: &'static str,
        /// Blocks along x, y and z.
        blocks: [u64; 3],
        /// Threads of a block.
        threads: u32,
    },
    /// Too little working memory for a launch.
    #[error("{kernel} kernel needs {needed} bytes of working memory, but was given {found}")]
    Scratch {
        /// The kernel kind.
        kernel: &'static str,
        /// Bytes it needs.
        needed: usize,
        /// Bytes given.
        found: usize,
    },
    /// A launch was given an address that its kernel cannot access.
    #[error("{kernel} kernel: {what} is at {address:#x}, which is no multiple of {align}")]
    Misaligned {
        /// The kernel kind.
        kernel: &'static str,
        /// What it is, e.g. `argument a3`.
        what: String,
        /// The address.
        address: u64,
        /// What kernels take it for a multiple of.
        align: u64,
    },
    /// Recorded work would be replayed for a call that launches otherwise.
    #[error("work recorded with v{var} = {recorded} cannot be replayed with v{var} = {asked}")]
    Stale {
        /// The runtime integer.
        var: u8,
        /// Its value when the work was recorded.
        recorded: i64,
        /// Its value in the call.
        asked: i64,
    },
    /// Recorded work reads rows of a file where they are no more: the file was changed, and the driver
    /// gave its pages another place.
    #[error("recorded work reads rows at {recorded:#x}, but they are at {now:#x} now")]
    Moved {
        /// Their address when the work was recorded.
        recorded: u64,
        /// Their address now.
        now: u64,
    },
    /// A copy whose source and destination share bytes.
    #[error("a copy of {bytes} bytes overlaps itself: its ends are {distance} bytes apart")]
    Overlap {
        /// Bytes copied.
        bytes: usize,
        /// Bytes between the starts of source and destination.
        distance: usize,
    },
    /// Rows that kernels read in place would pin more host memory than may be.
    #[error(
        "{bytes} bytes that kernels read in host memory exceed the host budget of {budget} bytes"
    )]
    HostBudget {
        /// Bytes that must be reachable.
        bytes: u64,
        /// The host budget.
        budget: u64,
    },
    /// A mapped file is shorter than when it was mapped. Nothing of it was used, and what needs
    /// it works again when the file is whole again.
    #[error("{} was cut while it was in use: {needed} bytes of it are needed, it has {found}", .file.display())]
    FileCut {
        /// The file.
        file: PathBuf,
        /// Bytes that it had.
        needed: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// The system could not read bytes of a mapped file.
    #[error("reading {bytes} bytes at {offset} of {} failed: {reason}", .file.display())]
    FileRead {
        /// The file.
        file: PathBuf,
        /// The first of the bytes.
        offset: u64,
        /// How many.
        bytes: u64,
        /// What the system said.
        reason: String,
    },
    /// The system refused a call.
    #[error("{call} failed: {reason}")]
    Os {
        /// The call with its numbers.
        call: String,
        /// What the system said.
        reason: String,
    },
}

impl Error {
    /// The bytes that were asked for, if there was no memory for them: the one kind of error that
    /// may pass when somebody holds less.
    pub fn out_of_memory(&self) -> Option<u64> {
        match self {
            Error::OutOfMemory { bytes, .. } => Some(*bytes as u64),
            _ => None,
        }
    }

    /// The error of the last system call.
    pub(crate) fn last_os(call: impl Into<String>) -> Self {
        Error::os(call, &std::io::Error::last_os_error())
    }

    pub(crate) fn os(call: impl Into<String>, error: &std::io::Error) -> Self {
        Error::Os {
            call: call.into(),
            reason: error.to_string(),
        }
    }
}
