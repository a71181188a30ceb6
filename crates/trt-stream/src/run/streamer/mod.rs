//! The executor: makes a schedule happen on a device.
//!
//! One copy stream fetches, the caller's compute stream launches, and events order the two: a
//! launch waits for the fetches of its tiles, a fetch waits for the launches that last read its
//! slot. What is packed is unpacked by a stream of its own on the way. The host only submits; it
//! never waits inside a pass. The bits that kernels read are the same at every budget, since a budget
//! only decides where they lie.

mod change;
mod fetch;
mod pass;

use super::config::distinct;
use super::places::{Load, Places};
use super::sources::Sources;
use super::{Config, Error, Form, ProgramId, Traffic};
use crate::files::Weights;
use crate::plan::{Applied, Arrive, Cycle, Layout, Request, Split, Use, WeightId};
use pass::Cursor;
pub use pass::Pass;
use std::sync::Arc;
use trt_alloc::Pool;
use trt_device::{Device, Event, OwnedStream, Slice, Stream, Work};
use trt_kernel::Role;

/// Streams weights of programs through a budget.
#[derive(Debug)]
pub struct Streamer {
    device: Arc<dyn Device>,
    files: Arc<Weights>,
    sources: Sources,
    compute: Stream,
    copy: OwnedStream,
    places: Places,
    layout: Layout,
    /// One cycle for each distinct list of uses.
    cycles: Vec<Cycle>,
    cursor: Cursor,
    total: Traffic,
    last: Traffic,
    pool: Pool,
    lists: Vec<Vec<Use>>,
    list_of: Vec<usize>,
    split: Split,
    /// Counts changes of the split.
    generation: u64,
    /// For each list, the generation in which all its tiles were found to be there.
    found: Vec<Option<u64>>,
    /// The last request that was accepted.
    requested: Request,
    /// `None` while the device has no memory for any budget.
    applied: Option<Applied>,
    /// Whether the pinned weights are to be loaded before the next pass: an error may have been
    /// that of their load.
    pinned_due: bool,
    fence: Event,
}

impl Streamer {
    /// Makes room for the pinned weights and the first budget. Nothing is read before the first
    /// pass but the pinned weights, and those asynchronously.
    ///
    /// # Errors
    /// Weights, forms or uses that do not fit each other or their files; a budget that cannot be
    /// met; a device or pool without the memory.
    pub fn new(config: Config) -> Result<Streamer, Error> {
        config.check()?;
        let (lists, list_of) = distinct(&config.programs);
        let layout = config.layout(&lists)?;
        let Config {
            pool,
            files,
            weights,
            ..
        } = config;
        let device = pool.device().clone();
        let sources = Sources::new(&*device, &files, weights)?;
        let places = Places::new(&pool, &sources, &layout)?;
        let mut streamer = Streamer {
            copy: OwnedStream::new(&device, "weights")?,
            fence: device.event()?,
            compute: config.compute,
            split: Split {
                resident: Vec::new(),
                resident_bytes: 0,
                packed_bytes: 0,
                turned: Vec::new(),
                staging: 0,
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
            device,
            files,
            sources,
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
        for (id, weight) in self.sources.with(Role::Whole) {
            let (dst, src) = (self.pinned(id)?, self.sources.whole(weight)?);
            // On the compute stream, so that launches need not wait for an event.
            self.device
                .submit(self.compute, Work::Upload { dst, src })?;
        }
        Ok(())
    }

    /// Whether every weight file is as long as when it was opened: a call during which one was cut
    /// may have read what was not the file's.
    ///
    /// # Errors
    /// The first file that was cut, with its lengths.
    pub fn intact(&self) -> Result<(), Error> {
        self.sources.intact()
    }

    /// Makes sure that a call finds its weights: that no file was cut since it was opened, and that
    /// pinned weights are there, again if an error left that open.
    fn ready(&mut self) -> Result<(), Error> {
        self.sources.intact()?;
        if self.pinned_due {
            self.load_pinned()?;
            self.pinned_due = false;
        }
        Ok(())
    }

    /// A pinned weight on the device.
    ///
    /// # Errors
    /// If it is not pinned.
    pub fn pinned(&self, id: WeightId) -> Result<Slice, Error> {
        let weight = self.sources.in_role(id, Role::Whole)?;
        let place = self.places.pinned(id);
        place.ok_or_else(|| Error::not_in_role(weight, Role::Whole))
    }

    /// A gather table, through the mapping.
    ///
    /// # Errors
    /// If it is no table.
    pub fn mapped(&self, id: WeightId) -> Result<Slice, Error> {
        self.sources.whole(self.sources.in_role(id, Role::Table)?)
    }

    /// The form that rows of a weight are read from: the same for all weights that share a launch, until
    /// [`Streamer::changes`] counts another change. What is read plain at one budget may be read packed at
    /// another.
    ///
    /// # Errors
    /// If it is not streamed.
    pub fn form(&self, id: WeightId) -> Result<&Form, Error> {
        let weight = self.sources.in_role(id, Role::Rows)?;
        Ok(weight.form_of(self.split.form(self.layout.tiling(), id)))
    }

    fn copy_after_compute(&self) -> Result<(), Error> {
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

    /// The files of its weights.
    pub fn files(&self) -> &Weights {
        &self.files
    }

    /// Tiles, order and limits.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The schedule of a program under the budget in force.
    ///
    /// # Errors
    /// If there is no such program, or no budget in force.
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
    ///
    /// # Errors
    /// If there is no such program, or a file was cut.
    pub fn settled(&mut self, program: ProgramId) -> Result<Option<u64>, Error> {
        let list = self.list(program)?;
        self.ready()?;
        let generation = Some(self.generation);
        if self.found[list] == generation {
            return Ok(generation);
        }
        let tiling = self.layout.tiling();
        let uses = self.cycles[list].uses.iter();
        let mut tiles = uses.flat_map(|u| self.split.tiles(tiling, *u));
        // In the mapping nothing stays by itself, tables neither.
        let settled = |t| match tiling.tile(t).arrive {
            Arrive::Populate => false,
            Arrive::Upload | Arrive::Unpack => {
                matches!(self.places.load_of(t), Some(Load::Done))
            }
        };
        if self.sources.in_place() || !tiles.all(settled) {
            return Ok(None);
        }
        self.found[list] = generation;
        Ok(generation)
    }

    /// Starts a pass over a program. Programs with equal lists of uses continue each other's
    /// prefetching; after a program with another list the ring starts over. An error if a file was
    /// cut: nothing has changed then, and the next pass works once the file is whole again.
    ///
    /// # Errors
    /// If there is no such program, no budget in force, or a file was cut; if the device refuses work.
    pub fn begin(&mut self, program: ProgramId) -> Result<Pass<'_>, Error> {
        let list = self.list(program)?;
        self.applied()?;
        self.ready()?;
        Pass::begin(self, program, list)
    }

    /// In place: lets go of the table rows that the launches so far have gathered.
    fn discard_tables(&self) -> Result<(), Error> {
        let mut tables = self.sources.with(Role::Table).peekable();
        if !self.sources.in_place() || tables.peek().is_none() {
            return Ok(());
        }
        self.copy_after_compute()?;
        for (_, weight) in tables {
            let table = self.sources.whole(weight)?;
            self.device.submit(self.copy.id(), Work::Trim(table))?;
        }
        Ok(())
    }

    /// In place: lets go of everything.
    fn discard_files(&self) -> Result<(), Error> {
        match self.sources.in_place() {
            true => self.sources.all().try_for_each(|f| self.submit_discard(f)),
            false => Ok(()),
        }
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
