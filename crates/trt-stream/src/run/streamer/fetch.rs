//! Bringing tiles to where kernels read them, and letting pages go.

use super::Streamer;
use crate::plan::{Arrive, Slot, TileId};
use crate::run::Error;
use crate::run::places::{Load, Place};
use trt_device::{Event, Slice, Work};

impl Streamer {
    /// Submits the fetch of a tile into a slot; returns the bytes that cross the link.
    pub(super) fn fetch(&mut self, tile: TileId, slot: Slot) -> Result<u64, Error> {
        let what = self.layout.tiling().tile(tile);
        let place = match what.arrive {
            Arrive::Populate => Place::Pages(self.sources.passing(what.source(), &what.stored)?),
            Arrive::Upload | Arrive::Unpack => {
                Place::Own(self.places.slot_memory(slot, what.held)?)
            }
        };
        let before = self.places.refill(slot, tile);
        let turns = self.places.turns(slot).clone();
        let before = before.map(|t| (t, self.layout.tiling().tile(t).arrive));
        if let Some((_, Arrive::Unpack)) = before {
            // It may still be unpacked there, for a pass that never came.
            let fetched = turns.fetched.clone();
            self.device.submit(self.copy.id(), Work::Wait(fetched))?;
        }
        self.device
            .submit(self.copy.id(), Work::Wait(turns.released))?;
        if let Some((before, Arrive::Populate)) = before {
            self.discard_passing(before)?;
        }
        self.bring(tile, place, turns.fetched)
    }

    /// Submits the load of a tile that is to be resident; returns the bytes that cross the link.
    pub(super) fn load(&mut self, tile: TileId) -> Result<u64, Error> {
        let what = self.layout.tiling().tile(tile);
        let place = match what.arrive {
            Arrive::Populate => Place::Pages(self.sources.kept(what.source(), &what.stored)?),
            Arrive::Upload | Arrive::Unpack => {
                Place::Own(self.places.resident_memory(self.layout.tiling(), tile)?)
            }
        };
        let event = self.device.event()?;
        let bytes = self.bring(tile, place, event.clone())?;
        self.places.note(tile, Load::Submitted(event));
        Ok(bytes)
    }

    /// Submits what brings a tile to its place; `done` is reached when it is there.
    fn bring(&mut self, tile: TileId, place: Place, done: Event) -> Result<u64, Error> {
        let (what, copy) = (self.layout.tiling().tile(tile), self.copy.id());
        let held = match place {
            Place::Own(held) => held,
            Place::Pages(pages) => {
                self.device.submit(copy, Work::Populate(pages))?;
                self.device.submit(copy, Work::Record(done))?;
                return Ok(what.stored_bytes());
            }
        };
        let src = self.sources.kept(what.source(), &what.stored)?;
        match self.sources.unpacker(what)? {
            None => {
                let work = Work::Upload { dst: held, src };
                self.device.submit(copy, work)?;
                self.device.submit(copy, Work::Record(done))?;
            }
            Some(unpacker) => {
                let staging = self.places.staging_mut()?;
                let stored = staging.place(src.len())?;
                let packed = self.sources.packed(what, stored.clone(), held)?;
                let works = unpacker.works(&packed)?;
                staging.bring(&*self.device, copy, (src, stored), works, done)?;
            }
        }
        Ok(what.stored_bytes())
    }

    /// In place: lets the pages of a tile that streamed by go, unless the ring still holds it.
    fn discard_passing(&self, tile: TileId) -> Result<(), Error> {
        if self.places.in_ring(tile) {
            return Ok(());
        }
        let tile = self.layout.tiling().tile(tile);
        self.submit_discard(self.sources.passing(tile.source(), &tile.stored)?)
    }

    /// Lets the pages of a tile go that is neither resident nor in the ring any more, if it was read
    /// in place.
    pub(super) fn discard(&self, tile: TileId) -> Result<(), Error> {
        let what = self.layout.tiling().tile(tile);
        match what.arrive {
            Arrive::Upload | Arrive::Unpack => return Ok(()),
            Arrive::Populate => {}
        }
        self.discard_passing(tile)?;
        if self.places.load_of(tile).is_some() {
            return Ok(());
        }
        self.submit_discard(self.sources.kept(what.source(), &what.stored)?)
    }

    pub(super) fn submit_discard(&self, pages: Slice) -> Result<(), Error> {
        Ok(self.device.submit(self.copy.id(), Work::Discard(pages))?)
    }
}
