//! What of a mapping should be resident.

use crate::Paging;
use crate::contract::lock;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

/// What the host keeps of a mapping: how its pages come and go, and which are wanted.
pub(super) struct Resident {
    paging: Paging,
    wanted: Mutex<Wanted>,
}

impl Resident {
    pub fn new(paging: Paging) -> Resident {
        Resident {
            paging,
            wanted: Mutex::default(),
        }
    }

    /// How its pages come and go.
    pub fn paging(&self) -> Paging {
        self.paging
    }

    /// What is wanted of it.
    pub fn wanted(&self) -> MutexGuard<'_, Wanted> {
        lock(&self.wanted)
    }
}

/// The ranges of a mapping that somebody wants resident: end by start, in bytes from its start.
/// They never overlap.
#[derive(Default)]
pub(super) struct Wanted(BTreeMap<usize, usize>);

impl Wanted {
    pub fn add(&mut self, start: usize, len: usize) {
        self.remove(start, len);
        self.0.insert(start, start + len);
    }

    /// Forgets a range, and the parts of others that it covers.
    pub fn remove(&mut self, start: usize, len: usize) {
        let end = start + len;
        while let Some((&s, &e)) = self.0.range(..end).next_back() {
            if e <= start {
                return;
            }
            self.0.remove(&s);
            if e > end {
                self.0.insert(end, e);
            }
            if s < start {
                self.0.insert(s, start);
            }
        }
    }

    /// The parts of a range that are not wanted, in order.
    pub fn gaps(&self, range: Range<usize>) -> Vec<Range<usize>> {
        let before = self.0.range(..range.start).next_back();
        let mut start = before.map_or(range.start, |(_, &end)| end.max(range.start));
        let mut gaps = Vec::new();
        for (&next, &end) in self.0.range(range.clone()) {
            gaps.push(start..next);
            start = end;
        }
        gaps.push(start..range.end);
        gaps.retain(|gap| gap.start < gap.end);
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wanted_ranges_are_found_and_forgotten() {
        let mut wanted = Wanted::default();
        for (start, len) in [(0, 10), (10, 5), (20, 10), (40, 1)] {
            wanted.add(start, len);
        }
        assert_eq!(wanted.gaps(0..50), [15..20, 30..40, 41..50]);
        assert_eq!(wanted.gaps(5..32), [15..20, 30..32]);
        assert_eq!(wanted.gaps(2..8), []);
        wanted.remove(10, 20);
        assert_eq!(wanted.gaps(0..50), [10..40, 41..50]);
        wanted.add(0, 100);
        wanted.remove(20, 10);
        assert_eq!(wanted.gaps(0..110), [20..30, 100..110]);
    }
}
