//! Row kernels with reductions: a team of threads for each row, a pass for each stage.
//!
//! A thread takes chunks of neighbouring columns, every team's size apart. Where a row is known
//! to be short enough its registers are kept from pass to pass; else each pass computes again
//! what it needs. Threads beyond the rows or the columns stay until the last fold: they read
//! nothing, fold neutral elements and store nothing.

use super::PtxError;
use super::asm::{Asm, Class, Int, R};
use super::block::Block;
use super::divide;
use super::emitted::{Extent, Target};
use super::fold;
use super::lanes::{Lanes, Point, Value};
use super::plan::{Passes, Plan, UNROLL};
use super::row::vars;
use super::scope::Scope;
use super::space::{self, Columns};
use super::stages::{Loads, Stage, Stages};
use crate::{Dim, Reduce, Reg, Row};

pub(super) fn block(kernel: &Row, target: Target) -> Result<Block, PtxError> {
    let row = space::merge_row(kernel, Columns::Keep);
    let types = (row.body.types(&row.args)).map_err(|source| crate::KernelError::Body {
        kernel: "row",
        source,
    })?;
    let [early, late] =
        [Loads::First, Loads::Late].map(|l| Stages::new(&row.body, row.space.len(), &types, l));
    let [first, plan] = [&early, &late].map(|s| Plan::new(&row, s));
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
    let place = Place::begin(&mut asm, &scope, &row, &plan, &rows);
    let job = Job {
        scope: &scope,
        row: &row,
        stages: &stages,
        plan,
        place,
    };
    match plan.passes {
        Passes::Keep { chunks } => job.keep(&mut asm, chunks),
        Passes::Again => job.again(&mut asm),
    }
    let grid = Extent::Of {
        dim: rows,
        per: plan.rows,
    };
    Ok(Block::new("row", asm, plan.block(), grid))
}

/// Where a thread is.
struct Place {
    /// The index along the outer axes.
    outer: Vec<Int>,
    /// Whether the thread's row is one; none if all are.
    inside: Option<R>,
    /// The thread's number in its team (s32).
    member: R,
    /// Chunks of a row.
    chunks: Int,
}

impl Place {
    fn begin(asm: &mut Asm, scope: &Scope, row: &Row, plan: &Plan, rows: &Dim) -> Place {
        let (threads, outer) = (plan.team.threads, &row.space[..row.space.len() - 1]);
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
        Place {
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
    plan: Plan,
    place: Place,
}

impl<'a> Job<'a> {
    fn lanes(&self) -> Lanes<'a> {
        Lanes::new(self.scope, &self.row.body, &self.row.args)
    }

    /// The chunk with this number.
    fn chunk(&self, asm: &mut Asm, number: R, inside: Option<R>) -> Chunk {
        let column = asm.op("mul.lo.s32", Class::B32, &[&number, &self.plan.lanes]);
        let mut at = self.place.outer.clone();
        at.push(Int::Reg(column));
        Chunk { at, inside }
    }

    /// Registers stay: each thread's chunks are known, and pass follows pass without a loop.
    fn keep(&self, asm: &mut Asm, chunks: usize) {
        let threads = self.plan.team.threads as usize;
        let total = match self.place.chunks {
            Int::Imm(c) => c as usize,
            Int::Reg(_) => 0, // a kept row's size is known
        };
        let chunks: Vec<Chunk> = (0..chunks)
            .map(|i| {
                let mut number = self.place.member;
                if i > 0 {
                    number = asm.op("add.s32", Class::B32, &[&number, &(i * threads)]);
                }
                let mut inside = self.place.inside;
                if (i + 1) * threads > total {
                    let own = asm.op("setp.lt.s32", Class::Pred, &[&number, &total]);
                    inside = Some(match inside {
                        Some(row) => asm.op("and.pred", Class::Pred, &[&own, &row]),
                        None => own,
                    });
                }
                self.chunk(asm, number, inside)
            })
            .collect();
        let mut shared = self.lanes();
        let mut points: Vec<Lanes> = chunks.iter().map(|_| self.lanes()).collect();
        for stage in &self.stages.list {
            self.row_values(asm, stage, &mut shared);
            for p in &mut points {
                copy(&stage.row, &shared, p);
            }
            self.run(asm, &stage.fresh, &chunks, &mut points);
            let accs = accumulators(asm, stage);
            self.take(asm, stage, &accs, &chunks, &points);
            let folded = self.plan.team.fold(asm, &accs);
            for lanes in points.iter_mut().chain([&mut shared]) {
                give(stage, &folded, lanes);
            }
        }
        for (chunk, lanes) in chunks.iter().zip(&mut points) {
            self.store(asm, chunk, lanes);
        }
        self.store_row(asm, &mut shared);
    }

    /// Each pass loops over the columns.
    fn again(&self, asm: &mut Asm) {
        let mut shared = self.lanes();
        for (s, stage) in self.stages.list.iter().enumerate() {
            let last = s + 1 == self.stages.list.len();
            self.row_values(asm, stage, &mut shared);
            if last && self.stages.stores.is_empty() {
                continue;
            }
            let accs = accumulators(asm, stage);
            self.inside(asm, self.place.inside, |asm| {
                self.pass(asm, stage, &accs, &shared, last)
            });
            let folded = self.plan.team.fold(asm, &accs);
            give(stage, &folded, &mut shared);
        }
        self.store_row(asm, &mut shared);
    }

    /// One pass over the chunks of a thread, several at once while there are.
    fn pass(
        &self,
        asm: &mut Asm,
        stage: &Stage,
        accs: &[(Reduce, R)],
        shared: &Lanes<'a>,
        last: bool,
    ) {
        let threads = self.plan.team.threads as i64;
        let counter = asm.op("mov.u32", Class::B32, &[&self.place.member]);
        let turn = |asm: &mut Asm, count: usize| {
            let chunks: Vec<Chunk> = (0..count as i64)
                .map(|i| {
                    let number = asm.op("add.s32", Class::B32, &[&counter, &(i * threads)]);
                    self.chunk(asm, number, None)
                })
                .collect();
            let mut points = vec![shared.clone(); count];
            self.run(asm, &stage.again, &chunks, &mut points);
            self.take(asm, stage, accs, &chunks, &points);
            if last {
                for (chunk, lanes) in chunks.iter().zip(&mut points) {
                    self.store(asm, chunk, lanes);
                }
            }
        };
        let ahead = (UNROLL as i64 - 1) * threads;
        let full = match self.place.chunks {
            Int::Imm(c) => Int::Imm(c - ahead),
            Int::Reg(c) => Int::Reg(asm.op("sub.s32", Class::B32, &[&c, &ahead])),
        };
        let step = |n: usize| Int::Imm(n as i64 * threads);
        asm.count(counter, full, step(UNROLL), |asm| turn(asm, UNROLL));
        asm.count(counter, self.place.chunks, step(1), |asm| turn(asm, 1));
    }

    /// What is the same in all columns.
    fn row_values(&self, asm: &mut Asm, stage: &Stage, shared: &mut Lanes<'a>) {
        let mut at = self.place.outer.clone();
        at.push(Int::Imm(0));
        for inst in &stage.row {
            shared.step_if(asm, one(&at), *inst, self.place.inside);
        }
    }

    /// Instruction by instruction over all chunks, so that the loads of all come first.
    fn run(&self, asm: &mut Asm, list: &[usize], chunks: &[Chunk], points: &mut [Lanes<'a>]) {
        for inst in list {
            for (chunk, lanes) in chunks.iter().zip(points.iter_mut()) {
                lanes.step_if(asm, self.point(chunk), *inst, chunk.inside);
            }
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
    fn store_row(&self, asm: &mut Asm, shared: &mut Lanes<'a>) {
        if self.stages.row_stores.is_empty() {
            return;
        }
        let mut at = self.place.outer.clone();
        at.push(Int::Imm(0));
        let first = asm.op("setp.eq.s32", Class::Pred, &[&self.place.member, &0]);
        let stores = match self.place.inside {
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
