//! Memory of the host: from the allocator, or from the system.

use super::reserved::Reserved;
use crate::contract::ALIGN;
use crate::{Claim, Error, Info, Memory};
use memmap2::MmapMut;
use std::alloc::Layout;
use std::ptr::NonNull;

/// From this size on, memory comes straight from the system: zeroed lazily, page by page, on
/// first touch, and really given back when freed.
const FROM_SYSTEM: usize = 128 << 10;

/// Who gives the bytes back. Only this file makes one, so memory that opens as this is host
/// memory, alive and writable.
pub(super) enum HostBytes {
    /// The allocator.
    Heap(#[allow(dead_code, reason = "held to be dropped")] Heap),
    /// The system, as anonymous pages.
    Pages(#[allow(dead_code, reason = "held to be dropped")] MmapMut),
    /// The system, as anonymous pages that count once they are touched.
    Reserved(Reserved),
}

/// Bytes of the allocator.
pub(super) struct Heap {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the bytes are owned by this value alone, which never touches them.
unsafe impl Send for Heap {}
// SAFETY: as above.
unsafe impl Sync for Heap {}

impl Drop for Heap {
    fn drop(&mut self) {
        // SAFETY: `start` came from `alloc_zeroed` with this layout and is freed only here.
        unsafe { std::alloc::dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// Zeroed memory.
pub(super) fn allocate(info: &Info, bytes: usize) -> Result<Memory, Error> {
    let refused = |reason: String| Error::OutOfMemory {
        device: info.name.clone(),
        bytes,
        reason,
    };
    if bytes >= FROM_SYSTEM {
        let mut pages = MmapMut::map_anon(bytes).map_err(|e| refused(e.to_string()))?;
        let start = pages.as_mut_ptr();
        return Ok(Memory::new(info.id, start, bytes, HostBytes::Pages(pages)));
    }
    let layout =
        Layout::from_size_align(bytes.max(ALIGN), ALIGN).map_err(|e| refused(e.to_string()))?;
    // SAFETY: the layout's size is at least `ALIGN`, so not zero.
    let start = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) });
    let start = start.ok_or_else(|| refused("the allocator returned null".into()))?;
    let heap = HostBytes::Heap(Heap { start, layout });
    Ok(Memory::new(info.id, start.as_ptr(), bytes, heap))
}

/// Addresses without memory.
pub(super) fn reserve(info: &Info, bytes: usize, claim: Claim) -> Result<Memory, Error> {
    let reserved = Reserved::new(bytes, claim).map_err(|e| Error::OutOfMemory {
        device: info.name.clone(),
        bytes,
        reason: e.to_string(),
    })?;
    let start = reserved.start().as_ptr();
    let owner = HostBytes::Reserved(reserved);
    Ok(Memory::new(info.id, start, bytes, owner))
}

/// Changes how much of reserved memory is real. Nothing may use what goes.
pub(super) fn commit(info: &Info, memory: &Memory, bytes: usize) -> Result<(), Error> {
    if memory.is_mapping() {
        return Err(Error::NotReserved);
    }
    let HostBytes::Reserved(reserved) = memory.open(info)? else {
        return Err(Error::NotReserved);
    };
    if bytes > memory.len() {
        return Err(Error::Range {
            start: 0,
            end: bytes,
            len: memory.len(),
        });
    }
    reserved.commit(bytes, &info.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeviceId, Residency};

    fn info() -> Info {
        Info {
            id: DeviceId::unique(),
            name: "host".into(),
            total_memory: 0,
            residency: Residency::Copied,
        }
    }

    #[test]
    fn allocations_are_aligned_and_may_be_empty() {
        for bytes in [0, 1, 300, FROM_SYSTEM, FROM_SYSTEM + 1] {
            let memory = allocate(&info(), bytes).unwrap();
            assert_eq!(memory.len(), bytes);
            assert_eq!(memory.whole().address() % ALIGN as u64, 0);
        }
    }

    #[test]
    fn an_impossible_size_is_an_error_with_the_size() {
        let error = allocate(&info(), usize::MAX / 2).unwrap_err();
        assert!(error.to_string().contains(&(usize::MAX / 2).to_string()));
    }
}
