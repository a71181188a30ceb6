//! Memory of resident tiles that have memory of their own: a stack in the order of residency.
//!
//! What is resident at a smaller budget is resident at a larger one too, and tiles become
//! resident in one fixed order ([`Layout::order`]). So each tile has a fixed place, the sum of
//! the tiles before it, and a change of budget only moves the end of what is real: nothing is
//! ever copied on the device, and no hole is left.

use super::Error;
use crate::plan::{Arrive, Layout, Split, TileId, Tiling};
use std::sync::Arc;
use trt_alloc::{Pool, Purpose, Reservation};
use trt_device::{Device, Memory, Slice};

/// Places begin on multiples of this many bytes, enough for any vector access.
const ALIGN: u64 = 256;

/// Addresses for all tiles that have memory of their own, of which a first part is memory.
#[derive(Debug)]
pub(super) struct Stack {
    device: Arc<dyn Device>,
    memory: Memory,
    /// The place of each tile by its number.
    starts: Vec<u64>,
    held: Reservation,
}

/// Whether a tile has memory of its own.
pub(super) fn own(tiling: &Tiling, id: TileId) -> bool {
    match tiling.tile(id).arrive {
        Arrive::Upload | Arrive::Unpack => true,
        Arrive::Populate => false,
    }
}

impl Stack {
    /// Addresses only: no memory yet.
    pub fn new(pool: &Pool, layout: &Layout) -> Result<Stack, Error> {
        let tiling = layout.tiling();
        let mut starts = vec![0; tiling.len()];
        let mut end = 0;
        for &id in layout.order().iter().filter(|t| own(tiling, **t)) {
            starts[id.0 as usize] = end;
            end = (end + tiling.tile(id).held_bytes()).next_multiple_of(ALIGN);
        }
        let device = pool.device().clone();
        // More than an address space can hold is refused by the device, with its number.
        let memory = device.reserve(usize::try_from(end).unwrap_or(usize::MAX))?;
        Ok(Stack {
            device,
            memory,
            starts,
            held: pool.reserve(0, Purpose::Weights)?,
        })
    }

    /// Makes the memory of a split real and gives back what lies beyond. After an error nothing
    /// has changed.
    pub fn hold(&mut self, tiling: &Tiling, split: &Split) -> Result<(), Error> {
        let before = self.held.bytes();
        let tiles = || split.resident.iter().filter(|t| own(tiling, **t));
        let bytes = tiles().map(|t| tiling.tile(*t).held_bytes()).sum();
        if bytes > before {
            self.held.resize(bytes)?;
        }
        let end = tiles().next_back().map_or(0, |id| {
            self.starts[id.0 as usize] + tiling.tile(*id).held_bytes()
        });
        let result = self.device.commit(&self.memory, end as usize);
        if result.is_err() && bytes > before {
            self.held.resize(before)?;
        }
        result?;
        Ok(self.held.resize(bytes)?)
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> u64 {
        self.held.bytes()
    }

    /// Where a tile lies.
    pub fn place(&self, id: TileId, bytes: usize) -> Result<Slice, Error> {
        let start = self.starts[id.0 as usize] as usize;
        Ok(self.memory.whole().slice(start..start + bytes)?)
    }
}
