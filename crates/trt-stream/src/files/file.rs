//! A file that is open and mapped.

use super::header::Entry;
use memmap2::Mmap;
use std::path::PathBuf;
use std::sync::Arc;

/// An opened and mapped file, before its header is read.
pub(crate) struct Opened {
    pub path: PathBuf,
    pub file: Arc<std::fs::File>,
    pub map: Arc<Mmap>,
    pub passing: Arc<Mmap>,
}

impl Opened {
    pub fn with(self, tensors: Vec<Entry>) -> File {
        File {
            path: self.path,
            file: self.file,
            map: self.map,
            passing: self.passing,
            tensors,
        }
    }
}

/// An opened and mapped file, with what its header says of its tensors.
pub(crate) struct File {
    pub path: PathBuf,
    pub file: Arc<std::fs::File>,
    pub map: Arc<Mmap>,
    pub passing: Arc<Mmap>,
    pub tensors: Vec<Entry>,
}
