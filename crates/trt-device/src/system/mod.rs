//! What the system tells of this machine and this process, and is asked for.

mod groups;
mod pages;
mod process;
mod shared;

pub use groups::ControlGroups;
pub use process::{AnonPeak, ProcessMemory, trim_host_memory};
pub use shared::{free_bytes, memory_file, seal_size};

pub(crate) use pages::{advise, fault_in, page_size};

use std::path::Path;

/// Bytes of memory that this process may count on: those of the machine, or of the tightest of its
/// control groups if that has fewer; 0 if the system does not tell.
pub(crate) fn total_memory() -> u64 {
    let root = Path::new("/");
    let machine = pages::machine_memory();
    let limit = ControlGroups::of_this_process(root).memory(root);
    limit.map_or(machine, |limit| limit.min(machine))
}
