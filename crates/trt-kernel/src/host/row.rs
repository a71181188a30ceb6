//! Row kernels: a body over rows and columns.
//!
//! Pointwise bodies have no rows: axes are merged wherever all views allow, and blocks take
//! several short runs at once, so `[1, 9, 1, 64]` runs as long blocks. A body with reductions
//! runs row by row; a row that fits into a block runs each instruction once, a longer one runs
//! the slices of its stages.

use super::HostError;
use super::call_view::{CallView, Index, MAX_AXES, places};
use super::exec::{BodyCall, Registers};
use super::fold::RunningFold;
use super::program::Program;
use super::span::Args;
use super::team::Team;
use crate::{Env, Inst, Row};
use std::ops::Range;

/// Lanes of a block of points.
const LANES: usize = 512;
/// The most runs that a block takes together.
const RUNS: usize = 64;
/// Lanes that all f32 registers of a whole-row block may have together (512 KiB).
const WHOLE_ROW: usize = 128 * 1024;

/// An index space after merging axes.
struct Space {
    sizes: [usize; MAX_AXES],
    axes: usize,
}

pub(super) fn run(
    kernel: &Row,
    program: &Program,
    env: &Env,
    args: Args,
    team: &Team,
) -> Result<(), HostError> {
    let mut sizes = [1; MAX_AXES];
    for (s, d) in sizes.iter_mut().zip(&kernel.space) {
        *s = d.size(env);
    }
    let mut places = places(program, env);
    let (space, iotas) = merge(program, &sizes[..kernel.space.len()], &mut places);
    if space.sizes[..space.axes].contains(&0) {
        return Ok(());
    }
    let inner = space.axes - 1;
    let call = BodyCall {
        program,
        args,
        env,
        places: &places,
        iotas,
        inner,
    };
    let outer: usize = space.sizes[..inner].iter().product();
    let cols = space.sizes[inner];
    let cost = outer * cols * program.insts.len() / 16;
    if program.reduces() {
        let registers = program.counts[0] + 2 * program.counts[1] + program.counts[2];
        let whole = cols * registers.max(1) <= WHOLE_ROW;
        let width = if whole { cols } else { LANES };
        return cut(team, outer, cost, |rows| {
            let job = ReduceRows {
                call: &call,
                space: &space,
                rows,
                width,
                whole,
            };
            Registers::with(program, width, |registers| job.run(registers))
        });
    }
    // Blocks of one run each, or of several whole runs.
    let (per_row, per_block) = match cols >= LANES {
        true => (cols.div_ceil(LANES), 1),
        false => (1, (LANES / cols).min(RUNS)),
    };
    let blocks = (outer * per_row).div_ceil(per_block);
    cut(team, blocks, cost, |blocks| {
        let job = Points {
            call: &call,
            space: &space,
            blocks,
            per_row,
            per_block,
        };
        Registers::with(program, LANES, |registers| job.run(registers))
    })
}

/// Cuts `units` of work into parts for the team: one if the cost (about nanoseconds) is small.
pub(super) fn cut(
    team: &Team,
    units: usize,
    cost: usize,
    f: impl Fn(Range<usize>) -> Result<(), HostError> + Sync,
) -> Result<(), HostError> {
    const WORTH: usize = 2000;
    let parts = match cost < 2 * WORTH {
        true => 1,
        false => units.min(4 * team.threads()).min(cost / WORTH).max(1),
    };
    team.try_run(parts, |p| f(units * p / parts..units * (p + 1) / parts))
}

/// Merges neighbouring axes that every view walks as one, and drops axes of one point. The
/// columns of a body with reductions and axes whose index is read stay as they are.
fn merge(
    program: &Program,
    sizes: &[usize],
    places: &mut [CallView],
) -> (Space, [Option<u8>; MAX_AXES]) {
    let last = sizes.len() - 1;
    let used = |i: usize| program.insts[i].access().is_some();
    let mut iotas = [None; MAX_AXES];
    let mut space = Space {
        sizes: [1; MAX_AXES],
        axes: 0,
    };
    let old: Vec<CallView> = places.to_vec();
    places.iter_mut().for_each(|p| p.strides = [0; MAX_AXES]);
    let mut open = false; // whether the previous new axis may take another one in
    for axis in 0..sizes.len() {
        let columns = axis == last && program.reduces();
        if sizes[axis] == 1 && !columns {
            continue;
        }
        let read = program.iotas.contains(&(axis as u8));
        let size = sizes[axis] as i64;
        let fits = open
            && !read
            && !columns
            && (old.iter().zip(places.iter()).enumerate()).all(|(i, (o, p))| {
                !used(i) || p.strides[space.axes - 1] == o.strides[axis].wrapping_mul(size)
            });
        if !fits {
            space.axes += 1;
        }
        let new = space.axes - 1;
        space.sizes[new] *= sizes[axis];
        for (p, o) in places.iter_mut().zip(&old) {
            p.strides[new] = o.strides[axis];
        }
        if read {
            iotas[axis] = Some(new as u8);
        }
        open = !read;
    }
    space.axes = space.axes.max(1);
    (space, iotas)
}

impl Space {
    /// The point at column 0 of a row, rows counted over the outer axes.
    fn row(&self, mut row: usize) -> Index {
        let mut index = [0; MAX_AXES];
        for axis in (0..self.axes - 1).rev() {
            index[axis] = (row % self.sizes[axis]) as i64;
            row /= self.sizes[axis];
        }
        index
    }
}

/// Blocks of independent points.
struct Points<'a> {
    call: &'a BodyCall<'a>,
    space: &'a Space,
    blocks: Range<usize>,
    per_row: usize,
    per_block: usize,
}

impl Points<'_> {
    fn run(self, registers: &mut Registers) -> Result<(), HostError> {
        let inner = self.call.inner;
        let cols = self.space.sizes[inner];
        let outer: usize = self.space.sizes[..inner].iter().product();
        let list = &self.call.program.stages[0].again;
        let mut rows = [[0; MAX_AXES]; RUNS];
        registers.uniform(self.call, 0)?;
        for block in self.blocks {
            if self.per_row > 1 || self.per_block == 1 {
                let from = block % self.per_row * LANES;
                rows[0] = self.space.row(block / self.per_row);
                rows[0][inner] = from as i64;
                registers.exec(self.call, list, &rows[..1], LANES.min(cols - from))?;
            } else {
                let first = block * self.per_block;
                let count = self.per_block.min(outer - first);
                for (i, row) in rows[..count].iter_mut().enumerate() {
                    *row = self.space.row(first + i);
                }
                registers.exec(self.call, list, &rows[..count], cols)?;
            }
        }
        Ok(())
    }
}

/// Rows with reductions.
struct ReduceRows<'a> {
    call: &'a BodyCall<'a>,
    space: &'a Space,
    rows: Range<usize>,
    width: usize,
    whole: bool,
}

impl ReduceRows<'_> {
    fn run(self, registers: &mut Registers) -> Result<(), HostError> {
        let program = self.call.program;
        let cols = self.space.sizes[self.call.inner];
        registers.uniform(self.call, 0)?;
        for row in self.rows {
            let mut index = self.space.row(row);
            for (s, stage) in program.stages.iter().enumerate() {
                if s > 0 {
                    registers.uniform(self.call, s)?;
                }
                let list = if self.whole {
                    &stage.fresh
                } else {
                    &stage.again
                };
                let mut folds: [Option<RunningFold>; 4] = [const { None }; 4];
                for group in stage
                    .folds
                    .chunks(4)
                    .chain(stage.folds.is_empty().then_some(&[][..]))
                {
                    for (fold, &at) in folds.iter_mut().zip(group) {
                        if let Inst::Reduce(kind, x) = program.insts[at] {
                            *fold = RunningFold::new(kind, program.slots[x.0 as usize]);
                        }
                    }
                    let mut from = 0;
                    while from < cols {
                        let len = self.width.min(cols - from);
                        index[self.call.inner] = from as i64;
                        registers.exec(self.call, list, &[index], len)?;
                        for (fold, &at) in folds.iter_mut().zip(group) {
                            registers.fold(program, at, fold, len);
                        }
                        from += len;
                    }
                    for (fold, &at) in folds.iter_mut().zip(group) {
                        registers.splat(program, at, fold.take());
                    }
                }
            }
        }
        Ok(())
    }
}
