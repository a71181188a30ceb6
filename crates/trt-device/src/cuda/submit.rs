//! Work on its way to the driver: what it is given is checked to be of this device, and turned
//! into addresses.

use super::Cuda;
use super::driver::Bound;
use super::event::CudaEvent;
use super::launch::{CudaExecutable, DeviceMemory, Loaded};
use super::record::CudaGraph;
use super::stream::CudaStream;
use super::upload::OwnMapping;
use crate::contract::intact;
use crate::{Call, Error, Executable, Memory, OverStream, Slice, Stream, Work, host_team};
use std::sync::Arc;

impl Cuda {
    /// Memory of this device.
    pub(super) fn memory(&self, own: DeviceMemory, bytes: usize) -> Memory {
        // Only ever an address: no reference to device memory is made on the host.
        Memory::new(self.info.id, own.address() as *mut u8, bytes, own)
    }

    /// Device memory, if it is of this device.
    pub(super) fn of_own<'a>(&self, memory: &'a Memory) -> Result<&'a DeviceMemory, Error> {
        memory.open(&self.info)
    }

    /// The address of device memory of this device, all of which is real.
    pub(super) fn own(&self, slice: &Slice) -> Result<u64, Error> {
        let memory = self.of_own(slice.memory())?;
        memory.holds(slice.offset()..slice.offset() + slice.len())?;
        Ok(slice.address())
    }

    /// The address of a slice that kernels use, if a multiple of `align`: device memory, or rows of
    /// a mapping in place, or a copy of them where the file has them elsewhere.
    pub(super) fn locate(
        &self,
        bound: &Bound<'_>,
        slice: &Slice,
        align: u64,
    ) -> Result<u64, Error> {
        match slice.is_mapping() {
            true => {
                self.mapping("launch", slice)?;
                self.files.in_place(bound, slice, align)
            }
            false => self.own(slice),
        }
    }

    /// The address of what a copy of `len` bytes writes.
    fn target(&self, work: &'static str, dst: &Slice, len: usize) -> Result<u64, Error> {
        if dst.len() != len {
            let (src, dst) = (len, dst.len());
            return Err(Error::Length { work, src, dst });
        }
        match dst.is_mapping() {
            true => Err(Error::ReadOnly { work: work.into() }),
            false => self.own(dst),
        }
    }

    /// The addresses of a copy within the device.
    pub(super) fn ends(&self, dst: &Slice, src: &Slice) -> Result<(u64, u64), Error> {
        let (to, from) = (self.target("copy", dst, src.len())?, self.own(src)?);
        let distance = usize::try_from(to.abs_diff(from)).unwrap_or(usize::MAX);
        // What a copy that overlaps itself does is not defined by the device.
        match distance >= src.len() {
            true => Ok((to, from)),
            false => Err(Error::Overlap {
                bytes: src.len(),
                distance,
            }),
        }
    }

    /// Launches what the host computes for this device. It waits for the stream, and what it read
    /// and wrote is done with when it returns, or kept by the stream.
    pub(super) fn launch_by_host(&self, stream: Stream, work: &Work) -> Option<Result<(), Error>> {
        let Work::Launch {
            executable,
            env,
            args,
            tiles,
            ..
        } = work
        else {
            return None;
        };
        let Ok(Loaded::ByHost(own)) = executable.open(&self.info) else {
            return None;
        };
        let name = match stream.open(&self.info).and_then(|n| self.on(n)) {
            Ok(on) => on.name.clone(),
            Err(error) => return Some(Err(error)),
        };
        let device = self;
        let ferry = OverStream { device, stream };
        let call = Call {
            env,
            args,
            tiles,
            scratch: None,
            stream: &name,
        };
        let mut mapped = work.slices().filter(|s| s.is_mapping());
        let launched = mapped
            .try_for_each(|slice| self.mapping("launch", slice))
            .and_then(|()| intact(work.slices()))
            .and_then(|()| own.run(call, host_team(), &ferry));
        Some(launched)
    }

    /// Hands work to the driver.
    ///
    /// # Safety
    /// The work is kept until the stream has come here.
    pub(super) unsafe fn put(
        &self,
        bound: &Bound<'_>,
        on: &CudaStream,
        id: u32,
        work: &Work,
    ) -> Result<(), Error> {
        let _settled = self.files.settle(bound, work.slices())?;
        match work {
            Work::Launch {
                executable,
                env,
                args,
                tiles,
                scratch,
            } => {
                let executable = self.executable_of(executable)?;
                let call = Call {
                    env,
                    args,
                    tiles,
                    scratch: scratch.as_ref(),
                    stream: &on.name,
                };
                let locate = |slice: &Slice, align| self.locate(bound, slice, align);
                // SAFETY: the work keeps executable and slices.
                unsafe { on.launch(bound, executable, call, locate) }
            }
            Work::Replay { graph, env } => {
                let graph: &Arc<CudaGraph> = graph.open(&self.info)?;
                let rows = graph.rows().iter().map(|r| &r.slice);
                let _settled = self.files.settle(bound, rows)?;
                self.in_place(bound, graph)?;
                // SAFETY: the work keeps the graph.
                unsafe { on.replay(bound, graph, *env) }
            }
            Work::Copy { dst, src } if src.is_mapping() => {
                let to = self.target("copy", dst, src.len())?;
                self.mapping("copy", src)?;
                // SAFETY: the work keeps both slices.
                unsafe { self.files.upload(bound, on.raw(), to, src) }
            }
            Work::Copy { dst, src } => {
                let (to, from) = self.ends(dst, src)?;
                if src.is_empty() {
                    return Ok(());
                }
                // SAFETY: the work keeps both slices, which are as long as that.
                unsafe { on.raw().copy(bound, to, from, src.len()) }
            }
            Work::Upload { dst, src } => {
                let to = self.target("upload", dst, src.len())?;
                self.mapping("upload", src)?;
                // SAFETY: the work keeps both slices.
                unsafe { self.files.upload(bound, on.raw(), to, src) }
            }
            Work::Write { dst, bytes } => {
                let to = self.target("write", dst, bytes.len())?;
                if bytes.is_empty() {
                    return Ok(());
                }
                // SAFETY: the work keeps the slice and owns the bytes, which stay where they are
                // on the heap when it moves.
                unsafe { on.raw().copy_in(bound, to, bytes.as_ptr(), bytes.len()) }
            }
            // Kernels do not read the process's pages, so there is nothing to make resident.
            Work::Populate(slice) => self.mapping("populate", slice),
            Work::Discard(slice) => self.mapping("discard", slice),
            Work::Trim(slice) => self.mapping("trim", slice),
            Work::Record(event) => on.record(bound, event.open(&self.info)?, id),
            Work::Wait(event) => {
                let event: &CudaEvent = event.open(&self.info)?;
                match event.recorded_on() {
                    Some(other) if other != id => on.wait(bound, event, &*self.on(other)?),
                    // Nothing to wait for, or what comes before anyway.
                    Some(_) | None => Ok(()),
                }
            }
        }
    }

    /// Makes sure that the rows of files that a graph reads are still where they were when it was
    /// recorded.
    fn in_place(&self, bound: &Bound<'_>, graph: &CudaGraph) -> Result<(), Error> {
        graph.rows().iter().try_for_each(|rows| {
            let now = self.locate(bound, &rows.slice, rows.align)?;
            match now == rows.address {
                true => Ok(()),
                false => Err(Error::Moved {
                    recorded: rows.address,
                    now,
                }),
            }
        })
    }

    /// A kernel of the device's own.
    pub(super) fn executable_of<'a>(
        &self,
        executable: &'a Executable,
    ) -> Result<&'a CudaExecutable, Error> {
        match executable.open(&self.info)? {
            Loaded::Own(own) => Ok(own),
            Loaded::ByHost(_) => Err(self.info.wrong("an executable")),
        }
    }

    /// Whether a slice is of a mapping that this device made.
    pub(super) fn mapping(&self, work: &'static str, slice: &Slice) -> Result<(), Error> {
        match slice.is_mapping() {
            true => slice.memory().open::<OwnMapping>(&self.info).map(drop),
            false => Err(Error::NotMapping { work }),
        }
    }
}
