//! Kernels on the device, and all that is decided about a launch before the driver gets it.

mod executable;
mod fed;
mod integers;
mod maps;
mod memory;
mod modules;
mod params;
mod part;
mod slots;

pub(super) use executable::{CudaExecutable, Loaded, Ready};
pub(super) use integers::{Integers, write_integers};
pub(super) use memory::DeviceMemory;
pub(super) use modules::{Modules, target};
pub(super) use params::Surroundings;
pub(super) use slots::{Fault, Slot, Slots};
