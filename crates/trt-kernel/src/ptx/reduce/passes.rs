//! The passes of a row: one for each stage, with registers that stay or without.

use super::InRow;
use crate::launch::row_plan::{Passes, RowPlan};
use crate::launch::stages::{Stage, Stages};
use crate::ptx::asm::{Asm, Class, Int, R};
use crate::ptx::fold::{self, FoldTeam, Stands};
use crate::ptx::lanes::{Lanes, Point, Value};
use crate::ptx::scope::Scope;
use crate::{Reduce, Reg, Row, Ty};

/// A chunk of columns.
struct Chunk {
    at: Vec<Int>,
    /// Whether it is one of a row's; none if it always is.
    inside: Option<R>,
}

/// What a thread does: all passes over its rows.
pub(super) struct RowJob<'a> {
    pub scope: &'a Scope,
    pub row: &'a Row,
    /// The types of the body's registers.
    pub types: &'a [Option<Ty>],
    pub stages: &'a Stages,
    pub plan: RowPlan,
    /// The rows that a thread has a part in; with `stands` one place for each member that it stands for.
    pub places: Vec<InRow>,
    /// How the block's threads stand for the plan's, if those are others.
    pub stands: Option<Stands>,
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

/// One pass over a row whose registers do not stay.
struct Pass<'p, 'a> {
    place: &'p InRow,
    stage: &'p Stage,
    accs: &'p [(Reduce, R)],
    /// What is the same in all columns.
    shared: &'p Lanes<'a>,
    /// Whether it stores.
    last: bool,
}

impl<'a> RowJob<'a> {
    fn lanes(&self) -> Lanes<'a> {
        Lanes::new(self.scope, &self.row.body, &self.row.args)
    }

    /// Folds what each place has, so many values of it.
    fn fold(&self, asm: &mut Asm, accs: &[(Reduce, R)], folds: usize) -> Vec<R> {
        let team = FoldTeam {
            threads: self.plan.threads,
        };
        match self.stands {
            None => team.fold(asm, accs),
            Some(stands) => stands.fold(asm, accs, folds),
        }
    }

    pub fn run(&self, asm: &mut Asm) {
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
                let own = self.accumulators(asm, stage);
                self.take(asm, stage, &own, &line.chunks, &line.points);
                accs.extend(own);
            }
            let folded = self.fold(asm, &accs, stage.folds.len());
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
                let own = self.accumulators(asm, stage);
                let pass = Pass {
                    place,
                    stage,
                    accs: &own,
                    shared,
                    last,
                };
                self.inside(asm, place.inside, |asm| self.pass(asm, &pass, unroll));
                accs.extend(own);
            }
            let folded = self.fold(asm, &accs, stage.folds.len());
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
    fn pass(&self, asm: &mut Asm, pass: &Pass<'_, 'a>, unroll: usize) {
        let Pass { place, stage, .. } = pass;
        let threads = self.plan.threads as i64;
        let counter = asm.op("mov.u32", Class::B32, &[&place.member]);
        let turn = |asm: &mut Asm, count: usize| {
            let chunks: Vec<Chunk> = (0..count as i64)
                .map(|i| {
                    let number = asm.op("add.s32", Class::B32, &[&counter, &(i * threads)]);
                    self.chunk(asm, place, number, None)
                })
                .collect();
            let mut points = vec![pass.shared.clone(); count];
            for inst in &stage.again {
                self.step(asm, *inst, &chunks, &mut points);
            }
            self.take(asm, stage, pass.accs, &chunks, &points);
            if pass.last {
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
                    let neutral = fold::neutral(*kind, x.class);
                    let select = match x.class {
                        Class::B64 => "selp.b64",
                        _ => "selp.f32",
                    };
                    x = asm.op(select, x.class, &[&x, &neutral, &inside]);
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

    /// An accumulator for each fold of a stage.
    fn accumulators(&self, asm: &mut Asm, stage: &Stage) -> Vec<(Reduce, R)> {
        let neutral = |(_, kind, operand): &(usize, Reduce, Reg)| {
            let class = fold::class(self.types[operand.0 as usize]);
            let acc = asm.op(class.mov(), class, &[&fold::neutral(*kind, class)]);
            (*kind, acc)
        };
        stage.folds.iter().map(neutral).collect()
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
