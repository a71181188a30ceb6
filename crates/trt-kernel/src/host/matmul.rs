//! Matrix products: few rows at memory speed, many rows in panels.
//!
//! Up to [`FEW`] rows, each weight element is used a few times only and memory is the limit:
//! weight rows are read in place by [`dot`]. Beyond, panels of 64 weight rows (aligned to row 0
//! of the whole weight) are packed once and multiplied by [`Panel`]. Which of the two runs
//! depends on `m` alone and both give each output independently of its neighbours: that is the
//! row-range law. The epilogue runs over the sums while they are in cache.

use super::HostError;
use super::dot::{self, Rows, padded};
use super::exec::{Call, Frame, Index, MAX_AXES, Place, SAME_AXES, places};
use super::pieces::Pieces;
use super::program::Program;
use super::row::cut;
use super::runs::Load;
use super::scratch;
use super::simd::{self, Job, Simd};
use super::span::{Args, Run};
use super::team::Team;
use super::tile::{self, BLOCK, PANEL, Panel};
use crate::{Arg, DType, Encoding, Env, Matmul};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// The most rows of `a` that run as dot products.
const FEW: usize = 8;
/// Rows of `a` that are converted at once.
const ROWS: usize = 512;
/// Lanes of an epilogue block.
const LANES: usize = 512;
/// Bytes of weight that make a part of a few-row launch.
const PART: usize = 96 * 1024;

/// One launch with its numbers.
struct Launch<'a> {
    kernel: &'a Matmul,
    call: Call<'a>,
    /// The argument that the left operand is in, and where.
    left: Arg,
    a: Place,
    b: Place,
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
    let n = kernel.n.size(env);
    let range = match rows {
        None => 0..n,
        Some(range) => check_rows(kernel, range, n)?,
    };
    let a = kernel.a.stored();
    let a = a.expect("a computed left operand was split off");
    let places = places(program, env);
    let mut b = Place::new(&kernel.b.view, env);
    if kernel.ranged {
        // The weight's span starts at the first row of the range.
        b.offset -= range.start as i64 * b.strides[1];
    }
    let launch = Launch {
        kernel,
        call: Call {
            program,
            args,
            env,
            places: &places,
            iotas: SAME_AXES,
            inner: 2,
        },
        left: a.arg,
        a: Place::new(&a.view, env),
        b,
        batch: kernel.batch.size(env),
        m: kernel.m.size(env),
        k: kernel.k.size(env),
        n: range,
    };
    if launch.batch * launch.m * launch.n.len() == 0 {
        return Ok(());
    }
    match launch.m <= FEW {
        true => launch.few(team),
        false => launch.many(team),
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

impl Launch<'_> {
    fn few(&self, team: &Team) -> Result<(), HostError> {
        let (m, k, pad) = (self.m, self.k, padded(self.k));
        let n = self.n.len();
        scratch::with(self.batch * m * pad, |x| {
            for (batch, x) in x.chunks_exact_mut((m * pad).max(1)).enumerate() {
                self.activations(batch, 0, x, pad)?;
            }
            let x = &*x;
            // As much as a `usize` holds is inside of memory anyway.
            let row_bytes = self
                .kernel
                .right()
                .row_bytes(k)
                .unwrap_or(usize::MAX / (n * self.batch));
            let bytes = self.batch * n * row_bytes;
            // An even number of parts for each thread, of whole groups of weight rows.
            let rounds = bytes.div_ceil(PART * team.threads());
            let parts = if bytes < 2 * PART / 3 {
                1
            } else {
                rounds * team.threads()
            };
            let per_part = (self.batch * n).div_ceil(parts).next_multiple_of(4);
            let parts = (self.batch * n).div_ceil(per_part);
            team.try_run(parts, |p| {
                let mut unit = p * per_part;
                let end = (unit + per_part).min(self.batch * n);
                while unit < end {
                    let batch = unit / n;
                    let stop = end.min((batch + 1) * n);
                    let cols = self.n.start + unit - batch * n..self.n.start + stop - batch * n;
                    let x = &x[batch * m * pad..][..m * pad];
                    self.few_part(batch, cols, x)?;
                    unit = stop;
                }
                Ok(())
            })
        })
    }

    fn few_part(&self, batch: usize, cols: Range<usize>, x: &[f32]) -> Result<(), HostError> {
        // Sums of a part stay in the first-level cache.
        let step = (8192 / self.m).max(4);
        scratch::with(self.m * step, |sums| {
            for from in cols.clone().step_by(step) {
                let count = step.min(cols.end - from);
                let (offset, column, along) = self.b_axes(batch, from);
                let args = &self.call.args;
                if self.k == 0 {
                    sums.fill(0.0);
                } else if self.kernel.right().as_plain().is_none() {
                    self.few_encoded((offset, column), count, x, sums)?;
                } else if along == 1 || self.k == 1 {
                    let rows = Rows {
                        arg: self.kernel.b.arg,
                        offset,
                        stride: column,
                    };
                    dot::dot(args, rows, count, self.k, x, (sums, count))?;
                } else {
                    self.few_strided((offset, column, along), count, x, sums)?;
                }
                self.epilogue(batch, 0..self.m, from..from + count, sums, count)?;
            }
            Ok(())
        })
    }

    /// Rows of a weight that is not plain: unpacked some at a time, then as those of f32.
    fn few_encoded(
        &self,
        (offset, column): (i64, i64),
        count: usize,
        x: &[f32],
        sums: &mut [f32],
    ) -> Result<(), HostError> {
        let (k, args) = (self.k, &self.call.args);
        scratch::with(PANEL * k, |unpacked| {
            for first in (0..count).step_by(PANEL) {
                let rows = PANEL.min(count - first);
                for (r, row) in unpacked.chunks_exact_mut(k).take(rows).enumerate() {
                    let run = Run {
                        offset: offset + (first + r) as i64 * column,
                        stride: 1,
                        count: k,
                    };
                    simd::run(Load(args, self.kernel.b.arg, run, row))?;
                }
                let rows = &unpacked[..rows * k];
                dot::dot_unpacked(rows, k, x, (&mut sums[first..], count));
            }
            Ok(())
        })
    }

    /// Columns whose contracted elements are not neighbours: gathered by panels.
    fn few_strided(
        &self,
        (offset, column, along): (i64, i64, i64),
        count: usize,
        x: &[f32],
        sums: &mut [f32],
    ) -> Result<(), HostError> {
        let pad = padded(self.k);
        scratch::with(PANEL * (self.k + self.m), |buffer| {
            let (packed, c) = buffer.split_at_mut(PANEL * self.k);
            for from in (0..count).step_by(PANEL) {
                let cols = PANEL.min(count - from);
                let at = (offset + from as i64 * column, column, along);
                tile::pack(&self.call.args, self.kernel.b.arg, at, cols, self.k, packed)?;
                let panel = Panel {
                    a: x,
                    lda: pad,
                    m: self.m,
                    k: self.k,
                    b: packed,
                    c,
                    ldc: PANEL,
                    add: false,
                    pairs: false,
                };
                panel.run();
                for (i, row) in c.chunks_exact(PANEL).enumerate() {
                    sums[i * count + from..][..cols].copy_from_slice(&row[..cols]);
                }
            }
            Ok(())
        })
    }

    /// Whether both sides are bfloat16 pairs that the CPU multiplies as such.
    fn pairs(&self) -> bool {
        let bf16 = |arg: Arg| self.call.args.encoding(arg) == Encoding::Plain(DType::BF16);
        simd::has_pairs()
            && bf16(self.left)
            && bf16(self.kernel.b.arg)
            && self.a.strides[2] == 1
            && self.b.strides[2] == 1
            && self.k.is_multiple_of(2)
    }

    fn many(&self, team: &Team) -> Result<(), HostError> {
        let m = self.m;
        let pairs = self.pairs();
        // Contracted elements as the panels see them: pairs or f32.
        let k = if pairs { self.k / 2 } else { self.k };
        let rows = ROWS.min(m);
        for batch in 0..self.batch {
            for from in (0..m).step_by(rows) {
                let count = rows.min(m - from);
                scratch::with(count * k, |a| {
                    self.convert(batch, from, a, (k, pairs), team)?;
                    let panels = self.n.len().div_ceil(PANEL);
                    let pieces = Pieces::new(panels, team.threads(), count);
                    let a = &*a;
                    team.try_run(pieces.len(), |p| {
                        let (panel, rows) = pieces.get(p);
                        self.many_part(batch, from, rows, panel, (a, k, pairs))
                    })
                })?;
            }
        }
        Ok(())
    }

    /// Reads `a.len() / k` rows of activations, on all threads.
    fn convert(
        &self,
        batch: usize,
        from: usize,
        a: &mut [f32],
        (k, pairs): (usize, bool),
        team: &Team,
    ) -> Result<(), HostError> {
        const GROUP: usize = 32;
        if k == 0 {
            return Ok(());
        }
        let groups: Vec<Mutex<&mut [f32]>> = a.chunks_mut(GROUP * k).map(Mutex::new).collect();
        cut(team, groups.len(), groups.len() * GROUP * k / 16, |range| {
            for g in range {
                let mut rows = groups[g].lock().unwrap_or_else(PoisonError::into_inner);
                match pairs {
                    true => self.activation_pairs(batch, from + g * GROUP, &mut rows, k)?,
                    false => self.activations(batch, from + g * GROUP, &mut rows, k)?,
                }
            }
            Ok(())
        })
    }

    /// Rows of one panel against a block of activations, then the epilogue.
    fn many_part(
        &self,
        batch: usize,
        from: usize,
        rows: Range<usize>,
        panel: usize,
        (a, k, pairs): (&[f32], usize, bool),
    ) -> Result<(), HostError> {
        let first = self.n.start + panel * PANEL;
        let cols = PANEL.min(self.n.end - first);
        let m = rows.len();
        scratch::with(PANEL * (m + BLOCK.min(k)), |buffer| {
            let (c, packed) = buffer.split_at_mut(PANEL * m);
            let (offset, column, along) = self.b_axes(batch, first);
            if k == 0 {
                c.fill(0.0);
            }
            for at in (0..k).step_by(BLOCK) {
                let len = BLOCK.min(k - at);
                let (args, arg) = (&self.call.args, self.kernel.b.arg);
                let unit = if pairs { 2 } else { 1 };
                let axes = (offset + unit * at as i64 * along, column, along);
                match pairs {
                    true => tile::pack_pairs(args, arg, axes, cols, len, packed)?,
                    false => tile::pack(args, arg, axes, cols, len, packed)?,
                }
                let panel = Panel {
                    a: &a[rows.start * k + at..],
                    lda: k,
                    m,
                    k: len,
                    b: packed,
                    c,
                    ldc: PANEL,
                    add: at > 0,
                    pairs,
                };
                panel.run();
            }
            let rows = from + rows.start..from + rows.end;
            self.epilogue(batch, rows, first..first + cols, c, PANEL)
        })
    }

    /// Element offset of `b[batch, n, 0]` and the strides of its two inner axes.
    fn b_axes(&self, batch: usize, n: usize) -> (i64, i64, i64) {
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
            launch: self,
            batch,
            from,
            out,
            pitch,
        })
    }

    /// Reads rows of `a` as pairs of bfloat16.
    fn activation_pairs(
        &self,
        batch: usize,
        from: usize,
        out: &mut [f32],
        pitch: usize,
    ) -> Result<(), HostError> {
        for (i, row) in out.chunks_exact_mut(pitch).enumerate() {
            let index = [batch as i64, (from + i) as i64, 0, 0, 0, 0, 0, 0];
            let run = self.a.run(&index, 2, self.k);
            self.call.args.load_bits(self.left, run, row)?;
        }
        Ok(())
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
        Frame::with(program, LANES, |frame| {
            frame.uniform(&self.call, 0)?;
            let len = LANES.min(cols.len());
            let together = (LANES / len).clamp(1, RUNS);
            let mut index: [Index; RUNS] = [[0; MAX_AXES]; RUNS];
            for first in rows.clone().step_by(together) {
                let count = together.min(rows.end - first);
                for from in cols.clone().step_by(len) {
                    let width = len.min(cols.end - from);
                    for (r, index) in index[..count].iter_mut().enumerate() {
                        let row = first + r;
                        *index = [batch as i64, row as i64, from as i64, 0, 0, 0, 0, 0];
                        if let Some(slot) = program.input {
                            let at = (row - rows.start) * pitch + (from - cols.start);
                            frame.lanes(slot, LANES)[r * width..][..width]
                                .copy_from_slice(&sums[at..at + width]);
                        }
                    }
                    frame.exec(&self.call, list, &index[..count], width)?;
                }
            }
            Ok(())
        })
    }
}

struct Activations<'a> {
    launch: &'a Launch<'a>,
    batch: usize,
    from: usize,
    out: &'a mut [f32],
    pitch: usize,
}

impl Job for Activations<'_> {
    type Out = Result<(), HostError>;
    #[inline(always)]
    fn run<S: Simd>(self) -> Self::Out {
        let l = self.launch;
        for (i, row) in self.out.chunks_exact_mut(self.pitch.max(1)).enumerate() {
            let index = [self.batch as i64, (self.from + i) as i64, 0, 0, 0, 0, 0, 0];
            let run: Run = l.a.run(&index, 2, l.k);
            l.call.args.load_f32::<S>(l.left, run, &mut row[..l.k])?;
            row[l.k..].fill(0.0);
        }
        Ok(())
    }
}
