//! The few bytes that each stream and each graph has for itself: the runtime integers that its
//! kernels read, the counters with which blocks of a launch find out who is the last, and the
//! record in which kernels report bad input.
//!
//! Integers and counters lie in device memory, since every block uses them: 80 KiB for 64 slots,
//! beside the memory that engines count, as modules are. Fault records lie in page-locked host
//! memory, since kernels touch them only when something is wrong and the host looks at them after
//! every wait. Invariants: a slot has one owner, who drops it when no kernel uses it; its launches
//! use it one after another; counters are zero between launches, since each launch leaves them so.

use super::params::Surroundings;
use crate::cuda::driver::{Context, DeviceBytes, Pinned, RawStream};
use crate::{Error, LaunchError};
use std::sync::{Arc, Mutex, PoisonError};
use trt_kernel::launch::COUNTERS;

/// Slots that are made at once.
const COUNT: usize = 64;

/// Bytes of a slot in host memory, and of its integers; no two share a cache line of either side.
const SIZE: usize = 256;

/// Bytes of a slot in device memory: integers, then counters.
const DEVICE_SIZE: usize = SIZE + 4 * COUNTERS;

/// All slots of a device.
#[derive(Debug, Default)]
pub(in crate::cuda) struct Slots(Mutex<Vec<Arc<Slab>>>);

#[derive(Debug)]
struct Slab {
    device: DeviceBytes,
    faults: Pinned,
    taken: Mutex<u64>,
}

/// One slot; free again when dropped.
#[derive(Debug)]
pub(in crate::cuda) struct Slot {
    slab: Arc<Slab>,
    index: usize,
}

/// What a kernel found wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cuda) struct Fault {
    /// Not zero.
    pub mark: i64,
    /// The id that is no row of its table, or picks no element.
    pub id: i64,
    /// Its place among the ids of a gather; below zero where a kernel picks.
    pub row: i64,
    /// Rows of the table, or elements that there are to pick of.
    pub of: i64,
}

impl Fault {
    /// What it says.
    pub fn error(self) -> LaunchError {
        let Fault { id, row, of, .. } = self;
        match usize::try_from(row) {
            Ok(row) => LaunchError::Id {
                id,
                row,
                entries: usize::try_from(of).unwrap_or(0),
            },
            Err(_) => LaunchError::Index {
                index: id,
                size: of,
            },
        }
    }
}

impl Slots {
    /// A slot that nobody has, with a clear fault record.
    pub fn take(&self, context: &Arc<Context>) -> Result<Slot, Error> {
        let mut slabs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slabs.iter().find_map(Slab::take) {
            return Ok(slot);
        }
        let slab = Arc::new(Slab {
            device: zeros(context, COUNT * DEVICE_SIZE)?,
            faults: Pinned::new(context, COUNT * SIZE)?,
            taken: Mutex::new(1),
        });
        slabs.push(slab.clone());
        Ok(Slot { slab, index: 0 })
    }
}

/// Device memory that is zero.
fn zeros(context: &Arc<Context>, bytes: usize) -> Result<DeviceBytes, Error> {
    let memory = DeviceBytes::new(context, bytes)?;
    let stream = RawStream::new(context)?;
    let bound = context.bind()?;
    // SAFETY: the memory was just made, and is waited for before anybody sees it.
    unsafe { stream.zero(&bound, memory.address(), bytes)? };
    stream.synchronize(&bound)?;
    Ok(memory)
}

impl Slab {
    fn take(self: &Arc<Slab>) -> Option<Slot> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let index = first_free(*taken)?;
        *taken |= 1 << index;
        let slab = self.clone();
        Some(Slot { slab, index })
    }
}

fn first_free(taken: u64) -> Option<usize> {
    let index = taken.trailing_ones() as usize;
    (index < COUNT).then_some(index)
}

impl Slot {
    /// Where kernels find the runtime integers.
    pub fn integers(&self) -> u64 {
        self.slab.device.address() + (self.index * DEVICE_SIZE) as u64
    }

    /// What launches of the owner are given.
    pub(in crate::cuda) fn surroundings(&self) -> Surroundings {
        Surroundings {
            integers: self.integers(),
            fault: self.slab.faults.address() + (self.index * SIZE) as u64,
            counters: self.integers() + SIZE as u64,
        }
    }

    fn record(&self) -> *mut i64 {
        self.slab
            .faults
            .start()
            .wrapping_add(self.index * SIZE)
            .cast()
    }

    /// What was reported, if anything. Certain only once the kernels have ended.
    pub fn look(&self) -> Option<Fault> {
        // SAFETY: four numbers within the slot, aligned; a device may write them meanwhile, so
        // they are read as volatile, and each of them is one access.
        let [mark, id, row, of] =
            [0, 1, 2, 3].map(|i| unsafe { self.record().add(i).read_volatile() });
        (mark != 0).then_some(Fault { mark, id, row, of })
    }

    /// What was reported, and clears it.
    pub fn take(&self) -> Option<Fault> {
        let fault = self.look()?;
        for i in [3, 2, 1, 0] {
            // SAFETY: as for `look`.
            unsafe { self.record().add(i).write_volatile(0) };
        }
        Some(fault)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.take();
        let mut taken = self
            .slab
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *taken &= !(1 << self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_says_what_was_outside_of_what() {
        let of = |row| {
            let (mark, id, of) = (1, 60, 50);
            Fault { mark, id, row, of }.error().to_string()
        };
        assert_eq!(of(3), "id 60 at row 3 is outside the table of 50 entries");
        assert_eq!(of(-1), "index 60 is outside of an axis of 50");
    }

    #[test]
    fn the_first_free_slot_is_taken_and_none_of_a_full_slab() {
        assert_eq!(first_free(0), Some(0));
        assert_eq!(first_free(0b1011), Some(2));
        assert_eq!(first_free(u64::MAX), None);
    }
}
