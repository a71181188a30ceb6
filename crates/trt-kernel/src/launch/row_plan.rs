//! How many threads share a row with reductions, and what they keep between passes.

use super::stages::Stages;
use super::widths::{self, accesses, fixed_along_lanes};
use crate::{Dim, Row};

/// Threads of a block of several rows.
const BLOCK: u32 = 128;
/// Registers of one thread that may carry values from pass to pass: with up to 512 threads in a
/// block, and with up to 1024.
const CARRY: [usize; 2] = [64, 24];
/// Chunks that a thread takes together in a long loop, so that their loads overlap.
const UNROLL: usize = 4;

/// Loops of a kernel of rows only.
const AGAIN: Passes = Passes::Again { unroll: UNROLL };

/// How the work of a row is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowPlan {
    /// Columns of a chunk.
    pub lanes: usize,
    /// Threads of a row: a power of two up to 32, or a multiple of 32, which are all of the block.
    pub threads: u32,
    /// Rows of a block.
    pub rows: u32,
    pub passes: Passes,
}

/// What becomes of registers between passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passes {
    /// Each thread has this many chunks at most and keeps their registers.
    Keep { chunks: usize },
    /// Each pass loops over its chunks, so many at once while there are.
    Again { unroll: usize },
}

impl RowPlan {
    /// The plan for a row kernel whose columns are its last axis.
    pub fn new(row: &Row, stages: &Stages) -> RowPlan {
        let (columns, outer) = match row.space.split_last() {
            Some((columns, outer)) => (columns.clone(), outer),
            None => (Dim::from(1), &[][..]),
        };
        let loads = || {
            let views = accesses(&row.body, &row.args);
            views.filter(|(v, _)| !fixed_along_lanes(v))
        };
        let lanes = widths::lanes(&columns, loads());
        let rows = Dim::product(outer).constant_size();
        // Rows that lie beside each other, with columns far apart: a thread for each row.
        let across = loads().any(|(v, _)| {
            let beside = v.strides.len().checked_sub(2).map(|a| v.strides[a].is(1));
            beside == Some(true) && !v.strides[v.strides.len() - 1].is(1)
        });
        let (threads, passes) = match columns.constant_size() {
            Some(c) if c > 0 && c <= lanes => (1, Passes::Keep { chunks: 1 }),
            _ if across => (1, AGAIN),
            Some(c) if c > 0 => RowPlan::row(c.div_ceil(lanes), lanes * stages.carried.max(1)),
            _ => (128, AGAIN),
        };
        // A team of several warps has the block to itself.
        let fit = if threads <= 32 { BLOCK / threads } else { 1 };
        let few = rows.map_or(fit, |r| (r.max(1) as u32).next_power_of_two());
        RowPlan {
            lanes,
            threads,
            rows: fit.min(few.max(32 / threads.min(32))),
            passes,
        }
    }

    /// The plan where all `threads` threads of a block compute all rows together, and `carry`
    /// registers of each may carry values from pass to pass.
    pub fn within(row: &Row, stages: &Stages, threads: u32, carry: usize) -> RowPlan {
        let columns = row.space.last().cloned().unwrap_or(Dim::from(1));
        let views = accesses(&row.body, &row.args);
        let lanes = widths::lanes(&columns, views.filter(|(v, _)| !fixed_along_lanes(v)));
        let size = |d: &Dim| d.constant_size().unwrap_or(0);
        let rows: usize = row.space.iter().rev().skip(1).map(size).product();
        let chunks = (size(&columns) / lanes).div_ceil(threads as usize);
        let cost = rows * chunks * lanes * stages.carried.max(1);
        RowPlan {
            lanes,
            threads,
            rows: 1,
            passes: match cost <= carry {
                true => Passes::Keep { chunks },
                // Each chunk may have loads of several arguments under way.
                false => Passes::Again {
                    unroll: (carry / (2 * lanes)).clamp(1, UNROLL),
                },
            },
        }
    }

    /// Threads for a row of this many chunks, each of which carries `cost` registers.
    fn row(chunks: usize, cost: usize) -> (u32, Passes) {
        if chunks <= 64 {
            let threads = chunks.next_power_of_two().min(32);
            let chunks = chunks.div_ceil(threads);
            return (threads as u32, Passes::Keep { chunks });
        }
        for (most, carry) in [512, 1024].into_iter().zip(CARRY) {
            for each in 1..=4usize {
                let threads = chunks.div_ceil(each).next_multiple_of(32);
                if threads <= most && each * cost <= carry {
                    return (threads as u32, Passes::Keep { chunks: each });
                }
            }
        }
        let threads = chunks.div_ceil(UNROLL).next_multiple_of(32).min(1024);
        (threads as u32, AGAIN)
    }

    /// Threads of a block.
    pub fn block(&self) -> u32 {
        self.threads * self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::stages::Loads;
    use crate::{Arg, BodyBuilder, DType, Inst, Reduce, Var, View};

    /// A plan for the sum of each row.
    fn sums(rows: impl Into<Dim>, columns: impl Into<Dim>, strides: Option<[i64; 2]>) -> RowPlan {
        let space = vec![rows.into(), columns.into()];
        let mut view = View::contiguous(&space);
        if let Some(s) = strides {
            view.strides = s.map(Dim::from).to_vec();
        }
        let mut b = BodyBuilder::new();
        let x = b.load(Arg(0), view);
        let sum = b.push(Inst::Reduce(Reduce::Sum, x));
        let mut per_row = View::contiguous(&space[..1]);
        per_row.strides.push(Dim::from(0));
        b.store(Arg(1), per_row, sum);
        let row = Row {
            space,
            args: vec![DType::BF16; 2],
            body: b.finish(),
        };
        let types = row.body.types(&row.args).unwrap();
        RowPlan::new(&row, &Stages::new(&row.body, 2, &types, Loads::Late))
    }

    fn plan(lanes: usize, threads: u32, rows: u32, passes: Passes) -> RowPlan {
        RowPlan {
            lanes,
            threads,
            rows,
            passes,
        }
    }

    #[test]
    fn a_long_row_has_a_block_with_one_wide_load_for_each_thread() {
        let keep = Passes::Keep { chunks: 1 };
        assert_eq!(sums(1, 4096, None), plan(8, 512, 1, keep));
        assert_eq!(sums(1, 576, None), plan(8, 96, 1, keep));
    }

    #[test]
    fn short_rows_share_warps() {
        let keep = Passes::Keep { chunks: 1 };
        assert_eq!(sums(16384, 64, None), plan(8, 8, 16, keep));
        assert_eq!(sums(1, 64, None), plan(8, 8, 4, keep));
        assert_eq!(sums(100, 8, None), plan(8, 1, 128, keep));
    }

    #[test]
    fn rows_of_unknown_or_great_length_are_passed_over_again() {
        assert_eq!(sums(2, Dim::var(Var(0)), None), plan(1, 128, 1, AGAIN));
        assert_eq!(sums(1, 128_256, None), plan(8, 1024, 1, AGAIN));
    }

    #[test]
    fn rows_that_lie_beside_each_other_have_a_thread_each() {
        assert_eq!(sums(384, 50, Some([1, 384])), plan(1, 1, 128, AGAIN));
    }
}
