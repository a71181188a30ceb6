//! Placing chains of values one after another.

use super::Lifetime;

/// Values that hand their bytes on in place, in the order of their lives: one offset for all.
pub(super) struct Chain {
    pub(super) members: Vec<ChainMember>,
    align: u64,
}

/// A value as a member of a chain.
pub(super) struct ChainMember {
    pub(super) value: usize,
    bytes: u64,
    first: u32,
    last: u32,
}

impl Chain {
    pub(super) fn new(lifetimes: &[Lifetime], values: &[usize]) -> Chain {
        let member = |&value: &usize| {
            let l = &lifetimes[value];
            ChainMember {
                value,
                bytes: l.bytes,
                first: l.first,
                last: l.last.max(l.first),
            }
        };
        let aligns = values.iter().map(|v| lifetimes[*v].align.max(1));
        Chain {
            members: values.iter().map(member).collect(),
            align: aligns.fold(1, common_multiple),
        }
    }

    /// Bytes of the largest member, which is the first.
    pub(super) fn bytes(&self) -> u64 {
        self.members.first().map_or(0, |m| m.bytes)
    }

    pub(super) fn first(&self) -> u64 {
        self.members.first().map_or(0, |m| u64::from(m.first))
    }

    pub(super) fn last(&self) -> u64 {
        self.members.last().map_or(0, |m| u64::from(m.last))
    }

    /// Steps from birth to death.
    pub(super) fn steps(&self) -> u64 {
        self.last() - self.first() + 1
    }
}

/// The smallest multiple of both, which for the usual powers of two is the larger one.
fn common_multiple(a: u64, b: u64) -> u64 {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    (a / x).saturating_mul(b)
}

/// Which members of different chains are alive at the same time.
pub(super) struct Conflicts {
    /// For each chain: (bytes of its own member, the other chain, bytes of that one's member).
    of: Vec<Vec<Conflict>>,
    pairs: usize,
}

#[derive(Clone, Copy)]
struct Conflict {
    own: u64,
    other: usize,
    others: u64,
}

impl Conflicts {
    pub(super) fn new(chains: &[Chain]) -> Conflicts {
        let mut members: Vec<(usize, &ChainMember)> = Vec::new();
        for (i, chain) in chains.iter().enumerate() {
            // A value of no bytes lies anywhere.
            members.extend(chain.members.iter().filter(|m| m.bytes > 0).map(|m| (i, m)));
        }
        members.sort_by_key(|(_, m)| m.first);
        let mut of = vec![Vec::new(); chains.len()];
        let mut pairs = 0;
        let mut alive: Vec<(usize, &ChainMember)> = Vec::new();
        for (chain, member) in members {
            alive.retain(|(_, m)| m.last >= member.first);
            for (other, m) in alive.iter().filter(|(other, _)| *other != chain) {
                let (own, others) = (member.bytes, m.bytes);
                of[chain].push(Conflict {
                    own,
                    other: *other,
                    others,
                });
                of[*other].push(Conflict {
                    own: others,
                    other: chain,
                    others: own,
                });
                pairs += 1;
            }
            alive.push((chain, member));
        }
        Conflicts { of, pairs }
    }

    pub(super) fn pairs(&self) -> usize {
        self.pairs
    }
}

/// Places chains in the given order; returns each chain's offset and the peak.
pub(super) fn place(chains: &[Chain], conflicts: &Conflicts, order: &[usize]) -> (Vec<u64>, u64) {
    let mut offsets: Vec<Option<u64>> = vec![None; chains.len()];
    let mut taken: Vec<(u64, u64)> = Vec::new();
    let mut peak = 0;
    for &i in order {
        taken.clear();
        for c in &conflicts.of[i] {
            if let Some(at) = offsets[c.other] {
                // Offsets strictly between these would make the two members overlap.
                taken.push((at.saturating_sub(c.own - 1), at.saturating_add(c.others)));
            }
        }
        taken.sort_unstable();
        let at = tightest(&taken, chains[i].align);
        offsets[i] = Some(at);
        peak = peak.max(at.saturating_add(chains[i].bytes()));
    }
    (
        offsets.into_iter().map(Option::unwrap_or_default).collect(),
        peak,
    )
}

/// The first offset in the smallest run of allowed offsets, where `taken` are half-open ranges
/// of offsets that are not allowed, sorted by start. The run after the last is endless.
fn tightest(taken: &[(u64, u64)], align: u64) -> u64 {
    let up = |at: u64| at.checked_next_multiple_of(align).unwrap_or(at);
    let mut free = 0;
    let mut best: Option<(u64, u64)> = None;
    for &(start, end) in taken {
        let at = up(free);
        if at < start {
            let slack = start - at;
            if best.is_none_or(|(least, _)| slack < least) {
                best = Some((slack, at));
            }
        }
        free = free.max(end);
    }
    best.map_or(up(free), |(_, at)| at)
}
