//! Pages of file mappings: bringing them into the process, and letting them go.
//!
//! The page cache holds the file whatever happens here; these functions only decide which of
//! its pages are mapped by the process, which is what its resident size counts. They change
//! no byte, so none of them can change a result. A fault maps more than was asked for, up to a
//! huge page; so that a budget for resident pages means what it says, a mapping knows which
//! ranges are wanted, and what came along with them is let go again at once.
//!
//! A file that is truncated while it is mapped ends the process with SIGBUS at the next access;
//! whoever maps files vouches for them.

use super::event::lock;
use crate::{Error, Memory, Paging, Slice};
use std::sync::OnceLock;

/// A fault on a cached page also maps its cached neighbours in the aligned window of this size
/// (the kernel's `fault_around_bytes`, by default), so one touch a window is enough.
const WINDOW: usize = 64 << 10;

/// What a fault maps at most, aligned: a huge page of the cache.
const HUGE: usize = 2 << 20;

/// One page in this many bytes is asked for when judging whether a range is cached.
const SAMPLE: usize = 1 << 20;

fn page_size() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    *SIZE.get_or_init(|| {
        // SAFETY: sysconf has no preconditions.
        let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(size).unwrap_or(4096).max(1)
    })
}

/// Bytes of memory that this process may count on: those of the machine, or of the container if
/// it has fewer; 0 if the system does not tell.
pub(crate) fn total_memory() -> u64 {
    // SAFETY: sysconf has no preconditions.
    let pages = unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) };
    let machine = u64::try_from(pages).unwrap_or(0) * page_size() as u64;
    let told = LIMITS.map(|path| std::fs::read_to_string(path).ok());
    let limits = told.iter().flatten().filter_map(|text| limit(text));
    limits.fold(machine, u64::min)
}

/// Where a container finds the limit of its memory: in the second and in the first version of
/// control groups.
const LIMITS: [&str; 2] = [
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
];

/// Bytes of a limit; none where there is none, which the second version tells by a word and the
/// first by more than any machine has.
fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// Maps the pages of a slice of a mapping. What is in the page cache costs about 20 µs a MiB;
/// what is not is read from the file, all of it ahead rather than page by page.
pub(super) fn populate(slice: &Slice) -> Result<(), Error> {
    let Some(bytes) = slice.mapped() else {
        return Err(Error::NotMapping { work: "populate" });
    };
    if bytes.is_empty() {
        return Ok(());
    }
    bring(slice, bytes);
    match slice.memory().paging() {
        Some(Paging::Coarse) => Ok(()),
        Some(Paging::Exact) | None => trim(slice),
    }
}

/// Marks the slice as wanted and faults its pages in.
fn bring(slice: &Slice, bytes: &[u8]) {
    if let Some(wanted) = slice.memory().wanted() {
        lock(wanted).add(slice.offset(), slice.len());
    }
    if !probably_cached(slice) {
        if slice.memory().paging() == Some(Paging::Exact) {
            // A hint; the touches below do the same, only slower. It reads into small pages,
            // which is right only where pages come and go one by one.
            let _ = advise(slice.address() as usize, slice.len(), libc::MADV_WILLNEED);
        }
        if read_whole(slice) {
            return;
        }
    }
    touch(bytes);
}

/// Reads one byte in each fault-around window.
fn touch(bytes: &[u8]) {
    let to_boundary = WINDOW - (bytes.as_ptr() as usize) % WINDOW;
    let starts = std::iter::once(0).chain((to_boundary..bytes.len()).step_by(WINDOW));
    for at in starts {
        // SAFETY: a byte of a slice can be read. Volatile, since the read is the purpose.
        unsafe { std::ptr::read_volatile(&raw const bytes[at]) };
    }
}

/// Whether all of a sample of the slice's pages is in the page cache. Systems that do not say
/// count as cached: touching is right in either case.
fn probably_cached(slice: &Slice) -> bool {
    let start = slice.address() as usize;
    (start..start + slice.len()).step_by(SAMPLE).all(|at| {
        let page = at / page_size() * page_size();
        let mut state = 1u8;
        // SAFETY: the page lies in a live mapping, since its byte `at` does, and the answer for
        // one page is one byte.
        let answer = unsafe {
            #[cfg(target_os = "linux")]
            let state = &raw mut state;
            #[cfg(not(target_os = "linux"))]
            let state = (&raw mut state).cast();
            libc::mincore(page as *mut libc::c_void, 1, state)
        };
        answer != 0 || state & 1 == 1
    })
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

/// Reads and maps every page, where the system can. It waits for the pages that are still on
/// their way from the disk, which fault-around skips.
fn read_whole(slice: &Slice) -> bool {
    #[cfg(target_os = "linux")]
    {
        let (start, len) = (slice.address() as usize, slice.len());
        advise(start, len, libc::MADV_POPULATE_READ).is_ok()
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = slice;
        false
    }
}

/// Lets the pages of a slice of a mapping go, and what came along with them, but for what others
/// want. Pages that two neighbours share go with the second of them.
pub(super) fn discard(slice: &Slice) -> Result<(), Error> {
    if let Some(wanted) = slice.memory().wanted() {
        lock(wanted).remove(slice.offset(), slice.len());
    }
    trim(slice)
}

/// Lets go of everything unwanted that a fault inside the slice may have mapped: all of the huge
/// pages that it touches, also beyond the next range that is wanted.
pub(super) fn trim(slice: &Slice) -> Result<(), Error> {
    let Some(wanted) = slice.memory().wanted() else {
        return Err(Error::NotMapping { work: "discard" });
    };
    if slice.is_empty() {
        return Ok(());
    }
    let page = page_size();
    let base = slice.memory().whole().address() as usize;
    let last = base + slice.memory().len();
    let start = (base + slice.offset()) / HUGE * HUGE;
    let end = (base + slice.offset() + slice.len()).next_multiple_of(HUGE);
    let window = start.max(base) - base..end.min(last) - base;
    let unit = match slice.memory().paging() {
        Some(Paging::Coarse) => HUGE,
        Some(Paging::Exact) | None => page,
    };
    // Held until the pages are gone, so that nobody starts to want one in between.
    let wanted = lock(wanted);
    for gap in wanted.gaps(window) {
        let start = match base + gap.start {
            start if start == base => start,
            start => start.next_multiple_of(unit),
        };
        let end = match base + gap.end {
            end if end == last => end,
            end => end / unit * unit,
        };
        if start < end {
            advise(start, end - start, libc::MADV_DONTNEED)?;
        }
    }
    Ok(())
}

/// Tells the system how pages of a mapping will come and go: one by one (a mapped huge page could
/// only go as a whole), or by huge pages, which it then also prefers when it reads the file.
pub(super) fn advise_paging(map: &Memory, paging: Paging) {
    #[cfg(target_os = "linux")]
    if !map.is_empty() {
        let advice = match paging {
            Paging::Exact => libc::MADV_NOHUGEPAGE,
            Paging::Coarse => libc::MADV_HUGEPAGE,
        };
        // A hint; systems without huge pages refuse it, and need it not.
        let start = map.whole().address() as usize;
        let _ = advise(start, map.len(), advice);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (map, paging);
}

/// `madvise` on the pages of a mapping that `len` bytes from `start` touch.
fn advise(start: usize, len: usize, advice: libc::c_int) -> Result<(), Error> {
    let first = start / page_size() * page_size();
    let len = start + len - first;
    // SAFETY: the pages belong to a live read-only mapping of a file (callers take the range
    // from a slice of one), so advice on them can only change what is resident, never a byte.
    match unsafe { libc::madvise(first as *mut libc::c_void, len, advice) } {
        0 => Ok(()),
        _ => Err(Error::last_os(format!("madvise of {len} bytes"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_or_there_is_none() {
        assert_eq!(limit("8589934592\n"), Some(8 << 30));
        assert_eq!(limit("max\n"), None);
        assert_eq!(limit("9223372036854771712\n"), Some((1 << 63) - 4096));
        assert_eq!(limit(""), None);
    }
}
