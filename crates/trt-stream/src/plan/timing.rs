//! How long a call takes at a budget: the schedule played on clocks.
//!
//! One clock is the link's, the others are those of computing, one for each lane. Streamed tiles go through the ring in
//! execution order: a fetch starts when the link is free and its slot was released, a tile is
//! computed when it is there and the tile before it in its lane is done; a use begins when all lanes
//! are done with the one before. So what overlaps is counted once, and
//! what cannot, since the ring is short, is counted in full. [`Costs`] says what a byte costs on
//! each clock, on the link one that is stored, in computing one that is held; [`Costs::fit`] finds
//! that from calls that were timed.
//!
//! The invariant: more budget never takes longer. Times are whole picoseconds, so that no
//! rounding breaks it. Where copying and computing want the same thing (cores, memory), a
//! fetch also takes a part of its time from computing: the contention.

use super::{Lane, Layout, Use};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Measured rates of a device, in bytes a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Weights that come to the device, from the page cache.
    pub link: f64,
    /// Device memory that a kernel reads.
    pub memory: f64,
}

/// What calls of one kind cost on one device.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// Bytes a second at which streamed weights come.
    pub link: f64,
    /// Bytes a second at which kernels read device memory.
    pub memory: f64,
    /// Seconds of a call with all weights on the device.
    pub settled: f64,
    /// Seconds that computing takes where some weights stream, if they were always there in time.
    pub streaming: f64,
    /// The part of the time of a fetch that computing loses: 0 where a copy engine brings the
    /// weights, up to 1 where a fetch keeps computing from going on.
    pub contention: f64,
}

impl Costs {
    /// The first field whose number cannot be one, and the number: rates and times are above zero and
    /// finite, and contention is from 0 to 1.
    pub fn unusable(&self) -> Option<(&'static str, f64)> {
        let positive = [
            ("link", self.link),
            ("memory", self.memory),
            ("settled", self.settled),
            ("streaming", self.streaming),
        ];
        let bad = |(_, v): &(&str, f64)| !(v.is_finite() && *v > 0.0);
        let share = ("contention", self.contention);
        let contention = (!(0.0..=1.0).contains(&share.1)).then_some(share);
        positive.into_iter().find(bad).or(contention)
    }
}

/// A call that was timed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timed {
    /// The budget.
    pub budget: u64,
    /// Seconds.
    pub seconds: f64,
}

/// How long calls in a row take each, and what that is made of. The parts overlap.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The budget it is about.
    pub budget: u64,
    /// Seconds of one call.
    pub seconds: f64,
    /// Bytes of weights that come over the link.
    pub link_bytes: u64,
    /// Seconds that the link is busy.
    pub link_seconds: f64,
    /// Bytes of weights that kernels read.
    pub memory_bytes: u64,
    /// Seconds that reading them takes at the least.
    pub memory_seconds: f64,
    /// What computing takes beyond that: launches, arithmetic, other memory.
    pub launch_seconds: f64,
    /// Seconds that copying takes from computing.
    pub contention_seconds: f64,
}

impl Prediction {
    /// The seconds of one call, rounded up.
    pub fn time(&self) -> Duration {
        Duration::from_nanos((self.seconds * 1e9).ceil() as u64)
    }
}

/// Calls that are played in a row; what the first one does not share with the others is spread.
const CALLS: u64 = 8;

/// Part of a time within which a measured rate is taken to explain it.
const CLOSE: f64 = 0.005;

/// What a call does at one budget: for each use what is computed.
struct Script {
    uses: Vec<Vec<Played>>,
    lanes: usize,
    slots: usize,
}

/// A tile that is computed.
struct Played {
    /// The number of its lane.
    lane: usize,
    stored: u64,
    held: u64,
    streams: bool,
}

impl Script {
    fn new(layout: &Layout, uses: &[Use], budget: u64) -> Script {
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
                streams: !resident.contains(&id),
            }
        };
        let uses = uses.iter().map(|&u| layout.tiling().of(u));
        let uses: Vec<Vec<Played>> = uses.map(|tiles| tiles.map(played).collect()).collect();
        Script {
            lanes: uses.iter().flatten().map(|t| t.lane + 1).max().unwrap_or(0),
            uses,
            slots: split.slots as usize,
        }
    }

    fn tiles(&self) -> impl Iterator<Item = &Played> {
        self.uses.iter().flatten()
    }

    /// Bytes that kernels read.
    fn read(&self) -> u64 {
        self.tiles().map(|t| t.held).sum()
    }

    /// Bytes that come over the link.
    fn streamed(&self) -> u64 {
        let streamed = self.tiles().filter(|t| t.streams);
        streamed.map(|t| t.stored).sum()
    }

    /// Seconds of one of many calls in a row.
    fn seconds(&self, costs: &Costs) -> f64 {
        let read = self.read();
        if read == 0 {
            return costs.settled;
        }
        let per_byte = costs.computing(self.streamed()) / read as f64;
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
                let compute = picos(tile.held, per_byte);
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

impl Layout {
    /// How long each of many calls in a row takes that use these weights, at a budget.
    pub fn predict(&self, uses: &[Use], budget: u64, costs: &Costs) -> Prediction {
        let script = Script::new(self, uses, budget);
        let (link_bytes, read) = (script.streamed(), script.read());
        let memory_bytes = read + self.limits().pinned;
        let memory_seconds = memory_bytes as f64 / costs.memory;
        let computing = costs.computing(link_bytes);
        let link_seconds = link_bytes as f64 / costs.link;
        Prediction {
            budget,
            seconds: script.seconds(costs),
            link_bytes,
            link_seconds,
            memory_bytes,
            memory_seconds,
            launch_seconds: (computing - memory_seconds).max(0.0),
            contention_seconds: link_seconds * costs.contention,
        }
    }

    /// The largest budget between two at which the link is busy as long as a call computes, by these
    /// costs; none where that is so at no budget between them. Fetches overlap with most computing
    /// there, so a call that is timed shows what they take from it; with less, the link hides
    /// that, with more there are few fetches.
    pub fn knee(&self, uses: &[Use], between: RangeInclusive<u64>, costs: &Costs) -> Option<u64> {
        let bound = |budget: u64| {
            let streamed = Script::new(self, uses, budget).streamed();
            streamed > 0 && streamed as f64 / costs.link >= costs.computing(streamed)
        };
        // Less streams with more budget: the link bounds what is below the knee.
        let (mut low, mut high) = between.into_inner();
        if low > high || !bound(low) || bound(high) {
            return None;
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match bound(middle) {
                true => low = middle,
                false => high = middle,
            }
        }
        Some(low)
    }

    /// The smallest budget up to `most` at which a call takes no longer than `latency`, if any.
    pub fn budget_for(
        &self,
        uses: &[Use],
        latency: Duration,
        most: u64,
        costs: &Costs,
    ) -> Option<u64> {
        let fast = |budget: u64| self.predict(uses, budget, costs).time() <= latency;
        let (mut low, mut high) = (self.limits().floor(), most);
        if !fast(high) {
            return None;
        }
        // More budget never takes longer: `high` is fast, and all below `low` are not.
        while low < high {
            let middle = low + (high - low) / 2;
            match fast(middle) {
                true => high = middle,
                false => low = middle + 1,
            }
        }
        Some(high)
    }
}

impl Costs {
    /// Seconds of computing in a call that streams this much.
    fn computing(&self, streamed: u64) -> f64 {
        match streamed {
            0 => self.settled,
            _ => self.streaming.max(self.settled),
        }
    }

    /// What rates alone tell: memory is read at its rate, weights come at theirs, and nothing else
    /// takes time. No call is faster.
    pub fn at_best(layout: &Layout, uses: &[Use], rates: &Rates) -> Costs {
        let tiles = uses.iter().flat_map(|&u| layout.tiling().of(u));
        let bytes: u64 = tiles.map(|t| layout.tiling().tile(t).held_bytes()).sum();
        let reading = (bytes + layout.limits().pinned) as f64 / rates.memory;
        Costs {
            link: rates.link,
            memory: rates.memory,
            settled: reading,
            streaming: reading,
            contention: 0.0,
        }
    }

    /// The costs under which these calls take as long as they were timed to: `settled` is that of the
    /// call that streams nothing; the one that streams least gives `streaming`, the one that
    /// streams most the link, and what lies between the contention. What was not timed stays
    /// as [`at_best`](Costs::at_best) has it.
    pub fn fit(layout: &Layout, uses: &[Use], rates: &Rates, timed: &[Timed]) -> Costs {
        let mut costs = Costs::at_best(layout, uses, rates);
        let script = |t: &Timed| (Script::new(layout, uses, t.budget), t.seconds);
        let mut scripts: Vec<(Script, f64)> = timed.iter().map(script).collect();
        scripts.sort_by_key(|(script, _)| script.streamed());
        let still = scripts.iter().take_while(|s| s.0.streamed() == 0).count();
        let streaming = scripts.split_off(still);
        if let Some((_, seconds)) = scripts.last() {
            costs.settled = *seconds;
            costs.streaming = *seconds;
            // A call that has read everything in this time shows how fast memory is at the least.
            let bytes = layout
                .predict(uses, layout.limits().total, &costs)
                .memory_bytes;
            costs.memory = costs.memory.max(bytes as f64 / seconds);
        }
        let (Some(least), Some(most)) = (streaming.first(), streaming.last()) else {
            return costs;
        };
        let middle = streaming.get(streaming.len() / 2);
        let middle = middle.filter(|_| streaming.len() > 2);
        let floor = costs.settled.min(least.1);
        (costs.settled, costs.streaming) = (floor, floor);
        for _ in 0..3 {
            costs = costs.with_link(rates, most, middle);
            costs.streaming = solve(floor, least.1.max(floor), |streaming| {
                least.1 - least.0.seconds(&Costs { streaming, ..costs })
            });
            if scripts.is_empty() {
                // Nothing tells how much less it would be with all weights there.
                costs.settled = costs.streaming;
            }
        }
        costs
    }

    /// With the link at which the call that streams most takes as long as it did, and the contention
    /// at which the one between does too.
    fn with_link(
        self,
        rates: &Rates,
        most: &(Script, f64),
        middle: Option<&(Script, f64)>,
    ) -> Costs {
        let at = |contention: f64| {
            let byte = |cost: f64| Costs {
                link: 1.0 / cost,
                contention,
                ..self
            };
            let best = 1.0 / rates.link;
            let late = |cost: f64| most.1 - most.0.seconds(&byte(cost));
            match late(best).abs() < most.1 * CLOSE {
                // Also where computing hides all copying, and any fast link would do.
                true => byte(best),
                false => byte(solve(best / 100.0, best * 1e3, late)),
            }
        };
        match middle {
            None => at(self.contention),
            Some((script, seconds)) => at(solve(0.0, 1.0, |contention| {
                seconds - script.seconds(&at(contention))
            })),
        }
    }
}

/// Where a falling function crosses 0, or the end that is nearest to that.
fn solve(mut low: f64, mut high: f64, falling: impl Fn(f64) -> f64) -> f64 {
    if falling(low) <= 0.0 {
        return low;
    }
    for _ in 0..40 {
        let middle = match low > 0.0 && high / low > 4.0 {
            true => (low * high).sqrt(),
            false => (low + high) / 2.0,
        };
        match falling(middle) > 0.0 {
            true => low = middle,
            false => high = middle,
        }
    }
    high
}
