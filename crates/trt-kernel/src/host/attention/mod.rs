//! Attention in one pass over keys and values, without the matrix of scores.
//!
//! A unit of work is a batch element, a key head, a block of queries and a range of keys; all
//! query heads of the group share its pass over keys and values. Keys go by in blocks of 64:
//! scores, the score body, a running maximum and sum, and the weighted values accumulate in f32.
//! With many queries, key blocks that no query of the block sees are skipped. With few, the keys
//! are split at fixed places and the partial results merged in order, so long contexts use all
//! threads and the bits do not depend on how many there are.

mod keys;

use super::HostError;
use super::call_view::{CallView, Index, MAX_AXES, SAME_AXES, places};
use super::dot::padded;
use super::exec::BodyCall;
use super::program::Program;
use super::row::cut;
use super::runs::Store;
use super::scratch;
use super::simd;
use super::softmax::{Running, SoftmaxStep};
use super::span::Args;
use super::team::Team;
use super::tile::{PANEL, Panel};
use crate::{Attention, Binary, Env, Inst, Reg};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Queries of a head that are done together.
const QUERIES: usize = 64;
/// Up to this many queries the keys are split between units.
const FEW: usize = 4;
/// Keys of a unit when they are split.
const SPLIT: usize = 128;

/// One launch with its numbers.
struct AttentionCall<'a> {
    kernel: &'a Attention,
    call: BodyCall<'a>,
    q: CallView,
    k: CallView,
    v: CallView,
    out: CallView,
    queries: usize,
    keys: usize,
    /// Key `j` is visible to query `i` if `i + low < j <= i + high`.
    low: i64,
    high: i64,
    /// The factor of a score body that only scales.
    scale: Option<f32>,
}

/// A piece of work: see the module comment.
struct Unit {
    batch: usize,
    head: usize,
    queries: Range<usize>,
    keys: Range<usize>,
}

/// The factor of a score that is `input` or `input * constant`.
pub(super) fn scale_only(program: &Program) -> Option<f32> {
    let insts = &program.insts;
    let constant = |r: Reg| match insts[r.0 as usize] {
        Inst::F32(c) => Some(c),
        _ => None,
    };
    let input = |r: Reg| insts[r.0 as usize] == Inst::Input;
    let score = insts.iter().rev().find_map(|i| match i {
        Inst::Yield(r) => Some(*r),
        _ => None,
    })?;
    if insts.iter().any(|i| matches!(i, Inst::Store(..))) {
        return None;
    }
    match insts[score.0 as usize] {
        Inst::Input => Some(1.0),
        Inst::Binary(Binary::Mul, x, c) if input(x) => constant(c),
        Inst::Binary(Binary::Mul, c, x) if input(x) => constant(c),
        _ => None,
    }
}

pub(super) fn run(
    kernel: &Attention,
    program: &Program,
    env: &Env,
    args: Args,
    team: &Team,
) -> Result<(), HostError> {
    let places = places(program, env);
    let (low, high) = match &kernel.causal {
        None => (i64::MIN / 4, i64::MAX / 4),
        Some(c) => {
            let offset = c.offset.eval(env);
            let window = c.window.and_then(|w| i64::try_from(w).ok());
            (
                window.map_or(i64::MIN / 4, |w| offset.saturating_sub(w)),
                offset,
            )
        }
    };
    let launch = AttentionCall {
        kernel,
        call: BodyCall {
            program,
            args,
            env,
            places: &places,
            iotas: SAME_AXES,
            inner: 3,
        },
        q: CallView::new(&kernel.q.view, env),
        k: CallView::new(&kernel.k.view, env),
        v: CallView::new(&kernel.v.view, env),
        out: CallView::new(&kernel.out.view, env),
        queries: kernel.queries.size(env),
        keys: kernel.keys.size(env),
        low,
        high,
        scale: scale_only(program),
    };
    let heads = kernel.batch.size(env) * kernel.kv_heads;
    if heads * kernel.heads * launch.queries == 0 {
        return Ok(());
    }
    match launch.queries <= FEW {
        true => launch.few(heads, team),
        false => launch.many(heads, team),
    }
}

impl AttentionCall<'_> {
    /// Query heads that share a key head.
    fn group(&self) -> usize {
        self.kernel.heads / self.kernel.kv_heads
    }

    /// Keys that some query of a range may see.
    fn seen(&self, queries: &Range<usize>) -> Range<usize> {
        let keys = self.keys as i64;
        let first = (queries.start as i64 + self.low + 1).clamp(0, keys);
        let end = (queries.end as i64 + self.high).clamp(first, keys);
        first as usize..end as usize
    }

    /// About nanoseconds of a number of keys against all queries of a group.
    fn cost(&self, keys: usize) -> usize {
        let rows = self.group() * self.queries.min(QUERIES);
        keys * (self.kernel.head_dim + self.kernel.value_dim) * (rows + 2) / 32
    }

    fn many(&self, heads: usize, team: &Team) -> Result<(), HostError> {
        let blocks = self.queries.div_ceil(QUERIES);
        // Under a causal mask late queries see more: they go first.
        team.try_run(heads * blocks, |part| {
            let (block, at) = (blocks - 1 - part / heads, part % heads);
            let queries = block * QUERIES..((block + 1) * QUERIES).min(self.queries);
            let unit = Unit {
                batch: at / self.kernel.kv_heads,
                head: at % self.kernel.kv_heads,
                keys: self.seen(&queries),
                queries,
            };
            let rows = self.group() * unit.queries.len();
            scratch::with(Running::floats(rows, self.kernel.value_dim), |buffer| {
                let mut running = Running::new(buffer, rows, self.kernel.value_dim);
                self.pass(&unit, &mut running)?;
                self.write(&unit, &mut running)
            })
        })
    }

    fn few(&self, heads: usize, team: &Team) -> Result<(), HostError> {
        let queries = 0..self.queries;
        let seen = self.seen(&queries);
        // Split at multiples of the split size, so that a growing context keeps its pieces.
        let first = seen.start / SPLIT;
        let splits = seen.end.div_ceil(SPLIT).saturating_sub(first).max(1);
        let rows = self.group() * self.queries;
        let size = Running::floats(rows, self.kernel.value_dim);
        scratch::with(heads * splits * size, |buffer| {
            let parts: Vec<Mutex<&mut [f32]>> = buffer.chunks_mut(size).map(Mutex::new).collect();
            let unit = |at: usize, split: usize| Unit {
                batch: at / self.kernel.kv_heads,
                head: at % self.kernel.kv_heads,
                queries: queries.clone(),
                keys: seen.start.max((first + split) * SPLIT)
                    ..seen.end.min((first + split + 1) * SPLIT),
            };
            let units = heads * splits;
            cut(team, units, heads * self.cost(seen.len()), |range| {
                for u in range {
                    let mut part = parts[u].lock().unwrap_or_else(PoisonError::into_inner);
                    let mut running = Running::new(&mut part, rows, self.kernel.value_dim);
                    self.pass(&unit(u / splits, u % splits), &mut running)?;
                }
                Ok(())
            })?;
            drop(parts);
            for (at, all) in buffer.chunks_mut(size * splits).enumerate() {
                let (total, rest) = all.split_at_mut(size);
                let mut total = Running::over(total, rows, self.kernel.value_dim);
                for part in rest.chunks_mut(size) {
                    total.merge(&Running::over(part, rows, self.kernel.value_dim));
                }
                self.write(&unit(at, 0), &mut total)?;
            }
            Ok(())
        })
    }

    /// Takes all keys of a unit into the running softmax.
    fn pass(&self, unit: &Unit, running: &mut Running) -> Result<(), HostError> {
        let (dim, value) = (self.kernel.head_dim, self.kernel.value_dim);
        let rows = self.group() * unit.queries.len();
        let (pad, wide) = (padded(dim), value.next_multiple_of(PANEL));
        let sizes = [rows * pad, PANEL * dim, PANEL * wide, rows * PANEL];
        scratch::with(sizes.iter().sum(), |buffer| {
            let (q, buffer) = buffer.split_at_mut(sizes[0]);
            let (k, buffer) = buffer.split_at_mut(sizes[1]);
            let (v, scores) = buffer.split_at_mut(sizes[2]);
            self.load_queries(unit, q, pad)?;
            let mut from = unit.keys.start;
            while from < unit.keys.end {
                // Blocks end at multiples of 64 keys wherever the range begins.
                let end = ((from / PANEL + 1) * PANEL).min(unit.keys.end);
                let keys = from..end;
                self.scores(unit, &keys, (q, pad), k, scores)?;
                if self.scale.is_none() {
                    self.score_body(unit, &keys, scores)?;
                }
                self.load_values(unit, &keys, v)?;
                simd::run(SoftmaxStep {
                    running,
                    scores,
                    keys: keys.len(),
                    scale: self.scale.unwrap_or(1.0),
                    visible: |row: usize| self.visible(unit, row, &keys),
                });
                for j in 0..wide / PANEL {
                    let panel = Panel {
                        a: scores,
                        lda: PANEL,
                        m: rows,
                        k: keys.len(),
                        b: &v[j * PANEL * PANEL..],
                        c: &mut running.values[j * PANEL..],
                        ldc: wide,
                        add: true,
                        pairs: false,
                    };
                    panel.run();
                }
                from = end;
            }
            Ok(())
        })
    }

    /// The columns of a block of keys that a row of a unit sees.
    #[inline(always)]
    fn visible(&self, unit: &Unit, row: usize, keys: &Range<usize>) -> Range<usize> {
        let i = (unit.queries.start + row % unit.queries.len()) as i64;
        let clip = |j: i64| (j - keys.start as i64).clamp(0, keys.len() as i64) as usize;
        let first = clip(i + self.low + 1);
        first..clip(i + self.high + 1).max(first)
    }

    /// The index of a row of a unit: rows are ordered by head, then query.
    fn row(&self, unit: &Unit, row: usize) -> Index {
        let (head, query) = (row / unit.queries.len(), row % unit.queries.len());
        let mut index = [0; MAX_AXES];
        index[0] = unit.batch as i64;
        index[1] = (unit.head * self.group() + head) as i64;
        index[2] = (unit.queries.start + query) as i64;
        index
    }

    /// Divides by the sums and stores.
    fn write(&self, unit: &Unit, running: &mut Running) -> Result<(), HostError> {
        running.finish();
        for row in 0..self.group() * unit.queries.len() {
            let run = self.out.run(&self.row(unit, row), 3, self.kernel.value_dim);
            simd::run(Store(
                &self.call.args,
                self.kernel.out.arg,
                run,
                running.row(row),
            ))?;
        }
        Ok(())
    }
}
