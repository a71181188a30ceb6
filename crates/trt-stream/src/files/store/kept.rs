//! Files and folders that are made once: whole under their names, or absent.
//!
//! Each is made in a folder of its own beside its place, `.unfinished-<name>`, synced, and renamed. Who makes it holds
//! a lock for as long as its process lives, so a second process waits instead of doing the work twice, and what a
//! killed one left is told from what is being made: nobody holds its lock. Such remains go before the next is made.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

const UNFINISHED: &str = ".unfinished-";

/// What was made.
#[derive(Clone, Debug)]
pub enum Made {
    /// The folder that it was made in.
    All,
    /// One file in it; the rest is not kept.
    File(PathBuf),
}

/// A folder in which nothing can be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make {} in {}: {error}", name.display(), folder.display())]
pub struct KeepError {
    /// What is to be made.
    pub name: PathBuf,
    /// Where.
    pub folder: PathBuf,
    /// What the system said. It is part of the message, so it is no source of it.
    pub error: io::Error,
}

/// Makes `place` in an empty folder that `make` fills, unless it is `there` already, as another process may make it
/// first. `waits` is called if another process is at it.
///
/// # Errors
/// That of `make`; [`KeepError`] where the system refuses. Nothing is left of what was not made whole.
pub fn keep<E: From<KeepError>>(
    place: &Path,
    there: impl Fn(&Path) -> bool,
    waits: impl FnOnce(),
    make: impl FnOnce(&Path) -> Result<Made, E>,
) -> Result<(), E> {
    let parent = place.parent().unwrap_or(Path::new(""));
    let failed = |error| KeepError {
        name: place.file_name().unwrap_or_default().into(),
        folder: parent.to_path_buf(),
        error,
    };
    let Some(name) = place.file_name() else {
        return Err(failed(ErrorKind::InvalidFilename.into()).into());
    };
    let name = name.to_string_lossy();
    fs::create_dir_all(parent).map_err(failed)?;
    let lock = Lock::wait(parent, &name, waits).map_err(failed)?;
    if there(place) {
        return Ok(());
    }
    clean(parent);
    let work = parent.join(match &lock {
        Lock::Held(_) => format!("{UNFINISHED}{name}"),
        // Nobody can tell who else is at it, so each is on its own.
        Lock::Without => format!("{UNFINISHED}{name}-{}", std::process::id()),
    });
    let work = Work::new(&work).map_err(failed)?;
    let made = match make(&work.0)? {
        Made::All => work.0.clone(),
        Made::File(file) => file,
    };
    sync(&made).map_err(failed)?;
    // What is there and no good, such as an empty file, is in the way of a folder only.
    if made.is_dir() && place.exists() && !there(place) {
        remove(place);
    }
    match fs::rename(&made, place) {
        Ok(()) => Ok(sync_folder(parent).map_err(failed)?),
        // Another process was faster; its work is as good.
        Err(_) if there(place) => Ok(()),
        Err(e) => Err(failed(e).into()),
    }
}

/// The right to make something.
enum Lock {
    Held(#[expect(dead_code, reason = "the lock goes with the file")] File),
    /// This file system has no locks.
    Without,
}

impl Lock {
    fn wait(parent: &Path, name: &str, waits: impl FnOnce()) -> io::Result<Lock> {
        let file = File::create(lock_file(parent, name))?;
        match file.try_lock() {
            Ok(()) => return Ok(Lock::Held(file)),
            Err(TryLockError::WouldBlock) => waits(),
            Err(TryLockError::Error(_)) => return Ok(Lock::Without),
        }
        Ok(match file.lock() {
            Ok(()) => Lock::Held(file),
            Err(_) => Lock::Without,
        })
    }
}

/// Lock files stay: one that is removed while another process waits for it would be two locks.
fn lock_file(parent: &Path, name: &str) -> PathBuf {
    parent.join(format!(".{name}.lock"))
}

/// Removes what killed processes left in `parent`. What cannot be removed is left for another time.
fn clean(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(of) = name.to_str().and_then(|n| n.strip_prefix(UNFINISHED)) else {
            continue;
        };
        let Ok(lock) = File::create(lock_file(parent, of)) else {
            continue;
        };
        match lock.try_lock() {
            Ok(()) => remove(&entry.path()),
            // Its maker lives, or nobody can tell.
            Err(_) => continue,
        }
    }
}

fn remove(path: &Path) {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => return,
    };
    if let Err(error) = removed {
        tracing::warn!("cannot remove {}: {error}", path.display());
    }
}

/// A folder to work in, which goes unless it was renamed.
struct Work(PathBuf);

impl Work {
    fn new(path: &Path) -> io::Result<Work> {
        // Ours by the lock, so whatever is there is a killed process's.
        remove(path);
        fs::create_dir(path)?;
        Ok(Work(path.to_path_buf()))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Brings a file, or a folder and its files, to the disk.
fn sync(path: &Path) -> io::Result<()> {
    if !path.is_dir() {
        return File::open(path)?.sync_all();
    }
    for entry in fs::read_dir(path)? {
        sync(&entry?.path())?;
    }
    sync_folder(path)
}

/// A folder's names; not every system can.
fn sync_folder(path: &Path) -> io::Result<()> {
    match File::open(path).and_then(|folder| folder.sync_all()) {
        Err(e)
            if matches!(
                e.kind(),
                ErrorKind::PermissionDenied | ErrorKind::InvalidInput | ErrorKind::Unsupported
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

    fn whole(place: &Path) -> bool {
        place.join("file").is_file()
    }

    fn fill(folder: &Path) -> Result<Made, KeepError> {
        fs::write(folder.join("file"), "whole").unwrap();
        Ok(Made::All)
    }

    fn unfinished(folder: &Path) -> usize {
        let names = fs::read_dir(folder)
            .unwrap()
            .flatten()
            .map(|e| e.file_name());
        names
            .filter(|n| n.to_string_lossy().starts_with(UNFINISHED))
            .count()
    }

    #[test]
    fn what_is_made_is_there_whole_and_nothing_beside_it() {
        let cache = tempfile::tempdir().unwrap();
        let place = cache.path().join("model");
        keep(&place, whole, || {}, fill).unwrap();
        assert!(whole(&place) && unfinished(cache.path()) == 0);
        keep(
            &place,
            whole,
            || {},
            |_| -> Result<Made, KeepError> { panic!("it is there") },
        )
        .unwrap();
    }

    #[test]
    fn what_fails_leaves_nothing() {
        let cache = tempfile::tempdir().unwrap();
        let place = cache.path().join("model");
        let failed = keep(
            &place,
            whole,
            || {},
            |folder| {
                fs::write(folder.join("file"), "half").unwrap();
                Err(KeepError {
                    name: "model".into(),
                    folder: folder.into(),
                    error: io::Error::other("no more"),
                })
            },
        );
        assert!(failed.unwrap_err().to_string().ends_with("no more"));
        assert!(!place.exists() && unfinished(cache.path()) == 0);
    }

    #[test]
    fn what_killed_processes_left_goes_and_what_live_ones_make_stays() {
        let cache = tempfile::tempdir().unwrap();
        for name in ["killed", "alive", "model"] {
            let folder = cache.path().join(format!("{UNFINISHED}{name}"));
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("part"), "half").unwrap();
        }
        let alive = Lock::wait(cache.path(), "alive", || {}).unwrap();
        keep(&cache.path().join("model"), whole, || {}, fill).unwrap();
        let left = |name: &str| cache.path().join(format!("{UNFINISHED}{name}")).exists();
        assert_eq!(["killed", "alive", "model"].map(left), [false, true, false]);
        drop(alive);
        keep(&cache.path().join("other"), whole, || {}, fill).unwrap();
        assert!(!left("alive"));
    }

    #[test]
    fn of_several_at_once_one_makes_it_and_all_have_it() {
        let cache = tempfile::tempdir().unwrap();
        let place = cache.path().join("model");
        let made = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let make = |folder: &Path| {
                        made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        std::thread::sleep(std::time::Duration::from_millis(20));
                        fill(folder)
                    };
                    keep(&place, whole, || {}, make).unwrap();
                    assert!(whole(&place));
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }

    #[test]
    fn one_file_of_what_was_made_can_be_all_that_is_kept() {
        let cache = tempfile::tempdir().unwrap();
        let place = cache.path().join("weights");
        fs::write(&place, "").unwrap();
        let full = |place: &Path| fs::metadata(place).is_ok_and(|m| m.len() > 0);
        let make = |folder: &Path| {
            fs::write(folder.join("rest"), "not kept").unwrap();
            fs::write(folder.join("wanted"), "kept").unwrap();
            Ok::<_, KeepError>(Made::File(folder.join("wanted")))
        };
        keep(&place, full, || {}, make).unwrap();
        assert_eq!(fs::read_to_string(&place).unwrap(), "kept");
        assert_eq!(unfinished(cache.path()), 0);
    }
}
