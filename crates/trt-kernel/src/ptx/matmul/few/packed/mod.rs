//! Up to 8 rows of `a` by packed rows: values go from their stream straight into products.
//!
//! A lane of a warp reads the stream that has just the pieces which it sums, so nothing is handed over: it looks up two
//! values at a time, puts the plain bits beside them, and multiplies. A warp has a stretch of four rounds; what these meet of `a` is
//! the same for all rows of a block of the weight. So a team has a warp for each stretch, and they walk over the rows in *turns*:
//! where stretches are of one segment, a warp goes on with the sums that the one before it left in the turn before.
//! Sums of a row whose segments are done are added in the next turn, in the order of [`crate::SumOrder`]. So outputs have the bits
//! of the product by plain rows.
//!
//! Bound by instructions and by what a look-up waits for, not by memory: about 7 instructions a value at one row of `a`, and 8
//! look-ups one after another for 16 values, each in a table of 16 KiB in shared memory where lanes meet in banks.

mod meet;
mod plan;
mod rows;

use super::cut::Cut;
use super::left::Prologue;
use crate::Matmul;
use crate::launch::Extent;
use crate::ptx::asm::{Asm, Class, Int, R};
use crate::ptx::block::Block;
use crate::ptx::divide;
use crate::ptx::emitted::Target;
use crate::ptx::matmul::out::{self, Ahead, Sums};
use crate::ptx::matmul::{MatmulFrame, over_rows};
use crate::ptx::packed::{Blocks, table};
use meet::Meet;
use rows::Rows;

pub(super) use plan::StreamPlan;
use plan::WARP;

/// The entry of a plan.
pub(super) fn assemble(kernel: &Matmul, target: Target, plan: StreamPlan, chain: bool) -> Block {
    let mut asm = Asm::default();
    let frame = MatmulFrame::begin_early(&mut asm, kernel, target);
    body(&mut asm, &frame, plan, chain);
    Block {
        name: format!("few{}", plan.m),
        asm,
        threads: plan.threads() as u32,
        crowd: Some(plan.crowd()),
        grid: [
            over_rows(kernel, plan.block_rows()),
            Extent::Fixed(1),
            Extent::Fixed(1),
        ],
        shared: plan.shared() as u32,
        order: Some(plan.order),
    }
}

/// Where a warp is.
struct Place {
    lane: R,
    /// Its team in the block, and itself there.
    team: R,
    warp: R,
    /// How many of its chain are before it.
    before: R,
    /// Whether its team has rows.
    some: R,
}

fn body(asm: &mut Asm, frame: &MatmulFrame<'_>, plan: StreamPlan, chain: bool) {
    let Some(tiles) = frame.tiles else { return };
    if chain {
        // A part ahead may still read what this one replaces in shared memory.
        asm.put("bar.sync 0");
    }
    let n0 = frame.block_row(asm, "x", plan.block_rows());
    let warp = asm.op("shr.u32", Class::B32, &[&frame.tid, &5]);
    let lane = asm.op("and.b32", Class::B32, &[&frame.tid, &31]);
    let (team, own) = divide::div_rem(asm, warp, plan.team() as u32);
    let (_, before) = divide::div_rem(asm, own, plan.chain() as u32);
    let row = asm.op("mad.lo.s32", Class::B32, &[&team, &plan.team_rows(), &n0]);
    let place = Place {
        lane,
        team,
        warp: own,
        before,
        some: asm.op("setp.lt.s32", Class::Pred, &[&row, &frame.end]),
    };
    let last = asm.op("add.s32", Class::B32, &[&frame.end, &-1]);
    let row = asm.op("min.s32", Class::B32, &[&row, &last]);
    let blocks = Blocks {
        layout: plan.layout,
        scope: &frame.scope,
        tiles,
    };
    let found = blocks.find(asm, row, own);
    let dynamic = asm.op("mov.u32", Class::B32, &[&"dynamic"]);
    let words = asm.op("mad.lo.u32", Class::B32, &[&warp, &plan.room, &dynamic]);
    let words = asm.op("add.u32", Class::B32, &[&words, &plan.left]);
    let mut rows = Rows::begin(asm, plan, frame.scope.target, found, [lane, words]);
    let threads = plan.threads();
    let at = asm.op("add.u32", Class::B32, &[&dynamic, &plan.table_at()]);
    table(asm, &plan.layout, &frame.scope, (frame.tid, threads), at);
    // A left operand that is computed has the bits of the plain product's.
    let members = Cut::new(frame.kernel, plan.order, plan.m).threads as u32;
    let sized = (members, threads as u32, plan.crowd());
    let prologue = Prologue::standing(asm, frame.kernel, sized, chain);
    if let Some(prologue) = &prologue {
        prologue.prefetch(asm, frame);
    }
    frame.scope.wait(asm);
    let outputs = [plan.m, plan.block_rows()];
    let origin = [Int::Imm(0), Int::Reg(n0)];
    let ahead = Ahead::load(asm, frame, outputs, origin, threads as u32);
    if let Some(prologue) = &prologue {
        prologue.run(asm, frame);
    }
    asm.put("bar.sync 0");
    rows.start(asm, at);
    let meet = Meet::begin(asm, frame, plan, prologue.as_ref(), [own, lane], &rows);

    let sums = asm.op("add.u32", Class::B32, &[&dynamic, &plan.sums_at()]);
    let parts = asm.op("add.u32", Class::B32, &[&dynamic, &plan.parts_at()]);
    let turns = Turns { plan, parts, sums };
    turns.run(asm, &place, &rows, &meet);
    asm.put("bar.sync 0");
    let sums = Sums {
        base: sums,
        rows: plan.m,
        cols: plan.block_rows(),
        pitch: plan.block_rows(),
    };
    match ahead {
        Some(ahead) => out::finish(asm, frame, &sums, ahead),
        None => out::run(asm, frame, &sums, Int::Imm(0), n0, threads as u32),
    }
}

/// The turns of a block's warps.
struct Turns {
    plan: StreamPlan,
    /// Where parts of sums are in shared memory, `[turn % 2][warp][output][lane]`.
    parts: R,
    /// Where sums are, `[m][row of b]`.
    sums: R,
}

impl Turns {
    fn run(&self, asm: &mut Asm, place: &Place, rows: &Rows, meet: &Meet) {
        let plan = &self.plan;
        let (own, each) = (plan.outputs() * WARP * 4, plan.parts());
        let first = asm.op("mul.lo.u32", Class::B32, &[&place.team, &plan.team()]);
        let team = asm.op("mad.lo.u32", Class::B32, &[&first, &own, &self.parts]);
        let team = asm.op("mad.lo.u32", Class::B32, &[&place.lane, &4, &team]);
        let warp = asm.op("mad.lo.u32", Class::B32, &[&place.warp, &own, &team]);
        // Bytes to the parts of this turn; those of the one before are the others.
        let now = asm.op("mov.b32", Class::B32, &[&0]);
        let turn = asm.op("mov.b32", Class::B32, &[&0]);
        let count = (plan.batches() + plan.chain()) as i64;
        asm.count_rolled(turn, Int::Imm(count), Int::Imm(1), |asm| {
            let old = asm.op("sub.u32", Class::B32, &[&each, &now]);
            let batch = asm.op("sub.u32", Class::B32, &[&turn, &place.before]);
            let some = [
                &batch,
                &plan.batches() as &dyn std::fmt::Display,
                &place.some,
            ];
            let some = asm.op("setp.lt.and.u32", Class::Pred, &some);
            asm.when(some, true, |asm| {
                let row = asm.op("mul.lo.u32", Class::B32, &[&batch, &plan.rows]);
                rows.take(asm, row);
                let left = asm.op("add.u32", Class::B32, &[&warp, &old]);
                let sums = self.begin(asm, place, left, own);
                meet.multiply(asm, rows, &sums);
                let to = asm.op("add.u32", Class::B32, &[&warp, &now]);
                for (i, sum) in sums.iter().enumerate() {
                    asm.put(format_args!("st.shared.f32 [{to}+{}], {sum}", i * WARP * 4));
                }
            });
            let done = asm.op("sub.u32", Class::B32, &[&turn, &plan.chain()]);
            let some = [
                &done,
                &plan.batches() as &dyn std::fmt::Display,
                &place.some,
            ];
            let some = asm.op("setp.lt.and.u32", Class::Pred, &some);
            asm.when(some, true, |asm| {
                let from = asm.op("add.u32", Class::B32, &[&team, &old]);
                self.add(asm, place, done, from);
            });
            self.meet(asm, place);
            asm.put(format_args!("mov.b32 {now}, {old}"));
        });
    }

    /// The sums that a warp goes on with: those of the one before it in its chain, or zeros.
    fn begin(&self, asm: &mut Asm, place: &Place, left: R, own: usize) -> Vec<R> {
        let sums: Vec<R> = (0..self.plan.outputs()).map(|_| asm.f32(0.0)).collect();
        if self.plan.chain() > 1 {
            let goes_on = asm.op("setp.ne.u32", Class::Pred, &[&place.before, &0]);
            for (i, sum) in sums.iter().enumerate() {
                let at = (i * WARP * 4) as i64 - own as i64;
                asm.put(format_args!(
                    "@{goes_on} ld.shared.f32 {sum}, [{left}+{at}]"
                ));
            }
        }
        sums
    }

    /// Adds the segments of the rows that are done, then lanes; outputs are shared out among warps.
    fn add(&self, asm: &mut Asm, place: &Place, batch: R, from: R) {
        let plan = &self.plan;
        let row = asm.op("mul.lo.u32", Class::B32, &[&place.team, &plan.team_rows()]);
        let row = asm.op("mad.lo.u32", Class::B32, &[&batch, &plan.rows, &row]);
        let to = asm.op("mad.lo.u32", Class::B32, &[&row, &4, &self.sums]);
        let first = asm.op("setp.eq.u32", Class::Pred, &[&place.lane, &0]);
        for output in 0..plan.outputs() {
            let warp = output % plan.team();
            let own = asm.op("setp.eq.u32", Class::Pred, &[&place.warp, &warp]);
            asm.when(own, true, |asm| {
                let parts: Vec<R> = (1..=plan.order.segments)
                    .map(|segment| {
                        let warp = segment * plan.chain() - 1;
                        let at = (warp * plan.outputs() + output) * WARP * 4;
                        let part = asm.reg(Class::F32);
                        asm.put(format_args!("ld.shared.f32 {part}, [{from}+{at}]"));
                        part
                    })
                    .collect();
                let mut add = |a: R, b: R| asm.op("add.rn.f32", Class::F32, &[&a, &b]);
                let sum = parts.into_iter().reduce(&mut add);
                let Some(mut sum) = sum else { return };
                for bit in [16, 8, 4, 2, 1] {
                    let got = [&sum as &dyn std::fmt::Display, &bit, &"0x1f", &"0xffffffff"];
                    let got = asm.op("shfl.sync.bfly.b32", Class::F32, &got);
                    sum = asm.op("add.rn.f32", Class::F32, &[&sum, &got]);
                }
                let at = 4 * (output / plan.rows * plan.block_rows() + output % plan.rows);
                asm.put(format_args!("@{first} st.shared.f32 [{to}+{at}], {sum}"));
            });
        }
    }

    /// Waits for the others of the team.
    fn meet(&self, asm: &mut Asm, place: &Place) {
        if self.plan.teams == 1 {
            return asm.put("bar.sync 0");
        }
        let id = asm.op("add.u32", Class::B32, &[&place.team, &1]);
        asm.put(format_args!("bar.sync {id}, {}", self.plan.team() * WARP));
    }
}
