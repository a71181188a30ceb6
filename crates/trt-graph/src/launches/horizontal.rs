//! Horizontal fusion: launches that do not depend on each other share one, side by side.
//!
//! Neighbours of one level become a group: products of one left operand's rows with each other (queries, keys and
//! values of a layer), and row kernels and moves with each other (rope, appends). Row kernels that are large in
//! every call fill a device alone, so a group would gain nothing.

use super::joined::join;
use super::leveled::Leveled;
use crate::program::Buffer;
use trt_kernel::Order;
use trt_kernel::fusible::{self, GROUP, PartKind};

/// A group in the making.
struct Open {
    level: usize,
    kind: Option<PartKind>,
    parts: Vec<Leveled>,
}

/// Groups what can be.
pub(super) fn run(_: &[Buffer], all: Vec<Leveled>) -> Vec<Leveled> {
    let mut groups: Vec<Open> = Vec::new();
    for new in all {
        let (level, kind) = (new.level, fusible::part_kind(&new.launch.kernel));
        let of_level = groups.iter_mut().rev().take_while(|g| g.level == level);
        let room = |g: &&mut Open| g.parts.len() < GROUP.parts;
        let mut fitting = of_level.filter(|g| kind.is_some() && g.kind == kind && room(g));
        match fitting.next() {
            Some(group) => group.parts.push(new),
            None => groups.push(Open {
                level,
                kind,
                parts: vec![new],
            }),
        }
    }
    let joined = groups.into_iter().map(|g| join(g.parts, Order::Side));
    joined.flatten().collect()
}
