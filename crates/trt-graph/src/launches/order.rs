//! Launches in the order of their levels.
//!
//! A level is one more than the highest level that a launch depends on; sorting by it keeps the order
//! of those of one level, and brings together what does not depend on each other.

use super::leveled::Leveled;
use crate::program::{Buffer, BufferId, Launch};
use std::collections::HashMap;

/// Sorts by level.
pub(super) fn run(_: &[Buffer], mut all: Vec<Leveled>) -> Vec<Leveled> {
    all.sort_by_key(|l| l.level);
    all
}

/// Gives each launch its level; `ops` are those that each computes.
pub(super) fn leveled(launches: Vec<Launch>, ops: Vec<Vec<String>>) -> Vec<Leveled> {
    let mut readers: HashMap<BufferId, usize> = HashMap::new();
    let mut writers: HashMap<BufferId, usize> = HashMap::new();
    let mut all = Vec::with_capacity(launches.len());
    for (launch, ops) in launches.into_iter().zip(ops) {
        let mut new = Leveled {
            level: 0,
            launch,
            ops,
        };
        let (read, written) = (new.reads(), new.writes());
        let after = |of: &HashMap<BufferId, usize>, b: &BufferId| of.get(b).map_or(0, |l| l + 1);
        let reads = read.iter().map(|b| after(&writers, b));
        let writes = written
            .iter()
            .map(|b| after(&writers, b).max(after(&readers, b)));
        let level = reads.chain(writes).max().unwrap_or(0);
        let note = |of: &mut HashMap<BufferId, usize>, b: &BufferId| {
            let latest = of.entry(*b).or_insert(level);
            *latest = level.max(*latest);
        };
        read.iter().for_each(|b| note(&mut readers, b));
        written.iter().for_each(|b| note(&mut writers, b));
        new.level = level;
        all.push(new);
    }
    all
}
