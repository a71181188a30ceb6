//! Making the tensors of a side file: runs of rows, some at a time on each processor, written as they are done.
//!
//! No tensor is in memory whole: a thread holds one run, and what was written is the page cache's.

use super::StoreError;
use super::hold::Making;
use super::side::{self, ALIGN, Entry, Header};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use trt_kernel::Encoding;

/// Bytes that a thread makes at once, or a row if that is more.
const RUN: usize = 4 << 20;

/// A tensor that is to be made.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub name: String,
    pub encoding: Encoding,
    pub shape: Vec<usize>,
}

/// Writes some rows of a tensor, by its number; the bytes are as many as they take.
pub(super) type MakeRows<'a> =
    dyn Fn(usize, Range<usize>, &mut [u8]) -> Result<(), StoreError> + Sync + 'a;

/// What is to be made, and how.
pub(super) struct Job<'a> {
    /// As in [`Header::made`].
    pub made: String,
    /// As in [`Header::source`].
    pub source: String,
    pub tensors: Vec<Wanted>,
    pub rows: &'a MakeRows<'a>,
    /// Told how many bytes are done of how many.
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
}

/// A tensor's rows and what they take.
struct Sheet {
    entry: Entry,
    rows: usize,
    row_bytes: usize,
}

impl Making for Job<'_> {
    fn makes(&self, header: &Header) -> bool {
        let same = |(w, e): (&Wanted, &Entry)| {
            w.name == e.name && w.encoding == e.encoding && w.shape == e.shape && e.code.is_none()
        };
        let (wanted, found) = (&self.tensors, &header.tensors);
        header.made == self.made
            && header.source == self.source
            && wanted.len() == found.len()
            && wanted.iter().zip(found).all(same)
    }

    fn write(&self, path: &Path, file: &File) -> Result<(), StoreError> {
        let mut sheets = self.laid_out()?;
        let total = sheets.iter().map(|s| s.entry.bytes as u64).sum();
        let (mut done, mut end) = (0, ALIGN);
        for (number, sheet) in sheets.iter_mut().enumerate() {
            sheet.entry.checksum = self.tensor(number, sheet, |bytes, at| {
                file.write_all_at(bytes, at as u64)
                    .map_err(|error| StoreError::io("write", path, error))
            })?;
            done += sheet.entry.bytes as u64;
            end = sheet.entry.range().end;
            (self.progress)(done, total);
        }
        let header = Header {
            made: self.made.clone(),
            source: self.source.clone(),
            tensors: sheets.into_iter().map(|s| s.entry).collect(),
        };
        finish(&header, end, path, file)
    }
}

/// Writes the header of a file whose tensors end there, and then what says where it is: so a file that has no end has no beginning.
pub(super) fn finish(
    header: &Header,
    end: usize,
    path: &Path,
    file: &File,
) -> Result<(), StoreError> {
    let write = |error| StoreError::io("write", path, error);
    let (prefix, json) = side::write(header, end).map_err(|e| write(e.into()))?;
    file.write_all_at(&json, end as u64).map_err(write)?;
    file.write_all_at(&prefix, 0).map_err(write)
}

impl Job<'_> {
    /// Where each tensor will be.
    fn laid_out(&self) -> Result<Vec<Sheet>, StoreError> {
        let sheets: Result<Vec<Sheet>, StoreError> = self.tensors.iter().map(sheet).collect();
        let mut sheets = sheets?;
        let mut start = ALIGN;
        for sheet in &mut sheets {
            sheet.entry.start = start;
            start = sheet.entry.range().end.next_multiple_of(ALIGN);
        }
        Ok(sheets)
    }

    /// Makes a tensor and gives its checksum. `put` writes bytes at a place of the file.
    fn tensor(
        &self,
        number: usize,
        sheet: &Sheet,
        put: impl Fn(&[u8], usize) -> Result<(), StoreError> + Sync,
    ) -> Result<u32, StoreError> {
        let each = (RUN / sheet.row_bytes.max(1)).max(1);
        let runs = sheet.rows.div_ceil(each);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let next = AtomicUsize::new(0);
        let sums = Mutex::new(vec![crc32fast::Hasher::new(); runs]);
        let work = || -> Result<(), StoreError> {
            let mut bytes = Vec::new();
            loop {
                let run = next.fetch_add(1, Ordering::Relaxed);
                if run >= runs {
                    return Ok(());
                }
                let rows = run * each..((run + 1) * each).min(sheet.rows);
                bytes.resize(rows.len() * sheet.row_bytes, 0);
                (self.rows)(number, rows.clone(), &mut bytes)?;
                put(&bytes, sheet.entry.start + rows.start * sheet.row_bytes)?;
                let mut sum = crc32fast::Hasher::new();
                sum.update(&bytes);
                sums.lock().unwrap_or_else(PoisonError::into_inner)[run] = sum;
            }
        };
        std::thread::scope(|scope| {
            let all: Vec<_> = (1..threads.min(runs)).map(|_| scope.spawn(work)).collect();
            let own = work();
            let others = all
                .into_iter()
                .map(|t| t.join().unwrap_or(Err(StoreError::Panicked)));
            others.fold(own, |all, one| all.and(one))
        })?;
        let sums = sums.into_inner().unwrap_or_else(PoisonError::into_inner);
        let whole = sums.iter().fold(crc32fast::Hasher::new(), |mut all, run| {
            all.combine(run);
            all
        });
        Ok(whole.finalize())
    }
}

/// A tensor that has no place yet.
fn sheet(wanted: &Wanted) -> Result<Sheet, StoreError> {
    let Wanted {
        name,
        encoding,
        shape,
    } = wanted.clone();
    let Some(bytes) = side::bytes(encoding, &shape) else {
        return Err(StoreError::Shape {
            tensor: name,
            shape,
            encoding,
        });
    };
    let rows = shape
        .split_last()
        .map_or(1, |(_, lead)| lead.iter().product());
    Ok(Sheet {
        rows,
        row_bytes: bytes.checked_div(rows).unwrap_or(0),
        entry: Entry {
            name,
            encoding,
            shape,
            start: 0,
            bytes,
            checksum: 0,
            code: None,
        },
    })
}
