//! Products of few rows that follow each other point by point: a gate and what it is multiplied
//! with.
//!
//! Where the epilogue of a product loads, at its own points, what another of the same shape and
//! left operand has stored there, no point waits for any other. So both share a launch, and the
//! left operand is brought once.

use super::prologue::Leveled;
use super::side::{join, touched};
use crate::program::{Launch, Source, check};
use trt_kernel::{Group, Kernel, Matmul, Order, fusible};

/// Joins pairs of launches; `all` is in the order of levels.
pub(super) fn link(all: &mut Vec<Leveled>) {
    let mut first = 0;
    while first < all.len() {
        let second = (first + 1..all.len()).find(|second| links(all, first, *second));
        if let Some(second) = second {
            let (_, launch, note) = all.remove(second);
            let (level, before, ops) = all.remove(first);
            let (joined, note) = join(vec![(before, ops), (launch, note)], Order::Chain);
            all.insert(first, (level, joined, note));
        }
        first += 1;
    }
}

/// Whether the second launch can be done with the first, earlier than it stands.
fn links(all: &[Leveled], first: usize, second: usize) -> bool {
    let (one, other) = (&all[first].1, &all[second].1);
    let (Kernel::Matmul(a), Kernel::Matmul(b)) = (&one.kernel, &other.kernel) else {
        return false;
    };
    if !fusible::chains(a, b) {
        return false;
    }
    let sources = |launch: &Launch, product: &Matmul| -> Vec<Source> {
        let args = product.a.args().into_iter();
        args.map(|arg| launch.args[arg.0 as usize]).collect()
    };
    // It reads what the first has written; else they would stand side by side.
    let written = touched(one).1;
    let (reads, writes) = touched(other);
    if !reads.iter().any(|r| written.contains(r)) || sources(one, a) != sources(other, b) {
        return false;
    }
    let parts = [one, other].map(|l| l.kernel.clone()).to_vec();
    let group = Kernel::Group(Group {
        parts,
        order: Order::Chain,
    });
    let args: Vec<Source> = one.args.iter().chain(&other.args).copied().collect();
    // What stands between has nothing to do with it, and the order of weights stays.
    let between = all[first + 1..second].iter().all(|(_, launch, _)| {
        let (r, w) = touched(launch);
        let apart = !w.iter().any(|b| reads.contains(b)) && !r.iter().any(|b| writes.contains(b));
        apart && launch.kernel.streamed().is_empty()
    });
    between && group.check().is_ok() && check::apart(&group, &args).is_ok()
}
