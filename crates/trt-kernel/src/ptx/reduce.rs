//! Row kernels with reductions: a team of threads for each row, a pass for each stage.
//!
//! A thread takes chunks of neighbouring columns, every team's size apart. Where a row is known
//! to be short enough its registers are kept from pass to pass; else each pass computes again
//! what it needs. Threads beyond the rows or the columns stay until the last fold: they read
//! nothing, fold neutral elements and store nothing.
//!
//! A block of another kernel may compute a few rows for itself ([`rows`]): then each pass takes all
//! of them, so that their loads and folds overlap.

use super::PtxError;
use super::asm::{Asm, Class, Int, R};
use super::block::Block;
use super::divide;
use super::emitted::Target;
use super::fold::{self, Team};
use super::lanes::{Lanes, Point, Value};
use super::row::vars;
use super::scope::Scope;
use super::space::{self, Columns};
use crate::launch::Extent;
use crate::launch::row_plan::{Passes, RowPlan};
use crate::launch::stages::{Loads, Stage, Stages};
use crate::{Dim, Reduce, Reg, Row, Ty};

pub(super) fn block(kernel: &Row, target: Target) -> Result<Block, PtxError> {
    let row = space::merge_row(kernel, Columns::Keep);
    let types = (row.body.types(&row.args)).map_err(|source| crate::KernelError::Body {
        kernel: "row",
        source,
    })?;
    let [early, late] =
        [Loads::First, Loads::Late].map(|l| Stages::new(&row.body, row.space.len(), &types, l));
    let [first, plan] = [&early, &late].map(|s| RowPlan::new(&row, s));
    let stages = if first == plan { early } else { late };
    if let Some(i) = stages.ambiguous {
        return Err(PtxError::Unsupported {
            kernel: "row",
            what: format!("instruction {i} stores all columns of a row to one element"),
        });
    }
    let mut asm = Asm::default();
    let scope = Scope::begin(&mut asm, target, row.args.len(), &vars(&row));
    let rows = Dim::product(&row.space[..row.space.len() - 1]);
    let places = vec![InRow::begin(&mut asm, &scope, &row, &plan, &rows)];
    let job = Job {
        scope: &scope,
        row: &row,
        stages: &stages,
        plan,
        places,
    };
    job.run(&mut asm);
    let grid = Extent::Of {
        dim: rows,
        per: plan.rows,
    };
    Ok(Block::new("row", asm, plan.block(), grid))
}

/// Computes all rows of a kernel in each block of `threads` threads, `tid` being the thread's
/// number in it. The outer axes have known sizes, and so have the columns; `carry` is how many
/// registers of a thread may carry values from pass to pass.
pub(super) fn rows(
    asm: &mut Asm,
    scope: &Scope,
    row: &Row,
    types: &[Option<Ty>],
    (tid, threads): (R, u32),
    carry: usize,
) {
    let row = space::merge_row(row, Columns::Keep);
    let stages = |l| Stages::new(&row.body, row.space.len(), types, l);
    let plan = |s: &Stages| RowPlan::within(&row, s, threads, carry);
    let [early, late] = [Loads::First, Loads::Late].map(stages);
    let (stages, plan) = match plan(&early) {
        plan if matches!(plan.passes, Passes::Keep { .. }) => (early, plan),
        _ => {
            let plan = plan(&late);
            (late, plan)
        }
    };
    let outer = row.space[..row.space.len() - 1].iter();
    let mut places = vec![Vec::new()];
    for size in outer {
        let all = 0..size.constant().unwrap_or(0);
        let each = all.flat_map(|i| {
            let inner = places.iter().cloned();
            inner.map(move |mut at: Vec<Int>| {
                at.push(Int::Imm(i));
                at
            })
        });
        places = each.collect();
    }
    let columns = row.space[row.space.len() - 1].constant().unwrap_or(0);
    let place = |outer| InRow {
        outer,
        inside: None,
        member: tid,
        chunks: Int::Imm(columns / plan.lanes as i64),
    };
    let job = Job {
        scope,
        row: &row,
        stages: &stages,
        plan,
        places: places.into_iter().map(place).collect(),
    };
    job.run(asm);
}

/// Where a thread is in a row.
struct InRow {
    /// The index along the outer axes.
    outer: Vec<Int>,
    /// Whether the thread's row is one; none if all are.
    inside: Option<R>,
    /// The thread's number in its team (s32).
    member: R,
    /// Chunks of a row.
    chunks: Int,
}

impl InRow {
    fn begin(asm: &mut Asm, scope: &Scope, row: &Row, plan: &RowPlan, rows: &Dim) -> InRow {
        let (threads, outer) = (plan.threads, &row.space[..row.space.len() - 1]);
        let tid = asm.op("mov.u32", Class::B32, &[&"%tid.x"]);
        let mut number = asm.op("mov.u32", Class::B32, &[&"%ctaid.x"]);
        let (mut member, mut inside) = (tid, None);
        if plan.rows > 1 {
            let (team, within) = divide::div_rem(asm, tid, threads);
            member = within;
            number = asm.op("mad.lo.u32", Class::B32, &[&number, &plan.rows, &team]);
            let full = rows
                .constant()
                .is_some_and(|r| r % i64::from(plan.rows) == 0);
            if !full {
                let rows = scope.size(asm, rows);
                inside = Some(asm.op("setp.lt.u32", Class::Pred, &[&number, &rows]));
            }
        }
        let outer = space::index(asm, scope, outer, number);
        let columns = &row.space[row.space.len() - 1];
        // Columns are a multiple of the lanes.
        let chunks = columns.divide(&Dim::from(plan.lanes)).unwrap_or_default();
        InRow {
            outer,
            inside,
            member,
            chunks: scope.size(asm, &chunks),
        }
    }
}

/// A chunk of columns.
struct Chunk {
    at: Vec<Int>,
    /// Whether it is one of a row's; none if it always is.
    inside: Option<R>,
}

struct Job<'a> {
    scope: &'a Scope,
    row: &'a Row,
    stages: &'a Stages,
    plan: RowPlan,
    /// The rows that a thread has a part in.
    places: Vec<InRow>,
}

/// A row whose registers stay.
struct Line<'j, 'a> {
    place: &'j InRow,
    chunks: Vec<Chunk>,
    /// What is the same in all columns.
    shared: Lanes<'a>,
    /// One for each chunk.
    points: Vec<Lanes<'a>>,
}

impl<'a> Job<'a> {
    fn lanes(&self) -> Lanes<'a> {
        Lanes::new(self.scope, &self.row.body, &self.row.args)
    }

    fn team(&self) -> Team {
        Team {
            threads: self.plan.threads,
        }
    }

    fn run(&self, asm: &mut Asm) {
        match self.plan.passes {
            Passes::Keep { chunks } => self.keep(asm, chunks),
            Passes::Again { unroll } => self.again(asm, unroll),
        }
    }

    /// The chunk of a row with this number.
    fn chunk(&self, asm: &mut Asm, place: &InRow, number: R, inside: Option<R>) -> Chunk {
        let column = asm.op("mul.lo.s32", Class::B32, &[&number, &self.plan.lanes]);
        let mut at = place.outer.clone();
        at.push(Int::Reg(column));
        Chunk { at, inside }
    }

    /// A row and the chunks of it that a thread has, `count` at most.
    fn line<'j>(&self, asm: &mut Asm, place: &'j InRow, count: usize) -> Line<'j, 'a> {
        let threads = self.plan.threads as usize;
        let total = match place.chunks {
            Int::Imm(c) => c as usize,
            Int::Reg(_) => 0, // a kept row's size is known
        };
        let chunks: Vec<Chunk> = (0..count)
            .map(|i| {
                let mut number = place.member;
                if i > 0 {
                    number = asm.op("add.s32", Class::B32, &[&number, &(i * threads)]);
                }
                let mut inside = place.inside;
                if (i + 1) * threads > total {
                    let own = asm.op("setp.lt.s32", Class::Pred, &[&number, &total]);
                    inside = Some(match inside {
                        Some(row) => asm.op("and.pred", Class::Pred, &[&own, &row]),
                        None => own,
                    });
                }
                self.chunk(asm, place, number, inside)
            })
            .collect();
        Line {
            place,
            shared: self.lanes(),
            points: chunks.iter().map(|_| self.lanes()).collect(),
            chunks,
        }
    }

    /// Registers stay: each thread's chunks are known, and pass follows pass without a loop.
    fn keep(&self, asm: &mut Asm, chunks: usize) {
        let lines = self.places.iter().map(|p| self.line(asm, p, chunks));
        let mut lines: Vec<Line> = lines.collect();
        for stage in &self.stages.list {
            for line in &mut lines {
                self.row_values(asm, line.place, stage, &mut line.shared);
                for p in &mut line.points {
                    copy(&stage.row, &line.shared, p);
                }
            }
            // Instruction by instruction over all chunks, so that the loads of all come first.
            for inst in &stage.fresh {
                for line in &mut lines {
                    self.step(asm, *inst, &line.chunks, &mut line.points);
                }
            }
            let mut accs = Vec::new();
            for line in &lines {
                let own = accumulators(asm, stage);
                self.take(asm, stage, &own, &line.chunks, &line.points);
                accs.extend(own);
            }
            let folded = self.team().fold(asm, &accs);
            let mut folded = folded.chunks(stage.folds.len().max(1));
            for line in &mut lines {
                let folded = folded.next().unwrap_or(&[]);
                for lanes in line.points.iter_mut().chain([&mut line.shared]) {
                    give(stage, folded, lanes);
                }
            }
        }
        for line in &mut lines {
            for (chunk, lanes) in line.chunks.iter().zip(&mut line.points) {
                self.store(asm, chunk, lanes);
            }
            self.store_row(asm, line.place, &mut line.shared);
        }
    }

    /// Each pass loops over the columns.
    fn again(&self, asm: &mut Asm, unroll: usize) {
        let mut all: Vec<Lanes> = self.places.iter().map(|_| self.lanes()).collect();
        for (s, stage) in self.stages.list.iter().enumerate() {
            let last = s + 1 == self.stages.list.len();
            let mut accs = Vec::new();
            for (place, shared) in self.places.iter().zip(&mut all) {
                self.row_values(asm, place, stage, shared);
                if last && self.stages.stores.is_empty() {
                    continue;
                }
                let own = accumulators(asm, stage);
                self.inside(asm, place.inside, |asm| {
                    self.pass(asm, place, stage, &own, shared, (unroll, last))
                });
                accs.extend(own);
            }
            let folded = self.team().fold(asm, &accs);
            let mut folded = folded.chunks(stage.folds.len().max(1));
            for shared in &mut all {
                give(stage, folded.next().unwrap_or(&[]), shared);
            }
        }
        for (place, shared) in self.places.iter().zip(&mut all) {
            self.store_row(asm, place, shared);
        }
    }

    /// One pass over the chunks of a thread, several at once while there are.
    fn pass(
        &self,
        asm: &mut Asm,
        place: &InRow,
        stage: &Stage,
        accs: &[(Reduce, R)],
        shared: &Lanes<'a>,
        (unroll, last): (usize, bool),
    ) {
        let threads = self.plan.threads as i64;
        let counter = asm.op("mov.u32", Class::B32, &[&place.member]);
        let turn = |asm: &mut Asm, count: usize| {
            let chunks: Vec<Chunk> = (0..count as i64)
                .map(|i| {
                    let number = asm.op("add.s32", Class::B32, &[&counter, &(i * threads)]);
                    self.chunk(asm, place, number, None)
                })
                .collect();
            let mut points = vec![shared.clone(); count];
            for inst in &stage.again {
                self.step(asm, *inst, &chunks, &mut points);
            }
            self.take(asm, stage, accs, &chunks, &points);
            if last {
                for (chunk, lanes) in chunks.iter().zip(&mut points) {
                    self.store(asm, chunk, lanes);
                }
            }
        };
        let ahead = (unroll as i64 - 1) * threads;
        let full = match place.chunks {
            Int::Imm(c) => Int::Imm(c - ahead),
            Int::Reg(c) => Int::Reg(asm.op("sub.s32", Class::B32, &[&c, &ahead])),
        };
        let step = |n: usize| Int::Imm(n as i64 * threads);
        if unroll > 1 {
            asm.count(counter, full, step(unroll), |asm| turn(asm, unroll));
        }
        asm.count(counter, place.chunks, step(1), |asm| turn(asm, 1));
    }

    /// What is the same in all columns.
    fn row_values(&self, asm: &mut Asm, place: &InRow, stage: &Stage, shared: &mut Lanes<'a>) {
        let mut at = place.outer.clone();
        at.push(Int::Imm(0));
        for inst in &stage.row {
            shared.step_if(asm, one(&at), *inst, place.inside);
        }
    }

    /// One instruction, over all chunks.
    fn step(&self, asm: &mut Asm, inst: usize, chunks: &[Chunk], points: &mut [Lanes<'a>]) {
        for (chunk, lanes) in chunks.iter().zip(points.iter_mut()) {
            lanes.step_if(asm, self.point(chunk), inst, chunk.inside);
        }
    }

    fn point<'c>(&self, chunk: &'c Chunk) -> Point<'c> {
        Point {
            at: &chunk.at,
            lanes: self.plan.lanes,
            input: &[],
        }
    }

    /// Folds what the chunks have into the accumulators.
    fn take(
        &self,
        asm: &mut Asm,
        stage: &Stage,
        accs: &[(Reduce, R)],
        chunks: &[Chunk],
        points: &[Lanes<'a>],
    ) {
        for ((_, kind, operand), (_, acc)) in stage.folds.iter().zip(accs) {
            for (chunk, lanes) in chunks.iter().zip(points) {
                let all: Vec<R> = (0..self.plan.lanes)
                    .map(|l| lanes.lane(*operand, l))
                    .collect();
                let mut x = fold::tree(asm, *kind, &all);
                if let Some(inside) = chunk.inside {
                    let neutral = fold::neutral(*kind);
                    x = asm.op("selp.f32", Class::F32, &[&x, &neutral, &inside]);
                }
                fold::take(asm, *kind, *acc, x);
            }
        }
    }

    /// The stores of a chunk.
    fn store(&self, asm: &mut Asm, chunk: &Chunk, lanes: &mut Lanes<'a>) {
        self.inside(asm, chunk.inside, |asm| {
            for inst in &self.stages.stores {
                lanes.step(asm, self.point(chunk), *inst);
            }
        });
    }

    /// The stores of a row, by the first thread of its team.
    fn store_row(&self, asm: &mut Asm, place: &InRow, shared: &mut Lanes<'a>) {
        if self.stages.row_stores.is_empty() {
            return;
        }
        let mut at = place.outer.clone();
        at.push(Int::Imm(0));
        let first = asm.op("setp.eq.s32", Class::Pred, &[&place.member, &0]);
        let stores = match place.inside {
            Some(inside) => asm.op("and.pred", Class::Pred, &[&first, &inside]),
            None => first,
        };
        asm.when(stores, true, |asm| {
            for inst in &self.stages.row_stores {
                shared.step(asm, one(&at), *inst);
            }
        });
    }

    fn inside(&self, asm: &mut Asm, p: Option<R>, then: impl FnOnce(&mut Asm)) {
        match p {
            Some(p) => asm.when(p, true, then),
            None => then(asm),
        }
    }
}

fn one(at: &[Int]) -> Point<'_> {
    Point {
        at,
        lanes: 1,
        input: &[],
    }
}

/// An accumulator for each fold of a stage.
fn accumulators(asm: &mut Asm, stage: &Stage) -> Vec<(Reduce, R)> {
    let neutral = |(_, kind, _): &(usize, Reduce, Reg)| {
        let acc = asm.op("mov.f32", Class::F32, &[&fold::neutral(*kind)]);
        (*kind, acc)
    };
    stage.folds.iter().map(neutral).collect()
}

/// Copies the values of instructions from one point to another.
fn copy(list: &[usize], from: &Lanes<'_>, to: &mut Lanes<'_>) {
    for inst in list {
        let reg = Reg(*inst as u16);
        to.set(reg, from.value(reg).clone());
    }
}

/// Hands folded values to a point.
fn give(stage: &Stage, folded: &[R], to: &mut Lanes<'_>) {
    for ((inst, _, _), value) in stage.folds.iter().zip(folded) {
        to.set(Reg(*inst as u16), Value::Uniform(*value));
    }
}
