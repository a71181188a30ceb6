//! Matrix products: few rows at memory speed, many rows in panels.
//!
//! Up to [`FEW`] rows, each weight element is used a few times only and memory is the limit:
//! weight rows are read in place by [`dot`]. Beyond, panels of 64 weight rows (aligned to row 0
//! of the whole weight) are packed once and multiplied by [`Panel`]. Which of the two runs
//! depends on `m` alone and both give each output independently of its neighbours: that is the
//! row-range law. The epilogue runs over the sums while they are in cache.

mod coded;
mod few;
mod many;
mod packed;

use super::HostError;
use super::call_view::{CallView, Index, MAX_AXES, SAME_AXES, places};
use super::exec::{BodyCall, Registers};
use super::program::Program;
use super::simd::{self, Job, Simd};
use super::span::{Args, Run};
use super::team::Team;
use super::tile::PANEL;
use crate::{Arg, Encoding, Env, Matmul, Routed};
use std::collections::BTreeMap;
use std::ops::Range;

/// The most rows of `a` that run as dot products.
const FEW: usize = 8;
/// Lanes of an epilogue block.
const LANES: usize = 512;
/// The rows of an expert.
#[derive(Clone, Copy)]
struct Chosen<'a> {
    /// Which of the independent products is the expert's.
    expert: usize,
    rows: &'a [usize],
}

/// One launch with its numbers.
struct MatmulCall<'a> {
    /// The rows that are multiplied, if those are not all, and with what.
    chosen: Option<Chosen<'a>>,
    kernel: &'a Matmul,
    call: BodyCall<'a>,
    /// The argument that the left operand is in, and where.
    left: Arg,
    a: CallView,
    b: CallView,
    batch: usize,
    m: usize,
    k: usize,
    /// Output columns of this launch.
    n: Range<usize>,
}

pub(super) fn run(
    kernel: &Matmul,
    program: &Program,
    env: &Env,
    rows: Option<Range<usize>>,
    args: Args,
    team: &Team,
) -> Result<(), HostError> {
    let call = (program, env, args);
    multiply(kernel, call, rows, None, team)
}

/// The products of each expert by the rows that are its own.
pub(super) fn routed(
    kernel: &Routed,
    program: &Program,
    env: &Env,
    rows: Option<Range<usize>>,
    args: Args,
    team: &Team,
) -> Result<(), HostError> {
    let product = &kernel.product;
    let mut ids = vec![0; product.m.size(env)];
    let all = CallView::new(&kernel.ids.view, env).run(&[0; MAX_AXES], 0, ids.len());
    args.load_i64(kernel.ids.arg, all, &mut ids)?;
    let mut chosen: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (row, id) in ids.iter().enumerate() {
        let expert = usize::try_from(*id).ok();
        let expert = expert.and_then(|id| id.checked_sub(kernel.first));
        if let Some(expert) = expert.filter(|e| *e < product.batch.size(env)) {
            chosen.entry(expert).or_default().push(row);
        }
    }
    for (expert, rows_of) in chosen {
        let chosen = Chosen {
            expert,
            rows: &rows_of,
        };
        multiply(
            product,
            (program, env, args),
            rows.clone(),
            Some(chosen),
            team,
        )?;
    }
    Ok(())
}

fn multiply(
    kernel: &Matmul,
    (program, env, args): (&Program, &Env, Args),
    rows: Option<Range<usize>>,
    chosen: Option<Chosen>,
    team: &Team,
) -> Result<(), HostError> {
    let n = kernel.n.size(env);
    let range = match rows {
        None => 0..n,
        Some(range) => check_rows(kernel, range, n)?,
    };
    let a = kernel.a.stored();
    let a = a.expect("a computed left operand was split off");
    let places = places(program, env);
    let mut b = CallView::new(&kernel.b.view, env);
    if kernel.ranged {
        // The weight's span starts at the first row of the range.
        b.offset -= range.start as i64 * b.strides[1];
    }
    let launch = MatmulCall {
        chosen,
        kernel,
        call: BodyCall {
            program,
            args,
            env,
            places: &places,
            iotas: SAME_AXES,
            inner: 2,
        },
        left: a.arg,
        a: CallView::new(&a.view, env),
        b,
        batch: chosen.map_or_else(|| kernel.batch.size(env), |_| 1),
        m: chosen.map_or_else(|| kernel.m.size(env), |c| c.rows.len()),
        k: kernel.k.size(env),
        n: range,
    };
    if launch.batch * launch.m * launch.n.len() == 0 {
        return Ok(());
    }
    match kernel.right() {
        Encoding::Packed(packed) => launch.packed(packed, team),
        Encoding::Plain(_) | Encoding::Blocks(_) | Encoding::Code => launch.by_rows(team),
    }
}

fn check_rows(kernel: &Matmul, range: Range<usize>, n: usize) -> Result<Range<usize>, HostError> {
    let why = if !kernel.ranged {
        "this matmul has no weight to cut"
    } else if range.start > range.end || range.end > n {
        "not a range of the weight's rows"
    } else if !range.start.is_multiple_of(PANEL) {
        "the start is no multiple of the panel of 64"
    } else if !range.end.is_multiple_of(PANEL) && range.end != n {
        "the end is neither a multiple of the panel of 64 nor the last row"
    } else {
        return Ok(range);
    };
    Err(HostError::Rows {
        start: range.start,
        end: range.end,
        n,
        why,
    })
}

impl MatmulCall<'_> {
    /// The outputs of weight rows that lie one after another.
    fn by_rows(&self, team: &Team) -> Result<(), HostError> {
        match self.m <= FEW {
            true => self.few(team),
            false => self.many(team),
        }
    }

    /// The place of a row of this launch in the index space of the product.
    fn place(&self, batch: usize, row: usize) -> [i64; 2] {
        match &self.chosen {
            None => [batch as i64, row as i64],
            Some(Chosen { expert, rows }) => [*expert as i64, rows[row] as i64],
        }
    }

    /// Element offset of `b[batch, n, 0]` and the strides of its two inner axes.
    fn b_axes(&self, batch: usize, n: usize) -> (i64, i64, i64) {
        let batch = self.chosen.map_or(batch, |c| c.expert);
        let index = [batch as i64, n as i64, 0, 0, 0, 0, 0, 0];
        (self.b.at(&index), self.b.strides[1], self.b.strides[2])
    }

    /// Reads rows of `a` from `from` on as f32, `pitch` apart, zeros between.
    fn activations(
        &self,
        batch: usize,
        from: usize,
        out: &mut [f32],
        pitch: usize,
    ) -> Result<(), HostError> {
        simd::run(Activations {
            matmul: self,
            batch,
            from,
            out,
            pitch,
        })
    }

    /// Runs the epilogue over sums `[rows, cols]`, sums of a row `pitch` apart.
    fn epilogue(
        &self,
        batch: usize,
        rows: Range<usize>,
        cols: Range<usize>,
        sums: &[f32],
        pitch: usize,
    ) -> Result<(), HostError> {
        const RUNS: usize = 16;
        let program = self.call.program;
        let list = &program.stages[0].again;
        Registers::with(program, LANES, |registers| {
            registers.uniform(&self.call, 0)?;
            let len = LANES.min(cols.len());
            let together = (LANES / len).clamp(1, RUNS);
            let mut index: [Index; RUNS] = [[0; MAX_AXES]; RUNS];
            for first in rows.clone().step_by(together) {
                let count = together.min(rows.end - first);
                for from in cols.clone().step_by(len) {
                    let width = len.min(cols.end - from);
                    let at = |r: usize| (first + r - rows.start) * pitch + (from - cols.start);
                    for (r, index) in index[..count].iter_mut().enumerate() {
                        let [batch, m] = self.place(batch, first + r);
                        *index = [batch, m, from as i64, 0, 0, 0, 0, 0];
                    }
                    if let Some(slot) = program.input {
                        let lanes = registers.lanes(slot, LANES);
                        // Rows without gaps are one piece.
                        let (pieces, len) = match width == pitch {
                            true => (1, count * width),
                            false => (count, width),
                        };
                        for r in 0..pieces {
                            lanes[r * width..][..len].copy_from_slice(&sums[at(r)..][..len]);
                        }
                    }
                    registers.exec(&self.call, list, &index[..count], width)?;
                }
            }
            Ok(())
        })
    }
}

struct Activations<'a> {
    matmul: &'a MatmulCall<'a>,
    batch: usize,
    from: usize,
    out: &'a mut [f32],
    pitch: usize,
}

impl Job for Activations<'_> {
    type Out = Result<(), HostError>;
    #[inline(always)]
    fn run<S: Simd>(self) -> Self::Out {
        let l = self.matmul;
        for (i, row) in self.out.chunks_exact_mut(self.pitch.max(1)).enumerate() {
            let [batch, m] = l.place(self.batch, self.from + i);
            let index = [batch, m, 0, 0, 0, 0, 0, 0];
            let run: Run = l.a.run(&index, 2, l.k);
            l.call.args.load_f32::<S>(l.left, run, &mut row[..l.k])?;
            row[l.k..].fill(0.0);
        }
        Ok(())
    }
}
