//! The executor: makes a schedule happen on a device.
//!
//! One copy stream fetches, the caller's compute stream launches, and events order the two: a
//! launch waits for the fetches of its tiles, a fetch waits for the launches that last read its
//! slot. The host only submits; it never waits inside a pass. The bits that kernels read are
//! the same at every budget, since a budget only decides where they lie.

use super::config::{check_roles, distinct};
use super::pass::{Cursor, Pass};
use super::places::{Load, Places};
use super::{Config, Error, ProgramId, Traffic};
use crate::files::{TensorId, Weights};
use crate::plan::{Applied, Cycle, Layout, Request, Slot, Split, TileId};
use std::collections::HashSet;
use std::sync::Arc;
use trt_alloc::Pool;
use trt_device::{Device, Event, OwnedStream, Residency, Slice, Stream, Work};

/// Streams weights of programs through a budget.
#[derive(Debug)]
pub struct Streamer {
    pub(super) device: Arc<dyn Device>,
    pub(super) weights: Arc<Weights>,
    pub(super) compute: Stream,
    pub(super) copy: OwnedStream,
    pub(super) places: Places,
    pub(super) layout: Layout,
    /// One cycle for each distinct list of uses.
    pub(super) cycles: Vec<Cycle>,
    pub(super) cursor: Cursor,
    pub(super) total: Traffic,
    pub(super) last: Traffic,
    pub(super) pool: Pool,
    pub(super) lists: Vec<Vec<TensorId>>,
    list_of: Vec<usize>,
    mapped: HashSet<TensorId>,
    pub(super) split: Split,
    /// Counts changes of the split.
    pub(super) generation: u64,
    /// For each list, the generation in which all its tiles were found to be there.
    pub(super) found: Vec<Option<u64>>,
    /// The last request that was accepted.
    pub(super) requested: Request,
    /// `None` while the device has no memory for any budget.
    pub(super) applied: Option<Applied>,
    /// Whether the pinned weights are to be loaded before the next pass: an error may have been
    /// that of their load.
    pinned_due: bool,
    fence: Event,
}

impl Streamer {
    /// Makes room for the pinned weights and the first budget. Nothing is read before the first
    /// pass but the pinned weights, and those asynchronously.
    pub fn new(config: Config) -> Result<Streamer, Error> {
        check_roles(&config)?;
        let (lists, list_of) = distinct(&config.programs);
        let layout = config.layout(&lists);
        let Config { pool, weights, .. } = config;
        let device = pool.device().clone();
        let places = Places::new(&pool, &weights, &config.pinned, &layout)?;
        let mut streamer = Streamer {
            copy: OwnedStream::new(&device, "weights")?,
            fence: device.event()?,
            compute: config.compute,
            split: Split {
                resident: Vec::new(),
                resident_bytes: 0,
                slots: 0,
                slot_bytes: 0,
            },
            generation: 0,
            found: vec![None; lists.len()],
            requested: config.request,
            applied: None,
            pinned_due: false,
            cycles: Vec::new(),
            cursor: Cursor::default(),
            total: Traffic::default(),
            last: Traffic::default(),
            mapped: config.mapped.iter().copied().collect(),
            device,
            weights,
            places,
            layout,
            pool,
            lists,
            list_of,
        };
        // Reading the headers has made more than them resident.
        streamer.discard_files()?;
        streamer.load_pinned()?;
        streamer.set_budget(config.request, config.free)?;
        Ok(streamer)
    }

    fn load_pinned(&mut self) -> Result<(), Error> {
        for (id, place) in self.places.pinned_places() {
            let src = self.places.mapping(&self.weights, id)?;
            // On the compute stream, so that launches need not wait for an event.
            let work = Work::Upload { dst: place, src };
            self.device.submit(self.compute, work)?;
        }
        Ok(())
    }

    /// Whether every weight file is as long as when it was opened: a call during which one was cut
    /// may have read what was not the file's.
    ///
    /// # Errors
    /// The first file that was cut, with its lengths.
    pub fn intact(&self) -> Result<(), Error> {
        self.places.intact()
    }

    /// Makes sure that a call finds its weights: that no file was cut since it was opened, and that
    /// pinned weights are there, again if an error left that open.
    fn ready(&mut self) -> Result<(), Error> {
        self.places.intact()?;
        if self.pinned_due {
            self.load_pinned()?;
            self.pinned_due = false;
        }
        Ok(())
    }

    /// A pinned weight on the device.
    pub fn pinned(&self, id: TensorId) -> Result<Slice, Error> {
        self.places
            .pinned(id)
            .ok_or_else(|| self.not_in_role(id, "pinned"))
    }

    /// A gather table, through the mapping.
    pub fn mapped(&self, id: TensorId) -> Result<Slice, Error> {
        match self.mapped.contains(&id) {
            true => self.places.mapping(&self.weights, id),
            false => Err(self.not_in_role(id, "mapped")),
        }
    }

    fn not_in_role(&self, id: TensorId, role: &'static str) -> Error {
        match self.weights.get(id) {
            None => Error::UnknownWeight {
                id,
                count: self.weights.len(),
            },
            Some(info) => Error::NotInRole {
                name: info.name.clone(),
                role,
            },
        }
    }

    pub(super) fn copy_after_compute(&self) -> Result<(), Error> {
        let fence = || self.fence.clone();
        self.device.submit(self.compute, Work::Record(fence()))?;
        self.device.submit(self.copy.id(), Work::Wait(fence()))?;
        Ok(())
    }

    /// Recovers after an error of work on either stream: waits for both, forgets what was
    /// fetched, and loads again what cannot be trusted. The errors cleared are returned.
    pub fn reset(&mut self) -> Vec<Error> {
        let mut errors: Vec<Error> = Vec::new();
        errors.extend(self.copy_after_compute().err());
        errors.extend(self.device.synchronize(self.compute).err().map(Error::from));
        errors.extend(self.synchronize_copy().err());
        self.cursor = Cursor::default();
        self.pinned_due = true;
        errors
    }

    /// Bytes of all weights that the budget counts: the largest useful budget.
    pub fn total(&self) -> u64 {
        self.layout.limits().total
    }

    /// The smallest budget.
    pub fn floor(&self) -> u64 {
        self.layout.limits().floor()
    }

    /// Bytes of device memory that nobody holds, if the device tells.
    pub fn free_memory(&self) -> Option<u64> {
        self.device.free_memory()
    }

    /// The weights that it streams.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Tiles, order and limits.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The schedule of a program under the budget in force.
    pub fn cycle(&self, program: ProgramId) -> Result<&Cycle, Error> {
        let list = self.list(program)?;
        self.cycles.get(list).ok_or(Error::Starved)
    }

    /// Fetches submitted since the start.
    pub fn traffic(&self) -> Traffic {
        self.total
    }

    /// Fetches submitted in the last finished pass. The ring's first filling belongs to the
    /// pass that began it.
    pub fn last_pass(&self) -> Traffic {
        self.last
    }

    fn list(&self, program: ProgramId) -> Result<usize, Error> {
        let list = self.list_of.get(program.0 as usize).copied();
        list.ok_or(Error::UnknownProgram {
            program,
            count: self.list_of.len(),
        })
    }

    /// A number that stands for where the weights of a program lie, if all of them are on the
    /// device, copied, and will stay there until the budget changes: launches made for it can
    /// be made again while the number is the same. An error if a file was cut, since tables are
    /// read through the mapping.
    pub fn settled(&mut self, program: ProgramId) -> Result<Option<u64>, Error> {
        let list = self.list(program)?;
        self.ready()?;
        let generation = Some(self.generation);
        if self.found[list] == generation {
            return Ok(generation);
        }
        let uses = self.cycles[list].uses.iter();
        let mut tiles = uses.flat_map(|w| self.layout.tiling().of(*w));
        let done = |t| matches!(self.places.resident.get(&t), Some(r) if r.load.is_done());
        if self.places.residency != Residency::Copied || !tiles.all(done) {
            return Ok(None);
        }
        self.found[list] = generation;
        Ok(generation)
    }

    /// Starts a pass over a program. Programs with equal lists of uses continue each other's
    /// prefetching; after a program with another list the ring starts over. An error if a file was
    /// cut: nothing has changed then, and the next pass works once the file is whole again.
    pub fn begin(&mut self, program: ProgramId) -> Result<Pass<'_>, Error> {
        let list = self.list(program)?;
        self.applied()?;
        self.ready()?;
        Pass::begin(self, program, list)
    }

    /// In place: lets go of the table rows that the launches so far have gathered.
    pub(super) fn discard_tables(&self) -> Result<(), Error> {
        if self.places.residency == Residency::Copied || self.mapped.is_empty() {
            return Ok(());
        }
        self.copy_after_compute()?;
        for &id in &self.mapped {
            let table = self.places.mapping(&self.weights, id)?;
            self.device.submit(self.copy.id(), Work::Trim(table))?;
        }
        Ok(())
    }

    /// In place: lets go of everything.
    fn discard_files(&self) -> Result<(), Error> {
        if self.places.residency == Residency::Copied {
            return Ok(());
        }
        self.places.files().try_for_each(|f| self.submit_discard(f))
    }

    /// Submits the fetch of a tile into a slot.
    pub(super) fn fetch(&mut self, tile: TileId, slot: Slot) -> Result<u64, Error> {
        let what = self.layout.tiling().tile(tile);
        let bytes = what.bytes();
        let src = self.places.source(&self.weights, what)?;
        let dst = self.places.slot_memory(slot, src.len())?;
        let state = &mut self.places.ring[slot.0 as usize];
        let before = state.tile.replace(tile);
        let (fetched, released) = (state.fetched.clone(), state.released.clone());
        self.device.submit(self.copy.id(), Work::Wait(released))?;
        let work = match dst {
            Some(dst) => Work::Upload { dst, src },
            None => {
                if let Some(before) = before {
                    self.discard_passing(before)?;
                }
                Work::Populate(
                    self.places
                        .passing(&self.weights, self.layout.tiling().tile(tile))?,
                )
            }
        };
        self.device.submit(self.copy.id(), work)?;
        self.device.submit(self.copy.id(), Work::Record(fetched))?;
        Ok(bytes)
    }

    /// Submits the load of a tile that is to be resident.
    pub(super) fn load(&mut self, tile: TileId) -> Result<u64, Error> {
        let what = self.layout.tiling().tile(tile);
        let bytes = what.bytes();
        let src = self.places.source(&self.weights, what)?;
        let place = self.places.resident_memory(self.layout.tiling(), tile)?;
        let work = match place {
            Some(dst) => Work::Upload { dst, src },
            None => Work::Populate(src),
        };
        let event = self.device.event()?;
        self.device.submit(self.copy.id(), work)?;
        self.device
            .submit(self.copy.id(), Work::Record(event.clone()))?;
        if let Some(resident) = self.places.resident.get_mut(&tile) {
            resident.load = Load::Submitted(event);
        }
        Ok(bytes)
    }

    /// In place: lets the pages of a tile that streamed by go, unless the ring still holds it.
    fn discard_passing(&self, tile: TileId) -> Result<(), Error> {
        if self.places.in_ring(tile) {
            return Ok(());
        }
        let tile = self.layout.tiling().tile(tile);
        self.submit_discard(self.places.passing(&self.weights, tile)?)
    }

    /// In place: lets the pages of a tile go that is neither resident nor in the ring any more.
    pub(super) fn discard(&self, tile: TileId) -> Result<(), Error> {
        self.discard_passing(tile)?;
        if self.places.resident.contains_key(&tile) {
            return Ok(());
        }
        let tile = self.layout.tiling().tile(tile);
        self.submit_discard(self.places.source(&self.weights, tile)?)
    }

    fn submit_discard(&self, pages: Slice) -> Result<(), Error> {
        Ok(self.device.submit(self.copy.id(), Work::Discard(pages))?)
    }
}

impl Drop for Streamer {
    /// In place the pages outlive the reservation that stands for them unless they are let go.
    fn drop(&mut self) {
        let result = self
            .copy_after_compute()
            .and_then(|()| self.discard_files());
        if let Err(error) = result {
            tracing::warn!(%error, "weights of a dropped streamer stay resident");
        }
    }
}
