//! What is resident, how the rest streams, and in which order: pure data.
//!
//! A pass over a model is a cyclic scan, for which evicting what was used last is the worst
//! policy. So a fixed set of tiles stays (see [`order`](crate::Layout)) and the rest goes
//! through a ring of equal slots, in execution order. Fetches run as far ahead as the ring
//! allows and wrap around into the next cycle, since weights do not depend on the token: the
//! link never idles between tokens. [`Cycle`](super::Cycle) is one pass of that.
//!
//! Where weights have a packed and a plain form, all of that is about the packed one. Once all
//! packed tiles are resident there is no ring any more, and what is left of the budget turns
//! [groups](super::Turning) plain.

use super::turning::{self, Group};
use super::{Demand, Gain, Limits, TileForm, TileId, Tiling, Turning, Use, WeightId, order};

/// Slots of the smallest ring: one is read while the other is filled.
pub const MIN_SLOTS: u32 = 2;

/// Places where tiles that are unpacked wait for it: one is unpacked while the next one comes over
/// the link. So no slot has a place for both, and residents are loaded through the same two.
pub const STAGES: u32 = 2;

/// Everything about a set of programs that does not depend on the budget.
#[derive(Clone, Debug)]
pub struct Layout {
    tiling: Tiling,
    order: Vec<TileId>,
    /// How often a cycle uses each tile of the order.
    uses: Vec<u32>,
    pinned: u64,
    /// Groups of weights that turn plain together, in the order in which they do.
    groups: Vec<Group>,
    /// Whether they do.
    prefer_plain: bool,
}

/// What a budget buys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The tiles that stay on the device: a prefix of the layout's fixed order, or all of it but for
    /// weights that have turned plain, and the tiles of these.
    pub resident: Vec<TileId>,
    /// Their bytes on the device.
    pub resident_bytes: u64,
    /// Of these bytes, those of packed tiles of weights that have a plain form too.
    pub packed_bytes: u64,
    /// The weights that have turned plain, in their order.
    pub turned: Vec<WeightId>,
    /// Bytes of the places where tiles wait to be unpacked; 0 if none are.
    pub staging: u64,
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

    /// The form that rows of a weight are read from.
    pub fn form(&self, tiling: &Tiling, weight: WeightId) -> TileForm {
        match (tiling.turns(weight), self.turned.binary_search(&weight)) {
            (false, _) => TileForm::Only,
            (true, Err(_)) => TileForm::Packed,
            (true, Ok(_)) => TileForm::Plain,
        }
    }

    /// The tiles of a use in row order, in the form that it reads.
    pub fn tiles(&self, tiling: &Tiling, what: Use) -> impl Iterator<Item = TileId> + use<> {
        let (streams, plain) = match self.form(tiling, what.weight) {
            TileForm::Only | TileForm::Packed => (Some(tiling.of(what)), None),
            TileForm::Plain => (None, Some(tiling.plain_of(what))),
        };
        streams
            .into_iter()
            .flatten()
            .chain(plain.into_iter().flatten())
    }
}

impl Layout {
    /// Orders the tiles for these programs; `pinned` bytes are always on the device.
    pub fn new(tiling: Tiling, lists: &[Vec<Use>], pinned: u64) -> Layout {
        Layout::turning(tiling, lists, pinned, &Turning::default())
    }

    /// The same where weights of two forms turn plain like this.
    pub fn turning(tiling: Tiling, lists: &[Vec<Use>], pinned: u64, turning: &Turning) -> Layout {
        let groups = turning::groups(&tiling, &turning.together);
        let order = order::nested(&tiling, lists, &groups);
        let from_the_end = order.groups.iter().rev();
        let groups = from_the_end.map(|i| groups[*i].clone()).collect();
        let (order, uses) = order.tiles.into_iter().unzip();
        Layout {
            tiling,
            order,
            uses,
            pinned,
            groups,
            prefer_plain: turning.prefer_plain,
        }
    }

    /// The tiles.
    pub fn tiling(&self) -> &Tiling {
        &self.tiling
    }

    /// All tiles in the order in which they become resident, but for the plain ones of weights that
    /// have two forms.
    pub fn order(&self) -> &[TileId] {
        &self.order
    }

    /// Groups of weights that turn plain together, in the order in which they do.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Whether weights of two forms turn plain where the budget has room for it.
    pub fn prefers_plain(&self) -> bool {
        self.prefer_plain
    }

    /// Whether they do from now on: neither order nor groups change with it.
    pub fn prefer_plain(&mut self, plain: bool) {
        self.prefer_plain = plain;
    }

    /// The tiles of a form in the order in which they become resident: at any budget those that
    /// are so are the first of them.
    pub fn order_of(&self, form: TileForm) -> Vec<TileId> {
        match form {
            TileForm::Only | TileForm::Packed => {
                let order = self.order.iter().copied();
                order
                    .filter(|t| self.tiling.tile(*t).form == form)
                    .collect()
            }
            TileForm::Plain => self.plain(self.groups.len()).collect(),
        }
    }

    /// The plain tiles of the first groups that turn.
    fn plain(&self, groups: usize) -> impl Iterator<Item = TileId> + '_ {
        let groups = &self.groups[..groups];
        groups.iter().flat_map(|g| g.plain_tiles(&self.tiling))
    }

    /// Bytes that are there at any budget.
    fn always(&self) -> u64 {
        self.pinned + u64::from(STAGES) * self.tiling.stage()
    }

    /// For each number of groups that turn plain, from none on, the budget from which on that many
    /// do: what the weights take then, or did with fewer groups.
    fn steps(&self) -> Vec<u64> {
        let mut bytes = self.always() + self.tiling.total();
        let mut steps = vec![bytes];
        let mut most = bytes;
        for group in self.groups.iter().filter(|_| self.prefer_plain) {
            bytes = bytes + group.plain - group.packed;
            most = most.max(bytes);
            steps.push(most);
        }
        steps
    }

    /// What bounds a budget.
    pub fn limits(&self) -> Limits {
        let steps = self.steps();
        let still = steps.first().copied().unwrap_or(0);
        let total = steps.last().copied().unwrap_or(0);
        let packed: u64 = self.groups.iter().map(|g| g.packed).sum();
        let plain: u64 = self.groups.iter().map(|g| g.plain).sum();
        Limits {
            total,
            still: different(still, total),
            plain: different(still + plain - packed, total),
            pinned: self.pinned,
            staging: u64::from(STAGES) * self.tiling.stage(),
            slots: MIN_SLOTS,
            slot_bytes: self.tiling.slot().total(),
        }
    }

    /// What memory gains, for [`share`](crate::share).
    pub fn demand(&self, weight: f64) -> Demand {
        let limits = self.limits();
        let gain = |(tile, uses): (&TileId, &u32)| Gain {
            held: self.tiling.tile(*tile).held_bytes(),
            stored: self.tiling.tile(*tile).stored_bytes(),
            uses: *uses,
        };
        // What turns plain spares the link nothing.
        let turn = |group: &Group| Gain {
            held: group.plain.saturating_sub(group.packed),
            stored: 0,
            uses: 0,
        };
        let turning = self.groups.iter().filter(|_| self.prefer_plain);
        let resident = self.order.iter().zip(&self.uses).map(gain);
        Demand {
            floor: limits.floor(),
            total: limits.total,
            weight,
            tiles: resident.chain(turning.map(turn)).collect(),
        }
    }

    /// What a budget buys; one below the floor buys the floor.
    pub fn split(&self, budget: u64) -> Split {
        let limits = self.limits();
        let budget = budget.max(limits.floor());
        if budget >= limits.still() {
            let steps = self.steps();
            // The first step is no larger than the budget.
            let turned = steps.partition_point(|bytes| *bytes <= budget) - 1;
            return self.settled(turned, &limits);
        }
        let slot_bytes = limits.slot_bytes;
        let (slots, capacity) = ring(budget - limits.floor(), slot_bytes);
        let mut resident_bytes = 0;
        let mut count = 0;
        for &tile in &self.order {
            let bytes = self.tiling.tile(tile).held_bytes();
            if resident_bytes + bytes > capacity {
                break;
            }
            resident_bytes += bytes;
            count += 1;
        }
        let split = Split {
            resident: self.order[..count].to_vec(),
            resident_bytes,
            packed_bytes: 0,
            turned: Vec::new(),
            staging: limits.staging,
            slots,
            slot_bytes,
        };
        self.counted(split)
    }

    /// Everything resident, and so many groups plain.
    fn settled(&self, turned: usize, limits: &Limits) -> Split {
        let weights = self.groups[..turned].iter().flat_map(|g| &g.weights);
        let mut weights: Vec<WeightId> = weights.copied().collect();
        weights.sort_unstable();
        let mut resident = self.order.clone();
        let turned_too = |t: &TileId| weights.binary_search(&self.tiling.tile(*t).weight).is_ok();
        resident.retain(|t| !turned_too(t));
        resident.extend(self.plain(turned));
        let bytes = resident.iter().map(|t| self.tiling.tile(*t).held_bytes());
        let split = Split {
            resident_bytes: bytes.sum(),
            resident,
            packed_bytes: 0,
            turned: weights,
            staging: limits.staging,
            slots: 0,
            slot_bytes: limits.slot_bytes,
        };
        self.counted(split)
    }

    /// A split with what of it is packed.
    fn counted(&self, split: Split) -> Split {
        let tiles = split.resident.iter().map(|t| self.tiling.tile(*t));
        let packed = tiles.filter(|t| t.form == TileForm::Packed);
        Split {
            packed_bytes: packed.map(|t| t.held_bytes()).sum(),
            ..split
        }
    }
}

/// A bound that is the total too is told by 0.
fn different(bytes: u64, total: u64) -> u64 {
    match bytes == total {
        true => 0,
        false => bytes,
    }
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
