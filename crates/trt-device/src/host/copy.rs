//! Copies between device memory, mappings and the caller.
//!
//! All of them trust what submission has checked: lengths are equal and no destination is a
//! mapping. That nobody else touches the bytes meanwhile is the submitter's rule of events.

use super::pages::discard;
use crate::{Error, Slice};

/// Bytes copied out of a mapping before their pages are let go again: few enough to be no
/// matter, enough that the price of letting go is none.
const CHUNK: usize = 4 << 20;

/// Copies a slice of a mapping to device memory of equal length, letting the source's pages go
/// as it proceeds, so that the process holds at most a chunk of them. Reading the file instead
/// would save the page faults, about a tenth of the time, and need the file besides the mapping.
pub(super) fn upload(dst: &Slice, src: &Slice) -> Result<(), Error> {
    let Some(bytes) = src.mapped() else {
        return Err(Error::NotMapping { work: "upload" });
    };
    for (i, chunk) in bytes.chunks(CHUNK).enumerate() {
        let range = i * CHUNK..i * CHUNK + chunk.len();
        let target = dst.slice(range.clone())?;
        debug_assert!(!target.is_mapping());
        // SAFETY: the target is as long as the chunk, writable as it is no mapping, and alive;
        // it cannot overlap a mapping, since those hold other pages.
        unsafe { stream(target.pointer(), chunk) };
        discard(&src.slice(range)?)?;
    }
    Ok(())
}

/// Copies `src` to `dst` past the caches where the processor can: what is uploaded is larger
/// than the caches and used later, and not reading the destination first saves a third of the
/// traffic.
///
/// # Safety
/// `dst` must be writable for `src.len()` bytes that do not overlap `src`.
#[cfg(target_arch = "x86_64")]
unsafe fn stream(dst: *mut u8, src: &[u8]) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
    const LINE: usize = 64;
    let head = dst.align_offset(LINE).min(src.len());
    let lines = (src.len() - head) / LINE;
    let tail = head + lines * LINE;
    // SAFETY: `head` and `tail..` lie inside both; each line reads and writes the 64 bytes from
    // an offset of at most `tail - 64`, and `dst + head` is aligned to a line, as streaming
    // stores require. SSE2 is part of every x86-64 processor.
    unsafe {
        std::ptr::copy_nonoverlapping(src.as_ptr(), dst, head);
        for line in 0..lines {
            let at = head + line * LINE;
            let from = src.as_ptr().add(at).cast::<__m128i>();
            let to = dst.add(at).cast::<__m128i>();
            let parts = [0, 1, 2, 3].map(|i| _mm_loadu_si128(from.add(i)));
            for (i, part) in parts.into_iter().enumerate() {
                _mm_stream_si128(to.add(i), part);
            }
        }
        // Streaming stores are ordered with nothing else; whoever is told that this copy is
        // done must see it.
        _mm_sfence();
        std::ptr::copy_nonoverlapping(src.as_ptr().add(tail), dst.add(tail), src.len() - tail);
    }
}

/// Copies `src` to `dst`.
///
/// # Safety
/// `dst` must be writable for `src.len()` bytes that do not overlap `src`.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn stream(dst: *mut u8, src: &[u8]) {
    // SAFETY: as the caller promises.
    unsafe { std::ptr::copy_nonoverlapping(src.as_ptr(), dst, src.len()) }
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
pub(super) fn read(dst: &mut [u8], src: &Slice) {
    // SAFETY: as for `write`.
    unsafe {
        let len = dst.len().min(src.len());
        std::ptr::copy_nonoverlapping(src.pointer(), dst.as_mut_ptr(), len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streaming_copies_every_byte_at_every_misalignment() {
        let src: Vec<u8> = (0..1000u32).map(|i| ((i * 31) >> 3) as u8).collect();
        for (from, to, len) in [
            (0, 0, 1000),
            (1, 3, 900),
            (7, 64, 63),
            (5, 1, 64),
            (9, 63, 2),
            (0, 5, 0),
        ] {
            let mut dst = vec![0u8; 1100];
            // SAFETY: `to + len` is at most 1100, and the vectors are different.
            unsafe { stream(dst.as_mut_ptr().add(to), &src[from..from + len]) };
            assert_eq!(dst[to..to + len], src[from..from + len]);
            let around = dst[..to].iter().chain(&dst[to + len..]);
            assert!(around.into_iter().all(|b| *b == 0));
        }
    }
}
