//! How long a call takes at a budget: the schedule played on clocks.
//!
//! One clock is the link's, the others are those of computing, one for each lane. Streamed tiles go through the ring in
//! execution order: a fetch starts when the link is free and its slot was released, a tile is
//! computed when it is there and the tile before it in its lane is done; a use begins when all lanes
//! are done with the one before. So what overlaps is counted once, and
//! what cannot, since the ring is short, is counted in full. [`Costs`] says what a byte costs on
//! each clock, on the link one that is stored, in computing one that is held, or would be if it were
//! plain; [`Costs::fit`] finds that from calls that were timed.
//!
//! The invariant: more budget never takes longer. Times are whole picoseconds, so that no
//! rounding breaks it. Where copying and computing want the same thing (cores, memory), a
//! fetch also takes a part of its time from computing: the contention.

mod fit;
mod play;

use super::{Layout, Use};
use play::Script;
use serde::{Deserialize, Serialize};
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
    /// Seconds of a call with all weights on the device, plain where they have such a form.
    pub settled: f64,
    /// Seconds of the same call with all weights packed that have a packed form; 0 where that is not
    /// known: then as `settled`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub packed: f64,
    /// Seconds that computing takes where some weights stream, if they were always there in time.
    pub streaming: f64,
    /// The part of the time of a fetch that computing loses: 0 where a copy engine brings the
    /// weights, up to 1 where a fetch keeps computing from going on.
    pub contention: f64,
}

fn is_zero(seconds: &f64) -> bool {
    *seconds == 0.0
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
        let packed = ("packed", self.packed);
        let packed = (packed.1 != 0.0 && bad(&packed)).then_some(packed);
        positive.into_iter().find(bad).or(contention).or(packed)
    }

    /// Whether calls are faster that read weights plain rather than packed; nothing if it was not
    /// measured.
    pub fn plain_is_faster(&self) -> Option<bool> {
        match self.packed {
            0.0 => None,
            packed => Some(self.settled < packed),
        }
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

impl Layout {
    /// How long each of many calls in a row takes that use these weights, at a budget.
    pub fn predict(&self, uses: &[Use], budget: u64, costs: &Costs) -> Prediction {
        let script = Script::new(self, uses, budget);
        let (link_bytes, read) = (script.streamed(), script.read());
        let memory_bytes = read + self.limits().pinned;
        let memory_seconds = memory_bytes as f64 / costs.memory;
        let computing = script.computing(costs);
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
            let script = Script::new(self, uses, budget);
            let streamed = script.streamed();
            streamed > 0 && streamed as f64 / costs.link >= script.computing(costs)
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
