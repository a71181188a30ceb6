//! How much memory a device has, and who holds it.
//!
//! A GPU's driver counts its memory and refuses what there is not; a device without such a driver
//! does the same with a [`Room`], so that what happens when memory runs out can be rehearsed. The invariant: what
//! is held is the sum of the [`Claim`]s that live, and with a bound it never exceeds the bound.

use super::{Error, lock};
use std::fmt;
use std::sync::{Arc, Mutex};

/// The memory of a device whose driver does not count it; clones are the same memory.
#[derive(Clone, Debug)]
pub struct Room(Arc<RoomInner>);

#[derive(Debug)]
struct RoomInner {
    device: String,
    total: u64,
    /// Whether more than the total is refused here; else the system decides.
    bounded: bool,
    held: Mutex<u64>,
}

/// Bytes of a device's memory that somebody holds; given back when dropped.
#[derive(Default)]
pub struct Claim {
    /// Where it counts, if anywhere.
    room: Option<Room>,
    bytes: u64,
}

impl Room {
    /// Room of `total` bytes on a device of that name. With `bounded` more is refused here, else it
    /// is only counted.
    pub fn new(device: &str, total: u64, bounded: bool) -> Room {
        Room(Arc::new(RoomInner {
            device: device.into(),
            total,
            bounded,
            held: Mutex::new(0),
        }))
    }

    /// Bytes that nobody holds.
    pub fn free(&self) -> u64 {
        self.0.total.saturating_sub(*lock(&self.0.held))
    }

    /// Bytes that somebody holds from now on.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if it is bounded and has less.
    pub fn claim(&self, bytes: u64) -> Result<Claim, Error> {
        let mut claim = Claim {
            room: Some(self.clone()),
            bytes: 0,
        };
        claim.resize(bytes)?;
        Ok(claim)
    }

    fn change(&self, from: u64, to: u64) -> Result<(), Error> {
        let mut held = lock(&self.0.held);
        let rest = held.saturating_sub(from);
        let free = self.0.total.saturating_sub(rest);
        if to > from && self.0.bounded && to > free {
            return Err(Error::OutOfMemory {
                device: self.0.device.clone(),
                bytes: usize::try_from(to - from).unwrap_or(usize::MAX),
                reason: format!(
                    "{} of {} bytes are free",
                    self.0.total.saturating_sub(*held),
                    self.0.total
                ),
            });
        }
        *held = rest.saturating_add(to);
        Ok(())
    }
}

impl Claim {
    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Changes the number of bytes. More than the device has is [`Error::OutOfMemory`], and then
    /// nothing has changed; less is never refused.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the device has less.
    pub fn resize(&mut self, bytes: u64) -> Result<(), Error> {
        if let Some(room) = &self.room {
            room.change(self.bytes, bytes)?;
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Less is never refused.
        let _ = self.resize(0);
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Claim({} bytes)", self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bounded_room_refuses_what_it_has_not_and_changes_nothing() {
        let room = Room::new("host", 100, true);
        let mut a = room.claim(60).unwrap();
        let error = room.claim(41).unwrap_err().to_string();
        assert!(error.contains("40 of 100 bytes are free"), "{error}");
        a.resize(101).unwrap_err();
        assert_eq!((a.bytes(), room.free()), (60, 40));
        a.resize(100).unwrap();
        drop(a);
        assert_eq!(room.free(), 100);
    }

    #[test]
    fn a_room_without_a_bound_only_counts() {
        let room = Room::new("host", 100, false);
        let claim = room.claim(250).unwrap();
        assert_eq!(room.free(), 0);
        drop(claim);
        assert_eq!(room.free(), 100);
    }
}
