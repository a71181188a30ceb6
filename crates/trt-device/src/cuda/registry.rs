//! Which mapped files there are, and which of their chunks are registered.
//!
//! Plain bookkeeping: nothing here calls the driver but for what dropping a chunk does. Invariant:
//! `registered` is the sum of the registered chunks, `copied` that of the copies, and an entry
//! lives as long as a mapping of its file does.

use super::chunks;
use super::driver::{Pinned, Registration};
use crate::mapping::MappedFile;
use crate::{Error, Slice};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;

#[derive(Debug, Default)]
pub(super) struct State {
    next: u64,
    pub entries: BTreeMap<u64, Entry>,
    /// Which entry a mapping belongs to, by its first address, and how many memories use it.
    mappings: HashMap<usize, (u64, usize)>,
    pub registered: u64,
    pub copied: u64,
}

/// One file.
#[derive(Debug)]
pub(super) struct Entry {
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
}

#[derive(Debug)]
pub(super) enum Chunk {
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
pub(super) fn unknown() -> Error {
    Error::WrongDevice {
        what: "a mapping",
        device: "this device".into(),
    }
}

impl State {
    /// The entry of a file that is being mapped, made if it is new.
    pub fn entry_of(&mut self, file: &MappedFile) -> u64 {
        let (meta, map) = (file.file.metadata().ok(), &file.map);
        let identity = meta.map(|m| (m.dev(), m.ino(), map.len() as u64));
        let known = |e: &Entry| identity.is_some() && e.identity == identity;
        if let Some((id, _)) = self.entries.iter().find(|(_, e)| known(e)) {
            return *id;
        }
        let (id, count) = (self.next, chunks::count(map.len()));
        self.next += 1;
        let entry = Entry {
            identity,
            users: 0,
            chunks: (0..count).map(|_| Chunk::Untouched).collect(),
            asked: vec![false; count],
            said: false,
            copies: Vec::new(),
            file: file.clone(),
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

    /// Counts one more memory over the mapping at `base`.
    pub fn add_user(&mut self, base: usize, id: u64) {
        self.mappings.entry(base).or_insert((id, 0)).1 += 1;
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.users += 1;
        }
    }

    /// Ends one use of a mapping; returns the entry if it was the last of the file.
    pub fn unmap(&mut self, base: usize) -> Option<Entry> {
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
        let mut state = State::default();
        let (maps, [other, _]) = (file(100), file(100));
        let base = |file: &MappedFile| file.map.as_ptr() as usize;
        for file in [&maps[0], &maps[1], &maps[0]] {
            let id = state.entry_of(file);
            assert_eq!(id, 0);
            state.add_user(base(file), id);
        }
        assert_eq!(state.entry_of(&other), 1);
        assert!(state.unmap(base(&maps[0])).is_none());
        assert!(state.unmap(base(&maps[0])).is_none());
        // The entry's own pages are those of the first mapping, which it still holds.
        assert!(state.unmap(base(&maps[1])).is_some());
        assert!(state.unmap(base(&maps[1])).is_none());
    }

    #[test]
    fn chunks_that_were_not_tried_are_missing_and_refused_ones_are_not() {
        let mut state = State::default();
        let [file, _] = file(100);
        let id = state.entry_of(&file);
        assert_eq!(state.missing(id, &(0..10)), 100);
        assert_eq!(state.missing(id, &(7..7)), 0);
        state.set(id, 0, Chunk::Refused);
        assert_eq!(state.missing(id, &(0..10)), 0);
    }
}
