//! A range of device addresses of which a first part is backed by memory.
//!
//! Calls of the driver about such memory cost time whatever its size: on an H100 mapping and
//! unmapping 6 GB took 130 and 91 ms in pieces of 2 MiB, 4 and 4.5 ms in pieces of 64 MiB. So memory
//! comes in [pieces](PIECE) that are large, access to all that was added is given by one call, and
//! all that goes is unmapped by one. What is backed ends where it was asked to, to the device's
//! granularity: a piece that the end falls into is replaced by a shorter one with the same bytes.
//!
//! Invariant: pieces lie one behind the other from the first address on, and nothing else is
//! mapped, also after a call that failed.

use super::context::{Bound, Context};
use super::memory::warn;
use super::queue::RawStream;
use crate::Error;
use cudarc::driver::sys;
use std::sync::{Arc, Mutex, PoisonError};

const MIB: usize = 1 << 20;

/// Bytes of memory that are made at once, at most: 16 GB are a few hundred of them.
const PIECE: usize = 64 * MIB;

/// A range has at least so many pieces, if the granularity allows: to shorten one, as much as it
/// keeps must be free for a moment, and where that is not to be had a whole piece stays or goes.
const PIECES: usize = 64;

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

/// How large pieces of a range are.
fn piece(size: usize, granularity: usize) -> usize {
    (size / PIECES)
        .next_multiple_of(granularity)
        .min(PIECE.next_multiple_of(granularity))
        .max(granularity)
}

/// The lengths of new pieces that add up to `bytes`.
fn lengths(bytes: usize, piece: usize) -> impl Iterator<Item = usize> {
    (0..bytes)
        .step_by(piece)
        .map(move |start| piece.min(bytes - start))
}

/// How many pieces of these lengths are wholly within `bytes`, and what the next one keeps.
fn kept(lengths: impl Iterator<Item = usize>, bytes: usize) -> (usize, usize) {
    let (mut count, mut end) = (0, 0);
    for len in lengths {
        if end + len > bytes {
            break;
        }
        count += 1;
        end += len;
    }
    (count, bytes - end)
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
        })
    }

    /// The first address.
    pub fn address(&self) -> u64 {
        self.base
    }

    /// The context it belongs to.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Backs the first `bytes` bytes, rounded up to the granularity, with memory and no more. What
    /// goes back waits for everything that the device still does; after an error nothing has
    /// changed. Where memory is so short that a piece cannot be shortened, all of it stays.
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
        backed.bytes = end;
        Ok(())
    }

    /// The device must have been waited for.
    fn shrink(&self, bound: &Bound<'_>, backed: &mut Backed, wanted: usize) -> Result<(), Error> {
        let lengths = backed.pieces.iter().map(|p| p.len);
        let (whole, rest) = kept(lengths, wanted);
        let cut = usize::from(rest > 0);
        let end: usize = backed.pieces[..whole + cut].iter().map(|p| p.len).sum();
        unmap(bound, self.base + end as u64, backed.bytes - end)?;
        backed.pieces.truncate(whole + cut);
        backed.bytes = end;
        let Some(last) = backed.pieces.last_mut().filter(|_| cut == 1) else {
            return Ok(());
        };
        match self.shorten(bound, last, end - last.len, rest) {
            Ok(()) => backed.bytes = wanted,
            // Too much is right as well; what is beyond is gone and cannot come back.
            Err(error) => tracing::warn!(%error, wanted, end, "memory stays that was let go"),
        }
        Ok(())
    }

    /// Replaces a piece by one of its first `len` bytes. After an error the old one is there.
    fn shorten(
        &self,
        bound: &Bound<'_>,
        piece: &mut Physical,
        start: usize,
        len: usize,
    ) -> Result<(), Error> {
        let place = self.base + start as u64;
        let new = Physical::new(&self.context, bound, len)?;
        self.copy_to(bound, place, &new)?;
        unmap(bound, place, piece.len)?;
        let mapped = new.map(bound, place).and_then(|()| {
            let allowed = allow(bound, place, len);
            if allowed.is_err() {
                warn(unmap(bound, place, len));
            }
            allowed
        });
        if mapped.is_err() {
            piece.map(bound, place)?;
            allow(bound, place, piece.len)?;
            return mapped;
        }
        *piece = new;
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_memory_comes_in_few_pieces_that_add_up() {
        assert_eq!(lengths(0, PIECE).count(), 0);
        assert!(lengths(2 * MIB, PIECE).eq([2 * MIB]));
        assert!(lengths(2 * PIECE + 6 * MIB, PIECE).eq([PIECE, PIECE, 6 * MIB]));
        assert_eq!(lengths(16 << 30, PIECE).count(), 256);
    }

    #[test]
    fn pieces_of_a_small_range_are_small() {
        assert_eq!(piece(16 << 30, 2 * MIB), PIECE);
        assert_eq!(piece(270 * MIB, 2 * MIB), 6 * MIB);
        assert_eq!(piece(54 * MIB, 2 * MIB), 2 * MIB);
        assert_eq!(piece(1, 2 * MIB), 2 * MIB);
        assert_eq!(piece(16 << 30, 48 * MIB), 96 * MIB, "whole granules");
    }

    #[test]
    fn whole_pieces_stay_and_the_one_under_the_end_is_cut() {
        let pieces = || [64, 6, 64].into_iter();
        for (bytes, expected) in [
            (0, (0, 0)),
            (2, (0, 2)),
            (64, (1, 0)),
            (66, (1, 2)),
            (70, (2, 0)),
            (132, (2, 62)),
            (134, (3, 0)),
        ] {
            assert_eq!(kept(pieces(), bytes), expected, "{bytes}");
        }
    }
}
