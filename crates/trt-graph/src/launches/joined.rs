//! Several launches as one of a group.

use super::leveled::Leveled;
use crate::program::{BufferId, Launch};
use trt_kernel::{Group, Kernel, Order};

/// One launch of some parts, with the level of the first; a part alone stays as it is. None if there
/// is none.
pub(super) fn join(mut parts: Vec<Leveled>, order: Order) -> Option<Leveled> {
    if parts.len() < 2 {
        return parts.pop();
    }
    let level = parts[0].level;
    let between = match order {
        Order::Side => " | ",
        Order::Chain => " > ",
    };
    let labels: Vec<&str> = parts.iter().map(|l| l.launch.label.as_str()).collect();
    let label = labels.join(between);
    // A result may replace what it is computed from only if no other part reads that.
    let reads: Vec<Vec<BufferId>> = parts.iter().map(Leveled::reads).collect();
    let (mut kernels, mut args) = (Vec::new(), Vec::new());
    let (mut in_place, mut ops) = (Vec::new(), Vec::new());
    for (i, part) in parts.into_iter().enumerate() {
        let others = |b: &BufferId| {
            let mut rest = reads.iter().enumerate().filter(|(j, _)| *j != i);
            rest.any(|(_, r)| r.contains(b))
        };
        let own = part.launch.in_place.into_iter();
        in_place.extend(own.filter(|(_, read)| !others(read)));
        args.extend(part.launch.args);
        kernels.push(part.launch.kernel);
        ops.extend(part.ops);
    }
    let parts = kernels;
    let launch = Launch {
        label,
        kernel: Kernel::Group(Group { parts, order }),
        args,
        in_place,
    };
    Some(Leveled { level, launch, ops })
}
