//! Where programs run: memory, streams, events and kernel launches behind one trait.
//!
//! A [`Device`] takes [`Work`] on ordered [`Stream`]s. Work is data: launches, copies, page
//! residency, event records and waits. Everything submitted to one stream happens in order;
//! order between streams comes only from events. Memory is reference counted: a [`Slice`] in
//! submitted work keeps its [`Memory`] alive, so nothing is freed under a running kernel.
//! What two streams do to the same bytes is ordered by the events that the submitter places:
//! that is the one rule callers must keep.
//!
//! Errors of work are kept by its stream and returned when the caller next synchronises with
//! it. Until then the stream skips what computes or copies, and a stream that waits for it
//! fails with it, so a result is never computed from bytes that did not arrive.
//!
//! [`Host`] runs everything on the CPU, as unified memory (mapped files are used in place) or
//! as discrete memory (they are copied, as to a GPU). [`Cuda`] runs it on an NVIDIA GPU, through
//! nothing but the GPU's driver; without one, making it is an error that says what is missing.
//!
//! ```
//! use trt_device::{Device, Host, Work};
//!
//! let device = Host::discrete();
//! let (copies, compute) = (device.stream("copies")?, device.stream("compute")?);
//! let (a, b) = (device.allocate(4)?.whole(), device.allocate(4)?.whole());
//! let ready = device.event()?;
//!
//! // One stream writes, the other waits for it and copies.
//! device.submit(copies, Work::Write { dst: a.clone(), bytes: vec![1, 2, 3, 4] })?;
//! device.submit(copies, Work::Record(ready.clone()))?;
//! device.submit(compute, Work::Wait(ready))?;
//! device.submit(compute, Work::Copy { dst: b.clone(), src: a })?;
//!
//! let mut bytes = [0; 4];
//! device.read(compute, &b, &mut bytes)?;
//! assert_eq!(bytes, [1, 2, 3, 4]);
//! # Ok::<(), trt_device::Error>(())
//! ```

mod contract;
mod cpu;
mod cuda;
mod gpu;
mod host;
mod open;
mod system;

pub use contract::{
    ALIGN, Call, Claim, Device, DeviceId, Error, Event, Executable, ExecutableInfo, Graph, Info,
    LaunchError, MappedFile, Memory, OwnedStream, Paging, Residency, Room, Slice, Stream, Tiles,
    Work,
};
pub use cpu::{Ferry, HostFallback, OverStream, host_team};
pub use cuda::{Cuda, CudaInfo, Transfers};
pub use host::{Host, HostMode};
pub use open::open;
pub use system::{
    AnonPeak, ControlGroups, ProcessMemory, free_bytes, memory_file, seal_size, trim_host_memory,
};
