//! How the work of a product of few rows is cut: who takes which rows of `b`, and which part of
//! each. None of it changes a bit: the order of every sum is the [`SumOrder`]'s.

use crate::ptx::asm::{Asm, Class, R};
use crate::{Matmul, SumOrder};

/// Lanes of all rows of `b` below which there are too few threads to keep the memory of a large
/// device busy as they are: each then takes one row, and has more of it in flight.
const SMALL_WORK: usize = 1 << 15;
/// Blocks that give each multiprocessor of a large device some.
const BLOCKS: usize = 264;
/// Up to this many threads, a block that computes `a` is small.
const SMALL: usize = 64;
/// Threads of a warp.
pub(super) const WARP: usize = 32;

/// How a thread goes about its work. Numbers are those that were fastest on a H200 over the products
/// of Llama 8B and of SmolLM2.
struct ThreadWork {
    /// Rows of `b` at once.
    rows: usize,
    /// Pieces of a row in flight.
    ahead: usize,
    /// Threads below which each warp takes a segment.
    enough: usize,
}

impl ThreadWork {
    /// For `m` rows of `a`. `small` says that there are few rows of `b`, or short ones.
    fn of(m: usize, small: bool) -> ThreadWork {
        let (rows, ahead, enough) = match (m, small) {
            (..=1, false) => (1, 4, 1 << 17),
            (2, false) => (2, 2, 1 << 17),
            (3..=4, false) => (2, 2, 1 << 16),
            (5.., false) => (4, 2, 1 << 14),
            (..=1, true) => (1, 8, usize::MAX),
            (2, true) => (1, 6, usize::MAX),
            (3..=4, true) => (1, 4, usize::MAX),
            (5.., true) => (1, 2, usize::MAX),
        };
        ThreadWork {
            rows,
            ahead,
            enough,
        }
    }
}

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
    /// Pieces of a row that a thread has in flight; divides the rounds of a segment if a thread goes
    /// through several.
    pub ahead: usize,
    /// Whether registers matter more than how many threads there are: where small blocks compute
    /// `a`, since there are few of them and registers keep what they compute, and where each thread
    /// has much in flight.
    roomy: bool,
}

/// A thread's place in a team.
#[derive(Clone, Copy)]
pub(super) struct InTeam {
    /// The team in the block.
    pub team: R,
    /// The thread in the team.
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
        let work = batch * n.unwrap_or(1024) * order.lanes;
        let small = order.lanes < WARP || work < SMALL_WORK;
        let ThreadWork {
            rows,
            ahead,
            enough,
        } = ThreadWork::of(m, small);
        let fits = |rows: &usize| n.is_some_and(|n| n.is_multiple_of(*rows));
        let rows = [rows, 2, 1].into_iter().find(fits).unwrap_or(1);
        let total = |team: usize| batch * n.unwrap_or(1024) * team / rows;
        // A segment for each warp gives few rows enough threads.
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
            ahead,
            roomy: small || kernel.a.stored().is_none() && threads <= SMALL,
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
    /// leave room for that, and fewer where they are roomy; else what the text takes, which loads
    /// as early as it says.
    pub fn crowd(&self) -> u32 {
        let threads = match self.roomy {
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
    pub fn place(&self, asm: &mut Asm, tid: R) -> InTeam {
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
        InTeam {
            team,
            thread,
            lane,
            first,
        }
    }
}
