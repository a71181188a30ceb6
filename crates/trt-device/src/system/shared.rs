//! Files without a name: memory that many mappings, and processes, share.

use crate::contract::Error;
use std::fs::File;

/// A new empty file that lives in memory and has no name in any folder; it is gone with its last
/// descriptor and mapping. `name` shows in the system's lists of mappings. On systems without
/// such files it is a temporary file whose name was removed.
///
/// # Errors
/// [`Error::Os`] if the system gives none.
pub fn memory_file(name: &str) -> Result<File, Error> {
    open(name).map_err(|e| Error::os(format!("making a file in memory for {name}"), &e))
}

/// Fixes the size of a file of [`memory_file`], so that no mapping of it can ever be cut short.
/// Where files cannot be sealed this does nothing.
///
/// # Errors
/// [`Error::Os`] if the system refuses to.
pub fn seal_size(file: &File) -> Result<(), Error> {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;
        // SAFETY: the descriptor is open for as long as the file is borrowed, and a seal touches
        // no memory.
        let answer = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) };
        if answer != 0 {
            return Err(Error::last_os("sealing a file in memory"));
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
    Ok(())
}

/// Bytes that the disk of a file has room for; nothing if it does not tell, as memory does not.
///
/// # Errors
/// [`Error::Os`] if the system refuses to say.
pub fn free_bytes(file: &File) -> Result<Option<u64>, Error> {
    use std::os::fd::AsRawFd;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the descriptor is open for as long as the file is borrowed, and `stat` is a place for what the call writes.
    let answer = unsafe { libc::fstatvfs(file.as_raw_fd(), stat.as_mut_ptr()) };
    if answer != 0 {
        return Err(Error::last_os("asking for the room of a disk"));
    }
    // SAFETY: the call succeeded, so it has written all of it.
    let stat = unsafe { stat.assume_init() };
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok(Some(bytes(stat.f_bavail)).filter(|_| stat.f_blocks > 0))
}

#[cfg(target_os = "linux")]
fn open(name: &str) -> std::io::Result<File> {
    use std::os::fd::FromRawFd;
    // The system takes at most 249 bytes.
    let name: Vec<u8> = name.bytes().filter(|b| *b != 0).take(249).collect();
    let name = std::ffi::CString::new(name)?;
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a C string that outlives the call.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, valid, and owned by nobody else.
    Ok(unsafe { File::from_raw_fd(fd) })
}

#[cfg(not(target_os = "linux"))]
fn open(name: &str) -> std::io::Result<File> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let name = name.replace(['/', '\0'], "-");
    let path = std::env::temp_dir().join(format!("{name}-{process}-{number}"));
    let mut options = std::fs::OpenOptions::new();
    let file = options
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_disk_tells_its_room_and_memory_does_not() {
        let file = std::fs::File::open(std::env::temp_dir()).unwrap();
        assert!(free_bytes(&file).unwrap().is_some());
        if cfg!(target_os = "linux") {
            let file = memory_file("test").unwrap();
            assert_eq!(free_bytes(&file).unwrap(), None);
        }
    }

    #[test]
    fn a_sealed_file_keeps_its_size_and_its_bytes() {
        let mut file = memory_file("test/with a slash").unwrap();
        file.write_all(b"weights").unwrap();
        seal_size(&file).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 7);
        if cfg!(target_os = "linux") {
            assert!(file.set_len(3).is_err());
            assert!(file.set_len(30).is_err());
        }
    }
}
