//! Memory that submitted work keeps alive.
//!
//! A [`Memory`] is a reference-counted range of bytes that a device can address, and a
//! [`Slice`] is a part of one. The bytes go back to where they came from when the last slice
//! is gone, which a stream's queue may hold; so freeing never has to be ordered with work.
//! Nothing here reads or writes the bytes of device memory: only work does.

use super::{DeviceId, Error, Info, MappedFile};
use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Every allocation starts on a multiple of this many bytes.
pub const ALIGN: usize = 256;

/// A range of bytes that a device can address.
#[derive(Clone)]
pub struct Memory(Arc<MemoryInner>);

/// A part of a [`Memory`]; cheap to clone.
#[derive(Clone)]
pub struct Slice {
    memory: Memory,
    offset: usize,
    len: usize,
}

// Fields drop in order: the bytes first, then what was tied to them.
struct MemoryInner {
    owner: Owner,
    device: DeviceId,
    start: NonNull<u8>,
    len: usize,
    ties: Mutex<Vec<Box<dyn Any + Send + Sync>>>,
}

/// Who gives the bytes back when it is dropped, for the device alone to look at.
enum Owner {
    /// A device.
    Device(Box<dyn Any + Send + Sync>),
    /// A read-only file mapping, with what the device keeps of it.
    Mapping(MappedFile, Box<dyn Any + Send + Sync>),
}

// SAFETY: `start` points to memory that `owner` holds for as long as `MemoryInner` lives and that no
// other value frees. The type itself never reads or writes it; work does, ordered by streams and
// events, on memory that its device has opened and so made itself.
unsafe impl Send for MemoryInner {}
// SAFETY: as above; shared access to `MemoryInner` touches only the mutex and plain fields.
unsafe impl Sync for MemoryInner {}

impl Memory {
    /// Memory of a device: `len` bytes at `start`, as the device addresses them. `owner` is for
    /// the device alone, and gives the bytes back when it is dropped. Nothing here touches the
    /// bytes, so a device must not either before it has [opened](Memory::open) the owner and
    /// seen that the memory is its own.
    pub fn new(
        device: DeviceId,
        start: *mut u8,
        len: usize,
        owner: impl Any + Send + Sync,
    ) -> Memory {
        Memory::of(device, Owner::Device(Box::new(owner)), start, len)
    }

    /// A read-only file mapping, with what a device keeps of it for itself.
    pub fn mapped(device: DeviceId, file: MappedFile, own: impl Any + Send + Sync) -> Memory {
        let (start, len) = (file.map.as_ptr().cast_mut(), file.map.len());
        Memory::of(device, Owner::Mapping(file, Box::new(own)), start, len)
    }

    fn of(device: DeviceId, owner: Owner, start: *mut u8, len: usize) -> Memory {
        Memory(Arc::new(MemoryInner {
            owner,
            device,
            start: NonNull::new(start).unwrap_or(NonNull::dangling()),
            len,
            ties: Mutex::default(),
        }))
    }

    /// What the device put into it.
    ///
    /// # Errors
    /// [`Error::WrongDevice`] if it is memory of another device, or if that put something else
    /// into it.
    pub fn open<T: Any>(&self, device: &Info) -> Result<&T, Error> {
        let (Owner::Device(own) | Owner::Mapping(_, own)) = &self.0.owner;
        let own = (self.0.device == device.id).then(|| own.downcast_ref());
        own.flatten().ok_or_else(|| device.wrong("memory"))
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

    /// The file, if this is a mapping of one.
    pub fn file(&self) -> Option<&MappedFile> {
        match &self.0.owner {
            Owner::Mapping(file, _) => Some(file),
            Owner::Device(_) => None,
        }
    }

    /// Whether the file of a mapping is still as long as when it was mapped: if not,
    /// [`Error::FileCut`], and no byte of the mapping should be touched. Other memory is always
    /// intact. Costs one system call.
    ///
    /// # Errors
    /// [`Error::FileCut`], and [`Error::FileRead`] if the system does not tell.
    pub fn intact(&self) -> Result<(), Error> {
        self.file().map_or(Ok(()), MappedFile::intact)
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
    ///
    /// # Errors
    /// [`Error::Range`] if it does not lie in this slice.
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
        let bytes = &self.memory.file()?.map;
        bytes.get(self.offset..self.offset + self.len)
    }

    /// The first byte, as the device addresses it, which made the memory to be valid for `len`
    /// bytes while a slice of it lives: readable, and writable unless this is a mapping.
    pub(crate) fn pointer(&self) -> *mut u8 {
        // `offset <= memory.len` by construction, so this stays inside the allocation.
        self.memory.0.start.as_ptr().wrapping_add(self.offset)
    }
}

/// Whether all files that the slices are mapped from are as long as they were; see
/// [`Memory::intact`].
pub(crate) fn intact<'a>(slices: impl Iterator<Item = &'a Slice>) -> Result<(), Error> {
    let mut last = None;
    for mapped in slices.filter_map(|s| s.memory().file()) {
        let file = Arc::as_ptr(&mapped.file);
        if last.replace(file) != Some(file) {
            mapped.intact()?;
        }
    }
    Ok(())
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.0.owner {
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

    fn memory(len: usize) -> Memory {
        Memory::new(DeviceId::unique(), std::ptr::null_mut(), len, ())
    }

    #[test]
    fn slices_nest_and_refuse_what_lies_outside() {
        let memory = memory(100);
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
        let memory = memory(64);
        memory.tie(tied.clone());
        let slice = memory.whole().slice(0..8).unwrap();
        drop(memory);
        assert_eq!(Arc::strong_count(&tied), 2);
        drop(slice);
        assert_eq!(Arc::strong_count(&tied), 1);
    }
}
