//! Dual GEMM, or gate and up: products that follow each other point by point.
//!
//! Where the epilogue of a product loads, at its own points, what another of the same shape and
//! left operand has stored there, no point waits for any other. So both share a launch, as a chain,
//! and the left operand is brought once.

use super::joined::join;
use super::leveled::Leveled;
use crate::program::{Buffer, Launch, Source, check};
use trt_kernel::{Group, Kernel, Matmul, Order, fusible};

/// Joins pairs of launches; `all` is in the order of levels.
pub(super) fn run(_: &[Buffer], mut all: Vec<Leveled>) -> Vec<Leveled> {
    let mut first = 0;
    while first < all.len() {
        let second = (first + 1..all.len()).find(|second| links(&all, first, *second));
        if let Some(second) = second {
            let later = all.remove(second);
            let pair = vec![all.remove(first), later];
            all.splice(first..first, join(pair, Order::Chain));
        }
        first += 1;
    }
    all
}

/// Whether the second launch can be done with the first, earlier than it stands.
fn links(all: &[Leveled], first: usize, second: usize) -> bool {
    let (one, other) = (&all[first], &all[second]);
    let (Kernel::Matmul(a), Kernel::Matmul(b)) = (&one.launch.kernel, &other.launch.kernel) else {
        return false;
    };
    let sources = |launch: &Launch, product: &Matmul| -> Vec<Source> {
        let args = product.a.args().into_iter();
        args.map(|arg| launch.args[arg.0 as usize]).collect()
    };
    // It reads what the first has written; else they would stand side by side.
    let written = one.writes();
    let (reads, writes) = (other.reads(), other.writes());
    if !fusible::chains(a, b)
        || !reads.iter().any(|r| written.contains(r))
        || sources(&one.launch, a) != sources(&other.launch, b)
    {
        return false;
    }
    let parts = [one, other].map(|l| l.launch.kernel.clone()).to_vec();
    let group = Kernel::Group(Group {
        parts,
        order: Order::Chain,
    });
    let args = one.launch.args.iter().chain(&other.launch.args);
    let args: Vec<Source> = args.copied().collect();
    // What stands between has nothing to do with it, and the order of weights stays.
    let between = all[first + 1..second].iter().all(|l| {
        let apart = !l.writes().iter().any(|b| reads.contains(b))
            && !l.reads().iter().any(|b| writes.contains(b));
        apart && l.launch.kernel.streamed().is_empty()
    });
    between && group.check().is_ok() && check::apart(&group, &args).is_ok()
}
