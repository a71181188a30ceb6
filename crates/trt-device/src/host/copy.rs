//! Copies between device memory, mappings and the caller.
//!
//! All of them trust what submission has checked: memory is of this device, lengths are equal and no
//! destination is a mapping. That nobody else touches the bytes meanwhile is the submitter's rule of events.

use crate::{Error, Ferry, Slice};

/// Copies a slice of a mapping to device memory of equal length by reading its file: no page is
/// mapped for it, whatever pages the cache holds it in, and what was just read is still in the
/// processor's cache when a kernel needs it.
pub(super) fn upload(dst: &Slice, src: &Slice) -> Result<(), Error> {
    let Some(file) = src.memory().file() else {
        return Err(Error::NotMapping { work: "upload" });
    };
    debug_assert!(!dst.is_mapping());
    let len = src.len().min(dst.len());
    // SAFETY: the destination is alive for `len` bytes and no mapping, so it is writable; nobody
    // else touches it meanwhile, by the submitter's rule.
    let target = unsafe { std::slice::from_raw_parts_mut(dst.pointer(), len) };
    file.read(src.offset(), target)
}

/// Copies between slices of equal length, which may overlap.
pub(super) fn copy(dst: &Slice, src: &Slice) {
    debug_assert!(!dst.is_mapping());
    // SAFETY: both slices are alive for the shorter of their lengths, and the destination is
    // writable as it is no mapping.
    unsafe { std::ptr::copy(src.pointer(), dst.pointer(), src.len().min(dst.len())) }
}

/// Copies bytes of the caller to device memory.
pub(super) fn write(dst: &Slice, bytes: &[u8]) {
    debug_assert!(!dst.is_mapping());
    // SAFETY: as for `copy`; the caller's bytes cannot overlap memory of the device, of which
    // no reference is ever handed out.
    unsafe {
        let len = bytes.len().min(dst.len());
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), dst.pointer(), len);
    }
}

/// Copies a slice to the caller.
pub(super) fn read(dst: &mut [u8], src: &Slice) -> Result<(), Error> {
    if let Some(file) = src.memory().file() {
        return file.read(src.offset(), dst);
    }
    // SAFETY: as for `write`.
    unsafe {
        let len = dst.len().min(src.len());
        std::ptr::copy_nonoverlapping(src.pointer(), dst.as_mut_ptr(), len);
    }
    Ok(())
}

/// The way from the host's device memory to the host.
pub(super) struct Here;

impl Ferry for Here {
    fn bring(&self, dst: &mut [u8], src: &Slice) -> Result<(), Error> {
        read(dst, src)
    }

    fn take(&self, dst: &Slice, src: &[u8]) -> Result<(), Error> {
        write(dst, src);
        Ok(())
    }
}
