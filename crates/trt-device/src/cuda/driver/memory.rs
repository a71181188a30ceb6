//! Memory that the driver gives: on the device, page-locked on the host, and host pages of ours
//! that it locks.

use super::context::{Bound, Context};
use crate::Error;
use cudarc::driver::sys;
use memmap2::Mmap;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

/// Device memory; given back when dropped, so no work may use it then.
#[derive(Debug)]
pub(crate) struct DeviceBytes {
    context: Arc<Context>,
    address: u64,
}

impl DeviceBytes {
    /// At least one byte, whatever `bytes` says, so that there is an address. Any content.
    pub fn new(context: &Arc<Context>, bytes: usize) -> Result<DeviceBytes, Error> {
        let bound = context.bind()?;
        let mut address = 0;
        // SAFETY: the context is current; the driver writes one address.
        let told = unsafe { sys::cuMemAlloc_v2(&mut address, bytes.max(1)) };
        bound.check_memory(told, bytes, "cuMemAlloc")?;
        Ok(DeviceBytes {
            context: context.clone(),
            address,
        })
    }

    /// Where the device sees the first byte.
    pub fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for DeviceBytes {
    fn drop(&mut self) {
        if let Ok(bound) = self.context.bind() {
            // SAFETY: allocated in `new`, freed only here, and no work uses it any more.
            let told = unsafe { sys::cuMemFree_v2(self.address) };
            warn(bound.check(told, || "cuMemFree".into()));
        }
    }
}

/// Page-locked memory of the host that both sides can use; zeroed, never write-combined.
#[derive(Debug)]
pub(crate) struct Pinned {
    context: Arc<Context>,
    start: NonNull<u8>,
    len: usize,
    address: u64,
}

// SAFETY: plain memory; whoever takes a pointer to it orders the accesses.
unsafe impl Send for Pinned {}
// SAFETY: as above; shared references only give addresses.
unsafe impl Sync for Pinned {}

impl Pinned {
    /// At least one byte.
    pub fn new(context: &Arc<Context>, len: usize) -> Result<Pinned, Error> {
        let bound = context.bind()?;
        let flags = sys::CU_MEMHOSTALLOC_PORTABLE | sys::CU_MEMHOSTALLOC_DEVICEMAP;
        let mut start = std::ptr::null_mut();
        // SAFETY: the context is current; the driver writes one pointer.
        let told = unsafe { sys::cuMemHostAlloc(&mut start, len.max(1), flags) };
        let call = || format!("cuMemHostAlloc of {len} bytes");
        bound.check(told, call)?;
        let Some(start) = NonNull::new(start.cast::<u8>()) else {
            let none = sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY;
            return Err(super::failure(none, call()));
        };
        let mut pinned = Pinned {
            context: context.clone(),
            start,
            len,
            address: 0,
        };
        // SAFETY: the driver gave `len` bytes at `start`, of which nothing else knows yet.
        unsafe { start.write_bytes(0, len) };
        pinned.address = device_pointer(&bound, start.as_ptr().cast())?;
        Ok(pinned)
    }

    /// The first byte; valid for reads and writes of all bytes while this lives.
    pub fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Where the device sees the first byte.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// The bytes, for the host alone.
    ///
    /// # Safety
    /// No work that reads or writes them may be under way.
    pub unsafe fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: `len` bytes live as long as `self`, which is borrowed for as long as the slice
        // lives; the device does not touch them, as the caller vouches.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Ok(bound) = self.context.bind() {
            // SAFETY: allocated in `new`, freed only here; whoever gives it to work keeps it.
            let told = unsafe { sys::cuMemFreeHost(self.start.as_ptr().cast()) };
            warn(bound.check(told, || "cuMemFreeHost".into()));
        }
    }
}

/// Pages of a read-only file mapping, locked and known to the device until dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    context: Arc<Context>,
    start: usize,
    /// Held so that the pages stay mapped until they are let go.
    _map: Arc<Mmap>,
}

impl Registration {
    /// Locks the pages of `range`, which starts on a page. Pages that are not in memory yet are
    /// read, so this takes as long as that.
    pub fn new(
        context: &Arc<Context>,
        map: &Arc<Mmap>,
        range: Range<usize>,
    ) -> Result<Registration, Error> {
        let bound = context.bind()?;
        let call = || format!("cuMemHostRegister of {range:?} of a mapping");
        let Some(bytes) = map.get(range.clone()).filter(|b| !b.is_empty()) else {
            let bad = sys::CUresult::CUDA_ERROR_INVALID_VALUE;
            return Err(super::failure(bad, call()));
        };
        let start = bytes.as_ptr().cast_mut();
        let register = |flags| {
            // SAFETY: the pages are mapped for as long as `map` lives, which the registration
            // holds; the device may only read them, as the mapping is read-only.
            unsafe { sys::cuMemHostRegister_v2(start.cast(), bytes.len(), flags) }
        };
        let read_only = sys::CU_MEMHOSTREGISTER_READ_ONLY;
        let told = match register(read_only | sys::CU_MEMHOSTREGISTER_DEVICEMAP) {
            // With one address space for both sides, kernels see registered pages anyway.
            sys::CUresult::CUDA_ERROR_INVALID_VALUE => register(read_only),
            other => other,
        };
        bound.check(told, call)?;
        Ok(Registration {
            context: context.clone(),
            start: start as usize,
            _map: map.clone(),
        })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Ok(bound) = self.context.bind() {
            // SAFETY: registered in `new`, let go only here, while the pages are still mapped.
            let told = unsafe { sys::cuMemHostUnregister(self.start as *mut std::ffi::c_void) };
            warn(bound.check(told, || "cuMemHostUnregister".into()));
        }
    }
}

fn device_pointer(bound: &Bound<'_>, start: *mut std::ffi::c_void) -> Result<u64, Error> {
    let mut address = 0;
    // SAFETY: the context is current; the driver looks the pointer up and writes one address.
    let told = unsafe { sys::cuMemHostGetDevicePointer_v2(&mut address, start, 0) };
    bound.check(told, || "cuMemHostGetDevicePointer".into())?;
    Ok(address)
}

/// Giving something back can fail only with the context, or by a bug; neither can be returned
/// from a drop.
pub(super) fn warn(result: Result<(), Error>) {
    if let Err(error) = result {
        tracing::warn!(%error, "a resource of the device was not given back");
    }
}
