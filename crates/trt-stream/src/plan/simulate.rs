//! An independent check of a schedule: runs its steps on a model of the device.
//!
//! It shares no code with the scheduler and believes none of its numbers. Over several cycles,
//! with the wrap-around, it proves that every launch finds its rows on the device, that every
//! row of every use is launched exactly once and in order, that a slot is filled only after
//! its release, and that bytes on the device never exceed the budget.

use super::{Cycle, Split, Step, TileId, Tiling};
use crate::files::TensorId;
use std::collections::HashSet;

/// What a simulation counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Bytes fetched in the last cycle.
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
enum State {
    Free,
    /// Filled by the fetch of this number.
    Filled(TileId, u64),
    Read(TileId),
}

struct Machine<'a> {
    tiling: &'a Tiling,
    resident: HashSet<TileId>,
    slots: Vec<State>,
    slot_bytes: u64,
    streamed: u64,
    fetches: u64,
    launches: usize,
}

/// Runs `cycles` cycles of a program whose uses are `uses`.
pub fn simulate(
    tiling: &Tiling,
    uses: &[TensorId],
    pinned: u64,
    split: &Split,
    cycle: &Cycle,
    budget: u64,
    cycles: usize,
) -> Result<Account, Violation> {
    let at = |cycle, step| move |what| Violation { cycle, step, what };
    let resident: HashSet<TileId> = split.resident.iter().copied().collect();
    let bytes: u64 = resident.iter().map(|&t| tiling.tile(t).bytes()).sum();
    let ring = split.slot_bytes * u64::from(split.slots);
    let peak = pinned + bytes + ring;
    if peak > budget || bytes != split.resident_bytes {
        return Err(at(0, 0)(format!(
            "{pinned} pinned + {bytes} resident ({} stated) + {ring} ring bytes for a budget of {budget}",
            split.resident_bytes
        )));
    }
    let mut machine = Machine {
        tiling,
        resident,
        slots: vec![State::Free; split.slots as usize],
        slot_bytes: split.slot_bytes,
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
        let mut expected = rows_in_order(tiling, uses);
        for (number, step) in cycle.steps.iter().enumerate() {
            machine
                .step(step, moved, &mut expected)
                .map_err(at(turn, number))?;
        }
        if let Some((index, rows)) = expected.next() {
            let what = format!("use {index} was never launched from row {}", rows.start);
            return Err(at(turn, cycle.steps.len())(what));
        }
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

/// Every use with the rows of each of its tiles, in order.
fn rows_in_order<'a>(tiling: &'a Tiling, uses: &'a [TensorId]) -> Expected<'a> {
    let all = uses.iter().enumerate().flat_map(move |(index, &weight)| {
        let tiles: Vec<_> = tiling.of(weight).collect();
        tiles
            .into_iter()
            .map(move |t| (index, tiling.tile(t).rows.clone()))
    });
    let boxed: Box<dyn Iterator<Item = _>> = Box::new(all);
    boxed.peekable()
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
                    Some(State::Read(_)) => {
                        self.slots[slot] = State::Free;
                        Ok(())
                    }
                    other => Err(format!("slot {slot} is released while {other:?}")),
                }
            }
            Step::Launch {
                use_index,
                rows,
                tiles,
                arrivals: _,
            } => {
                self.launches += 1;
                let mut row = rows.start;
                for tile in tiles.clone().map(TileId) {
                    self.read(tile)?;
                    let next = expected.next().ok_or("a launch after the last use")?;
                    if next.0 != use_index.0 as usize || next.1.start != row {
                        return Err(format!("{step} where {next:?} is due"));
                    }
                    if self.tiling.tile(tile).rows != next.1 {
                        return Err(format!("{step} on other rows than {next:?}"));
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
        let bytes = self.tiling.tile(tile).bytes();
        if bytes > self.slot_bytes {
            return Err(format!(
                "{tile:?} has {bytes} bytes, a slot {}",
                self.slot_bytes
            ));
        }
        if self.resident.contains(&tile) {
            return Err(format!("{tile:?} is fetched though resident"));
        }
        match self.slots.get_mut(slot as usize) {
            Some(state @ State::Free) => {
                *state = State::Filled(tile, self.fetches);
                self.fetches += 1;
                self.streamed += bytes;
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
                State::Filled(t, number) if t == tile => Some((number, state)),
                _ => None,
            })
            .min_by_key(|(number, _)| *number);
        match filled {
            Some((_, state)) => {
                *state = State::Read(tile);
                Ok(())
            }
            None => Err(format!(
                "{tile:?} is read but not on the device: {:?}",
                self.slots
            )),
        }
    }
}
