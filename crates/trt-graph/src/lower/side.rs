//! Launches side by side: what does not depend on each other shares a launch.
//!
//! Launches are put in the order of their *level*, one more than the highest level that they
//! depend on, which keeps the order of those of one level. Then small neighbours of one level
//! become a group: products of few rows with each other (queries, keys and values of a layer), and
//! row kernels and moves with each other (rope, appends). Large ones fill a device alone, so a
//! group would gain nothing. In between, small row kernels go into the products that read them
//! ([`prologue`]) or attention ([`before`]). The order of levels does not depend on the sizes of calls, nor on what is fused
//! afterwards, so the programs of all classes use their weights in one order.

use super::KernelNote;
use super::before;
use super::chain;
use super::prologue::{self, Leveled};
use crate::program::{BufferId, Launch, Program, Source};
use std::collections::HashMap;
use trt_kernel::fusible::{self, GROUP, PartKind};
use trt_kernel::{Group, Kernel, Order};

/// Orders the launches of a program by level and groups them; `notes` describes each launch.
pub(super) fn arrange(program: &mut Program, notes: &mut Vec<KernelNote>) {
    let levels = levels(&program.launches);
    let launches = std::mem::take(&mut program.launches);
    let described = launches.into_iter().zip(std::mem::take(notes));
    let mut all: Vec<Leveled> = levels
        .into_iter()
        .zip(described)
        .map(|(level, (launch, note))| (level, launch, note))
        .collect();
    all.sort_by_key(|(level, ..)| *level);
    prologue::fuse(program, &mut all);
    chain::link(&mut all);
    before::fuse(program, &mut all);
    let mut groups: Vec<Open> = Vec::new();
    for (level, launch, note) in all {
        let kind = fusible::part_kind(&launch.kernel);
        let of_level = groups.iter_mut().rev().take_while(|g| g.level == level);
        let room = |g: &&mut Open| g.parts.len() < GROUP.parts;
        let mut fitting = of_level.filter(|g| kind.is_some() && g.kind == kind && room(g));
        match fitting.next() {
            Some(group) => group.parts.push((launch, note)),
            None => groups.push(Open {
                level,
                kind,
                parts: vec![(launch, note)],
            }),
        }
    }
    for group in groups {
        let (launch, note) = join(group.parts, Order::Side);
        program.launches.push(launch);
        notes.push(note);
    }
}

/// A group in the making.
struct Open {
    level: usize,
    kind: Option<PartKind>,
    parts: Vec<(Launch, KernelNote)>,
}

/// The level of each launch.
fn levels(launches: &[Launch]) -> Vec<usize> {
    let mut readers: HashMap<BufferId, usize> = HashMap::new();
    let mut writers: HashMap<BufferId, usize> = HashMap::new();
    let mut levels = Vec::with_capacity(launches.len());
    for launch in launches {
        let (read, written) = touched(launch);
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
        levels.push(level);
    }
    levels
}

/// The buffers that a launch reads, and those that it writes.
pub(super) fn touched(launch: &Launch) -> (Vec<BufferId>, Vec<BufferId>) {
    let outputs = launch.kernel.written();
    let (mut read, mut written) = (Vec::new(), Vec::new());
    for (i, source) in launch.args.iter().enumerate() {
        let Source::Buffer(b) = *source else { continue };
        match outputs.iter().any(|a| a.0 as usize == i) {
            // What is written may be read first by the same argument.
            true => {
                written.push(b);
                read.push(b);
            }
            false => read.push(b),
        }
    }
    (read, written)
}

pub(super) fn join(mut parts: Vec<(Launch, KernelNote)>, order: Order) -> (Launch, KernelNote) {
    if parts.len() == 1
        && let Some(only) = parts.pop()
    {
        return only;
    }
    // A result may replace what it is computed from only if no other part reads that.
    let reads: Vec<Vec<BufferId>> = parts.iter().map(|(l, _)| touched(l).0).collect();
    let mut launch = Launch {
        label: String::new(),
        kernel: Kernel::Group(Group {
            parts: Vec::new(),
            order,
        }),
        args: Vec::new(),
        in_place: Vec::new(),
    };
    let mut ops = Vec::new();
    let mut kernels = Vec::new();
    let labels: Vec<String> = parts.iter().map(|(l, _)| l.label.clone()).collect();
    for (i, (part, note)) in parts.into_iter().enumerate() {
        let others = |b: &BufferId| {
            let mut rest = reads.iter().enumerate().filter(|(j, _)| *j != i);
            rest.any(|(_, r)| r.contains(b))
        };
        let own = part.in_place.iter().filter(|(_, read)| !others(read));
        launch.in_place.extend(own.copied());
        launch.args.extend(part.args);
        kernels.push(part.kernel);
        ops.extend(note.ops);
    }
    launch.label = labels.join(match order {
        Order::Side => " | ",
        Order::Chain => " > ",
    });
    launch.kernel = Kernel::Group(Group {
        parts: kernels,
        order,
    });
    let note = KernelNote { kind: "group", ops };
    (launch, note)
}
