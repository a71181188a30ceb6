//! A range of device addresses of which a first part is backed by memory.
//!
//! Calls of the driver about such memory cost time whatever its size: on an H100 mapping and
//! unmapping 6 GB took 130 and 91 ms in pieces of 2 MiB, 4 and 4.5 ms in pieces of 64 MiB. So memory
//! comes in [pieces](super::pieces) that are large, access to all that was added is given by one call, and
//! all that goes is unmapped by one. What is backed ends where it was asked to, to the device's
//! granularity: a piece that the end falls into is replaced by a shorter one with the same bytes.
//!
//! Invariant: pieces lie one behind the other from the first address on, and nothing else is
//! mapped, also after a call that failed.

use super::context::{Bound, Context};
use super::memory::warn;
use super::pieces::{kept, lengths, piece};
use super::queue::RawStream;
use crate::Error;
use cudarc::driver::sys;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// A reserved range; given back when dropped, so no work may use it then.
#[derive(Debug)]
pub(crate) struct AddressSpace {
    context: Arc<Context>,
    base: u64,
    /// Bytes reserved: a multiple of `granularity`.
    size: usize,
    granularity: usize,
    /// Bytes of memory that are made at once.
    piece: usize,
    backed: Mutex<Backed>,
    /// `Backed::bytes`, for those who must not wait for a change of it.
    committed: AtomicUsize,
}

/// What is mapped.
#[derive(Debug, Default)]
struct Backed {
    pieces: Vec<Physical>,
    bytes: usize,
}

/// Memory without an address, given back when dropped and not mapped.
#[derive(Debug)]
struct Physical {
    context: Arc<Context>,
    handle: sys::CUmemGenericAllocationHandle,
    len: usize,
}

/// Why a piece was not shortened.
#[derive(Debug)]
enum Uncut {
    /// It is there as before.
    Stays(Error),
    /// Neither it nor a shorter one could be mapped again, so nothing is where it was.
    Gone(Error),
}

impl AddressSpace {
    /// Reserves addresses for at least `bytes` bytes.
    pub fn reserve(context: &Arc<Context>, bytes: usize) -> Result<AddressSpace, Error> {
        let bound = context.bind()?;
        let granularity = granularity(&bound)?;
        let Some(size) = bytes.max(1).checked_next_multiple_of(granularity) else {
            return Err(Error::OutOfMemory {
                device: context.facts().name.clone(),
                bytes,
                reason: "more than there are addresses".into(),
            });
        };
        Ok(AddressSpace {
            context: context.clone(),
            base: addresses(&bound, size)?,
            size,
            granularity,
            piece: piece(size, granularity),
            backed: Mutex::default(),
            committed: AtomicUsize::new(0),
        })
    }

    /// The first address.
    pub fn address(&self) -> u64 {
        self.base
    }

    /// Bytes from the first address on that are backed by memory; for a moment fewer while that
    /// changes.
    pub fn committed(&self) -> usize {
        self.committed.load(Ordering::Acquire)
    }

    /// The same once no change is under way. Changing takes no lock of a stream, so that whoever
    /// holds one may ask.
    pub fn settled(&self) -> usize {
        let backed = self.backed.lock().unwrap_or_else(PoisonError::into_inner);
        backed.bytes
    }

    /// Backs the first `bytes` bytes, rounded up to the granularity, with memory and no more. What
    /// goes back waits for everything that the device still does; after an error nothing has
    /// changed, but for [`Error::Uncommittable`], which says how much is left. Where memory is so
    /// short that a piece cannot be shortened, all of it stays.
    pub fn commit(&self, bytes: usize) -> Result<(), Error> {
        let bound = self.context.bind()?;
        let mut backed = self.backed.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = bytes
            .min(self.size)
            .next_multiple_of(self.granularity)
            .min(self.size);
        if wanted >= backed.bytes {
            return self.grow(&bound, &mut backed, wanted);
        }
        bound.synchronize()?;
        self.shrink(&bound, &mut backed, wanted)
    }

    /// Notes what is backed: before memory goes, and after it has come.
    fn set(&self, backed: &mut Backed, bytes: usize) {
        backed.bytes = bytes;
        self.committed.store(bytes, Ordering::Release);
    }

    fn grow(&self, bound: &Bound<'_>, backed: &mut Backed, wanted: usize) -> Result<(), Error> {
        let (start, mut end) = (backed.bytes, backed.bytes);
        let mut new = Vec::new();
        let mapped = lengths(wanted - start, self.piece).try_for_each(|len| {
            let memory = Physical::new(&self.context, bound, len)?;
            memory.map(bound, self.base + end as u64)?;
            end += len;
            new.push(memory);
            Ok(())
        });
        let first = self.base + start as u64;
        let usable = mapped.and_then(|()| allow(bound, first, end - start));
        if usable.is_err() {
            // Nobody has seen the new pieces.
            warn(unmap(bound, first, end - start));
            return usable;
        }
        backed.pieces.append(&mut new);
        self.set(backed, end);
        Ok(())
    }

    /// The device must have been waited for.
    fn shrink(&self, bound: &Bound<'_>, backed: &mut Backed, wanted: usize) -> Result<(), Error> {
        let lengths = backed.pieces.iter().map(|p| p.len);
        let (whole, rest) = kept(lengths, wanted);
        let cut = usize::from(rest > 0);
        let (before, end) = (
            backed.bytes,
            backed.pieces[..whole + cut].iter().map(|p| p.len).sum(),
        );
        self.set(backed, end);
        if let Err(error) = unmap(bound, self.base + end as u64, before - end) {
            self.set(backed, before);
            return Err(error);
        }
        backed.pieces.truncate(whole + cut);
        self.context.clearing().begin(Instant::now(), before - end);
        match cut {
            0 => Ok(()),
            _ => self.cut(bound, backed, rest),
        }
    }

    /// Shortens the last piece to `len` bytes.
    fn cut(&self, bound: &Bound<'_>, backed: &mut Backed, len: usize) -> Result<(), Error> {
        let Some(mut last) = backed.pieces.pop() else {
            return Ok(());
        };
        let (end, start) = (backed.bytes, backed.bytes - last.len);
        self.set(backed, start);
        let (there, result) = match self.shorten(bound, &mut last, start, len) {
            Ok(()) => (true, Ok(())),
            // Too much is right as well; what is beyond is gone and cannot come back.
            Err(Uncut::Stays(error)) => {
                let wanted = start + len;
                tracing::warn!(%error, wanted, end, "memory stays that was let go");
                (true, Ok(()))
            }
            Err(Uncut::Gone(error)) => {
                let (wanted, left, source) = (start + len, start, Box::new(error));
                let gone = Error::Uncommittable {
                    wanted,
                    left,
                    source,
                };
                (false, Err(gone))
            }
        };
        if there {
            self.set(backed, start + last.len);
            backed.pieces.push(last);
        }
        result
    }

    /// Replaces a piece by one of its first `len` bytes.
    fn shorten(
        &self,
        bound: &Bound<'_>,
        piece: &mut Physical,
        start: usize,
        len: usize,
    ) -> Result<(), Uncut> {
        let place = self.base + start as u64;
        let new = Physical::new(&self.context, bound, len).map_err(Uncut::Stays)?;
        self.copy_to(bound, place, &new).map_err(Uncut::Stays)?;
        unmap(bound, place, piece.len).map_err(Uncut::Stays)?;
        let Err(error) = new.put(bound, place) else {
            *piece = new;
            return Ok(());
        };
        match piece.put(bound, place) {
            Ok(()) => Err(Uncut::Stays(error)),
            Err(again) => {
                tracing::warn!(%error, "memory was not mapped");
                Err(Uncut::Gone(again))
            }
        }
    }

    /// Copies what lies at an address to memory that has none.
    fn copy_to(&self, bound: &Bound<'_>, from: u64, to: &Physical) -> Result<(), Error> {
        let stream = RawStream::new(&self.context)?;
        let aside = addresses(bound, to.len)?;
        let copied = to.map(bound, aside).and_then(|()| {
            let copied = allow(bound, aside, to.len).and_then(|()| {
                // SAFETY: both are mapped and long enough, also until the stream was waited for.
                unsafe { stream.copy(bound, aside, from, to.len)? };
                stream.synchronize(bound)
            });
            copied.and(unmap(bound, aside, to.len))
        });
        // SAFETY: reserved above; nothing is mapped there, or unmapping has failed and said so.
        let freed = unsafe { sys::cuMemAddressFree(aside, to.len) };
        copied.and(bound.check(freed, || "cuMemAddressFree".into()))
    }
}

impl Drop for AddressSpace {
    fn drop(&mut self) {
        let Ok(bound) = self.context.bind() else {
            return;
        };
        let backed = self.backed.get_mut();
        let backed = backed.unwrap_or_else(PoisonError::into_inner);
        let unmapped = unmap(&bound, self.base, backed.bytes);
        if unmapped.is_ok() {
            // SAFETY: reserved in `reserve`, nothing is mapped in it any more, freed only here.
            let told = unsafe { sys::cuMemAddressFree(self.base, self.size) };
            warn(bound.check(told, || "cuMemAddressFree".into()));
        }
        warn(unmapped);
    }
}

impl Physical {
    fn new(context: &Arc<Context>, bound: &Bound<'_>, len: usize) -> Result<Physical, Error> {
        let (properties, mut handle) = (properties(bound), 0);
        // SAFETY: the context is current; the driver reads the properties and writes one handle.
        let told = unsafe { sys::cuMemCreate(&mut handle, len, &properties, 0) };
        bound.check_memory(told, len, "cuMemCreate")?;
        let context = context.clone();
        Ok(Physical {
            context,
            handle,
            len,
        })
    }

    /// Gives it an address, of a range that is reserved and where nothing is mapped.
    fn map(&self, bound: &Bound<'_>, address: u64) -> Result<(), Error> {
        // SAFETY: the driver refuses addresses that are not reserved or taken; the handle is ours.
        let told = unsafe { sys::cuMemMap(address, self.len, 0, self.handle, 0) };
        bound.check(told, || format!("cuMemMap of {} bytes", self.len))
    }

    /// Maps it where kernels and copies may use it; after an error it is not mapped.
    fn put(&self, bound: &Bound<'_>, address: u64) -> Result<(), Error> {
        self.map(bound, address)?;
        let allowed = allow(bound, address, self.len);
        if allowed.is_err() {
            warn(unmap(bound, address, self.len));
        }
        allowed
    }
}

impl Drop for Physical {
    fn drop(&mut self) {
        if let Ok(bound) = self.context.bind() {
            // SAFETY: made in `new`, released only here; a mapping that is left keeps the memory.
            let told = unsafe { sys::cuMemRelease(self.handle) };
            warn(bound.check(told, || "cuMemRelease".into()));
        }
    }
}

/// Addresses that nobody has.
fn addresses(bound: &Bound<'_>, bytes: usize) -> Result<u64, Error> {
    let mut base = 0;
    // SAFETY: the context is current; the driver writes one address.
    let told = unsafe { sys::cuMemAddressReserve(&mut base, bytes, 0, 0, 0) };
    bound.check_memory(told, bytes, "cuMemAddressReserve")?;
    Ok(base)
}

/// Lets kernels and copies use what is mapped in a range.
fn allow(bound: &Bound<'_>, address: u64, bytes: usize) -> Result<(), Error> {
    if bytes == 0 {
        return Ok(());
    }
    let access = sys::CUmemAccessDesc {
        location: properties(bound).location,
        flags: sys::CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
    };
    // SAFETY: the driver refuses a range that is not mapped; it reads one descriptor.
    let told = unsafe { sys::cuMemSetAccess(address, bytes, &access, 1) };
    bound.check(told, || format!("cuMemSetAccess of {bytes} bytes"))
}

/// Takes the addresses from all pieces in a range, which no work may use any more.
fn unmap(bound: &Bound<'_>, address: u64, bytes: usize) -> Result<(), Error> {
    if bytes == 0 {
        return Ok(());
    }
    // SAFETY: the range holds whole pieces; no work uses them, since the device has been waited
    // for or nobody has seen them yet.
    let told = unsafe { sys::cuMemUnmap(address, bytes) };
    bound.check(told, || format!("cuMemUnmap of {bytes} bytes"))
}

/// Plain memory of the device.
fn properties(bound: &Bound<'_>) -> sys::CUmemAllocationProp {
    // SAFETY: a plain C structure in which zero means "none" for every field.
    let mut properties: sys::CUmemAllocationProp = unsafe { std::mem::zeroed() };
    properties.type_ = sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location = sys::CUmemLocation {
        type_: sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE,
        id: bound.device(),
    };
    properties
}

fn granularity(bound: &Bound<'_>) -> Result<usize, Error> {
    let option = sys::CUmemAllocationGranularity_flags::CU_MEM_ALLOC_GRANULARITY_MINIMUM;
    let properties = properties(bound);
    let mut granularity = 0;
    // SAFETY: the context is current; the driver reads the properties and writes one number.
    let told = unsafe { sys::cuMemGetAllocationGranularity(&mut granularity, &properties, option) };
    bound.check(told, || "cuMemGetAllocationGranularity".into())?;
    Ok(granularity)
}
