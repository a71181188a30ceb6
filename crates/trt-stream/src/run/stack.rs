//! Memory of resident tiles that have memory of their own: stacks in the order of residency.
//!
//! Tiles of each form become resident in one fixed order ([`Layout::order_of`]), and those that are
//! resident are the first of it at any budget. So each tile has a fixed place, the sum of the tiles
//! before it, and a change of budget only moves the ends of what is real: nothing is
//! ever copied on the device, and no hole is left. Tiles that may turn plain have a stack for each
//! form, since the packed one falls while the plain one grows.

use super::Error;
use crate::plan::{Arrive, Layout, Split, TileForm, TileId, Tiling};
use std::collections::BTreeMap;
use std::sync::Arc;
use trt_alloc::{Pool, Purpose, Reservation};
use trt_device::{Device, Memory, Slice};

/// Places begin on multiples of this many bytes, enough for any vector access.
const ALIGN: u64 = 256;

/// Addresses for all tiles of a form that have memory of their own, of which a first part is memory.
#[derive(Debug)]
struct Stack {
    device: Arc<dyn Device>,
    memory: Memory,
    /// The end of each place, and the bytes of all tiles up to there.
    ends: Vec<(u64, u64)>,
    held: Reservation,
    /// How many places are memory.
    count: usize,
}

/// The stacks of all forms.
#[derive(Debug)]
pub(super) struct Stacks {
    stacks: BTreeMap<TileForm, Stack>,
    /// The place of each tile by its number.
    starts: Vec<u64>,
}

/// Which way a stack may move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Down,
    Up,
}

/// Whether a tile has memory of its own.
fn own(tiling: &Tiling, id: TileId) -> bool {
    match tiling.tile(id).arrive {
        Arrive::Upload | Arrive::Unpack => true,
        Arrive::Populate => false,
    }
}

impl Stacks {
    /// Addresses only: no memory yet.
    pub fn new(pool: &Pool, layout: &Layout) -> Result<Stacks, Error> {
        let tiling = layout.tiling();
        let mut starts = vec![0; tiling.len()];
        let mut stacks = BTreeMap::new();
        for form in TileForm::ALL {
            let (mut end, mut bytes, mut ends) = (0u64, 0, Vec::new());
            for id in layout.order_of(form) {
                if own(tiling, id) {
                    let start = end.next_multiple_of(ALIGN);
                    starts[id.0 as usize] = start;
                    end = start + tiling.tile(id).held_bytes();
                    bytes += tiling.tile(id).held_bytes();
                    ends.push((end, bytes));
                }
            }
            if !ends.is_empty() {
                stacks.insert(form, Stack::new(pool, ends)?);
            }
        }
        Ok(Stacks { stacks, starts })
    }

    /// Whether no tile has memory of its own.
    pub fn is_empty(&self) -> bool {
        self.stacks.is_empty()
    }

    /// Makes the memory of a split real, or gives back what lies beyond. After an error no stack has
    /// less than it should.
    pub fn hold(&mut self, tiling: &Tiling, split: &Split, way: Way) -> Result<(), Error> {
        for (form, stack) in &mut self.stacks {
            let tiles = split.resident.iter().copied();
            let held = tiles.filter(|t| tiling.tile(*t).form == *form && own(tiling, *t));
            let count = held.count();
            match way {
                Way::Down if count < stack.count => stack.hold(count)?,
                Way::Up if count > stack.count => stack.hold(count)?,
                Way::Down | Way::Up => {}
            }
        }
        Ok(())
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> u64 {
        self.stacks.values().map(|s| s.held.bytes()).sum()
    }

    /// Where a tile lies.
    pub fn place(&self, tiling: &Tiling, id: TileId) -> Result<Slice, Error> {
        let tile = tiling.tile(id);
        let stack = self.stacks.get(&tile.form).ok_or(Error::Starved)?;
        let start = self.starts[id.0 as usize] as usize;
        Ok(stack.memory.whole().slice(start..start + tile.held)?)
    }
}

impl Stack {
    fn new(pool: &Pool, ends: Vec<(u64, u64)>) -> Result<Stack, Error> {
        let device = pool.device().clone();
        let end = ends.last().map_or(0, |(end, _)| *end);
        // More than an address space can hold is refused by the device, with its number.
        let memory = device.reserve(usize::try_from(end).unwrap_or(usize::MAX))?;
        Ok(Stack {
            device,
            memory,
            ends,
            held: pool.reserve(0, Purpose::Weights)?,
            count: 0,
        })
    }

    /// Makes the first places real and gives back the others. After an error nothing has changed.
    fn hold(&mut self, count: usize) -> Result<(), Error> {
        let before = self.held.bytes();
        let (end, bytes) = match count {
            0 => (0, 0),
            count => self.ends[count - 1],
        };
        if bytes > before {
            self.held.resize(bytes)?;
        }
        let result = self.device.commit(&self.memory, end as usize);
        if result.is_err() && bytes > before {
            self.held.resize(before)?;
        }
        result?;
        self.count = count;
        Ok(self.held.resize(bytes)?)
    }
}
