//! Device memory behind a [`crate::Memory`].

use crate::Error;
use crate::cuda::driver::{AddressSpace, DeviceBytes};
use std::ops::Range;

/// Memory of a CUDA device; given back when dropped. Only this back end makes some, so memory that
/// opens as this is at the address that it says.
#[derive(Debug)]
pub(in crate::cuda) enum DeviceMemory {
    /// All of it is real.
    Fixed(DeviceBytes),
    /// A first part of it is real.
    Reserved(AddressSpace),
}

impl DeviceMemory {
    /// Where the device sees the first byte.
    pub(in crate::cuda) fn address(&self) -> u64 {
        match self {
            DeviceMemory::Fixed(bytes) => bytes.address(),
            DeviceMemory::Reserved(space) => space.address(),
        }
    }

    /// Whether these of its bytes are real.
    pub(in crate::cuda) fn holds(&self, bytes: Range<usize>) -> Result<(), Error> {
        match self {
            DeviceMemory::Fixed(_) => Ok(()),
            // What is not there may only be on its way.
            DeviceMemory::Reserved(space) => {
                within(&bytes, space.committed()).or_else(|_| within(&bytes, space.settled()))
            }
        }
    }

    /// Changes how much of reserved memory is real.
    pub(in crate::cuda) fn commit(&self, bytes: usize) -> Result<(), Error> {
        match self {
            DeviceMemory::Fixed(_) => Err(Error::NotReserved),
            DeviceMemory::Reserved(space) => space.commit(bytes),
        }
    }
}

/// Whether bytes are among the first that are committed. No bytes are everywhere.
fn within(bytes: &Range<usize>, committed: usize) -> Result<(), Error> {
    match bytes.is_empty() || bytes.end <= committed {
        true => Ok(()),
        false => Err(Error::Uncommitted {
            start: bytes.start,
            end: bytes.end,
            committed,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_used_only_where_memory_is_committed() {
        assert!(within(&(0..4096), 4096).is_ok());
        assert!(within(&(9000..9000), 4096).is_ok());
        let error = within(&(100..4097), 4096).unwrap_err();
        assert!(matches!(
            error,
            Error::Uncommitted {
                start: 100,
                end: 4097,
                committed: 4096
            }
        ));
    }
}
