//! Files that are mapped, which may be cut or fail while they are.
//!
//! A page beyond the end of its file, or one that cannot be read, ends the process when it is
//! touched. So nothing here or in a device touches a page of a mapping without having asked first
//! whether the file is as long as it was ([`MappedFile::intact`]), and where bytes are only to be
//! copied the file is read, which fails with an error ([`MappedFile::read`]). What is left is a
//! file that is cut in the microseconds between the question and the touch.
//!
//! Pages that a device has locked stay when their file loses them, and are not the file's when it is
//! whole again. So whoever keeps pages or copies asks when the file was changed
//! ([`MappedFile::changed`]) and how often it was found cut ([`MappedFile::cuts`]).

use super::Error;
use memmap2::Mmap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A file with a read-only mapping of all of it.
#[derive(Clone, Debug)]
pub struct MappedFile {
    /// What errors call it.
    name: Arc<PathBuf>,
    pub(crate) file: Arc<File>,
    pub(crate) map: Arc<Mmap>,
    cuts: Arc<AtomicU64>,
}

/// When a file was last changed, in seconds and nanoseconds: its status and its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Changed([(i64, i64); 2]);

impl MappedFile {
    /// A file, a mapping of all of it, and what errors call it.
    pub fn new(name: &Path, file: Arc<File>, map: Arc<Mmap>) -> MappedFile {
        MappedFile {
            name: Arc::new(name.into()),
            file,
            map,
            cuts: Arc::default(),
        }
    }

    /// Whether the file is as long as its mapping.
    ///
    /// # Errors
    /// [`Error::FileCut`] if it is shorter, [`Error::FileRead`] if the system does not tell.
    pub fn intact(&self) -> Result<(), Error> {
        self.changed().map(drop)
    }

    /// When the file was last changed, if it is as long as its mapping.
    pub(crate) fn changed(&self) -> Result<Changed, Error> {
        let needed = self.map.len() as u64;
        match self.file.metadata() {
            Ok(meta) if meta.len() < needed => {
                self.cuts.fetch_add(1, Ordering::Relaxed);
                Err(Error::FileCut {
                    file: self.name.to_path_buf(),
                    needed,
                    found: meta.len(),
                })
            }
            Ok(meta) => Ok(Changed([
                (meta.ctime(), meta.ctime_nsec()),
                (meta.mtime(), meta.mtime_nsec()),
            ])),
            Err(error) => Err(self.failed(0..self.map.len(), &error)),
        }
    }

    /// How often the file was found cut through this mapping, by whoever asked: times of changes are
    /// only as fine as the clock that the system takes them from.
    pub(crate) fn cuts(&self) -> Arc<AtomicU64> {
        self.cuts.clone()
    }

    /// Reads bytes of the file without touching the mapping. Of a file that was cut nothing is
    /// read, not even what is left.
    ///
    /// # Errors
    /// [`Error::FileCut`] if the file is shorter than its mapping, [`Error::FileRead`] if the system
    /// cannot read the bytes.
    pub fn read(&self, offset: usize, target: &mut [u8]) -> Result<(), Error> {
        self.intact()?;
        let range = offset..offset.saturating_add(target.len());
        self.file
            .read_exact_at(target, offset as u64)
            .map_err(|error| self.unreadable(range, &error))
    }

    /// Why a range could not be read: the file was cut, or what the system says.
    pub(crate) fn unreadable(&self, range: Range<usize>, error: &io::Error) -> Error {
        match self.intact() {
            Err(cut) => cut,
            // It has grown again since.
            Ok(()) if error.kind() == ErrorKind::UnexpectedEof => Error::FileCut {
                file: self.name.to_path_buf(),
                needed: range.end as u64,
                found: range.start as u64,
            },
            Ok(()) => self.failed(range, error),
        }
    }

    fn failed(&self, range: Range<usize>, error: &io::Error) -> Error {
        Error::FileRead {
            file: self.name.to_path_buf(),
            offset: range.start as u64,
            bytes: range.len() as u64,
            reason: error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(bytes: &[u8]) -> (MappedFile, File) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        // SAFETY: no byte of the mapping is touched in these tests.
        let map = unsafe { Mmap::map(&file) }.unwrap();
        let other = file.try_clone().unwrap();
        let mapped = MappedFile::new(Path::new("w.bin"), Arc::new(file), Arc::new(map));
        (mapped, other)
    }

    #[test]
    fn a_file_that_was_cut_is_an_error_with_its_name_and_both_lengths() {
        let (mapped, other) = file(&[7; 100]);
        mapped.intact().unwrap();
        let mut bytes = [0; 20];
        mapped.read(80, &mut bytes).unwrap();
        assert_eq!(bytes, [7; 20]);
        other.set_len(90).unwrap();
        for error in [mapped.intact(), mapped.read(80, &mut bytes)] {
            let text = error.unwrap_err().to_string();
            let parts = ["w.bin", "100", "90"];
            assert!(parts.iter().all(|p| text.contains(p)), "{text}");
        }
        other.set_len(100).unwrap();
        mapped.intact().unwrap();
        other.set_len(200).unwrap();
        mapped.intact().unwrap();
    }

    #[test]
    fn a_read_that_the_system_refuses_names_file_and_range() {
        let (mapped, _) = file(&[7; 100]);
        let error = mapped.unreadable(10..30, &io::Error::from_raw_os_error(libc::EIO));
        let text = error.to_string();
        let parts = ["w.bin", "20 bytes at 10"];
        assert!(parts.iter().all(|p| text.contains(p)), "{text}");
    }
}
