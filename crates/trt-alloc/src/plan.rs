//! Offsets for values, from nothing but their lifetimes.
//!
//! Values that hand their bytes on in place form a *chain*, which gets one offset. Chains are
//! placed one after another, each into the tightest gap that is free for its whole life. The
//! order decides how well that goes, and no order is best for all programs; placing is cheap,
//! so several orders are tried and the best plan is kept. Everything is deterministic.

use std::fmt;

mod place;

use place::{Chain, Conflicts, place};

/// A value of a program, by its index in the list of lifetimes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub u32);

/// How much a value needs, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Bytes.
    pub bytes: u64,
    /// The offset must be a multiple of this.
    pub align: u64,
    /// The step that writes it.
    pub first: u32,
    /// The last step that reads it; still alive during that step.
    pub last: u32,
    /// A value whose bytes this one may take over. Heeded if that one's `last` is this one's
    /// `first`, it is no smaller, and no larger value takes them over; then both share the
    /// offset and count once in that step.
    pub in_place_of: Option<Value>,
}

/// Where each value lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The offset of each value.
    pub offsets: Vec<u64>,
    /// Where the last byte ends.
    pub peak: u64,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "plan of {} values, peak {}",
            self.offsets.len(),
            self.peak
        )?;
        for (i, offset) in self.offsets.iter().enumerate() {
            writeln!(f, "  v{i} at {offset}")?;
        }
        Ok(())
    }
}

/// Most bytes alive in any step, below which no plan can stay. A value that takes over another
/// in place counts once with it in the step of the hand-over.
pub fn largest_live(lifetimes: &[Lifetime]) -> u64 {
    let heirs = heirs(lifetimes);
    // (step, change): what starts at a step counts before what ended with the previous one is
    // taken off, so ends are noted at the step after.
    let mut changes: Vec<(u64, i128)> = Vec::with_capacity(lifetimes.len() * 2);
    for (i, l) in lifetimes.iter().enumerate() {
        let end = u64::from(l.last.max(l.first)) + 1;
        changes.push((u64::from(l.first), i128::from(l.bytes)));
        // A value with an heir hands over the heir's share of its bytes one step early.
        let handed = heirs[i].map_or(0, |heir| lifetimes[heir].bytes);
        changes.push((end - 1, -i128::from(handed)));
        changes.push((end, i128::from(handed) - i128::from(l.bytes)));
    }
    changes.sort_unstable_by_key(|c| c.0);
    let (mut live, mut most) = (0i128, 0i128);
    for (i, (step, change)) in changes.iter().enumerate() {
        live += change;
        if changes.get(i + 1).is_none_or(|next| next.0 != *step) {
            most = most.max(live);
        }
    }
    u64::try_from(most).unwrap_or(u64::MAX)
}

/// Gives each value an offset.
pub fn plan(lifetimes: &[Lifetime]) -> Plan {
    let bound = largest_live(lifetimes);
    let chains = chains(lifetimes);
    let conflicts = Conflicts::new(&chains);
    let mut best: Option<(u64, Vec<usize>, Vec<u64>)> = None;
    for order in orders(&chains) {
        let (offsets, peak) = place(&chains, &conflicts, &order);
        if best.as_ref().is_none_or(|b| peak < b.0) {
            best = Some((peak, order, offsets));
        }
        if peak <= bound {
            break;
        }
    }
    let (mut peak, order, mut starts) = best.unwrap_or_default();
    if peak > bound {
        improve(&chains, &conflicts, order, bound, &mut peak, &mut starts);
    }
    let mut offsets = vec![0; lifetimes.len()];
    for (chain, start) in chains.iter().zip(starts) {
        for member in &chain.members {
            offsets[member.value] = start;
        }
    }
    Plan { offsets, peak }
}

/// For each value the one that takes over its bytes, if any.
fn heirs(lifetimes: &[Lifetime]) -> Vec<Option<usize>> {
    let mut heirs: Vec<Option<usize>> = vec![None; lifetimes.len()];
    for (i, l) in lifetimes.iter().enumerate() {
        let Some(from) = l.in_place_of.map(|v| v.0 as usize) else {
            continue;
        };
        let Some(source) = lifetimes.get(from) else {
            continue;
        };
        // Only a value that starts later can take over, so chains cannot be circles.
        let legal = source.last == l.first && source.first < l.first && source.bytes >= l.bytes;
        // The larger of two heirs saves more.
        if legal && heirs[from].is_none_or(|other| lifetimes[other].bytes < l.bytes) {
            heirs[from] = Some(i);
        }
    }
    heirs
}

fn chains(lifetimes: &[Lifetime]) -> Vec<Chain> {
    let heirs = heirs(lifetimes);
    let mut inherits = vec![false; lifetimes.len()];
    for heir in heirs.iter().flatten() {
        inherits[*heir] = true;
    }
    let roots = (0..lifetimes.len()).filter(|i| !inherits[*i]);
    roots
        .map(|root| {
            let mut values = vec![root];
            let mut at = root;
            while let Some(heir) = heirs[at] {
                values.push(heir);
                at = heir;
            }
            Chain::new(lifetimes, &values)
        })
        .collect()
}

/// Orders worth trying, the most often best one first.
fn orders(chains: &[Chain]) -> impl Iterator<Item = Vec<usize>> + '_ {
    type Key = fn(&Chain) -> (u128, u128);
    let keys: [Key; 5] = [
        |c| (down(c.bytes()), down(c.steps())),
        |c| (u128::MAX - u128::from(c.bytes()) * u128::from(c.steps()), 0),
        |c| (down(c.steps()), down(c.bytes())),
        |c| (u128::from(c.first()), down(c.bytes())),
        |c| (down(c.last()), down(c.bytes())),
    ];
    keys.into_iter().map(|key| {
        let mut order: Vec<usize> = (0..chains.len()).collect();
        order.sort_by_key(|i| (key(&chains[*i]), *i));
        order
    })
}

/// Turns an order by size into the largest first.
fn down(v: u64) -> u128 {
    u128::MAX - u128::from(v)
}

/// Moves whatever reaches the peak earlier in the order, or exchanges any two, as long as that
/// helps or at least does no harm, within a bounded effort. The exchanges lead out of orders that
/// no move to the front makes better.
fn improve(
    chains: &[Chain],
    conflicts: &Conflicts,
    mut order: Vec<usize>,
    bound: u64,
    peak: &mut u64,
    starts: &mut Vec<u64>,
) {
    const EFFORT: usize = 400_000;
    let rounds = (EFFORT / (conflicts.pairs() + chains.len() + 1)).min(500);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut current = starts.clone();
    let mut current_peak = *peak;
    for _ in 0..rounds {
        if *peak <= bound {
            return;
        }
        let reaches = |i: &usize| current[*i].saturating_add(chains[*i].bytes()) == current_peak;
        let position = order.iter().position(reaches).unwrap_or(0);
        let mut candidate = order.clone();
        match position > 0 && random.below(2) == 0 {
            true => candidate[random.below(position)..=position].rotate_right(1),
            false => candidate.swap(random.below(order.len()), random.below(order.len())),
        }
        let (offsets, reached) = place(chains, conflicts, &candidate);
        if reached <= current_peak {
            (order, current, current_peak) = (candidate, offsets, reached);
        }
        if current_peak < *peak {
            *peak = current_peak;
            starts.clone_from(&current);
        }
    }
}

/// The same numbers every time.
struct Random(u64);

impl Random {
    /// A number below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}
