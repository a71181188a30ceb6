//! Pages of file mappings: bringing them into the process, and letting them go.
//!
//! The page cache holds the file whatever happens here; these functions only decide which of
//! its pages are mapped by the process, which is what its resident size counts. They change
//! no byte, so none of them can change a result. A fault maps more than was asked for, up to a
//! huge page; so that a budget for resident pages means what it says, a mapping knows which
//! ranges are wanted, and what came along with them is let go again at once.
//!
//! A page that its file does not have any more, or that cannot be read, ends the process when it is
//! touched. So pages are asked for, by `madvise`, which fails instead. Only where the system has no
//! such call (Linux before 5.14) they are touched, after a look at the file's length.

use super::wanted::Resident;
use crate::system::{advise, page_size};
use crate::{Error, Info, MappedFile, Memory, Paging, Slice};
use std::io;

/// A fault on a cached page also maps its cached neighbours in the aligned window of this size
/// (the kernel's `fault_around_bytes`, by default), so one page a window is enough.
const WINDOW: usize = 64 << 10;

/// What a fault maps at most, aligned: a huge page of the cache.
const HUGE: usize = 2 << 20;

/// One page in this many bytes is asked for when judging whether a range is cached.
const SAMPLE: usize = 1 << 20;

/// Maps the pages of a slice of a mapping. What is in the page cache costs about 20 µs a MiB;
/// what is not is read from the file, all of it ahead rather than page by page. After an error
/// none of it is wanted.
pub(super) fn populate(slice: &Slice, info: &Info) -> Result<(), Error> {
    let (file, resident) = mapping(slice, "populate", info)?;
    if slice.is_empty() {
        return Ok(());
    }
    file.intact()?;
    resident.wanted().add(slice.offset(), slice.len());
    if let Err(error) = bring(slice, resident.paging()) {
        discard(slice, info)?;
        let range = slice.offset()..slice.offset() + slice.len();
        return Err(file.unreadable(range, &error));
    }
    match resident.paging() {
        Paging::Coarse => Ok(()),
        Paging::Exact => trim(slice, info),
    }
}

/// The file of a mapping of this device, and what of it is wanted.
fn mapping<'a>(
    slice: &'a Slice,
    work: &'static str,
    info: &Info,
) -> Result<(&'a MappedFile, &'a Resident), Error> {
    let memory = slice.memory();
    let file = memory.file().ok_or(Error::NotMapping { work })?;
    Ok((file, memory.open(info)?))
}

/// Faults the slice's pages in.
fn bring(slice: &Slice, paging: Paging) -> io::Result<()> {
    let (start, len) = (slice.address() as usize, slice.len());
    if !probably_cached(slice) {
        if paging == Paging::Exact {
            // A hint: what follows does the same, only slower. It reads into small pages,
            // which is right only where pages come and go one by one.
            let _ = advise(start, len, libc::MADV_WILLNEED);
        }
        // This waits for pages that are still on their way from the disk, which fault-around skips.
        return ask_for(start, len);
    }
    let first = std::iter::once(start);
    let rest = (start.next_multiple_of(WINDOW)..start + len).step_by(WINDOW);
    first.chain(rest).try_for_each(|at| ask_for(at, 1))
}

/// Reads and maps the pages of `len` bytes of a mapping. A page that cannot be had is an error.
fn ask_for(start: usize, len: usize) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    match advise(start, len, libc::MADV_POPULATE_READ) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
        answer => return answer,
    }
    for at in (start..start + len).step_by(page_size()) {
        // SAFETY: a byte of a slice of a mapping, whose file was just seen to have it, can be
        // read. Volatile, since the read is the purpose.
        unsafe { std::ptr::read_volatile(at as *const u8) };
    }
    Ok(())
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

/// Lets the pages of a slice of a mapping go, and what came along with them, but for what others
/// want. Pages that two neighbours share go with the second of them.
pub(super) fn discard(slice: &Slice, info: &Info) -> Result<(), Error> {
    let (_, resident) = mapping(slice, "discard", info)?;
    resident.wanted().remove(slice.offset(), slice.len());
    trim(slice, info)
}

/// Lets go of everything unwanted that a fault inside the slice may have mapped: all of the huge
/// pages that it touches, also beyond the next range that is wanted.
pub(super) fn trim(slice: &Slice, info: &Info) -> Result<(), Error> {
    let (_, resident) = mapping(slice, "discard", info)?;
    if slice.is_empty() {
        return Ok(());
    }
    let page = page_size();
    let base = slice.memory().whole().address() as usize;
    let last = base + slice.memory().len();
    let start = (base + slice.offset()) / HUGE * HUGE;
    let end = (base + slice.offset() + slice.len()).next_multiple_of(HUGE);
    let window = start.max(base) - base..end.min(last) - base;
    let unit = match resident.paging() {
        Paging::Coarse => HUGE,
        Paging::Exact => page,
    };
    // Held until the pages are gone, so that nobody starts to want one in between.
    let wanted = resident.wanted();
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
            let len = end - start;
            advise(start, len, libc::MADV_DONTNEED)
                .map_err(|e| Error::os(format!("letting go of {len} mapped bytes"), &e))?;
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
