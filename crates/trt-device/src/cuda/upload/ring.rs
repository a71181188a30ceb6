//! Page-locked buffers through which files are copied that are not registered.
//!
//! Threads fill one buffer from the file while the device copies from others. Invariant: a buffer
//! is written only after the event behind its last copy was reached. Nothing is allocated and no
//! thread runs before the first upload.

use crate::Error;
use crate::contract::MappedFile;
use crate::cuda::driver::{Bound, Context, Pinned, RawEvent, RawStream};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use trt_kernel::host::Team;

const BUFFERS: usize = 4;

/// Bytes of a buffer.
const BYTES: usize = 4 << 20;

/// Bytes that one thread reads at once.
const PART: usize = 1 << 20;

/// Threads that read, the submitter counted.
const READERS: usize = 4;

/// The ring of a device.
#[derive(Debug)]
pub(in crate::cuda) struct Ring {
    context: Arc<Context>,
    buffers: Mutex<Option<Buffers>>,
    bytes: AtomicU64,
}

#[derive(Debug)]
struct Buffers {
    all: Vec<Buffer>,
    next: usize,
    readers: Team,
}

#[derive(Debug)]
struct Buffer {
    memory: Pinned,
    /// Recorded after the last copy from it.
    copied: RawEvent,
}

impl Ring {
    pub fn new(context: Arc<Context>) -> Ring {
        Ring {
            context,
            buffers: Mutex::default(),
            bytes: AtomicU64::new(0),
        }
    }

    /// Bytes that went through it.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Copies a range of a file to the device. Waits where all buffers are still being copied
    /// from.
    ///
    /// # Safety
    /// The destination is device memory until the stream has come here.
    pub unsafe fn upload(
        &self,
        bound: &Bound<'_>,
        stream: &RawStream,
        dst: u64,
        file: &MappedFile,
        range: Range<usize>,
    ) -> Result<(), Error> {
        let mut ring = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.is_none() {
            *ring = Some(Buffers::new(&self.context)?);
        }
        // Just filled.
        let Some(ring) = ring.as_mut() else {
            return Ok(());
        };
        for start in range.clone().step_by(BYTES) {
            let piece = start..(start + BYTES).min(range.end);
            let to = dst + (start - range.start) as u64;
            // SAFETY: the destination is the caller's.
            unsafe { ring.upload(bound, stream, to, file, &piece)? };
            self.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Buffers {
    fn new(context: &Arc<Context>) -> Result<Buffers, Error> {
        let buffer = |_| {
            Ok(Buffer {
                memory: Pinned::new(context, BYTES)?,
                copied: RawEvent::new(context)?,
            })
        };
        Ok(Buffers {
            all: (0..BUFFERS).map(buffer).collect::<Result<_, Error>>()?,
            next: 0,
            readers: Team::new(READERS),
        })
    }

    /// # Safety
    /// As for [`Ring::upload`]; the piece fits a buffer.
    unsafe fn upload(
        &mut self,
        bound: &Bound<'_>,
        stream: &RawStream,
        dst: u64,
        file: &MappedFile,
        piece: &Range<usize>,
    ) -> Result<(), Error> {
        let buffer = &mut self.all[self.next];
        self.next = (self.next + 1) % BUFFERS;
        buffer.copied.synchronize(bound)?;
        // SAFETY: the last copy from the buffer is done, and the next is submitted below.
        let bytes = unsafe { buffer.memory.bytes_mut() };
        fill(&self.readers, file, piece.start, &mut bytes[..piece.len()])?;
        let from = buffer.memory.start();
        // SAFETY: the destination is the caller's; the buffer is next written when the event
        // recorded below is reached, and lives as long as the device.
        unsafe { stream.copy_in(bound, dst, from, piece.len())? };
        stream.record(bound, &buffer.copied)
    }
}

/// Reads the file's bytes from `offset` on, by parts on all readers.
fn fill(readers: &Team, file: &MappedFile, offset: usize, target: &mut [u8]) -> Result<(), Error> {
    let len = target.len();
    let parts: Vec<Mutex<&mut [u8]>> = target.chunks_mut(PART).map(Mutex::new).collect();
    let failure = Mutex::new(None);
    let read = |i: usize| {
        let mut part = parts[i].lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.read(offset + i * PART, &mut part) {
            *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    };
    readers.run(parts.len(), read).map_err(|e| Error::Os {
        call: format!("reading {len} bytes at {offset} of a mapped file"),
        reason: e.to_string(),
    })?;
    let failure = failure.into_inner().unwrap_or_else(PoisonError::into_inner);
    failure.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::path::Path;

    fn file(bytes: &[u8]) -> MappedFile {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        // SAFETY: no byte of the mapping is touched in these tests.
        let map = unsafe { memmap2::Mmap::map(&file) }.unwrap();
        MappedFile::new(Path::new("w.bin"), Arc::new(file), Arc::new(map))
    }

    #[test]
    fn all_readers_together_read_what_the_file_holds() {
        let bytes: Vec<u8> = (0..3 * PART + 17).map(|i| (i / 7) as u8).collect();
        let mut target = vec![0; 2 * PART + 9];
        fill(&Team::new(3), &file(&bytes), 5, &mut target).unwrap();
        assert!(target == bytes[5..][..target.len()]);
    }

    #[test]
    fn a_file_that_was_cut_is_an_error_with_its_name_and_the_numbers() {
        let file = file(&[1; 11]);
        file.file.set_len(10).unwrap();
        let error = fill(&Team::new(2), &file, 4, &mut [0; 7]).unwrap_err();
        let Error::FileCut { needed, found, .. } = error else {
            panic!("{error}");
        };
        assert_eq!((needed, found), (11, 10));
    }
}
