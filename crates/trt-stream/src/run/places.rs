//! Where tiles are: in the mapping or in pool memory, resident or in a slot of the ring.
//!
//! The invariant: what this holds is what the pool is charged for. Where kernels read the
//! mapping in place, a reservation stands for the pages that are kept. Tiles that are copied or
//! unpacked have memory of their own: residents lie in [`Stacks`] and every slot is its own
//! pool memory. A tile is one or the other by its [`Arrive`], so both may lie side by side. Pinned
//! weights are pool memory either way: they are small, and in the mapping they would share pages
//! with what comes and goes.

use super::Error;
use super::sources::Sources;
use super::stack::{Stacks, Way};
use super::staging::Staging;
use crate::plan::{Arrive, Layout, Slot, SlotBytes, Split, TileId, Tiling, WeightId};
use std::collections::{BTreeMap, HashSet};
use trt_alloc::{Lease, Pool, Purpose, Reservation};
use trt_device::{Claim, Event, Slice};
use trt_kernel::Role;

/// How far a resident tile's bytes have come.
#[derive(Clone, Debug)]
pub(super) enum Load {
    /// Not asked for yet.
    Pending,
    /// On their way; the compute stream has not waited for them yet.
    Submitted(Event),
    /// The compute stream has waited for them.
    Done,
}

/// Where kernels read a tile.
#[derive(Debug)]
pub(super) enum Place {
    /// In the mapping of its file.
    Pages(Slice),
    /// In memory of its own.
    Own(Slice),
}

/// The events that order a slot's filling and reading.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    /// Reached when the tile is there.
    pub fetched: Event,
    /// Reached when the launches that read it are done.
    pub released: Event,
}

/// A slot of the ring.
#[derive(Debug)]
struct RingSlot {
    /// What was fetched into it last.
    tile: Option<TileId>,
    turns: Turns,
    /// Memory for tiles that do not stay in the mapping, if there are such.
    lease: Option<Lease>,
}

/// What stands for the pages that are kept in the mapping, in the pool and on the device.
#[derive(Debug)]
struct Pages(Reservation, Claim);

/// Memory of weights.
#[derive(Debug)]
pub(super) struct Places {
    pinned: BTreeMap<WeightId, Lease>,
    resident: BTreeMap<TileId, Load>,
    ring: Vec<RingSlot>,
    slot: SlotBytes,
    staging: Option<Staging>,
    pages: Option<Pages>,
    stacks: Stacks,
}

/// What a change of the split leaves behind.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// Tiles that are no longer resident.
    pub evicted: Vec<TileId>,
    /// What was fetched last into each slot beyond the new ring.
    pub slots: Vec<Option<TileId>>,
}

impl Pages {
    fn hold(&mut self, bytes: u64) -> Result<(), Error> {
        let Pages(reserved, claim) = self;
        let before = reserved.bytes();
        reserved.resize(bytes)?;
        if let Err(error) = claim.resize(bytes) {
            // What was refused is more than before, so this is less.
            reserved.resize(before)?;
            return Err(error.into());
        }
        Ok(())
    }
}

impl Places {
    /// Makes room for the pinned weights and for what waits to be unpacked.
    pub fn new(pool: &Pool, sources: &Sources, layout: &Layout) -> Result<Places, Error> {
        let (device, tiling) = (pool.device(), layout.tiling());
        let any = |kind: fn(Arrive) -> bool| tiling.ids().any(|t| kind(tiling.tile(t).arrive));
        let pages = match any(|a| a == Arrive::Populate) {
            true => Some(Pages(pool.reserve(0, Purpose::Weights)?, device.claim(0)?)),
            false => None,
        };
        let mut pinned = BTreeMap::new();
        for (id, weight) in sources.with(Role::Whole) {
            let bytes = weight.source_bytes()? as u64;
            pinned.insert(id, pool.acquire(bytes, Purpose::Weights)?);
        }
        Ok(Places {
            pinned,
            resident: BTreeMap::new(),
            ring: Vec::new(),
            slot: tiling.slot(),
            staging: Staging::new(pool, layout)?,
            pages,
            stacks: Stacks::new(pool, layout)?,
        })
    }

    /// Bytes that it holds now, whatever split they are of.
    pub fn held(&self) -> u64 {
        let pages = self.pages.as_ref().map_or(0, |p| p.0.bytes());
        let staging = self.staging.as_ref().map_or(0, Staging::bytes);
        let leases = self.pinned.values();
        let leases = leases.chain(self.ring.iter().filter_map(|s| s.lease.as_ref()));
        pages + self.stacks.bytes() + staging + leases.map(Lease::bytes).sum::<u64>()
    }

    /// A pinned weight.
    pub fn pinned(&self, id: WeightId) -> Option<Slice> {
        self.pinned.get(&id).map(Lease::whole)
    }

    /// What unpacks tiles, if any are.
    pub fn staging(&self) -> Option<&Staging> {
        self.staging.as_ref()
    }

    /// The same, to unpack one.
    pub fn staging_mut(&mut self) -> Result<&mut Staging, Error> {
        // There is one where any tile is unpacked.
        self.staging.as_mut().ok_or(Error::Starved)
    }

    /// How far a tile has come, if it is resident.
    pub fn load_of(&self, tile: TileId) -> Option<&Load> {
        self.resident.get(&tile)
    }

    /// Notes how far a tile has come, if it is resident.
    pub fn note(&mut self, tile: TileId, load: Load) {
        if let Some(known) = self.resident.get_mut(&tile) {
            *known = load;
        }
    }

    /// Whether some resident tile was not asked for yet.
    pub fn any_pending(&self) -> bool {
        self.resident.values().any(|l| matches!(l, Load::Pending))
    }

    /// Notes that no resident tile has come.
    pub fn distrust(&mut self) {
        self.resident.values_mut().for_each(|l| *l = Load::Pending);
    }

    /// Where a resident tile is read that has memory of its own.
    pub fn resident_memory(&self, tiling: &Tiling, id: TileId) -> Result<Slice, Error> {
        self.stacks.place(tiling, id)
    }

    /// Where a tile of so many bytes is read in a slot, if it has memory of its own.
    pub fn slot_memory(&self, slot: Slot, bytes: usize) -> Result<Slice, Error> {
        let slot = self.ring.get(slot.0 as usize);
        let lease = slot.and_then(|s| s.lease.as_ref());
        Ok(lease.ok_or(Error::Starved)?.whole().slice(0..bytes)?)
    }

    /// Slots of the ring.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        (0..self.ring.len() as u32).map(Slot)
    }

    /// The events of a slot.
    pub fn turns(&self, slot: Slot) -> &Turns {
        &self.ring[slot.0 as usize].turns
    }

    /// Notes what is fetched into a slot; returns what was before.
    pub fn refill(&mut self, slot: Slot, tile: TileId) -> Option<TileId> {
        self.ring[slot.0 as usize].tile.replace(tile)
    }

    /// Whether a tile is in the ring.
    pub fn in_ring(&self, tile: TileId) -> bool {
        self.ring.iter().any(|s| s.tile == Some(tile))
    }

    /// Whether tiles have memory of their own, which work may still use when it is to go.
    pub fn has_memory(&self) -> bool {
        !self.stacks.is_empty()
    }

    /// What would have to go for this split.
    pub fn difference(&self, split: &Split) -> Difference {
        let keep: HashSet<TileId> = split.resident.iter().copied().collect();
        let evicted = self.resident.keys().filter(|t| !keep.contains(t));
        let slots = self.ring.iter().skip(split.slots as usize);
        Difference {
            evicted: evicted.copied().collect(),
            slots: slots.map(|s| s.tile).collect(),
        }
    }

    /// Frees what this split does not hold and makes room for what it does. After an error some
    /// of it may be missing; any split can be applied from there.
    pub fn apply(&mut self, pool: &Pool, tiling: &Tiling, split: &Split) -> Result<(), Error> {
        let evicted = self.difference(split).evicted;
        let kept = split.resident.iter().map(|t| tiling.tile(*t));
        let kept = kept.filter(|t| t.arrive == Arrive::Populate);
        let kept: u64 = kept.map(|t| t.held_bytes()).sum();
        let pages = kept + u64::from(split.slots) * self.slot.pages;
        // What gives memory back comes first, so that the sum is at no time above both splits.
        self.ring.truncate(split.slots as usize);
        for tile in evicted {
            self.resident.remove(&tile);
        }
        for way in [Way::Down, Way::Up] {
            self.stacks.hold(tiling, split, way)?;
            let Some(held) = &mut self.pages else {
                continue;
            };
            let now = held.0.bytes();
            match way {
                Way::Down if pages < now => held.hold(pages)?,
                Way::Up if pages > now => held.hold(pages)?,
                Way::Down | Way::Up => {}
            }
        }
        for &tile in &split.resident {
            self.resident.entry(tile).or_insert(Load::Pending);
        }
        while self.ring.len() < split.slots as usize {
            let lease = match self.has_memory() {
                true => Some(pool.acquire(self.slot.own, Purpose::Ring)?),
                false => None,
            };
            let (fetched, released) = (pool.device().event()?, pool.device().event()?);
            self.ring.push(RingSlot {
                tile: None,
                turns: Turns { fetched, released },
                lease,
            });
        }
        Ok(())
    }
}
