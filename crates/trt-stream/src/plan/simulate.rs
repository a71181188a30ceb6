//! An independent check of a schedule: runs its steps on a model of the device.
//!
//! It shares no code with the scheduler and believes none of its numbers. Over several cycles,
//! with the wrap-around, it proves that every launch finds its rows on the device, that every
//! row of every use is launched exactly once and in order, on the device that has it, that weights
//! which are read together are all packed or all plain, that a slot is
//! filled only after its release, that what is unpacked has a place to wait for it, and that bytes
//! on the device never exceed the budget.

use super::{
    Arrive, Cycle, Lane, Part, STAGES, Split, Step, Tile, TileForm, TileId, Tiling, Use, WeightId,
};
use std::collections::{BTreeMap, HashSet};

/// What a simulation counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Bytes fetched in the last cycle, as they cross the link.
    pub streamed: u64,
    /// Most bytes on the device at any time, counting the whole ring.
    pub peak: u64,
    /// Launches in the last cycle.
    pub launches: usize,
}

/// What a schedule does wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cycle {cycle}, step {step}: {what}")]
pub struct Violation {
    /// The cycle.
    pub cycle: usize,
    /// The step's number.
    pub step: usize,
    /// What is wrong.
    pub what: String,
}

/// A slot of the modelled ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SlotState {
    Free,
    /// Filled by the fetch of this number.
    Filled(TileId, u64),
    Read(TileId),
}

/// A schedule and what it is to be held against.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// The tiles.
    pub tiling: &'a Tiling,
    /// What the program uses, in order.
    pub uses: &'a [Use],
    /// Weights that are read in one launch, for each such launch of any program.
    pub together: &'a [Vec<WeightId>],
    /// Bytes that are always on the device.
    pub pinned: u64,
    /// What the budget is said to buy.
    pub split: &'a Split,
    /// The schedule.
    pub cycle: &'a Cycle,
    /// The budget.
    pub budget: u64,
}

/// The form in which each weight of two was met.
#[derive(Default)]
struct Forms(BTreeMap<WeightId, TileForm>);

impl Forms {
    /// A tile is on the device: all others of its weight must be in the same form.
    fn meet(&mut self, tile: &Tile) -> Result<(), String> {
        let known = *self.0.entry(tile.weight).or_insert(tile.form);
        match known == tile.form {
            true => Ok(()),
            false => Err(format!("{tile:?} where the weight's others are {known:?}")),
        }
    }

    /// Weights that are read together must not have been met in both of two forms.
    fn mixed(&self, together: &[Vec<WeightId>]) -> Result<(), String> {
        for launch in together {
            let found = launch.iter().filter_map(|w| self.0.get(w));
            let found: HashSet<&TileForm> = found.filter(|f| **f != TileForm::Only).collect();
            if found.len() > 1 {
                return Err(format!("{launch:?} are read together, in two forms"));
            }
        }
        Ok(())
    }
}

struct Machine<'a> {
    tiling: &'a Tiling,
    forms: Forms,
    resident: HashSet<TileId>,
    slots: Vec<SlotState>,
    split: &'a Split,
    /// The most pages and the most memory of its own that a fetch needed of a slot.
    needed: [u64; 2],
    streamed: u64,
    fetches: u64,
    launches: usize,
}

/// Runs `cycles` cycles of a program.
///
/// # Errors
/// The first thing that the schedule does wrong.
pub fn simulate(case: &Case<'_>, cycles: usize) -> Result<Account, Violation> {
    let Case {
        tiling,
        uses,
        together,
        pinned,
        split,
        cycle,
        budget,
    } = *case;
    let at = |cycle, step| move |what| Violation { cycle, step, what };
    let resident: HashSet<TileId> = split.resident.iter().copied().collect();
    let bytes: u64 = resident.iter().map(|&t| tiling.tile(t).held as u64).sum();
    let (staging, ring) = (split.staging, split.slot_bytes * u64::from(split.slots));
    let peak = pinned + staging + bytes + ring;
    if peak > budget || bytes != split.resident_bytes {
        return Err(at(0, 0)(format!(
            "{pinned} pinned + {staging} staging + {bytes} resident ({} stated) + {ring} ring bytes \
             for a budget of {budget}",
            split.resident_bytes
        )));
    }
    let mut forms = Forms::default();
    for &tile in &resident {
        staged(tiling.tile(tile), split).map_err(at(0, 0))?;
        forms.meet(tiling.tile(tile)).map_err(at(0, 0))?;
    }
    let mut machine = Machine {
        tiling,
        forms,
        resident,
        slots: vec![SlotState::Free; split.slots as usize],
        split,
        needed: [0; 2],
        streamed: 0,
        fetches: 0,
        launches: 0,
    };
    for (tile, slot) in cycle.prologue() {
        machine.fetch(tile, slot.0).map_err(at(0, 0))?;
    }
    let mut moved = 0;
    for turn in 0..cycles {
        machine.streamed = 0;
        machine.launches = 0;
        let mut expected = rows_in_order(tiling, uses, &split.turned);
        for (number, step) in cycle.steps.iter().enumerate() {
            machine
                .step(step, moved, &mut expected)
                .map_err(at(turn, number))?;
        }
        if let Some((index, rows)) = expected.next() {
            let what = format!("use {index} was never launched from row {}", rows.start);
            return Err(at(turn, cycle.steps.len())(what));
        }
        let mixed = machine.forms.mixed(together);
        mixed.map_err(at(turn, cycle.steps.len()))?;
        moved += cycle.rotation();
    }
    Ok(Account {
        streamed: machine.streamed,
        peak,
        launches: machine.launches,
    })
}

type Expected<'a> =
    std::iter::Peekable<Box<dyn Iterator<Item = (usize, std::ops::Range<usize>)> + 'a>>;

/// Every use with the rows of each of its tiles, counted from the first that it reads, in order.
fn rows_in_order<'a>(tiling: &'a Tiling, uses: &'a [Use], turned: &'a [WeightId]) -> Expected<'a> {
    let all = uses.iter().enumerate().flat_map(move |(index, &what)| {
        let plain = turned.contains(&what.weight);
        let read = move |tile: &&Tile| {
            tile.weight == what.weight
                && plain == (tile.form == TileForm::Plain)
                && match what.part {
                    Part::All => true,
                    Part::Expert(expert) => tile.expert == expert,
                }
        };
        let tiles = move || tiling.ids().map(|t| tiling.tile(t)).filter(read);
        let base = tiles().map(|t| t.rows.start).min().unwrap_or(0);
        tiles().map(move |t| (index, t.rows.start - base..t.rows.end - base))
    });
    let boxed: Box<dyn Iterator<Item = _>> = Box::new(all);
    boxed.peekable()
}

/// Whether a tile that is unpacked has a place to wait for it.
fn staged(tile: &Tile, split: &Split) -> Result<(), String> {
    let needed = match tile.arrive {
        Arrive::Upload | Arrive::Populate => 0,
        Arrive::Unpack => tile.stored.len() as u64 * u64::from(STAGES),
    };
    match needed <= split.staging {
        true => Ok(()),
        false => Err(format!(
            "{tile:?} needs {needed} bytes of staging, there are {}",
            split.staging
        )),
    }
}

impl Machine<'_> {
    fn step(&mut self, step: &Step, moved: u32, expected: &mut Expected<'_>) -> Result<(), String> {
        let place = |slot: u32| (slot + moved) % self.slots.len().max(1) as u32;
        match step {
            Step::Fetch { tile, slot } => {
                let slot = place(slot.0);
                self.fetch(*tile, slot)
            }
            Step::Release { slot } => {
                let slot = place(slot.0) as usize;
                match self.slots.get(slot) {
                    Some(SlotState::Read(_)) => {
                        self.slots[slot] = SlotState::Free;
                        Ok(())
                    }
                    other => Err(format!("slot {slot} is released while {other:?}")),
                }
            }
            Step::Launch {
                lane,
                use_index,
                rows,
                tiles,
                arrivals: _,
            } => {
                match lane {
                    Lane::Device(0) => {}
                    Lane::Device(_) => return Err(format!("{step}: {lane} holds nothing")),
                }
                self.launches += 1;
                let mut row = rows.start;
                let mut expert = None;
                for tile in tiles.clone().map(TileId) {
                    self.read(tile)?;
                    let next = expected.next().ok_or("a launch after the last use")?;
                    if next.0 != use_index.0 as usize || next.1.start != row {
                        return Err(format!("{step} where {next:?} is due"));
                    }
                    let tile = self.tiling.tile(tile);
                    self.forms.meet(tile)?;
                    let plain = self.split.turned.contains(&tile.weight);
                    if plain != (tile.form == TileForm::Plain) {
                        return Err(format!(
                            "{step} on {tile:?}, which is not the form in force"
                        ));
                    }
                    if tile.rows.len() != next.1.len() {
                        return Err(format!("{step} on other rows than {next:?}"));
                    }
                    if *expert.get_or_insert(tile.expert) != tile.expert {
                        return Err(format!("{step} on rows of two experts"));
                    }
                    row = next.1.end;
                }
                match row == rows.end {
                    true => Ok(()),
                    false => Err(format!("{step}: its tiles end at row {row}")),
                }
            }
        }
    }

    fn fetch(&mut self, tile: TileId, slot: u32) -> Result<(), String> {
        let what = self.tiling.tile(tile);
        let kind = match what.arrive {
            Arrive::Populate => 0,
            Arrive::Upload | Arrive::Unpack => 1,
        };
        self.needed[kind] = self.needed[kind].max(what.held as u64);
        let needed: u64 = self.needed.iter().sum();
        if needed > self.split.slot_bytes {
            return Err(format!(
                "with {tile:?} a slot needs {needed} bytes, it has {}",
                self.split.slot_bytes
            ));
        }
        staged(what, self.split)?;
        if self.resident.contains(&tile) {
            return Err(format!("{tile:?} is fetched though resident"));
        }
        match self.slots.get_mut(slot as usize) {
            Some(state @ SlotState::Free) => {
                *state = SlotState::Filled(tile, self.fetches);
                self.fetches += 1;
                self.streamed += what.stored.len() as u64;
                Ok(())
            }
            other => Err(format!(
                "{tile:?} is fetched into slot {slot}, which is {other:?}"
            )),
        }
    }

    fn read(&mut self, tile: TileId) -> Result<(), String> {
        if self.resident.contains(&tile) {
            return Ok(());
        }
        // The one fetched first, should it lie in several slots.
        let filled = self
            .slots
            .iter_mut()
            .filter_map(|state| match *state {
                SlotState::Filled(t, number) if t == tile => Some((number, state)),
                _ => None,
            })
            .min_by_key(|(number, _)| *number);
        match filled {
            Some((_, state)) => {
                *state = SlotState::Read(tile);
                Ok(())
            }
            None => Err(format!(
                "{tile:?} is read but not on the device: {:?}",
                self.slots
            )),
        }
    }
}
