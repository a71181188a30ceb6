//! Mapped files as sources of copies and as memory that kernels read in place.
//!
//! A file's pages are registered with the driver chunk by chunk when they are first used; then
//! the device copies straight from the page cache at the speed of the link, and no byte of a
//! weight is anonymous host memory. Registered pages cannot be evicted from memory, so a host
//! budget bounds them; invariant: `registered` never exceeds it. What does not fit, or what the
//! driver refuses, is copied through the [`Ring`]. The first chunks stay: uploads scan the file
//! in a cycle, so putting one chunk out for another could only lose. What kernels read in place
//! has no other way, so it comes before uploads.
//!
//! Kernels read rows only where their elements are aligned. Rows that a file has elsewhere, after a
//! header that was not padded, say, are read in a page-locked copy, which counts in the budget too.
//! Files are settled before anything of them is used (`settle.rs`).
//!
//! Mappings of one file share one entry: their pages are the same.

use super::pull::Pull;
use super::registry::{Chunk, Registry, unknown};
use super::ring::Ring;
use crate::contract::MappedFile;
use crate::cuda::driver::{Bound, Context, Pinned, RawStream, Registration};
use crate::gpu::Ahead;
use crate::gpu::chunks::{self, AHEAD};
use crate::{DeviceId, Error, Memory, Slice};
use memmap2::Mmap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// How bytes of mapped files reached the device, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transfers {
    /// Bytes copied straight from the page cache.
    pub direct: u64,
    /// Those of them that a kernel copied, while the driver cleared memory that was given back.
    pub pulled: u64,
    /// Bytes copied through the pinned ring.
    pub ring: u64,
    /// Bytes of mapped files that are registered, and so page-locked, now.
    pub registered: u64,
    /// Bytes of anonymous page-locked memory that hold rows for kernels to read, where the driver
    /// cannot register a file or the file does not align them, now.
    pub copied: u64,
}

/// What is in memory that is a mapping of the device: what there is to know lies in [`Files`].
#[derive(Debug)]
pub(in crate::cuda) struct OwnMapping;

/// All mapped files of a device.
#[derive(Debug)]
pub(in crate::cuda) struct Files {
    context: Arc<Context>,
    budget: u64,
    state: Mutex<Registry>,
    /// Held by who puts work that reads pages, and alone by who lets go of pages that such work may
    /// read.
    pub(in crate::cuda) pages: RwLock<()>,
    ring: Ring,
    ahead: Ahead,
    pull: Option<Pull>,
    direct: AtomicU64,
    pulled: AtomicU64,
}

/// Tied to a mapping's memory: ends its use of the entry before the pages go.
struct Unmap {
    files: Arc<Files>,
    base: usize,
    /// The address stays taken until `drop` has forgotten it.
    _map: Arc<Mmap>,
}

impl Files {
    /// At most `budget` bytes are locked in host memory.
    pub fn new(context: Arc<Context>, budget: u64, pull: Option<Pull>) -> Files {
        Files {
            ring: Ring::new(context.clone()),
            ahead: Ahead::default(),
            context,
            budget,
            state: Mutex::default(),
            pages: RwLock::default(),
            pull,
            direct: AtomicU64::new(0),
            pulled: AtomicU64::new(0),
        }
    }

    pub(in crate::cuda) fn lock(&self) -> MutexGuard<'_, Registry> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a mapping of a whole file known.
    pub fn map(self: &Arc<Files>, device: DeviceId, file: MappedFile) -> Memory {
        let memory = Memory::mapped(device, file.clone(), OwnMapping);
        if file.map.is_empty() {
            return memory;
        }
        let base = file.map.as_ptr() as usize;
        let mut state = self.lock();
        let id = state.entry_of(&file);
        state.add_user(&file, id);
        drop(state);
        memory.tie(Unmap {
            files: self.clone(),
            base,
            _map: file.map,
        });
        memory
    }

    /// Copies a slice of a mapping, of a file that is settled, to device memory of equal length.
    ///
    /// # Safety
    /// The destination is device memory, and the slice is kept, until the stream has come here.
    pub unsafe fn upload(
        &self,
        bound: &Bound<'_>,
        stream: &RawStream,
        dst: u64,
        src: &Slice,
    ) -> Result<(), Error> {
        if src.is_empty() {
            return Ok(());
        }
        let offset = src.offset();
        let mut others = Vec::new();
        let mut state = self.lock();
        let id = state.find(src)?;
        for (chunk, part) in chunks::parts(offset..offset + src.len()) {
            let to = dst + (part.start - offset) as u64;
            self.register(&mut state, id, chunk);
            let Some(entry) = state.entries.get(&id) else {
                return Err(unknown());
            };
            if !matches!(entry.chunks.get(chunk), Some(Chunk::Registered { .. })) {
                others.push((to, part));
                continue;
            }
            let from = entry.file.map.as_ptr().wrapping_add(part.start);
            let pull = self.pull.as_ref();
            match pull.filter(|pull| pull.wanted(to, from, part.len())) {
                None => {
                    // SAFETY: the part lies in one registered chunk, which stays while the slice
                    // is kept or until the device was waited for; files that are mapped do not
                    // change, as whoever maps them vouches. The rest is the caller's.
                    unsafe { stream.copy_in(bound, to, from, part.len())? }
                }
                Some(pull) => {
                    // SAFETY: as above; `wanted` has looked for multiples of eight.
                    unsafe { pull.copy(bound, stream, to, from, part.len())? };
                    self.pulled.fetch_add(part.len() as u64, Ordering::Relaxed);
                }
            }
            self.direct.fetch_add(part.len() as u64, Ordering::Relaxed);
        }
        let file = state.entries.get(&id).map(|e| e.file.clone());
        // The ring waits for the device, which nobody else should have to.
        drop(state);
        let file = file.ok_or_else(unknown)?;
        for (to, part) in others {
            // SAFETY: the destination is the caller's.
            unsafe { self.ring.upload(bound, stream, to, &file, part)? };
        }
        Ok(())
    }

    /// Where kernels can read a slice of a mapping, of a file that is settled, for as long as its memory lives: an address that
    /// is a multiple of `align`, a power of two of at most a page.
    pub fn in_place(&self, bound: &Bound<'_>, src: &Slice, align: u64) -> Result<u64, Error> {
        if src.is_empty() {
            return Ok(src.address().next_multiple_of(align));
        }
        let range = src.offset()..src.offset() + src.len();
        let mut state = self.lock();
        let id = state.find(src)?;
        let facts = self.context.facts();
        // Mappings begin with a page.
        let aligned = (range.start as u64).is_multiple_of(align);
        if aligned && facts.registers_read_only && facts.same_addresses {
            let missing = state.missing(id, &range);
            self.make_room(bound, &mut state, (id, &range), missing)?;
            if chunks::touched(&range).all(|c| self.register_in_place(&mut state, id, c)) {
                let entry = state.entries.get(&id).ok_or_else(unknown)?;
                return Ok(entry.file.map.as_ptr().wrapping_add(range.start) as u64);
            }
        }
        self.copied(bound, &mut state, id, range, align)
    }

    /// Lets go of chunks that only uploads use until `missing` bytes more fit; those that a range
    /// of a file touches stay.
    fn make_room(
        &self,
        bound: &Bound<'_>,
        state: &mut Registry,
        (id, stay): (u64, &Range<usize>),
        missing: u64,
    ) -> Result<(), Error> {
        let excess = (state.registered + state.copied + missing).saturating_sub(self.budget);
        if missing == 0 || excess == 0 {
            return Ok(());
        }
        let victims = state.upload_only(id, stay);
        if victims.iter().map(|(.., bytes)| bytes).sum::<u64>() < excess {
            return Err(Error::HostBudget {
                bytes: state.in_place() + state.copied + missing,
                budget: self.budget,
            });
        }
        bound.synchronize()?;
        let mut freed = 0;
        for (id, chunk, bytes) in victims {
            if freed >= excess {
                break;
            }
            state.set(id, chunk, Chunk::Untouched);
            freed += bytes;
        }
        state.registered -= freed;
        Ok(())
    }

    fn register_in_place(&self, state: &mut Registry, id: u64, chunk: usize) -> bool {
        self.register(state, id, chunk);
        let entry = state.entries.get_mut(&id);
        match entry.and_then(|e| e.chunks.get_mut(chunk)) {
            Some(Chunk::Registered { in_place, .. }) => {
                *in_place = true;
                true
            }
            Some(Chunk::Untouched | Chunk::Refused) | None => false,
        }
    }

    /// Registers a chunk if that was not tried yet and fits the budget.
    fn register(&self, state: &mut Registry, id: u64, index: usize) {
        let room = self.budget.saturating_sub(state.registered + state.copied);
        let Some(entry) = state.entries.get_mut(&id) else {
            return;
        };
        let range = chunks::bytes(index, entry.file.map.len());
        let bytes = range.len() as u64;
        let Some(chunk) = entry.chunks.get_mut(index) else {
            return;
        };
        if !matches!(chunk, Chunk::Untouched) || bytes > room {
            return;
        }
        if !self.context.facts().registers_read_only {
            *chunk = Chunk::Refused;
            return;
        }
        self.bring_ahead(&mut entry.asked, &entry.file.map, index, room);
        match Registration::new(&self.context, &entry.file.map, range) {
            Ok(_registration) => {
                *chunk = Chunk::Registered {
                    _registration,
                    in_place: false,
                };
                state.registered += bytes;
            }
            // A file that was cut may be whole again when it is next needed.
            Err(_) if entry.file.intact().is_err() => {}
            Err(error) => {
                *chunk = Chunk::Refused;
                // What the driver refuses once it mostly refuses for all of a file.
                if !std::mem::replace(&mut entry.said, true) {
                    let (chunk, file) = (bytes, entry.file.map.len());
                    tracing::warn!(%error, chunk, file, "mapped pages come through the ring");
                }
            }
        }
    }

    /// Brings the pages of the next chunks, and of this one, once each and no more than may be
    /// registered.
    fn bring_ahead(&self, asked: &mut [bool], map: &Arc<Mmap>, index: usize, room: u64) {
        let mut bytes = 0;
        for (at, asked) in asked.iter_mut().enumerate().skip(index).take(AHEAD + 1) {
            let range = chunks::bytes(at, map.len());
            bytes += range.len() as u64;
            if bytes > room {
                return;
            }
            if !std::mem::replace(asked, true) {
                self.ahead.bring(map, range);
            }
        }
    }

    /// The address of a page-locked copy of a range.
    fn copied(
        &self,
        bound: &Bound<'_>,
        state: &mut Registry,
        id: u64,
        range: Range<usize>,
        align: u64,
    ) -> Result<u64, Error> {
        let entry = state.entries.get(&id).ok_or_else(unknown)?;
        let copies = entry.copies.iter().map(|(r, pinned)| (r, pinned.address()));
        if let Some(address) = held(copies, &range, align) {
            return Ok(address);
        }
        let bytes = range.len() as u64;
        self.make_room(bound, state, (id, &(0..0)), bytes)?;
        let entry = state.entries.get_mut(&id).ok_or_else(unknown)?;
        let mut pinned = Pinned::new(&self.context, range.len())?;
        // SAFETY: nothing knows of the memory yet.
        let target = unsafe { pinned.bytes_mut() };
        entry.file.read(range.start, target)?;
        let address = pinned.address();
        entry.copies.push((range, pinned));
        state.copied += bytes;
        Ok(address)
    }

    /// What went which way.
    pub fn transfers(&self) -> Transfers {
        let state = self.lock();
        Transfers {
            direct: self.direct.load(Ordering::Relaxed),
            pulled: self.pulled.load(Ordering::Relaxed),
            ring: self.ring.bytes(),
            registered: state.registered,
            copied: state.copied,
        }
    }
}

/// Where a range is in one of the copies, each at an address, if at a multiple of `align`.
fn held<'a>(
    copies: impl Iterator<Item = (&'a Range<usize>, u64)>,
    range: &Range<usize>,
    align: u64,
) -> Option<u64> {
    copies
        .filter(|(whole, _)| whole.start <= range.start && range.end <= whole.end)
        .map(|(whole, address)| address + (range.start - whole.start) as u64)
        .find(|address| address.is_multiple_of(align))
}

impl Drop for Unmap {
    fn drop(&mut self) {
        let entry = self.files.lock().unmap(self.base);
        // Unregistering takes a while, which others need not wait for.
        drop(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_serves_the_ranges_in_it_that_it_aligns() {
        let copies = [(10..50, 0x1000), (14..40, 0x2000)];
        let found = |range: Range<usize>, align| {
            let all = copies.iter().map(|(r, address)| (r, *address));
            held(all, &range, align)
        };
        assert_eq!(found(10..50, 16), Some(0x1000));
        assert_eq!(found(12..20, 2), Some(0x1002));
        // The first copy has it, but not where it could be read.
        assert_eq!(found(14..20, 16), Some(0x2000));
        assert_eq!(found(13..20, 4), None);
        assert_eq!(found(9..20, 1), None);
        assert_eq!(found(30..51, 1), None);
    }
}
