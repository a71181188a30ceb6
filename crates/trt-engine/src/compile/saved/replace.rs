//! A file that is there whole or not at all, and what is left of those that were not.
//!
//! A file is written beside its place under a name that ends in `.part`, brought to the disk and
//! then renamed. While it is written it is locked; the system lets go of the lock with the process,
//! however that ends. So a `.part` that can be locked is nobody's, and the next save removes it.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes a file of these parts, one after the other, and puts it in its place.
pub(super) fn replace(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let refuse = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    let Some(name) = path.file_name() else {
        return refuse("the path names no file");
    };
    if path.metadata().is_ok_and(|there| !there.is_file()) {
        return refuse("what is there is not a regular file");
    }
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    sweep(folder, name);
    let (beside, mut file) = beside(folder, name)?;
    let mut write = || {
        parts.iter().try_for_each(|part| file.write_all(part))?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().inspect_err(|_| {
        // If it cannot be removed, the first error still is what matters.
        let _ = fs::remove_file(&beside);
    })?;
    sync(folder)
}

/// A new file beside the place, locked.
fn beside(folder: &Path, name: &OsStr) -> io::Result<(PathBuf, File)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut part = name.to_os_string();
        part.push(format!(".{}-{number}.part", std::process::id()));
        let path = folder.join(part);
        let mut options = File::options();
        let file = match options.write(true).create_new(true).open(&path) {
            // Left by a process that had the same number.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
            other => other?,
        };
        match file.try_lock() {
            // Whoever sweeps has taken it for left over.
            Err(TryLockError::WouldBlock) => continue,
            // Where files cannot be locked nobody sweeps either.
            Err(TryLockError::Error(_)) => return Ok((path, file)),
            Ok(()) if same(&path, &file) => return Ok((path, file)),
            Ok(()) => continue,
        }
    }
}

/// Whether the path still leads to the open file.
fn same(path: &Path, file: &File) -> bool {
    let id = |m: fs::Metadata| (m.dev(), m.ino());
    let there = path.symlink_metadata().map(id).ok();
    there.is_some() && there == file.metadata().map(id).ok()
}

/// Removes what killed saves to this name left. What cannot be is left for another time.
fn sweep(folder: &Path, name: &OsStr) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten().filter(|e| is_part(&e.file_name(), name)) {
        let path = entry.path();
        let Ok(file) = trt_stream::open_regular(&path) else {
            continue;
        };
        if file.try_lock().is_ok() && same(&path, &file) {
            match fs::remove_file(&path) {
                Ok(()) => tracing::info!(path = %path.display(), "a save that was killed left it"),
                Err(why) => tracing::debug!(path = %path.display(), %why, "it stays"),
            }
        }
    }
}

/// Whether a name is that of a file that is written beside `name`.
fn is_part(part: &OsStr, name: &OsStr) -> bool {
    let part = part.as_encoded_bytes();
    let middle = part
        .strip_prefix(name.as_encoded_bytes())
        .and_then(|rest| rest.strip_prefix(b"."))
        .and_then(|rest| rest.strip_suffix(b".part"));
    let mut numbers = middle.unwrap_or_default().split(|b| *b == b'-');
    let number =
        |n: Option<&[u8]>| n.is_some_and(|n| !n.is_empty() && n.iter().all(u8::is_ascii_digit));
    number(numbers.next()) && number(numbers.next()) && numbers.next().is_none()
}

/// Brings a rename to the disk, where folders can be brought there.
fn sync(folder: &Path) -> io::Result<()> {
    let Ok(opened) = File::open(folder) else {
        return Ok(()); // It can be written to, but not read.
    };
    match opened.sync_all() {
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let name = |e: io::Result<fs::DirEntry>| e.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<String> = entries.map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn what_a_killed_save_left_is_removed_by_the_next_and_what_is_being_written_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("model.engine.123-0.part"), "half").unwrap();
        let others = [
            "other.engine.123-0.part",
            "model.engine.1-2-3.part",
            "model.engine.part",
            "model.engine.x-1.part",
        ];
        others
            .iter()
            .for_each(|name| fs::write(at(name), "").unwrap());
        let busy = File::create(at("model.engine.124-7.part")).unwrap();
        busy.lock().unwrap();
        // A pipe of that name does not block.
        let pipe = at("model.engine.9-9.part");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        replace(&at("model.engine"), &[b"whole", b"", b"!"]).unwrap();
        assert_eq!(fs::read(at("model.engine")).unwrap(), b"whole!");
        let mut left = others.to_vec();
        left.extend([
            "model.engine",
            "model.engine.124-7.part",
            "model.engine.9-9.part",
        ]);
        left.sort();
        assert_eq!(names(dir.path()), left);
        drop(busy);
        replace(&at("model.engine"), &[b"again"]).unwrap();
        assert!(!at("model.engine.124-7.part").exists());
    }

    #[test]
    fn what_is_no_file_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("folder");
        fs::create_dir(&folder).unwrap();
        let link = dir.path().join("null");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        for path in [&folder, &link, &folder.join(".."), Path::new("/")] {
            let error = replace(path, &[b"x"]).unwrap_err();
            assert_eq!(
                error.kind(),
                io::ErrorKind::InvalidInput,
                "{path:?}: {error}"
            );
        }
        assert_eq!(names(dir.path()), ["folder", "null"]);
    }

    #[test]
    fn saves_of_several_threads_to_one_place_leave_one_of_them_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine");
        std::thread::scope(|scope| {
            for thread in 0..4u8 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..20 {
                        replace(path, &[&[thread; 4096]]).unwrap();
                    }
                });
            }
        });
        let bytes = fs::read(&path).unwrap();
        assert!(bytes.len() == 4096 && bytes.iter().all(|b| *b == bytes[0]));
        assert_eq!(names(dir.path()), ["engine"]);
    }
}
