//! Whether a side file's tensors are what was written.
//!
//! All of it is read once, by all cores: what streams later is what was checked, as long as nobody changes the file.

use super::cut::Cut;
use super::side::{Entry, Header};
use super::units::Places;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use trt_pack::Code;

/// Bytes whose checksum is known.
struct Part<'a> {
    entry: &'a Entry,
    range: Range<usize>,
    sum: u32,
    /// If it is a unit of packed rows: how these are cut, and how many it has.
    unit: Option<(Cut, usize)>,
}

/// Checks all tensors of a file; what is wrong with the first that is not what was written.
pub(super) fn check(header: &Header, file: &[u8]) -> Result<(), String> {
    let mut parts = Vec::new();
    for entry in &header.tensors {
        match entry.cut() {
            Some(cut) => {
                let places = units(entry, &cut, file)?;
                let ranges = places.offsets.windows(2).map(|w| w[0]..w[1]);
                for (number, (range, sum)) in ranges.zip(places.sums).enumerate() {
                    parts.push(Part {
                        entry,
                        range: entry.start + range.start..entry.start + range.end,
                        sum,
                        unit: Some((cut, cut.unit(number).len())),
                    });
                }
            }
            None => parts.push(Part {
                entry,
                range: entry.range(),
                sum: entry.checksum,
                unit: None,
            }),
        }
    }
    each(&parts, |part| part.check(file))
}

/// Where the units of packed rows lie, if their table is what was written.
pub(super) fn units(entry: &Entry, cut: &Cut, file: &[u8]) -> Result<Places, String> {
    let name = &entry.name;
    let table = file.get(entry.table()).unwrap_or_default();
    let places = (crc32fast::hash(table) == entry.checksum)
        .then(|| Places::of(table, entry.bytes))
        .flatten()
        .filter(|places| places.sums.len() == cut.units());
    let places = places.ok_or_else(|| format!("tensor '{name}' has a damaged table of units"))?;
    let code = entry.code.as_deref().unwrap_or_default();
    match Code::from_bytes(code) {
        Ok((code, _)) if code.kind() == cut.kind => Ok(places),
        Ok((code, _)) => Err(format!(
            "tensor '{name}' is {} by a code of {}",
            cut.kind,
            code.kind()
        )),
        Err(why) => Err(format!("tensor '{name}': {why}")),
    }
}

impl Part<'_> {
    fn check(&self, file: &[u8]) -> Result<(), String> {
        let name = &self.entry.name;
        let bytes = file.get(self.range.clone()).unwrap_or_default();
        let hashed = bytes.len() == self.range.len() && crc32fast::hash(bytes) == self.sum;
        if !hashed {
            return Err(format!("tensor '{name}' has other bytes"));
        }
        match self.unit {
            Some((cut, rows)) => trt_pack::check(&cut.geometry, bytes, rows)
                .map_err(|why| format!("tensor '{name}': {why}")),
            None => Ok(()),
        }
    }
}

/// Does something with each part, some at a time on all cores; the first error.
fn each<T: Sync>(
    parts: &[T],
    check: impl Fn(&T) -> Result<(), String> + Sync,
) -> Result<(), String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let work = || -> Result<(), String> {
        while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(why) = check(part) {
                next.store(parts.len(), Ordering::Relaxed);
                return Err(why);
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads.min(parts.len()))
            .map(|_| scope.spawn(work))
            .collect();
        let own = work();
        let others = others.into_iter().map(|t| {
            let panicked = || Err("a thread that checks it has panicked".into());
            t.join().unwrap_or_else(|_| panicked())
        });
        others.fold(own, |all, one| all.and(one))
    })
}
