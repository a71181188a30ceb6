//! How a product of few rows by packed ones is cut. None of it changes a bit.
//!
//! A *team* of warps, one for each stretch of a row, takes the rows of a block of the weight's units. Warps of one segment are a
//! chain: each goes on with the sums of the one before it, a turn later.

use super::super::blocks::room;
use super::super::left;
use crate::ptx::emitted::Target;
use crate::ptx::packed::Layout;
use crate::{Matmul, SumOrder};
use trt_pack::TABLE_BYTES;

/// Lanes of a warp.
pub(super) const WARP: usize = 32;
/// Rounds of a stretch.
pub(super) const ROUNDS: usize = 4;
/// The most stretches, and the warps that teams make up.
const LONGEST: usize = 16;
const WARPS: usize = 8;
/// Bytes of words for which a warp has room: what blocks of normal values take, and the most. With those, a multiprocessor of
/// 228 KiB holds three blocks of 8 warps beside a left operand of 8 KiB.
const LEAST: usize = 5632;
const MOST: usize = 6016;
/// Bytes of arrays of those who compute a left operand.
const OTHERS: usize = 2048;

/// A function of whole sizes and of the target, never of a range.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct StreamPlan {
    pub layout: Layout,
    pub order: SumOrder,
    /// Rows of `a`.
    pub m: usize,
    /// Rows of `b` that a warp takes at once.
    pub rows: usize,
    pub teams: usize,
    /// Bytes of a warp's words, and zeros behind them.
    pub room: usize,
    /// Bytes of a computed left operand.
    pub left: usize,
    /// Whether a warp keeps what it meets in registers.
    pub held: bool,
}

impl StreamPlan {
    /// None where rows are shared by fewer lanes than a warp has, not all lanes have a piece in each round, or memory
    /// that a block shares has no room.
    pub fn new(kernel: &Matmul, order: SumOrder, m: usize, target: Target) -> Option<StreamPlan> {
        let layout = Layout::of(kernel)?;
        let stretches = layout.geometry.stretches();
        let even = order.lanes == WARP && order.pieces.is_multiple_of(WARP);
        if !even || stretches > LONGEST || !kernel.batch.is(1) {
            return None;
        }
        let most = WARPS / stretches;
        let plan = |teams: usize| StreamPlan {
            layout,
            order,
            m,
            rows: if m <= 2 { 1 } else { 2 },
            teams,
            room: MOST,
            left: left::bytes(kernel).next_multiple_of(128),
            held: m == 1 && stretches <= WARPS && kernel.left_dtype().size() == 2,
        };
        let room = room(target);
        let mut teams = most.max(1).next_power_of_two();
        if teams > most.max(1) {
            teams /= 2;
        }
        loop {
            let whole = plan(teams);
            let others = whole.shared() - whole.warps() * MOST + OTHERS;
            let each = room.saturating_sub(others) / whole.warps() / 128 * 128;
            match (each >= LEAST, teams) {
                (true, _) => {
                    let room = each.min(MOST);
                    return Some(StreamPlan { room, ..whole });
                }
                (false, 1) => return None,
                (false, _) => teams /= 2,
            }
        }
    }

    /// Warps of a team.
    pub fn team(&self) -> usize {
        self.layout.geometry.stretches()
    }

    pub fn warps(&self) -> usize {
        self.teams * self.team()
    }

    pub fn threads(&self) -> usize {
        WARP * self.warps()
    }

    /// Rows of `b` of a team.
    pub fn team_rows(&self) -> usize {
        self.layout.geometry.block_rows()
    }

    /// Rows of `b` of a block.
    pub fn block_rows(&self) -> usize {
        self.teams * self.team_rows()
    }

    /// Warps that go on with each other's sums: those of a segment.
    pub fn chain(&self) -> usize {
        self.team() / self.order.segments
    }

    /// How many times a warp takes rows.
    pub fn batches(&self) -> usize {
        self.team_rows() / self.rows
    }

    /// Sums that a lane has at once.
    pub fn outputs(&self) -> usize {
        self.m * self.rows
    }

    /// Bytes of the sums of all lanes of all warps.
    pub fn parts(&self) -> usize {
        self.warps() * self.outputs() * WARP * 4
    }

    /// Where parts of sums begin in dynamic memory: those of this turn and of the one before.
    pub fn parts_at(&self) -> usize {
        self.left + self.warps() * self.room
    }

    /// Where the code's table is there, and where sums are: in dynamic memory, which parts of a chain have in common.
    pub fn table_at(&self) -> usize {
        self.parts_at() + 2 * self.parts()
    }

    pub fn sums_at(&self) -> usize {
        self.table_at() + TABLE_BYTES
    }

    /// Bytes of dynamic memory.
    pub fn shared(&self) -> usize {
        self.sums_at() + self.sums()
    }

    /// Bytes of the block's sums.
    fn sums(&self) -> usize {
        4 * self.m * self.block_rows()
    }

    /// Blocks that a multiprocessor should hold: as many as registers allow without spills.
    pub fn crowd(&self) -> u32 {
        let ragged = self.layout.last() < self.layout.geometry.stretch();
        let threads = match self.m {
            1 if !self.held => 896,
            1 => 768,
            2 if !ragged => 768,
            2 => 512,
            3..=4 if !ragged => 512,
            _ => 256,
        };
        (threads / self.threads()).clamp(1, 16) as u32
    }
}
