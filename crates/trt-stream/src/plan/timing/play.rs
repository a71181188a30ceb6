//! A call at one budget, played on clocks.

use super::Costs;
use crate::plan::{Lane, Layout, TileForm, Use};
use std::collections::HashSet;

/// Calls that are played in a row; what the first one does not share with the others is spread.
const CALLS: u64 = 8;

/// What a call does at one budget: for each use what is computed.
pub(super) struct Script {
    uses: Vec<Vec<Played>>,
    lanes: usize,
    slots: usize,
    /// Whether weights turn plain because that is faster: then no packed call is taken to be.
    prefer_plain: bool,
}

/// A tile that is computed.
struct Played {
    /// The number of its lane.
    lane: usize,
    stored: u64,
    held: u64,
    /// The bytes by which computing on it is measured.
    measure: u64,
    /// Whether it is the packed one of two forms.
    packed: bool,
    streams: bool,
}

/// Seconds that computing takes for each byte of a tile.
struct Rate {
    packed: f64,
    other: f64,
}

impl Script {
    pub fn new(layout: &Layout, uses: &[Use], budget: u64) -> Script {
        let split = layout.split(budget);
        let resident: HashSet<_> = split.resident.iter().collect();
        let played = |id| {
            let tile = layout.tiling().tile(id);
            let lane = match Lane::FIRST {
                Lane::Device(number) => usize::from(number),
            };
            Played {
                lane,
                stored: tile.stored_bytes(),
                held: tile.held_bytes(),
                measure: tile.measure as u64,
                packed: tile.form == TileForm::Packed,
                streams: !resident.contains(&id),
            }
        };
        let uses = uses.iter().map(|&u| split.tiles(layout.tiling(), u));
        let uses: Vec<Vec<Played>> = uses.map(|tiles| tiles.map(played).collect()).collect();
        Script {
            lanes: uses.iter().flatten().map(|t| t.lane + 1).max().unwrap_or(0),
            uses,
            slots: split.slots as usize,
            prefer_plain: layout.prefers_plain(),
        }
    }

    fn tiles(&self) -> impl Iterator<Item = &Played> {
        self.uses.iter().flatten()
    }

    /// Bytes that kernels read.
    pub fn read(&self) -> u64 {
        self.tiles().map(|t| t.held).sum()
    }

    /// Bytes that come over the link.
    pub fn streamed(&self) -> u64 {
        let streamed = self.tiles().filter(|t| t.streams);
        streamed.map(|t| t.stored).sum()
    }

    /// By how many bytes computing is measured, the same at every budget, and how many of these are of
    /// packed tiles.
    fn measured(&self) -> (u64, u64) {
        let packed = self.tiles().filter(|t| t.packed);
        let packed = packed.map(|t| t.measure).sum();
        (self.tiles().map(|t| t.measure).sum(), packed)
    }

    /// The part of computing that reads packed tiles.
    pub fn packed_part(&self) -> f64 {
        match self.measured() {
            (0, _) => 0.0,
            (all, packed) => packed as f64 / all as f64,
        }
    }

    /// Seconds of computing, if everything were packed or read as these tiles are, and if everything
    /// else were so.
    fn totals(&self, costs: &Costs) -> Rate {
        let packed = match (costs.packed, self.prefer_plain) {
            (0.0, _) => costs.settled,
            (packed, true) => packed.max(costs.settled),
            (packed, false) => packed,
        };
        let (packed, other) = match self.streamed() {
            0 => (packed, costs.settled),
            _ => {
                let all = costs.streaming.max(costs.settled).max(packed);
                (all, all)
            }
        };
        Rate { packed, other }
    }

    /// Seconds of computing in a call.
    pub fn computing(&self, costs: &Costs) -> f64 {
        let (totals, part) = (self.totals(costs), self.packed_part());
        totals.packed * part + totals.other * (1.0 - part)
    }

    /// Seconds of one of many calls in a row.
    pub fn seconds(&self, costs: &Costs) -> f64 {
        let (all, _) = self.measured();
        if all == 0 {
            return costs.settled;
        }
        let totals = self.totals(costs);
        let per_byte = Rate {
            packed: totals.packed / all as f64,
            other: totals.other / all as f64,
        };
        let lost = costs.contention / costs.link;
        // When the link is free again, and each lane, and when each slot was released last.
        let mut link = 0u64;
        let mut lanes = vec![0u64; self.lanes];
        let mut released = vec![0u64; self.slots];
        let mut slot = 0;
        let last = |lanes: &[u64]| lanes.iter().copied().max().unwrap_or(0);
        for tiles in (0..CALLS).flat_map(|_| &self.uses) {
            let begin = last(&lanes);
            lanes.fill(begin);
            for tile in tiles {
                let clock = &mut lanes[tile.lane];
                let compute = match tile.packed {
                    true => picos(tile.measure, per_byte.packed),
                    false => picos(tile.measure, per_byte.other),
                };
                if !tile.streams {
                    *clock = clock.saturating_add(compute);
                    continue;
                }
                let fetch = picos(tile.stored, 1.0 / costs.link);
                link = link.max(released[slot]).saturating_add(fetch);
                let there = (*clock).max(link).saturating_add(compute);
                *clock = there.saturating_add(picos(tile.stored, lost));
                released[slot] = *clock;
                slot = (slot + 1) % self.slots;
            }
        }
        last(&lanes) as f64 / CALLS as f64 * 1e-12
    }
}

fn picos(bytes: u64, seconds_each: f64) -> u64 {
    (bytes as f64 * seconds_each * 1e12) as u64
}
