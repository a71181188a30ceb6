//! Finding what calls cost from how long they took.

use super::play::Script;
use super::{Costs, Rates, Timed};
use crate::plan::{Layout, Use};

/// Part of a time within which a measured rate is taken to explain it.
const CLOSE: f64 = 0.005;

impl Costs {
    /// What rates alone tell: memory is read at its rate, weights come at theirs, and nothing else
    /// takes time. No call is faster.
    pub fn at_best(layout: &Layout, uses: &[Use], rates: &Rates) -> Costs {
        let limits = layout.limits();
        let reading = |budget| {
            let bytes = Script::new(layout, uses, budget).read();
            (bytes + limits.pinned) as f64 / rates.memory
        };
        let settled = reading(limits.total);
        Costs {
            link: rates.link,
            memory: rates.memory,
            settled,
            packed: match limits.still() == limits.total {
                true => 0.0,
                false => reading(limits.still()),
            },
            streaming: settled,
            contention: 0.0,
        }
    }

    /// The costs under which these calls take as long as they were timed to: those that stream nothing
    /// give `settled` and `packed`; the one that streams least gives `streaming`, the one that
    /// streams most the link, and what lies between the contention. What was not timed stays
    /// as [`at_best`](Costs::at_best) has it.
    pub fn fit(layout: &Layout, uses: &[Use], rates: &Rates, timed: &[Timed]) -> Costs {
        let mut costs = Costs::at_best(layout, uses, rates);
        let script = |t: &Timed| (Script::new(layout, uses, t.budget), t.seconds);
        let mut scripts: Vec<(Script, f64)> = timed.iter().map(script).collect();
        scripts.sort_by_key(|(script, _)| script.streamed());
        let still = scripts.iter().take_while(|s| s.0.streamed() == 0).count();
        let streaming = scripts.split_off(still);
        costs.packed = 0.0;
        if !scripts.is_empty() {
            (costs.settled, costs.packed) = settled(&scripts);
            costs.streaming = costs.settled;
            // A call that has read everything in this time shows how fast memory is at the least.
            for (script, seconds) in &scripts {
                let bytes = script.read() + layout.limits().pinned;
                costs.memory = costs.memory.max(bytes as f64 / seconds);
            }
        }
        let (Some(least), Some(most)) = (streaming.first(), streaming.last()) else {
            return costs;
        };
        let middle = streaming.get(streaming.len() / 2);
        let middle = middle.filter(|_| streaming.len() > 2);
        let floor = costs.settled.min(least.1);
        (costs.settled, costs.streaming) = (floor, floor);
        costs.packed = costs.packed.min(least.1);
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

/// Seconds of a call with everything plain, and of one with everything packed or 0 if none of these
/// calls shows it: they stream nothing, and there is one at least.
fn settled(calls: &[(Script, f64)]) -> (f64, f64) {
    let by_part = |a: &&(Script, f64), b: &&(Script, f64)| {
        let part = |call: &(Script, f64)| call.0.packed_part();
        part(a).total_cmp(&part(b))
    };
    let least = calls.iter().rev().min_by(by_part);
    let most = calls.iter().max_by(by_part);
    let (Some((plain, at_least)), Some((packed, at_most))) = (least, most) else {
        return (0.0, 0.0);
    };
    let (low, high) = (plain.packed_part(), packed.packed_part());
    if low == high {
        // They tell nothing of what the other form takes.
        return (*at_least, 0.0);
    }
    let more = (at_most - at_least) / (high - low);
    let settled = at_least - more * low;
    match settled > 0.0 && settled + more > 0.0 {
        true => (settled, settled + more),
        false => (*at_least, *at_most),
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
