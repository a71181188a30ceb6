//! One pass over a program: the schedule's steps, submitted as the engine reaches each use.
//!
//! Whatever happens in a pass, the events keep the ring safe: a pass that ends early records
//! every slot as released after the launches that were submitted, and the next pass fills the
//! ring anew.

use super::Streamer;
use crate::plan::{Arrive, Cycle, Lane, Slot, Step, TileId, Use, WeightId};
use crate::run::places::Load;
use crate::run::{Error, Form, ProgramId, Traffic};
use std::collections::VecDeque;
use std::ops::Range;
use trt_device::{Event, Slice, Tiles, Work};

/// Where the ring stands between passes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    /// The list whose next tiles the ring holds.
    list: Option<usize>,
    /// How far the next cycle's slots are moved.
    moved: u32,
}

/// A pass in progress. Call [`Pass::next_use`] for each streamed weight in the program's order,
/// then [`Pass::finish`]. Dropping it earlier abandons the pass safely.
#[derive(Debug)]
pub struct Pass<'a> {
    streamer: &'a mut Streamer,
    program: ProgramId,
    list: usize,
    moved: u32,
    next: usize,
    /// The number of the fetch to be submitted next.
    ahead: u32,
    /// Tiles to be loaded in order, each with the number of the fetch it goes before.
    pending: VecDeque<(u32, TileId)>,
    traffic: Traffic,
    finished: bool,
}

impl<'a> Pass<'a> {
    pub(super) fn begin(
        streamer: &'a mut Streamer,
        program: ProgramId,
        list: usize,
    ) -> Result<Pass<'a>, Error> {
        let cursor = std::mem::take(&mut streamer.cursor);
        let continued = cursor.list == Some(list);
        let slots = streamer.cycles[list].slots;
        let mut pass = Pass {
            pending: pending(streamer, list),
            streamer,
            program,
            list,
            moved: if continued { cursor.moved } else { 0 },
            next: 0,
            ahead: slots,
            traffic: Traffic::default(),
            finished: false,
        };
        if !continued {
            let first: Vec<(TileId, Slot)> = pass.cycle().prologue().collect();
            for (number, (tile, slot)) in first.into_iter().enumerate() {
                pass.load_before(number as u32)?;
                pass.fetch(tile, slot)?;
            }
        }
        Ok(pass)
    }

    fn cycle(&self) -> &Cycle {
        // `begin` is only called with the position of a list, and there is a cycle for each.
        &self.streamer.cycles[self.list]
    }

    /// A pinned weight on the device.
    ///
    /// # Errors
    /// If it is not pinned.
    pub fn pinned(&self, id: WeightId) -> Result<Slice, Error> {
        self.streamer.pinned(id)
    }

    /// A gather table, through the mapping.
    ///
    /// # Errors
    /// If it is no table.
    pub fn mapped(&self, id: WeightId) -> Result<Slice, Error> {
        self.streamer.mapped(id)
    }

    /// The form that rows of a weight are read from in this pass.
    ///
    /// # Errors
    /// If it is not streamed.
    pub fn form(&self, id: WeightId) -> Result<&Form, Error> {
        self.streamer.form(id)
    }

    /// What [`Pass::next_use`] is about, if any is left.
    pub fn upcoming(&self) -> Option<Use> {
        self.cycle().uses.get(self.next).copied()
    }

    /// Whether the next `uses` weights stay on the device, each in one run, so that nothing has to be
    /// fetched or let go between their launches.
    pub fn stay(&self, uses: usize) -> bool {
        let cycle = self.cycle();
        let next = cycle.steps_of.get(self.next..self.next + uses);
        let stays = |steps: &Range<usize>| match cycle.steps.get(steps.clone()) {
            Some([Step::Launch { arrivals, .. }]) => arrivals.is_empty(),
            Some(_) | None => false,
        };
        next.is_some_and(|all| all.iter().all(stays))
    }

    /// Calls `launch` for the next streamed weight, once for each run of rows that can be launched
    /// together, in order and covering all rows. `launch` gets the rows and where they lie, and
    /// must submit everything that reads them to the compute stream before it returns.
    ///
    /// # Errors
    /// If all uses were made, if the device refuses work, and what `launch` returns.
    pub fn next_use<E: From<Error>>(
        &mut self,
        mut launch: impl FnMut(Tiles) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(steps) = self.cycle().steps_of.get(self.next).cloned() else {
            return Err(E::from(Error::TooManyUses {
                program: self.program,
                uses: self.next,
            }));
        };
        if self.next == 0 {
            // What comes before the first streamed weight is the gather of embeddings.
            self.streamer.discard_tables()?;
        }
        for number in steps {
            match self.cycle().steps[number].clone() {
                Step::Launch {
                    lane,
                    rows,
                    tiles,
                    arrivals,
                    use_index: _,
                } => {
                    let (step, places) = match lane {
                        Lane::Device(_) => self.arrive(tiles, arrivals)?,
                    };
                    launch(Tiles { rows, step, places })?;
                }
                Step::Release { slot } => self.release(self.cycle().slot(slot, self.moved))?,
                Step::Fetch { tile, slot } => {
                    let slot = self.cycle().slot(slot, self.moved);
                    self.load_before(self.ahead)?;
                    self.fetch(tile, slot)?;
                    self.ahead += 1;
                }
            }
        }
        self.next += 1;
        Ok(())
    }

    /// Ends the pass; every use must have been made.
    ///
    /// # Errors
    /// If uses are left, or the device refuses work.
    pub fn finish(mut self) -> Result<(), Error> {
        let uses = self.cycle().uses.len();
        if self.next != uses {
            return Err(Error::Unfinished {
                program: self.program,
                done: self.next,
                uses,
            });
        }
        self.streamer.discard_tables()?;
        let cycle = self.cycle();
        let cursor = Cursor {
            list: Some(self.list),
            moved: cycle.slot(Slot(cycle.rotation()), self.moved).0,
        };
        self.streamer.cursor = cursor;
        self.streamer.last = self.traffic;
        self.finished = true;
        Ok(())
    }

    /// Makes the compute stream wait for the tiles of a launch; returns the rows of a piece of
    /// memory, and the pieces.
    fn arrive(
        &mut self,
        tiles: Range<u32>,
        arrivals: Range<u32>,
    ) -> Result<(usize, Vec<Slice>), Error> {
        for tile in tiles.clone().map(TileId) {
            self.wait_resident(tile)?;
        }
        let mut slots = Vec::with_capacity(arrivals.len());
        for arrival in arrivals {
            // A launch that waits for arrivals has a ring, so `slots` is not 0.
            let slot = Slot(arrival % self.cycle().slots.max(1));
            let slot = self.cycle().slot(slot, self.moved);
            let fetched = self.streamer.places.turns(slot).fetched.clone();
            self.wait(fetched)?;
            slots.push(slot);
        }
        let tiling = self.streamer.layout.tiling();
        match tiling.tile(TileId(tiles.start)).arrive {
            Arrive::Upload | Arrive::Unpack => self.apart(tiles, &slots),
            Arrive::Populate => self.adjacent(tiles, slots.is_empty()),
        }
    }

    /// Tiles in memory of their own.
    fn apart(&self, tiles: Range<u32>, slots: &[Slot]) -> Result<(usize, Vec<Slice>), Error> {
        let (places, tiling) = (&self.streamer.places, self.streamer.layout.tiling());
        let step = tiling.tile(TileId(tiles.start)).rows.len();
        let of = |(i, id): (usize, TileId)| match slots.get(i) {
            Some(slot) => places.slot_memory(*slot, tiling.tile(id).held),
            None => places.resident_memory(tiling, id),
        };
        let all = tiles.map(TileId).enumerate().map(of);
        Ok((step, all.collect::<Result<_, _>>()?))
    }

    /// Tiles that lie together in a mapping.
    fn adjacent(&self, tiles: Range<u32>, stay: bool) -> Result<(usize, Vec<Slice>), Error> {
        let (sources, tiling) = (&self.streamer.sources, self.streamer.layout.tiling());
        let first = tiling.tile(TileId(tiles.start));
        let last = tiling.tile(TileId(tiles.end - 1));
        let span = first.stored.start..last.stored.end;
        let all = match stay {
            true => sources.kept(first.source(), &span)?,
            false => sources.passing(first.source(), &span)?,
        };
        Ok((last.rows.end - first.rows.start, vec![all]))
    }

    fn wait(&self, event: Event) -> Result<(), Error> {
        let streamer = &self.streamer;
        Ok(streamer
            .device
            .submit(streamer.compute, Work::Wait(event))?)
    }

    /// Makes the compute stream wait for a tile if it is resident and just being loaded.
    fn wait_resident(&mut self, tile: TileId) -> Result<(), Error> {
        loop {
            let event = match self.streamer.places.load_of(tile) {
                None | Some(Load::Done) => return Ok(()),
                Some(Load::Submitted(event)) => event.clone(),
                Some(Load::Pending) => {
                    self.load_next(tile)?;
                    continue;
                }
            };
            self.wait(event)?;
            self.streamer.places.note(tile, Load::Done);
        }
    }

    /// Submits the next pending load, or the tile's own if none is left.
    fn load_next(&mut self, tile: TileId) -> Result<(), Error> {
        let tile = self.pending.pop_front().map_or(tile, |(_, t)| t);
        let bytes = self.streamer.load(tile)?;
        self.traffic.loaded += bytes;
        self.streamer.total.loaded += bytes;
        Ok(())
    }

    /// Submits the pending loads that are needed before this fetch.
    fn load_before(&mut self, fetch: u32) -> Result<(), Error> {
        while let Some(&(before, tile)) = self.pending.front() {
            if before > fetch {
                break;
            }
            self.load_next(tile)?;
        }
        Ok(())
    }

    fn fetch(&mut self, tile: TileId, slot: Slot) -> Result<(), Error> {
        let bytes = self.streamer.fetch(tile, slot)?;
        for traffic in [&mut self.traffic, &mut self.streamer.total] {
            traffic.fetches += 1;
            traffic.bytes += bytes;
        }
        Ok(())
    }

    fn release(&self, slot: Slot) -> Result<(), Error> {
        let streamer = &self.streamer;
        let released = streamer.places.turns(slot).released.clone();
        Ok(streamer
            .device
            .submit(streamer.compute, Work::Record(released))?)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        for slot in self.streamer.places.slots() {
            if let Err(error) = self.release(slot) {
                // The stream is gone, and with it everything that could read the slot.
                tracing::warn!(%error, slot = slot.0, "slot of an abandoned pass not released");
            }
        }
    }
}

/// Resident tiles of a list that are not loaded yet, each with the number of the fetch it goes
/// before.
fn pending(streamer: &Streamer, list: usize) -> VecDeque<(u32, TileId)> {
    if !streamer.places.any_pending() {
        return VecDeque::new();
    }
    let mut fetches = 0;
    let mut seen = std::collections::HashSet::new();
    let mut pending = VecDeque::new();
    for &what in &streamer.cycles[list].uses {
        for tile in streamer.split.tiles(streamer.layout.tiling(), what) {
            match streamer.places.load_of(tile) {
                None => fetches += 1,
                Some(Load::Pending) if seen.insert(tile) => pending.push_back((fetches, tile)),
                Some(_) => {}
            }
        }
    }
    pending
}
