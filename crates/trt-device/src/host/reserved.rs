//! Addresses of the host of which a first part is memory.
//!
//! The rest cannot be touched, so it counts for nothing, and a use of bytes that were given back
//! ends the process instead of reading garbage.

use crate::contract::lock;
use crate::{Claim, Error};
use std::io;
use std::ptr::NonNull;
use std::sync::Mutex;

/// A multiple of the page size of every system this runs on.
const PAGE: usize = 64 << 10;

/// A range of addresses; see the module.
pub(super) struct Reserved {
    start: NonNull<u8>,
    /// Bytes of the range.
    bytes: usize,
    committed: Mutex<Committed>,
}

struct Committed {
    /// Bytes from the start that are memory, whole pages.
    bytes: usize,
    /// What counts them: the bytes that were asked for.
    claim: Claim,
}

// SAFETY: the range is owned by this value alone and its address never changes; what is done to
// its bytes is the business of work, ordered by streams and events.
unsafe impl Send for Reserved {}
// SAFETY: as above; `commit` changes protection under the lock.
unsafe impl Sync for Reserved {}

impl Reserved {
    pub fn new(bytes: usize, claim: Claim) -> io::Result<Reserved> {
        let bytes = bytes
            .max(1)
            .checked_next_multiple_of(PAGE)
            .ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh anonymous mapping at an address of the system's choice.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(at.cast::<u8>());
        Ok(Reserved {
            start: start.ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?,
            bytes,
            committed: Mutex::new(Committed { bytes: 0, claim }),
        })
    }

    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Makes the first `bytes` bytes memory, and no more. Nothing may use what goes.
    pub fn commit(&self, bytes: usize, device: &str) -> Result<(), Error> {
        let mut committed = lock(&self.committed);
        let before = committed.claim.bytes();
        if bytes as u64 > before {
            committed.claim.resize(bytes as u64)?;
        }
        let wanted = bytes.next_multiple_of(PAGE).min(self.bytes);
        let changed = self.change(committed.bytes, wanted);
        let counted = match changed {
            Ok(()) => bytes as u64,
            Err(_) => before,
        };
        // Less than what it is now is never refused.
        committed.claim.resize(counted)?;
        changed.map_err(|e| Error::OutOfMemory {
            device: device.to_string(),
            bytes,
            reason: e.to_string(),
        })?;
        committed.bytes = wanted;
        Ok(())
    }

    fn change(&self, committed: usize, wanted: usize) -> io::Result<()> {
        let (low, high) = (wanted.min(committed), wanted.max(committed));
        if low == high {
            return Ok(());
        }
        let grows = wanted == high;
        let at = self.start.as_ptr().wrapping_add(low).cast::<libc::c_void>();
        let len = high - low;
        let access = match grows {
            true => libc::PROT_READ | libc::PROT_WRITE,
            false => libc::PROT_NONE,
        };
        // SAFETY: the pages lie in this range, and whoever shrinks it vouches that no work uses
        // what goes.
        let ok = unsafe {
            (grows || libc::madvise(at, len, libc::MADV_DONTNEED) == 0)
                && libc::mprotect(at, len, access) == 0
        };
        if !ok {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new` and nothing refers to it any more.
        let result = unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
        if result != 0 {
            let error = io::Error::last_os_error();
            tracing::warn!(%error, bytes = self.bytes, "reserved addresses not given back");
        }
    }
}
