//! Device memory behind a [`crate::Memory`].

use super::driver::{AddressSpace, Context, DeviceBytes};
use crate::Error;
use std::sync::Arc;

/// Memory of a CUDA device; given back when dropped.
#[derive(Debug)]
pub(crate) enum DeviceMemory {
    /// All of it is real.
    Fixed(DeviceBytes),
    /// A first part of it is real.
    Reserved(AddressSpace),
}

impl DeviceMemory {
    /// Where the device sees the first byte.
    pub(crate) fn address(&self) -> u64 {
        match self {
            DeviceMemory::Fixed(bytes) => bytes.address(),
            DeviceMemory::Reserved(space) => space.address(),
        }
    }

    /// Whether it belongs to this context.
    pub(super) fn is_of(&self, context: &Arc<Context>) -> bool {
        let own = match self {
            DeviceMemory::Fixed(bytes) => bytes.context(),
            DeviceMemory::Reserved(space) => space.context(),
        };
        Arc::ptr_eq(own, context)
    }

    /// Changes how much of reserved memory is real.
    pub(super) fn commit(&self, bytes: usize) -> Result<(), Error> {
        match self {
            DeviceMemory::Fixed(_) => Err(Error::NotReserved),
            DeviceMemory::Reserved(space) => space.commit(bytes),
        }
    }
}
