//! Where tiles are: in the mapping or in pool memory, resident or in a slot of the ring.
//!
//! The invariant: what this holds is what the pool is charged for. Where kernels read the
//! mapping in place, a reservation stands for the pages that are kept. Where tiles are copied,
//! residents lie in one [`Stack`] and every slot is its own pool memory. Pinned weights are pool
//! memory either way: they are small, and in the mapping they would share pages with what comes
//! and goes.

use super::Error;
use super::stack::Stack;
use crate::files::{TensorId, Weights};
use crate::plan::{Layout, Slot, Split, Tile, TileId, Tiling};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use trt_alloc::{Lease, Pool, Purpose, Reservation};
use trt_device::{Claim, Event, Memory, Paging, Residency, Slice};

/// How far a resident tile's bytes have come.
#[derive(Debug)]
pub(super) enum Load {
    /// Not asked for yet.
    Pending,
    /// On their way; the compute stream has not waited for them yet.
    Submitted(Event),
    /// The compute stream has waited for them.
    Done,
}

impl Load {
    pub fn is_done(&self) -> bool {
        matches!(self, Load::Done)
    }
}

#[derive(Debug)]
pub(super) struct Resident {
    pub load: Load,
}

/// A slot of the ring with the events that order its filling and reading.
#[derive(Debug)]
pub(super) struct RingSlot {
    /// What was fetched into it last.
    pub tile: Option<TileId>,
    /// Reached when the tile is there.
    pub fetched: Event,
    /// Reached when the launches that read it are done.
    pub released: Event,
    lease: Option<Lease>,
}

/// Memory of weights.
#[derive(Debug)]
pub(super) struct Places {
    pub residency: Residency,
    /// The files as resident tiles and gathers read them.
    files: Vec<Memory>,
    /// The files again, as streamed tiles are read in place.
    passing: Vec<Memory>,
    pinned: HashMap<TensorId, Lease>,
    pub resident: BTreeMap<TileId, Resident>,
    pub ring: Vec<RingSlot>,
    kept: Kept,
}

/// What residents are charged to.
#[derive(Debug)]
enum Kept {
    /// Stand for everything kept in the mapping, in the pool and on the device.
    InPlace(Reservation, Claim),
    /// Memory of their own.
    Copied(Stack),
}

/// What a change of the split leaves behind.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// Tiles that are no longer resident.
    pub evicted: Vec<TileId>,
    /// Slots beyond the new ring.
    pub slots: usize,
}

impl Places {
    /// Maps the files and makes room for the pinned weights.
    pub fn new(
        pool: &Pool,
        weights: &Weights,
        pinned: &[TensorId],
        layout: &Layout,
    ) -> Result<Places, Error> {
        let device = pool.device();
        let files = weights
            .files()
            .iter()
            .map(|f| device.map(&f.path, f.file.clone(), f.map.clone(), Paging::Exact))
            .collect::<Result<Vec<_>, _>>()?;
        let passing = weights
            .files()
            .iter()
            .map(|f| device.map(&f.path, f.file.clone(), f.passing.clone(), Paging::Coarse))
            .collect::<Result<Vec<_>, _>>()?;
        let residency = device.info().residency;
        let kept = match residency {
            Residency::InPlace => {
                Kept::InPlace(pool.reserve(0, Purpose::Weights)?, device.claim(0)?)
            }
            Residency::Copied => Kept::Copied(Stack::new(pool, layout)?),
        };
        let mut places = Places {
            residency,
            files,
            passing,
            pinned: HashMap::new(),
            resident: BTreeMap::new(),
            ring: Vec::new(),
            kept,
        };
        for &id in pinned {
            if let Entry::Vacant(place) = places.pinned.entry(id) {
                let bytes = weights.info(id).bytes() as u64;
                place.insert(pool.acquire(bytes, Purpose::Weights)?);
            }
        }
        Ok(places)
    }

    /// Bytes that it holds now, whatever split they are of.
    pub fn held(&self) -> u64 {
        let kept = match &self.kept {
            Kept::InPlace(reserved, _) => reserved.bytes(),
            Kept::Copied(stack) => stack.bytes(),
        };
        let leases = self.pinned.values();
        let leases = leases.chain(self.ring.iter().filter_map(|s| s.lease.as_ref()));
        kept + leases.map(Lease::bytes).sum::<u64>()
    }

    /// A whole weight in the mapping.
    pub fn mapping(&self, weights: &Weights, id: TensorId) -> Result<Slice, Error> {
        let info = weights.info(id);
        // One memory per file, in order.
        let file = &self.files[info.file.0 as usize];
        Ok(file.whole().slice(info.range.clone())?)
    }

    /// Some bytes of a weight, where resident tiles are read in place and copies come from.
    pub fn mapped_part(
        &self,
        weights: &Weights,
        id: TensorId,
        span: Range<usize>,
    ) -> Result<Slice, Error> {
        Ok(self.mapping(weights, id)?.slice(span)?)
    }

    /// Some bytes of a weight, where streamed tiles are read in place.
    pub fn passing_part(
        &self,
        weights: &Weights,
        id: TensorId,
        span: Range<usize>,
    ) -> Result<Slice, Error> {
        let info = weights.info(id);
        let file = &self.passing[info.file.0 as usize];
        Ok(file.whole().slice(info.range.clone())?.slice(span)?)
    }

    /// A tile, where resident tiles are read in place and copies come from.
    pub fn source(&self, weights: &Weights, tile: &Tile) -> Result<Slice, Error> {
        self.mapped_part(weights, tile.weight, tile.span.clone())
    }

    /// A tile, where streamed tiles are read in place.
    pub fn passing(&self, weights: &Weights, tile: &Tile) -> Result<Slice, Error> {
        self.passing_part(weights, tile.weight, tile.span.clone())
    }

    /// A pinned weight.
    pub fn pinned(&self, id: TensorId) -> Option<Slice> {
        self.pinned.get(&id).map(Lease::whole)
    }

    /// The pinned weights and where they are.
    pub fn pinned_places(&self) -> impl Iterator<Item = (TensorId, Slice)> + '_ {
        self.pinned.iter().map(|(id, lease)| (*id, lease.whole()))
    }

    /// A resident tile's own memory, if tiles are copied.
    pub fn resident_memory(&self, tiling: &Tiling, id: TileId) -> Result<Option<Slice>, Error> {
        match &self.kept {
            Kept::InPlace(..) => Ok(None),
            Kept::Copied(stack) => Ok(Some(stack.place(id, tiling.tile(id).span.len())?)),
        }
    }

    /// The start of a slot's own memory, if tiles are copied.
    pub fn slot_memory(&self, slot: Slot, bytes: usize) -> Result<Option<Slice>, Error> {
        let lease = self
            .ring
            .get(slot.0 as usize)
            .and_then(|s| s.lease.as_ref());
        Ok(match lease {
            Some(lease) => Some(lease.whole().slice(0..bytes)?),
            None => None,
        })
    }

    /// Whether every file is as long as when it was opened.
    pub fn intact(&self) -> Result<(), Error> {
        // Both mappings of a file are of the same file.
        Ok(self.files.iter().try_for_each(Memory::intact)?)
    }

    /// The mapped files.
    pub fn files(&self) -> impl Iterator<Item = Slice> + '_ {
        self.files.iter().chain(&self.passing).map(Memory::whole)
    }

    /// Whether a tile is in the ring.
    pub fn in_ring(&self, tile: TileId) -> bool {
        self.ring.iter().any(|s| s.tile == Some(tile))
    }

    /// What would have to go for this split.
    pub fn difference(&self, split: &Split) -> Difference {
        let keep: HashSet<TileId> = split.resident.iter().copied().collect();
        let evicted = self.resident.keys().filter(|t| !keep.contains(t));
        Difference {
            evicted: evicted.copied().collect(),
            slots: self.ring.len().saturating_sub(split.slots as usize),
        }
    }

    /// Frees what this split does not hold and makes room for what it does. After an error some
    /// of it may be missing; any split can be applied from there.
    pub fn apply(&mut self, pool: &Pool, tiling: &Tiling, split: &Split) -> Result<(), Error> {
        let evicted = self.difference(split).evicted;
        self.ring.truncate(split.slots as usize);
        match &mut self.kept {
            Kept::InPlace(reserved, claim) => {
                let before = reserved.bytes();
                let bytes = split.resident_bytes + split.ring_bytes();
                reserved.resize(bytes)?;
                if let Err(error) = claim.resize(bytes) {
                    // What was refused is more than before, so this is less.
                    reserved.resize(before)?;
                    return Err(error.into());
                }
            }
            Kept::Copied(stack) => stack.hold(tiling, split)?,
        }
        for tile in evicted {
            self.resident.remove(&tile);
        }
        for &tile in &split.resident {
            let load = Load::Pending;
            self.resident.entry(tile).or_insert(Resident { load });
        }
        while self.ring.len() < split.slots as usize {
            let lease = match self.residency {
                Residency::InPlace => None,
                Residency::Copied => Some(pool.acquire(split.slot_bytes, Purpose::Ring)?),
            };
            self.ring.push(RingSlot {
                tile: None,
                fetched: pool.device().event()?,
                released: pool.device().event()?,
                lease,
            });
        }
        Ok(())
    }
}
