//! What is resident, how the rest streams, and in which order: pure data.
//!
//! A pass over a model is a cyclic scan, for which evicting what was used last is the worst
//! policy. So a fixed set of tiles stays (see [`order`](crate::Layout)) and the rest goes
//! through a ring of equal slots, in execution order. Fetches run as far ahead as the ring
//! allows and wrap around into the next cycle, since weights do not depend on the token: the
//! link never idles between tokens.
//!
//! Within a [`Cycle`] the `i`-th fetched tile lies in slot `i % slots`. The next cycle goes on
//! where this one ends, so its slots are those of this one moved by [`Cycle::rotation`].

use crate::{Demand, Gain, Limits, TileId, Tiling, WeightId, order};
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use trt_kernel::fusible::MAX_TILES;

/// Slots of the smallest ring: one is read while the other is filled.
pub const MIN_SLOTS: u32 = 2;

/// A use of a weight, by its position in a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UseIndex(pub u32);

/// A slot of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// Everything about a set of programs that does not depend on the budget.
#[derive(Clone, Debug)]
pub struct Layout {
    tiling: Tiling,
    order: Vec<TileId>,
    /// How often a cycle uses each tile of the order.
    uses: Vec<u32>,
    pinned: u64,
}

/// What a budget buys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The tiles that stay on the device: a prefix of the layout's fixed order.
    pub resident: Vec<TileId>,
    /// Their bytes.
    pub resident_bytes: u64,
    /// Slots of the ring; none if everything is resident.
    pub slots: u32,
    /// Bytes of a slot.
    pub slot_bytes: u64,
}

impl Split {
    /// Bytes of the ring.
    pub fn ring_bytes(&self) -> u64 {
        u64::from(self.slots) * self.slot_bytes
    }
}

/// Which tiles one launch may cover.
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
        /// The use.
        use_index: UseIndex,
        /// The rows.
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
    /// The weight of each use.
    pub uses: Vec<WeightId>,
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
    /// Orders the tiles for these programs; `pinned` bytes are always on the device.
    pub fn new(tiling: Tiling, lists: &[Vec<WeightId>], pinned: u64) -> Layout {
        let (order, uses) = order::nested(&tiling, lists).into_iter().unzip();
        Layout {
            tiling,
            order,
            uses,
            pinned,
        }
    }

    /// The tiles.
    pub fn tiling(&self) -> &Tiling {
        &self.tiling
    }

    /// All tiles in the order in which they become resident.
    pub fn order(&self) -> &[TileId] {
        &self.order
    }

    /// What bounds a budget.
    pub fn limits(&self) -> Limits {
        Limits {
            total: self.pinned + self.tiling.total(),
            pinned: self.pinned,
            slots: MIN_SLOTS,
            slot_bytes: self.tiling.largest(),
        }
    }

    /// What memory gains, for [`share`](crate::share).
    pub fn demand(&self, weight: f64) -> Demand {
        let limits = self.limits();
        let gain = |(tile, uses): (&TileId, &u32)| Gain {
            bytes: self.tiling.tile(*tile).bytes(),
            uses: *uses,
        };
        Demand {
            floor: limits.floor(),
            total: limits.total,
            weight,
            tiles: self.order.iter().zip(&self.uses).map(gain).collect(),
        }
    }

    /// What a budget buys; one below the floor buys the floor.
    pub fn split(&self, budget: u64) -> Split {
        let limits = self.limits();
        let slot_bytes = limits.slot_bytes;
        if budget >= limits.total || limits.floor() == limits.total {
            return Split {
                resident: self.order.clone(),
                resident_bytes: self.tiling.total(),
                slots: 0,
                slot_bytes,
            };
        }
        let spare = budget.saturating_sub(limits.floor());
        let (slots, capacity) = ring(spare, slot_bytes);
        let mut resident_bytes = 0;
        let mut count = 0;
        for &tile in &self.order {
            let bytes = self.tiling.tile(tile).bytes();
            if resident_bytes + bytes > capacity {
                break;
            }
            resident_bytes += bytes;
            count += 1;
        }
        Split {
            resident: self.order[..count].to_vec(),
            resident_bytes,
            slots,
            slot_bytes,
        }
    }

    /// One cycle of a program under a split.
    pub fn cycle(&self, split: &Split, uses: &[WeightId], runs: Runs) -> Cycle {
        let resident: HashSet<TileId> = split.resident.iter().copied().collect();
        let streamed = |tile: &TileId| !resident.contains(tile);
        let fetches: Vec<TileId> = uses
            .iter()
            .flat_map(|&w| self.tiling.of(w))
            .filter(streamed)
            .collect();
        let mut cycle = Cycle {
            uses: uses.to_vec(),
            fetches,
            slots: split.slots,
            steps: Vec::new(),
            steps_of: Vec::with_capacity(uses.len()),
        };
        let most = match runs {
            Runs::Apart => Most {
                streamed: 1,
                tiles: MAX_TILES as u32,
            },
            Runs::Adjacent => Most {
                streamed: (split.slots / 2).max(1),
                tiles: u32::MAX,
            },
        };
        let mut arrived = 0;
        for (index, &weight) in uses.iter().enumerate() {
            let first = cycle.steps.len();
            for run in self.runs(weight, streamed, most) {
                let next = arrived + run.streamed;
                cycle.steps.push(Step::Launch {
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

    /// Cuts a weight's tiles into launches.
    fn runs(&self, weight: WeightId, streamed: impl Fn(&TileId) -> bool, most: Most) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for id in self.tiling.of(weight) {
            let tile = self.tiling.tile(id);
            let arrives = u32::from(streamed(&id));
            match runs.last_mut() {
                Some(run)
                    if run.streamed + arrives <= most.streamed
                        && (run.streamed > 0) == (arrives > 0)
                        && run.tiles.len() < most.tiles as usize =>
                {
                    run.rows.end = tile.rows.end;
                    run.tiles.end = id.0 + 1;
                    run.streamed += arrives;
                }
                _ => runs.push(Run {
                    rows: tile.rows.clone(),
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

struct Run {
    rows: Range<usize>,
    tiles: Range<u32>,
    streamed: u32,
}

/// Slots of the ring and bytes for residents from what is left above the floor. Residents
/// never shrink as `spare` grows: where the ring takes another slot, they have stood still
/// for a slot's worth of budget.
fn ring(spare: u64, slot: u64) -> (u32, u64) {
    if spare < 5 * slot {
        (MIN_SLOTS, spare.min(4 * slot))
    } else if spare < 9 * slot {
        (MIN_SLOTS + 1, (spare - slot).min(7 * slot))
    } else {
        (MIN_SLOTS + 2, spare - 2 * slot)
    }
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
                use_index,
                rows,
                tiles,
                arrivals,
            } => {
                let UseIndex(index) = use_index;
                write!(f, "launch u{index} rows {}..{} in ", rows.start, rows.end)?;
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
