//! Memory that submitted work keeps alive.
//!
//! A [`Memory`] is a reference-counted range of bytes that a device can address, and a
//! [`Slice`] is a part of one. The bytes go back to where they came from when the last slice
//! is gone, which a stream's queue may hold; so freeing never has to be ordered with work.
//! Nothing here reads or writes the bytes of device memory: only work does.

use crate::cuda::DeviceMemory;
use crate::host::Reserved;
use crate::mapping::{MappedFile, Mapping};
use crate::{Claim, Error, Paging};
use memmap2::MmapMut;
use std::alloc::Layout;
use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Every allocation starts on a multiple of this many bytes.
pub const ALIGN: usize = 256;

/// From this size on, memory comes straight from the system: zeroed lazily, page by page, on
/// first touch, and really given back when freed.
const FROM_SYSTEM: usize = 128 << 10;

/// A range of bytes that a device can address.
#[derive(Clone)]
pub struct Memory(Arc<Inner>);

/// A part of a [`Memory`]; cheap to clone.
#[derive(Clone)]
pub struct Slice {
    memory: Memory,
    offset: usize,
    len: usize,
}

// Fields drop in order: the bytes first, then what was tied to them.
struct Inner {
    owner: Owner,
    start: NonNull<u8>,
    len: usize,
    ties: Mutex<Vec<Box<dyn Any + Send + Sync>>>,
}

/// Who gives the bytes back.
enum Owner {
    /// The allocator.
    Heap(Layout),
    /// The system, as anonymous pages.
    Pages(#[allow(dead_code, reason = "held to be dropped")] MmapMut),
    /// The system, as anonymous pages that count once they are touched.
    Reserved(Box<Reserved>),
    /// A read-only file mapping.
    Mapping(Box<Mapping>),
    /// A CUDA device.
    Device(DeviceMemory),
}

// SAFETY: `start` points to memory that `owner` holds for as long as `Inner` lives and that no
// other value frees. The type itself never reads or writes it except through a read-only file
// mapping; work does, ordered by streams and events.
unsafe impl Send for Inner {}
// SAFETY: as above; shared access to `Inner` touches only the mutex and plain fields.
unsafe impl Sync for Inner {}

impl Memory {
    /// Zeroed host memory.
    pub(crate) fn host(bytes: usize, device: &str) -> Result<Memory, Error> {
        let refused = |reason: String| Error::OutOfMemory {
            device: device.to_string(),
            bytes,
            reason,
        };
        let (owner, start) = if bytes >= FROM_SYSTEM {
            let mut pages = MmapMut::map_anon(bytes).map_err(|e| refused(e.to_string()))?;
            let start = NonNull::new(pages.as_mut_ptr());
            (Owner::Pages(pages), start)
        } else {
            let layout = Layout::from_size_align(bytes.max(ALIGN), ALIGN)
                .map_err(|e| refused(e.to_string()))?;
            // SAFETY: the layout's size is at least `ALIGN`, so not zero.
            let start = unsafe { std::alloc::alloc_zeroed(layout) };
            (Owner::Heap(layout), NonNull::new(start))
        };
        let start = start.ok_or_else(|| refused("the allocator returned null".into()))?;
        Ok(Memory::new(owner, start, bytes))
    }

    /// Host addresses without memory.
    pub(crate) fn host_reserved(bytes: usize, device: &str, claim: Claim) -> Result<Memory, Error> {
        let reserved = Reserved::new(bytes, claim).map_err(|e| Error::OutOfMemory {
            device: device.to_string(),
            bytes,
            reason: e.to_string(),
        })?;
        let start = reserved.start();
        Ok(Memory::new(
            Owner::Reserved(Box::new(reserved)),
            start,
            bytes,
        ))
    }

    /// Changes how much of reserved host memory is real. Nothing may use what goes.
    pub(crate) fn host_commit(&self, bytes: usize, device: &str) -> Result<(), Error> {
        let Owner::Reserved(reserved) = &self.0.owner else {
            return Err(Error::NotReserved);
        };
        if bytes > self.len() {
            return Err(Error::Range {
                start: 0,
                end: bytes,
                len: self.len(),
            });
        }
        reserved.commit(bytes, device)
    }

    /// A read-only file mapping.
    pub(crate) fn mapping(file: MappedFile, paging: Paging) -> Memory {
        let start = NonNull::new(file.map.as_ptr().cast_mut()).unwrap_or(NonNull::dangling());
        let len = file.map.len();
        let mapping = Mapping::new(file, paging);
        Memory::new(Owner::Mapping(Box::new(mapping)), start, len)
    }

    /// Memory of a CUDA device.
    pub(crate) fn device(memory: DeviceMemory, bytes: usize) -> Memory {
        // Only ever an address: no reference to device memory is made on the host.
        let start = NonNull::new(memory.address() as *mut u8).unwrap_or(NonNull::dangling());
        Memory::new(Owner::Device(memory), start, bytes)
    }

    fn new(owner: Owner, start: NonNull<u8>, len: usize) -> Memory {
        Memory(Arc::new(Inner {
            owner,
            start,
            len,
            ties: Mutex::default(),
        }))
    }

    /// All of it.
    pub fn whole(&self) -> Slice {
        Slice {
            memory: self.clone(),
            offset: 0,
            len: self.len(),
        }
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this is a file mapping, which nothing may write.
    pub fn is_mapping(&self) -> bool {
        matches!(self.0.owner, Owner::Mapping(..))
    }

    /// The device memory, if it is some.
    pub(crate) fn on_device(&self) -> Option<&DeviceMemory> {
        match &self.0.owner {
            Owner::Device(memory) => Some(memory),
            Owner::Heap(_) | Owner::Pages(_) | Owner::Reserved(_) | Owner::Mapping(_) => None,
        }
    }

    /// The mapping, if this is one.
    pub(crate) fn as_mapping(&self) -> Option<&Mapping> {
        match &self.0.owner {
            Owner::Mapping(m) => Some(m),
            Owner::Heap(_) | Owner::Pages(_) | Owner::Reserved(_) | Owner::Device(_) => None,
        }
    }

    /// Whether the file of a mapping is still as long as when it was mapped: if not,
    /// [`Error::FileCut`], and no byte of the mapping should be touched. Other memory is always
    /// intact. Costs one system call.
    pub fn intact(&self) -> Result<(), Error> {
        self.as_mapping().map_or(Ok(()), |m| m.file().intact())
    }

    /// Keeps `value` for as long as the bytes exist, whoever refers to them, and drops it just
    /// after they are given back. This is how an allocator learns that memory which submitted
    /// work still held is gone.
    pub fn tie(&self, value: impl Any + Send + Sync) {
        lock(&self.0.ties).push(Box::new(value));
    }
}

impl Slice {
    /// A part of this slice; `range` is relative to it.
    pub fn slice(&self, range: Range<usize>) -> Result<Slice, Error> {
        if range.start > range.end || range.end > self.len {
            return Err(Error::Range {
                start: range.start,
                end: range.end,
                len: self.len,
            });
        }
        Ok(Slice {
            memory: self.memory.clone(),
            offset: self.offset + range.start,
            len: range.end - range.start,
        })
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes before it in its memory.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The memory it is a part of.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Where the device sees its first byte.
    pub fn address(&self) -> u64 {
        self.pointer() as u64
    }

    /// Whether this is a part of a file mapping, which nothing may write.
    pub fn is_mapping(&self) -> bool {
        self.memory.is_mapping()
    }

    /// The bytes, if this is a part of a file mapping.
    pub fn mapped(&self) -> Option<&[u8]> {
        let mapping = self.memory.as_mapping()?;
        let bytes = &mapping.file().map;
        bytes.get(self.offset..self.offset + self.len)
    }

    /// The first byte. Valid for `len` bytes while a slice of the memory lives; on the host
    /// unless this is memory of a CUDA device; readable, and writable unless this is a mapping.
    pub(crate) fn pointer(&self) -> *mut u8 {
        // `offset <= memory.len` by construction, so this stays inside the allocation.
        self.memory.0.start.as_ptr().wrapping_add(self.offset)
    }
}

/// Whether all files that the slices are mapped from are as long as they were; see
/// [`Memory::intact`].
pub(crate) fn intact<'a>(slices: impl Iterator<Item = &'a Slice>) -> Result<(), Error> {
    let mut last = None;
    for mapping in slices.filter_map(|s| s.memory().as_mapping()) {
        let file = Arc::as_ptr(&mapping.file().file);
        if last.replace(file) != Some(file) {
            mapping.file().intact()?;
        }
    }
    Ok(())
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Inner {
    fn drop(&mut self) {
        match self.owner {
            Owner::Heap(layout) => {
                // SAFETY: `start` came from `alloc_zeroed` with this layout and is freed only here.
                unsafe { std::alloc::dealloc(self.start.as_ptr(), layout) }
            }
            Owner::Pages(_) | Owner::Reserved(_) | Owner::Mapping(..) | Owner::Device(_) => {}
        }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.0.owner {
            Owner::Heap(_) | Owner::Pages(_) | Owner::Reserved(_) => "host",
            Owner::Mapping(..) => "mapping",
            Owner::Device(_) => "device",
        };
        write!(f, "Memory({kind}, {} bytes)", self.len())
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.offset + self.len;
        write!(f, "{:?}[{}..{end}]", self.memory, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_are_aligned_and_may_be_empty() {
        for bytes in [0, 1, 300, FROM_SYSTEM, FROM_SYSTEM + 1] {
            let memory = Memory::host(bytes, "host").unwrap();
            assert_eq!(memory.len(), bytes);
            assert_eq!(memory.whole().address() % ALIGN as u64, 0);
        }
    }

    #[test]
    fn an_impossible_size_is_an_error_with_the_size() {
        let error = Memory::host(usize::MAX / 2, "host").unwrap_err();
        assert!(error.to_string().contains(&(usize::MAX / 2).to_string()));
    }

    #[test]
    fn slices_nest_and_refuse_what_lies_outside() {
        let memory = Memory::host(100, "host").unwrap();
        let inner = memory.whole().slice(10..90).unwrap().slice(5..15).unwrap();
        assert_eq!((inner.offset(), inner.len()), (15, 10));
        assert_eq!(inner.address(), memory.whole().address() + 15);
        assert!(inner.slice(5..11).is_err());
        #[allow(clippy::reversed_empty_ranges, reason = "the point of the test")]
        let reversed = inner.slice(6..5);
        assert!(reversed.is_err());
    }

    #[test]
    fn what_is_tied_lives_as_long_as_the_last_slice() {
        let tied = Arc::new(());
        let memory = Memory::host(64, "host").unwrap();
        memory.tie(tied.clone());
        let slice = memory.whole().slice(0..8).unwrap();
        drop(memory);
        assert_eq!(Arc::strong_count(&tied), 2);
        drop(slice);
        assert_eq!(Arc::strong_count(&tied), 1);
    }
}
