//! Who multiplies a tile: the lane of a launch.

use std::fmt;

/// Where a launch runs, and so where its tiles must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// The device of this number. There is one for now, number 0.
    Device(u8),
}

impl Lane {
    /// The lane of all launches, while there is one device.
    pub const FIRST: Lane = Lane::Device(0);
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lane::Device(number) => write!(f, "device {number}"),
        }
    }
}
