//! Files for what reads files: in memory, where the system has a folder for that.

use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A folder of its own, in memory if possible.
pub fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = tempfile::tempdir_in(memory);
    made.or_else(|_| tempfile::tempdir()).expect("a folder")
}

/// Puts bytes at a path; the path, for what opens it.
pub fn put(path: &Path, bytes: &[u8]) -> PathBuf {
    std::fs::write(path, bytes).expect("it is written");
    path.to_path_buf()
}

/// A safetensors file of this header and as many bytes of data.
pub fn safetensors(header: &[u8], data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.resize(bytes.len() + data, 7);
    bytes
}
