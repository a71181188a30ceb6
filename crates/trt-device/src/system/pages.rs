//! Pages of the machine's memory.

use std::io;
use std::sync::OnceLock;

/// Bytes of a page.
pub(crate) fn page_size() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    *SIZE.get_or_init(|| {
        // SAFETY: sysconf has no preconditions.
        let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(size).unwrap_or(4096).max(1)
    })
}

/// Bytes of memory that the machine has; 0 if the system does not tell.
pub(crate) fn machine_memory() -> u64 {
    // SAFETY: sysconf has no preconditions.
    let pages = unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) };
    u64::try_from(pages).unwrap_or(0) * page_size() as u64
}

/// Reads and maps every page of bytes of a mapping, or only asks for them where the system cannot.
pub(crate) fn fault_in(bytes: &[u8]) {
    let (start, len) = (bytes.as_ptr() as usize, bytes.len());
    #[cfg(target_os = "linux")]
    if advise(start, len, libc::MADV_POPULATE_READ).is_ok() {
        return;
    }
    // A hint; without it the pages are read when they are touched.
    let _ = advise(start, len, libc::MADV_WILLNEED);
}

/// `madvise` on the pages of a mapping that `len` bytes from `start` touch.
pub(crate) fn advise(start: usize, len: usize, advice: libc::c_int) -> io::Result<()> {
    let first = start / page_size() * page_size();
    let len = start + len - first;
    // SAFETY: the pages belong to a live read-only mapping of a file (callers take the range
    // from a slice of one), so advice on them can only change what is resident, never a byte.
    match unsafe { libc::madvise(first as *mut libc::c_void, len, advice) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
