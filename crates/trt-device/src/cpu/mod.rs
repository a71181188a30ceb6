//! Kernels that the CPU computes: those of the host, and those that another device lacks.

mod executable;
mod fallback;

pub use fallback::{Ferry, HostFallback, OverStream};

pub(crate) use executable::HostExecutable;

use crate::ControlGroups;
use std::path::Path;
use std::sync::OnceLock;
use trt_kernel::host::Team;

/// The threads that all devices share which were not given their own, started at first use: as many
/// as there are processors that this process may use.
pub fn host_team() -> &'static Team {
    static TEAM: OnceLock<Team> = OnceLock::new();
    TEAM.get_or_init(|| {
        let root = Path::new("/");
        let may = std::thread::available_parallelism().map_or(1, |n| n.get());
        let quota = ControlGroups::of_this_process(root).processors(root);
        Team::new(quota.map_or(may, |quota| quota.min(may)))
    })
}
