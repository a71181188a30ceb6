//! How the work of a product of few rows is cut: who takes which rows of `b`, and which part of
//! each. None of it changes a bit: the order of every sum is the [`SumOrder`]'s.

use crate::ptx::asm::{Asm, Class, R};
use crate::{Matmul, SumOrder};

/// Threads that keep enough bytes in flight for the memory of a large device, with few rows of
/// `a`; with more, each has more in flight.
const ENOUGH: usize = 1 << 17;
/// Blocks that give each multiprocessor of a large device some.
const BLOCKS: usize = 264;
/// Up to this many threads, a block that computes `a` is small.
const SMALL: usize = 64;
/// Threads of a warp.
pub(super) const WARP: usize = 32;

/// A function of whole sizes, never of a range.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// Rows of `a`.
    pub m: usize,
    /// Rows of `b` of a team.
    pub rows: usize,
    /// The order of each sum.
    pub order: SumOrder,
    /// Warps that share a row: one, or as many as the order has segments, each with its own.
    /// Where the order has fewer lanes than a warp, a team is a part of one.
    pub warps: usize,
    /// Threads of a block.
    pub threads: usize,
    /// Pieces of a row that a thread has in flight; divides the rounds of a segment if there are
    /// several.
    pub ahead: usize,
    /// Whether the block computes `a`.
    computes: bool,
}

/// A thread's place.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Its team in the block.
    pub team: R,
    /// Its place in the team.
    pub thread: R,
    /// Its lane in the order of sums.
    pub lane: R,
    /// The first piece that it takes.
    pub first: R,
}

impl Cut {
    pub fn new(kernel: &Matmul, order: SumOrder, m: usize) -> Cut {
        let n = kernel.n.constant_size();
        let batch = kernel.batch.constant_size().unwrap_or(1);
        let wanted: usize = match m {
            1 => 1,
            2 => 2,
            _ => 4,
        };
        let rows = [4, 2, 1]
            .into_iter()
            .find(|r| *r <= wanted && n.is_some_and(|n| n % r == 0))
            .unwrap_or(1);
        let n = n.unwrap_or(1024);
        let total = |team: usize| batch * n * team / rows;
        // Several warps on each give few rows enough threads.
        let enough = if m <= 2 { ENOUGH } else { ENOUGH / 2 };
        let warps = match total(order.lanes) < enough {
            true => order.segments,
            false => 1,
        };
        let team = order.lanes * warps;
        // Few blocks compute a left operand few times.
        let mut threads = match kernel.a.stored() {
            Some(_) => team.max(128),
            None => 512,
        };
        while threads > team.max(WARP) && total(team) < BLOCKS * threads {
            threads /= 2;
        }
        Cut {
            m,
            rows,
            order,
            warps,
            threads,
            ahead: match m {
                ..=2 => 4 / rows,
                3..=4 => 2,
                _ => 4 / rows,
            },
            computes: kernel.a.stored().is_none(),
        }
    }

    /// Threads of a team, a power of two from 8 on.
    pub fn team(&self) -> usize {
        self.order.lanes * self.warps
    }

    /// Rows of `b` of a block.
    pub fn block_rows(&self) -> usize {
        self.threads / self.team() * self.rows
    }

    /// Outputs of a team.
    pub fn outputs(&self) -> usize {
        self.m * self.rows
    }

    /// Segments that a thread goes through.
    pub fn segments(&self) -> usize {
        self.order.segments / self.warps
    }

    /// Pieces of a row that each thread takes for sure.
    pub fn whole(&self) -> usize {
        self.order.pieces / self.team()
    }

    /// Lanes that take one piece more.
    pub fn ragged(&self) -> usize {
        self.order.pieces % self.team()
    }

    /// Blocks that a multiprocessor should hold: 1024 threads, if the sums and the pieces of `a`
    /// leave room for that, and fewer where small blocks compute `a`, since there are few of them
    /// and registers keep what they compute; else what the text takes, which loads as early as it
    /// says.
    pub fn crowd(&self) -> u32 {
        let threads = match self.computes && self.threads <= SMALL {
            true => 512,
            false => 1024,
        };
        match self.m {
            // No multiprocessor is sure to hold more than 16 blocks.
            ..=2 => (threads / self.threads).min(16) as u32,
            _ => 1,
        }
    }

    /// A thread's place in its block.
    pub fn place(&self, asm: &mut Asm, tid: R) -> Place {
        let bits = self.team().trailing_zeros();
        let team = asm.op("shr.u32", Class::B32, &[&tid, &bits]);
        let thread = asm.op("and.b32", Class::B32, &[&tid, &(self.team() - 1)]);
        let (mut lane, mut first) = (thread, thread);
        if self.warps > 1 {
            let bits = self.order.lanes.trailing_zeros();
            let warp = asm.op("shr.u32", Class::B32, &[&thread, &bits]);
            lane = asm.op("and.b32", Class::B32, &[&thread, &(self.order.lanes - 1)]);
            let pieces = self.whole() * self.order.lanes;
            first = asm.op("mad.lo.s32", Class::B32, &[&warp, &pieces, &lane]);
        }
        Place {
            team,
            thread,
            lane,
            first,
        }
    }
}
