//! What is resident, how the rest streams, and in which order: pure data.
//!
//! A pass over a model is a cyclic scan, for which evicting what was used last is the worst
//! policy. So a fixed set of tiles stays (see [`order`](crate::Layout)) and the rest goes
//! through a ring of equal slots, in execution order. Fetches run as far ahead as the ring
//! allows and wrap around into the next cycle, since weights do not depend on the token: the
//! link never idles between tokens. [`Cycle`](super::Cycle) is one pass of that.

use super::{Demand, Gain, Limits, TileId, Tiling, Use, order};

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
}

/// What a budget buys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The tiles that stay on the device: a prefix of the layout's fixed order.
    pub resident: Vec<TileId>,
    /// Their bytes on the device.
    pub resident_bytes: u64,
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
}

impl Layout {
    /// Orders the tiles for these programs; `pinned` bytes are always on the device.
    pub fn new(tiling: Tiling, lists: &[Vec<Use>], pinned: u64) -> Layout {
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
        let staging = u64::from(STAGES) * self.tiling.stage();
        Limits {
            total: self.pinned + staging + self.tiling.total(),
            pinned: self.pinned,
            staging,
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
        let (staging, slot_bytes) = (limits.staging, limits.slot_bytes);
        if budget >= limits.total || limits.floor() == limits.total {
            return Split {
                resident: self.order.clone(),
                resident_bytes: self.tiling.total(),
                staging,
                slots: 0,
                slot_bytes,
            };
        }
        let spare = budget.saturating_sub(limits.floor());
        let (slots, capacity) = ring(spare, slot_bytes);
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
        Split {
            resident: self.order[..count].to_vec(),
            resident_bytes,
            staging,
            slots,
            slot_bytes,
        }
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
