//! Which mapped files there are, and which of their chunks are registered.
//!
//! Plain bookkeeping: nothing here calls the driver but for what dropping a chunk does. Invariant:
//! `registered` is the sum of the registered chunks, `copied` that of the copies, and an entry
//! lives as long as a mapping of its file does.

use crate::contract::{Changed, MappedFile};
use crate::cuda::driver::{Pinned, Registration};
use crate::gpu::chunks;
use crate::{Error, Slice};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Default)]
pub(in crate::cuda) struct Registry {
    next: u64,
    pub entries: BTreeMap<u64, FileEntry>,
    /// Which entry a mapping belongs to, by its first address, and how many memories use it.
    mappings: HashMap<usize, (u64, usize)>,
    pub registered: u64,
    pub copied: u64,
}

/// One file.
#[derive(Debug)]
pub(in crate::cuda) struct FileEntry {
    /// Device, inode and length.
    identity: Option<(u64, u64, u64)>,
    users: usize,
    pub chunks: Vec<Chunk>,
    /// Whether its pages were asked for ahead, by chunk.
    pub asked: Vec<bool>,
    /// Whether it was said that a chunk was refused.
    pub said: bool,
    /// Rows that kernels read where the file cannot be registered.
    pub copies: Vec<(Range<usize>, Pinned)>,
    pub file: MappedFile,
    /// How often each mapping of the file found it cut.
    cuts: Vec<Arc<AtomicU64>>,
    /// The state of the file that what is registered and copied is of.
    seen: Option<Seen>,
}

/// When a file was last changed, and how often it was found cut.
pub(in crate::cuda) type Seen = (Changed, u64);

impl FileEntry {
    /// The state of the file that was changed then, if what is registered and copied may be of
    /// another one.
    pub fn stale(&self, changed: Changed) -> Option<Seen> {
        let cuts = self.cuts.iter().map(|c| c.load(Ordering::Relaxed)).sum();
        Some((changed, cuts)).filter(|now| self.seen.as_ref() != Some(now))
    }

    /// What is registered and copied is of this state of the file.
    pub fn is_of(&mut self, seen: Seen) {
        self.seen = Some(seen);
    }

    /// Whether anything of the file is registered or copied.
    pub fn holds(&self) -> bool {
        let registered = |c: &Chunk| matches!(c, Chunk::Registered { .. });
        !self.copies.is_empty() || self.chunks.iter().any(registered)
    }
}

#[derive(Debug)]
pub(in crate::cuda) enum Chunk {
    Untouched,
    Registered {
        /// Held to be dropped.
        _registration: Registration,
        in_place: bool,
    },
    /// The driver said no, and is not asked again, since asking takes long. Among its reasons is
    /// that another owner in this process has registered the pages. They could be copied from then,
    /// but only until that owner lets go of them, of which nobody here would know: so they are
    /// not.
    Refused,
}

/// A mapping that this device did not make.
pub(in crate::cuda) fn unknown() -> Error {
    Error::WrongDevice {
        what: "a mapping",
        device: "this device".into(),
    }
}

impl Registry {
    /// The entry of a file that is being mapped, made if it is new.
    pub fn entry_of(&mut self, file: &MappedFile) -> u64 {
        let (meta, map) = (file.file.metadata().ok(), &file.map);
        let identity = meta.map(|m| (m.dev(), m.ino(), map.len() as u64));
        let known = |e: &FileEntry| identity.is_some() && e.identity == identity;
        if let Some((id, _)) = self.entries.iter().find(|(_, e)| known(e)) {
            return *id;
        }
        let (id, count) = (self.next, chunks::count(map.len()));
        self.next += 1;
        let entry = FileEntry {
            identity,
            users: 0,
            chunks: (0..count).map(|_| Chunk::Untouched).collect(),
            asked: vec![false; count],
            said: false,
            copies: Vec::new(),
            file: file.clone(),
            cuts: Vec::new(),
            seen: None,
        };
        self.entries.insert(id, entry);
        id
    }

    pub fn find(&self, slice: &Slice) -> Result<u64, Error> {
        let base = slice.memory().whole().address() as usize;
        let mapping = self.mappings.get(&base);
        mapping.map(|(id, _)| *id).ok_or_else(unknown)
    }

    pub fn set(&mut self, id: u64, chunk: usize, to: Chunk) {
        let entry = self.entries.get_mut(&id);
        if let Some(slot) = entry.and_then(|e| e.chunks.get_mut(chunk)) {
            *slot = to;
        }
    }

    /// Bytes of the chunks of a range that could be registered and are not.
    pub fn missing(&self, id: u64, range: &Range<usize>) -> u64 {
        let Some(entry) = self.entries.get(&id) else {
            return 0;
        };
        chunks::touched(range)
            .filter(|c| matches!(entry.chunks.get(*c), Some(Chunk::Untouched)))
            .map(|c| chunks::bytes(c, entry.file.map.len()).len() as u64)
            .sum()
    }

    /// Registered chunks that no kernel reads, but for those of a range: entry, index, bytes.
    pub fn upload_only(&self, id: u64, range: &Range<usize>) -> Vec<(u64, usize, u64)> {
        let keep = chunks::touched(range);
        let all = self.registered_chunks().filter(|(_, _, _, used)| !used);
        let mut victims: Vec<_> = all
            .filter(|(entry, chunk, ..)| *entry != id || !keep.contains(chunk))
            .map(|(entry, chunk, bytes, _)| (entry, chunk, bytes))
            .collect();
        victims.reverse();
        victims
    }

    /// Bytes that kernels read in registered pages.
    pub fn in_place(&self) -> u64 {
        let used = self.registered_chunks().filter(|(_, _, _, used)| *used);
        used.map(|(_, _, bytes, _)| bytes).sum()
    }

    /// Entry, index, bytes, and whether kernels read it.
    pub fn registered_chunks(&self) -> impl Iterator<Item = (u64, usize, u64, bool)> {
        self.entries.iter().flat_map(|(id, entry)| {
            let chunks = entry.chunks.iter().enumerate();
            chunks.filter_map(|(index, chunk)| match chunk {
                Chunk::Registered { in_place, .. } => {
                    let bytes = chunks::bytes(index, entry.file.map.len()).len() as u64;
                    Some((*id, index, bytes, *in_place))
                }
                Chunk::Untouched | Chunk::Refused => None,
            })
        })
    }

    /// Counts one more memory over a mapping.
    pub fn add_user(&mut self, file: &MappedFile, id: u64) {
        let base = file.map.as_ptr() as usize;
        self.mappings.entry(base).or_insert((id, 0)).1 += 1;
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.users += 1;
            entry.cuts.push(file.cuts());
        }
    }

    /// Lets go of all registered chunks of a file.
    pub fn unregister(&mut self, id: u64) {
        let of_file = self.registered_chunks().filter(|(entry, ..)| *entry == id);
        let chunks: Vec<_> = of_file.map(|(_, chunk, bytes, _)| (chunk, bytes)).collect();
        for (chunk, bytes) in chunks {
            self.set(id, chunk, Chunk::Untouched);
            self.registered -= bytes;
        }
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.asked.fill(false);
        }
    }

    /// Ends one use of a mapping; returns the entry if it was the last of the file.
    pub fn unmap(&mut self, base: usize) -> Option<FileEntry> {
        let (id, uses) = self.mappings.get_mut(&base)?;
        let id = *id;
        *uses -= 1;
        if *uses == 0 {
            self.mappings.remove(&base);
        }
        let entry = self.entries.get_mut(&id)?;
        entry.users -= 1;
        if entry.users > 0 {
            return None;
        }
        let bytes = |(entry, _, bytes, _): (u64, usize, u64, bool)| (entry == id).then_some(bytes);
        self.registered -= self.registered_chunks().filter_map(bytes).sum::<u64>();
        let entry = self.entries.remove(&id)?;
        self.copied -= entry
            .copies
            .iter()
            .map(|(r, _)| r.len() as u64)
            .sum::<u64>();
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memmap2::Mmap;
    use std::io::Write;
    use std::path::Path;
    use std::sync::Arc;

    /// Two mappings of one file.
    fn file(len: usize) -> [MappedFile; 2] {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![1; len]).unwrap();
        let file = Arc::new(file);
        // SAFETY: nobody changes the temporary file while it is mapped.
        let map = || Arc::new(unsafe { Mmap::map(&*file) }.unwrap());
        [map(), map()].map(|map| MappedFile::new(Path::new("w.bin"), file.clone(), map))
    }

    #[test]
    fn mappings_of_one_file_share_an_entry_until_the_last_is_gone() {
        let mut state = Registry::default();
        let (maps, [other, _]) = (file(100), file(100));
        let base = |file: &MappedFile| file.map.as_ptr() as usize;
        for file in [&maps[0], &maps[1], &maps[0]] {
            let id = state.entry_of(file);
            assert_eq!(id, 0);
            state.add_user(file, id);
        }
        assert_eq!(state.entry_of(&other), 1);
        assert!(state.unmap(base(&maps[0])).is_none());
        assert!(state.unmap(base(&maps[0])).is_none());
        // The entry's own pages are those of the first mapping, which it still holds.
        assert!(state.unmap(base(&maps[1])).is_some());
        assert!(state.unmap(base(&maps[1])).is_none());
    }

    #[test]
    fn what_is_held_of_a_file_is_stale_once_any_mapping_found_it_cut() {
        let mut state = Registry::default();
        let [one, other] = file(100);
        let id = state.entry_of(&one);
        state.add_user(&one, id);
        state.add_user(&other, id);
        let changed = one.changed().unwrap();
        let entry = state.entries.get_mut(&id).unwrap();
        let seen = entry.stale(changed).expect("nothing was seen of it");
        entry.is_of(seen);
        assert!(entry.stale(changed).is_none());
        one.file.set_len(50).unwrap();
        assert!(other.changed().is_err());
        one.file.set_len(100).unwrap();
        let entry = state.entries.get_mut(&id).unwrap();
        assert!(entry.stale(changed).is_some(), "whatever the clock says");
        let seen = entry.stale(one.changed().unwrap()).unwrap();
        entry.is_of(seen);
        assert!(entry.stale(one.changed().unwrap()).is_none());
    }

    #[test]
    fn chunks_that_were_not_tried_are_missing_and_refused_ones_are_not() {
        let mut state = Registry::default();
        let [file, _] = file(100);
        let id = state.entry_of(&file);
        assert_eq!(state.missing(id, &(0..10)), 100);
        assert_eq!(state.missing(id, &(7..7)), 0);
        state.set(id, 0, Chunk::Refused);
        assert_eq!(state.missing(id, &(0..10)), 0);
    }
}
