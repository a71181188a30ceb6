//! How a product with a right operand in blocks is cut: who takes which rows and which part of each.
//! None of it changes a bit.
//!
//! A *segment* of a row is 64 values for each lane, and belongs to one warp (or, in short rows, a part of
//! one, a *team*): it keeps what they meet in registers and walks over rows. So a block has a warp for
//! each segment, several times over, and as many rows as make about one block for each multiprocessor of
//! a large device: what a block does once is a good part of the time of a small product.

use super::super::left;
use crate::ptx::emitted::Target;
use crate::sum_order::blocks::{PIECE, Sums};
use crate::{BlockType, Matmul, SumOrder};

/// Multiprocessors of a large device.
const PROCESSORS: usize = 132;
/// The most warps of a block.
const WARPS: usize = 16;
/// The same where threads have many sums, and so need registers.
const MANY_SUMS: usize = 12;
/// Rows that a block has a multiple of: outputs are stored in vectors.
const VECTOR: usize = 8;
/// The most bytes of sums of segments.
const SUMS: usize = 16 << 10;
/// Bytes of a barrier.
pub(super) const BARRIER: usize = 8;
/// Bytes of a copy are a multiple of this.
pub(super) const UNIT: usize = 16;

/// How weights come into shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Fill {
    /// By the copy engine, a row's segment at a time.
    Bulk,
    /// By asynchronous copies of 16 bytes.
    Async,
    /// Through registers, 16 bytes at a time.
    Words,
    /// Byte by byte: the rows of a weight are no multiple of 16 bytes together, so wider copies would
    /// reach beyond its end.
    Bytes,
}

/// A function of whole sizes and of the target, never of a range.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct RingPlan {
    pub block: BlockType,
    pub order: SumOrder,
    /// Rows of `a`.
    pub m: usize,
    /// Rows of `b` that a team takes at once.
    pub rows: usize,
    /// Warps with the same segment.
    pub across: usize,
    /// The most warps.
    most_warps: usize,
    /// Rows of `b` of a block.
    pub block_rows: usize,
    /// Stages of a warp's ring.
    pub stages: usize,
    pub fill: Fill,
    /// Bytes of a row.
    pub row_bytes: usize,
    /// Segments of a row of `a` that are brought into order at once. With several rows of `a`, so many
    /// are gone through at once.
    pub brought: usize,
    /// Rows of `a` that rows of `b` meet at once.
    pub at_once: usize,
    /// Bytes of a computed left operand.
    pub left: usize,
    /// Whether what one row of `a` is has a place of its own in shared memory, not that of later stages.
    pub apart: bool,
}

impl RingPlan {
    /// For up to `m` rows of `a`, in a launch of so many weights, or of this product alone.
    pub fn new(
        kernel: &Matmul,
        (block, order, m): (BlockType, SumOrder, usize),
        target: Target,
        among: usize,
    ) -> RingPlan {
        // Also where there is nothing to do.
        let n = kernel.n.constant_size().unwrap_or(1).max(1);
        let row_bytes = kernel
            .right()
            .row_bytes(kernel.k.constant_size().unwrap_or(0));
        let row_bytes = row_bytes.unwrap_or(0);
        let fill = match (n * row_bytes).is_multiple_of(UNIT) {
            false => Fill::Bytes,
            true if target < Target::Sm80 => Fill::Words,
            true if target < Target::Sm90 => Fill::Async,
            true => Fill::Bulk,
        };
        let most = (SUMS / (4 * order.segments * m) / VECTOR).max(1) * VECTOR;
        // Rows like these that have as many weights as the launch.
        let k = kernel.k.constant_size().unwrap_or(1).max(1);
        let block_rows = n
            .max(among / k)
            .div_ceil(PROCESSORS)
            .next_multiple_of(VECTOR)
            .min(most);
        let mut plan = RingPlan {
            block,
            order,
            m,
            rows: 1,
            across: 1,
            most_warps: if m > 2 { MANY_SUMS } else { WARPS },
            block_rows,
            stages: 2,
            fill,
            row_bytes,
            brought: order.segments,
            // Its many scales and minima leave registers for no more.
            at_once: if block == BlockType::Q2K { m.min(4) } else { m },
            left: left::bytes(kernel).next_multiple_of(128),
            apart: false,
        };
        plan.spread();
        // Rows that each team gets, and sums that a thread has registers for.
        let deep = block_rows / (plan.across * plan.teams());
        let registers = 32 / (plan.at_once * Sums::of(block).groups);
        plan.rows = match (m, deep) {
            (..=1, 24..) => 4,
            (..=1, 2..) => 2,
            (..=1, _) => 1,
            (_, _) => [4, 2, 1]
                .into_iter()
                .find(|r| *r <= registers.min(deep))
                .unwrap_or(1),
        };
        plan.spread();
        let room = room(target);
        while plan.shared() + plan.sums() > room && plan.shrink() {
            plan.spread();
        }
        let apart = RingPlan {
            apart: true,
            ..plan
        };
        match m == 1 && apart.brought == order.segments && apart.shared() + apart.sums() <= room {
            true => apart,
            false => plan,
        }
    }

    /// Gives warps rows.
    fn spread(&mut self) {
        let each = self.block_rows.div_ceil(self.warp_rows());
        self.across = (self.most_warps / self.abreast()).max(1).min(each);
    }

    /// Takes less shared memory, if that can be.
    fn shrink(&mut self) -> bool {
        let after_first = (self.stages - 1) * self.stage();
        match () {
            () if self.m > 1 && self.brought > 1 => self.brought = self.brought.div_ceil(2),
            () if self.m == 1 && self.meets() > after_first && self.brought > 1 => {
                self.brought = self.brought.div_ceil(2);
            }
            () if self.rows > 1 => self.rows /= 2,
            () if self.at_once > 4 => self.at_once = self.at_once.div_ceil(2),
            () if self.most_warps > 4 => self.most_warps /= 2,
            () if self.at_once > 1 => self.at_once = self.at_once.div_ceil(2),
            () if self.most_warps > 1 => self.most_warps /= 2,
            () if self.brought > 1 => self.brought = self.brought.div_ceil(2),
            () if self.stages > 1 => self.stages -= 1,
            () => return false,
        }
        true
    }

    /// Segments that warps have side by side.
    pub fn abreast(&self) -> usize {
        match self.m {
            1 => self.order.segments,
            _ => self.brought,
        }
    }

    /// Rows that share a warp.
    pub fn teams(&self) -> usize {
        32 / self.order.lanes
    }

    /// Rows of `b` that a warp takes at once.
    pub fn warp_rows(&self) -> usize {
        self.rows * self.teams()
    }

    pub fn warps(&self) -> usize {
        self.abreast() * self.across
    }

    pub fn threads(&self) -> usize {
        32 * self.warps()
    }

    /// Pieces of the last segment, whose lanes may not all have one.
    pub fn last_pieces(&self) -> usize {
        self.order.pieces - (self.order.segments - 1) * self.order.lanes
    }

    /// Whether the last piece is a single block of 32 values.
    pub fn halved(&self) -> bool {
        !(self.row_bytes / self.block.bytes() * self.block.values()).is_multiple_of(PIECE)
    }

    /// Bytes of a whole segment; a multiple of 16 for 32 lanes.
    pub fn segment_bytes(&self) -> usize {
        self.order.lanes * PIECE / self.block.values() * self.block.bytes()
    }

    /// Bytes of the last segment.
    pub fn last_bytes(&self) -> usize {
        self.row_bytes - (self.order.segments - 1) * self.segment_bytes()
    }

    /// Whether rows start at any address: copies then begin and end where 16 bytes do.
    pub fn unaligned(&self) -> bool {
        !self.row_bytes.is_multiple_of(UNIT)
    }

    /// Bytes for a row's segment in a stage.
    pub fn slot(&self) -> usize {
        let bytes = self.segment_bytes().min(self.row_bytes);
        match self.unaligned() && self.fill != Fill::Bytes {
            true => (bytes + 2 * UNIT - 1).next_multiple_of(UNIT),
            false => bytes.next_multiple_of(UNIT),
        }
    }

    /// Bytes of a stage of all warps.
    pub fn stage(&self) -> usize {
        self.warps() * self.warp_rows() * self.slot()
    }

    /// Bytes of what is met of a row of `a`, as it is brought into order: see `meets`.
    pub fn met_row(&self) -> usize {
        self.order.pieces.min(self.brought * self.order.lanes) * super::meets::PITCH
    }

    /// The same of all rows of `a` that are met at once.
    pub fn meets(&self) -> usize {
        self.at_once * self.met_row()
    }

    /// Bytes of dynamic shared memory: a computed left operand, then stages and what is met. That of one
    /// row of `a` goes on into registers; where there is no room for it, it has its place where stages are
    /// that begin after that, all but the first.
    pub fn shared(&self) -> usize {
        let (stage, meets) = (self.stage(), self.meets());
        self.left
            + match self.m {
                1 if !self.apart => stage + meets.max((self.stages - 1) * stage),
                _ => self.stages * stage + meets,
            }
    }

    /// Where in it what is met begins.
    pub fn meets_at(&self) -> usize {
        match self.m {
            1 if !self.apart => self.left + self.stage(),
            _ => self.left + self.stages * self.stage(),
        }
    }

    /// Bytes of the sums of segments.
    pub fn sums(&self) -> usize {
        self.order.segments * self.m * self.block_rows * 4
    }

    /// Blocks that a multiprocessor should hold: each thread then has 128 registers or more.
    pub fn crowd(&self) -> u32 {
        (512 / self.threads()).clamp(1, 16) as u32
    }
}

/// Bytes of shared memory that every device of a target has for a block, less some for barriers.
pub(in crate::ptx::matmul::few) fn room(target: Target) -> usize {
    match target {
        Target::Sm75 => 62 << 10,
        // Of the devices from `sm_80` and from `sm_90` on, some have no more than 99 KiB.
        Target::Sm80 | Target::Sm90 => 96 << 10,
        Target::Sm90a | Target::Sm90aMaps => 216 << 10,
    }
}
