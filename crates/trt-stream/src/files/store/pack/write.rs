//! Writing a side file of packed rows: units of all weights one after another, packed by all cores.
//!
//! A unit's place is known when those before it were packed. So cores take units in their order and, when one is packed, a
//! *turn*: it gets its place and is written while the next takes its turn. Each core holds one unit.

use super::sample::{Chosen, PAYS, choose};
use super::{Job, MADE};
use crate::files::store::StoreError;
use crate::files::store::make::finish;
use crate::files::store::side::{ALIGN, Entry, Header};
use crate::files::store::units::{Places, table_bytes};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use trt_device::free_bytes;
use trt_pack::Packer;

/// A unit: its weight's number, and its own in that.
#[derive(Clone, Copy)]
struct Unit {
    weight: usize,
    number: usize,
}

/// Where units were put.
struct Put {
    /// Units that have a place.
    units: usize,
    /// Where the file ends.
    end: usize,
    /// Bytes of values that were packed.
    done: u64,
    /// The first byte of each weight, and its units.
    weights: Vec<(usize, Places)>,
    /// Whether something went wrong, so that no more turns come.
    failed: bool,
}

/// Whose turn it is.
struct Turns {
    put: Mutex<Put>,
    next: Condvar,
}

/// Writes all of a side file.
pub(super) fn write(job: &Job<'_>, path: &Path, file: &File) -> Result<(), StoreError> {
    let chosen = choose(job.weights, &job.candidates)?;
    let units = |weight: usize| {
        (0..chosen[weight].of.cut.units()).map(move |number| Unit { weight, number })
    };
    let units: Vec<Unit> = (0..chosen.len()).flat_map(units).collect();
    let turns = Turns {
        put: Mutex::new(Put {
            units: 0,
            end: ALIGN,
            done: 0,
            weights: Vec::new(),
            failed: false,
        }),
        next: Condvar::new(),
    };
    let all = All {
        job,
        chosen: &chosen,
        units: &units,
        turns: &turns,
        total: chosen.iter().map(|c| c.of.cut.bytes() as u64).sum(),
    };
    let needed = chosen.iter().map(Chosen::packed_bytes).sum();
    let room = Room { path, file, needed };
    room.check()?;
    all.pack(|bytes, at| {
        file.write_all_at(bytes, at as u64)
            .map_err(|error| room.failed(error))
    })?;
    let put = turns
        .put
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let mut tensors = Vec::new();
    for (chosen, (start, places)) in chosen.iter().zip(put.weights) {
        let info = job.weights.info(chosen.of.id);
        // A sample may have said too little.
        if places.end() as f64 >= PAYS * chosen.of.cut.bytes() as f64 {
            continue;
        }
        let table = places.to_bytes();
        let at = (start + places.end()) as u64;
        file.write_all_at(&table, at)
            .map_err(|error| room.failed(error))?;
        tensors.push(Entry {
            name: info.name.clone(),
            encoding: info.encoding,
            shape: info.shape.clone(),
            start,
            bytes: places.end(),
            checksum: crc32fast::hash(&table),
            code: Some(chosen.code.to_bytes()),
        });
    }
    let header = Header {
        made: MADE.into(),
        source: job.source.clone(),
        tensors,
    };
    finish(&header, put.end, path, file)
}

/// A file that is to have so many bytes.
struct Room<'a> {
    path: &'a Path,
    file: &'a File,
    needed: u64,
}

impl Room<'_> {
    /// Before hours of work are thrown away.
    fn check(&self) -> Result<(), StoreError> {
        match free_bytes(self.file)? {
            Some(free) if free < self.needed => Err(self.none(free)),
            Some(_) | None => Ok(()),
        }
    }

    fn none(&self, free: u64) -> StoreError {
        StoreError::NoRoom {
            path: self.path.to_path_buf(),
            needed: self.needed,
            free,
        }
    }

    /// Why bytes could not be written: others may have taken the room meanwhile.
    fn failed(&self, error: io::Error) -> StoreError {
        let full = error.kind() == ErrorKind::StorageFull;
        match free_bytes(self.file) {
            Ok(Some(free)) if full => self.none(free),
            Ok(_) | Err(_) => StoreError::io("write", self.path, error),
        }
    }
}

/// The units of all weights.
struct All<'a> {
    job: &'a Job<'a>,
    chosen: &'a [Chosen],
    units: &'a [Unit],
    turns: &'a Turns,
    total: u64,
}

impl All<'_> {
    fn pack(
        &self,
        put: impl Fn(&[u8], usize) -> Result<(), StoreError> + Sync,
    ) -> Result<(), StoreError> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let next = AtomicUsize::new(0);
        let work = || {
            // Whoever waits for a turn that will not come is told, also if this panics.
            let mut ends = Ends(self.turns, true);
            let result = self.some(&next, &put);
            ends.1 = result.is_err();
            result
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads.min(self.units.len()))
                .map(|_| scope.spawn(work))
                .collect();
            let own = work();
            let others = others
                .into_iter()
                .map(|t| t.join().unwrap_or(Err(StoreError::Panicked)));
            others.fold(own, |all, one| all.and(one))
        })
    }

    /// Packs units until there are no more.
    fn some(
        &self,
        next: &AtomicUsize,
        put: &(impl Fn(&[u8], usize) -> Result<(), StoreError> + Sync),
    ) -> Result<(), StoreError> {
        let mut packer: Option<(usize, Packer)> = None;
        let (mut plain, mut packed) = (Vec::new(), Vec::new());
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(unit) = self.units.get(number) else {
                return Ok(());
            };
            let Chosen { of, code, .. } = &self.chosen[unit.weight];
            let rows = of.cut.unit(unit.number);
            let bytes = self.job.weights.bytes(of.id).unwrap_or_default();
            let each = of.cut.row_bytes();
            values(&bytes[rows.start * each..rows.end * each], &mut plain);
            if packer.as_ref().is_none_or(|(of, _)| *of != unit.weight) {
                packer = Some((unit.weight, Packer::new(of.cut.geometry, code)));
            }
            packed.clear();
            if let Some((_, packer)) = &mut packer {
                let name = || self.job.weights.info(of.id).name.clone();
                packer
                    .pack(&plain, &mut packed)
                    .map_err(|e| StoreError::Derive {
                        tensor: name(),
                        error: e.into(),
                    })?;
            }
            match self.turn(number, *unit, &packed, 2 * plain.len()) {
                Some(at) => put(&packed, at)?,
                None => return Ok(()),
            }
        }
    }

    /// Waits until all units before this one have a place, and gives it one; nothing if something went wrong.
    fn turn(&self, number: usize, unit: Unit, packed: &[u8], plain: usize) -> Option<usize> {
        let sum = crc32fast::hash(packed);
        let mut put = self.turns.lock();
        while put.units != number && !put.failed {
            let waited = self.turns.next.wait(put);
            put = waited.unwrap_or_else(PoisonError::into_inner);
        }
        if put.failed {
            return None;
        }
        if unit.number == 0 {
            let start = put.end.next_multiple_of(ALIGN);
            put.weights.push((start, Places::new()));
            put.end = start;
        }
        let at = put.end;
        put.end += packed.len();
        if let Some((_, places)) = put.weights.last_mut() {
            places.push(packed.len(), sum);
        }
        let cut = &self.chosen[unit.weight].of.cut;
        if unit.number + 1 == cut.units() {
            put.end += table_bytes(cut);
        }
        put.units += 1;
        put.done += plain as u64;
        (self.job.progress)(put.done, self.total);
        self.turns.next.notify_all();
        Some(at)
    }
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, Put> {
        self.put.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells those who wait for a turn if no more come.
struct Ends<'a>(&'a Turns, bool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        if self.1 {
            self.0.lock().failed = true;
            self.0.next.notify_all();
        }
    }
}

/// Little-endian values of 16 bits.
pub(super) fn values(bytes: &[u8], values: &mut Vec<u16>) {
    values.clear();
    let pairs = bytes.as_chunks::<2>().0.iter();
    values.extend(pairs.map(|pair| u16::from_le_bytes(*pair)));
}
