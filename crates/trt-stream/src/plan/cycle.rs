//! One pass over a program as data: what is fetched, launched and released, in order.
//!
//! Within a [`Cycle`] the `i`-th fetched tile lies in slot `i % slots`. The next cycle goes on
//! where this one ends, so its slots are those of this one moved by [`Cycle::rotation`].

use super::{Lane, Layout, Part, Split, TileId, Use};
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use trt_kernel::fusible::MAX_TILES;

/// A use of a weight, by its position in a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UseIndex(pub u32);

/// A slot of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// Which tiles of an expert one launch may cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// Tiles lie in separate memory: adjacent ones that stay are one launch, up to as many as a
    /// launch may take, and each that streams by is one.
    Apart,
    /// Tiles of a weight lie in mappings, one for residents and one for what streams by: adjacent
    /// ones of a kind are one launch, but only as many streamed ones as leave half of the ring
    /// to be filled meanwhile.
    Adjacent,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Bring a tile into a slot.
    Fetch {
        /// The tile.
        tile: TileId,
        /// The slot, which was released.
        slot: Slot,
    },
    /// Run a use's kernel on adjacent rows.
    Launch {
        /// Who runs it.
        lane: Lane,
        /// The use.
        use_index: UseIndex,
        /// The rows, counted from the first of what the use reads.
        rows: Range<usize>,
        /// The tiles that hold them, by number.
        tiles: Range<u32>,
        /// Which of the cycle's fetches these tiles wait for, by number.
        arrivals: Range<u32>,
    },
    /// The slot may be filled again once the launches so far are done.
    Release {
        /// The slot.
        slot: Slot,
    },
}

/// One cycle of a program. Before the first cycle, [`Cycle::prologue`] fills the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cycle {
    /// What is used.
    pub uses: Vec<Use>,
    /// Streamed tiles in the order in which they are needed.
    pub fetches: Vec<TileId>,
    /// Slots of the ring.
    pub slots: u32,
    /// What to do.
    pub steps: Vec<Step>,
    /// The steps of each use.
    pub steps_of: Vec<Range<usize>>,
}

impl Layout {
    /// One cycle of a program under a split.
    pub fn cycle(&self, split: &Split, uses: &[Use]) -> Cycle {
        let resident: HashSet<TileId> = split.resident.iter().copied().collect();
        let streamed = |tile: &TileId| !resident.contains(tile);
        let fetches: Vec<TileId> = uses
            .iter()
            .flat_map(|&u| split.tiles(self.tiling(), u))
            .filter(streamed)
            .collect();
        let mut cycle = Cycle {
            uses: uses.to_vec(),
            fetches,
            slots: split.slots,
            steps: Vec::new(),
            steps_of: Vec::with_capacity(uses.len()),
        };
        let mut arrived = 0;
        for (index, &what) in uses.iter().enumerate() {
            let first = cycle.steps.len();
            for run in self.runs(what, streamed, split) {
                let next = arrived + run.streamed;
                cycle.steps.push(Step::Launch {
                    lane: Lane::FIRST,
                    use_index: UseIndex(index as u32),
                    rows: run.rows,
                    tiles: run.tiles,
                    arrivals: arrived..next,
                });
                cycle.turn(arrived..next);
                arrived = next;
            }
            cycle.steps_of.push(first..cycle.steps.len());
        }
        cycle
    }

    /// Cuts the tiles of a use into launches.
    fn runs(&self, what: Use, streamed: impl Fn(&TileId) -> bool, split: &Split) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let first = split.tiles(self.tiling(), what).next();
        let base = match what.part {
            Part::All => 0,
            Part::Expert(_) => first.map_or(0, |t| self.tiling().tile(t).rows.start),
        };
        for id in split.tiles(self.tiling(), what) {
            let tile = self.tiling().tile(id);
            let arrives = u32::from(streamed(&id));
            let most = Most::of(tile.arrive.runs(), split.slots);
            match runs.last_mut() {
                Some(run)
                    if run.streamed + arrives <= most.streamed
                        && (run.streamed > 0) == (arrives > 0)
                        && run.tiles.len() < most.tiles as usize
                        && run.expert == tile.expert =>
                {
                    run.rows.end = tile.rows.end - base;
                    run.tiles.end = id.0 + 1;
                    run.streamed += arrives;
                }
                _ => runs.push(Run {
                    expert: tile.expert,
                    rows: tile.rows.start - base..tile.rows.end - base,
                    tiles: id.0..id.0 + 1,
                    streamed: arrives,
                }),
            }
        }
        runs
    }
}

/// What one launch may cover.
#[derive(Clone, Copy)]
struct Most {
    streamed: u32,
    tiles: u32,
}

impl Most {
    fn of(runs: Runs, slots: u32) -> Most {
        match runs {
            Runs::Apart => Most {
                streamed: 1,
                tiles: MAX_TILES as u32,
            },
            Runs::Adjacent => Most {
                streamed: (slots / 2).max(1),
                tiles: u32::MAX,
            },
        }
    }
}

struct Run {
    expert: u32,
    rows: Range<usize>,
    tiles: Range<u32>,
    streamed: u32,
}

impl Cycle {
    /// What fills the ring before the first cycle: fetch `i` into slot `i`, tiles repeating if
    /// a cycle streams fewer than there are slots.
    pub fn prologue(&self) -> impl Iterator<Item = (TileId, Slot)> + '_ {
        let endless = self.fetches.iter().cycle();
        endless.copied().zip((0..self.slots).map(Slot))
    }

    /// How far the next cycle's slots are moved.
    pub fn rotation(&self) -> u32 {
        match self.slots {
            0 => 0,
            slots => self.fetches.len() as u32 % slots,
        }
    }

    /// A slot of these steps, in the cycle whose slots are moved by `moved`.
    pub fn slot(&self, slot: Slot, moved: u32) -> Slot {
        match self.slots {
            0 => slot,
            slots => Slot((slot.0 + moved) % slots),
        }
    }

    /// Releases the slots of these arrivals and fetches what comes into them next.
    fn turn(&mut self, arrivals: Range<u32>) {
        let count = self.fetches.len() as u32;
        for arrival in arrivals {
            let slot = Slot(arrival % self.slots);
            let next = (arrival + self.slots) % count;
            let tile = self.fetches[next as usize];
            self.steps.push(Step::Release { slot });
            self.steps.push(Step::Fetch { tile, slot });
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Fetch { tile, slot } => write!(f, "fetch t{} -> s{}", tile.0, slot.0),
            Step::Release { slot } => write!(f, "release s{}", slot.0),
            Step::Launch {
                lane,
                use_index,
                rows,
                tiles,
                arrivals,
            } => {
                let UseIndex(index) = use_index;
                write!(f, "launch u{index} rows {}..{} ", rows.start, rows.end)?;
                match lane {
                    Lane::Device(0) => {}
                    Lane::Device(_) => write!(f, "on {lane} ")?,
                }
                write!(f, "in ")?;
                for (i, tile) in tiles.clone().enumerate() {
                    write!(f, "{}t{tile}", if i == 0 { "" } else { "+" })?;
                }
                match arrivals.is_empty() {
                    true => Ok(()),
                    false => write!(f, " after fetches {}..{}", arrivals.start, arrivals.end),
                }
            }
        }
    }
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "cycle of {} uses, {} fetches, {} slots moved by {}",
            self.uses.len(),
            self.fetches.len(),
            self.slots,
            self.rotation()
        )?;
        for (tile, slot) in self.prologue() {
            writeln!(f, "  before: fetch t{} -> s{}", tile.0, slot.0)?;
        }
        for step in &self.steps {
            writeln!(f, "  {step}")?;
        }
        Ok(())
    }
}
