//! Up to 8 rows of `a` by a right operand in blocks, which is read once, as it lies in its file.
//!
//! A warp keeps its segment of a row of `a` in registers, 64 values a lane ([`meets`]), and walks over rows
//! of `b`, which come through a ring of its own in shared memory ([`ring`]): a segment is less than
//! 2 KiB, and several are on their way for each warp. Lanes unpack their pieces ([`unpack`]) and sum them
//! as [`crate::SumOrder`] says; the sums of a segment are folded at once, and those of segments are added
//! in the end. How rows and segments are given to warps is [`plan`], and changes no bit.
//!
//! Bound by memory for large weights: a Q4_K weight takes 0.5625 bytes and about 3 instructions, and a
//! multiprocessor of a H200 has time for 4 of them while the bytes come. For small ones by what a block does
//! once: the wait for the launch ahead, then what it meets, then the last rows' way through the ring and the
//! epilogue, 4 µs or so. The first stage is on its way before the wait.

mod bytes;
mod lane;
mod meets;
mod plan;
mod products;
mod put;
mod ring;
mod scales;
mod unpack;
mod work;

use super::super::MatmulFrame;
use super::super::out::{self, Ahead, Sums};
use super::super::{over, over_rows};
use super::left::Prologue;
use crate::Matmul;
use crate::launch::Extent;
use crate::ptx::asm::{Asm, Class, Int, R};
use crate::ptx::block::Block;
use crate::ptx::emitted::Target;
pub(super) use plan::{RingPlan, room};
use ring::Ring;
use work::Work;

/// An entry for up to as many rows of `a` as the plan says.
pub(super) fn assemble(kernel: &Matmul, target: Target, plan: RingPlan, chain: bool) -> Block {
    let mut asm = Asm::default();
    let mut frame = MatmulFrame::begin_early(&mut asm, kernel, target);
    let n0 = frame.block_row(&mut asm, "x", plan.block_rows);
    // What is beyond the block's rows is another's.
    let end = asm.op("add.s32", Class::B32, &[&n0, &plan.block_rows]);
    let end = asm.op("min.s32", Class::B32, &[&end, &frame.end]);
    frame.end = Int::Reg(end);
    body(&mut asm, &frame, plan, [n0, end], chain);
    Block {
        name: format!("few{}", plan.m),
        asm,
        threads: plan.threads() as u32,
        crowd: Some(plan.crowd()),
        grid: [
            over_rows(kernel, plan.block_rows),
            Extent::Fixed(1),
            over(&kernel.batch, 1),
        ],
        shared: plan.shared() as u32,
        order: Some(plan.order),
    }
}

fn body(asm: &mut Asm, frame: &MatmulFrame<'_>, plan: RingPlan, rows: [R; 2], chain: bool) {
    let warp = asm.op("shr.u32", Class::B32, &[&frame.tid, &5]);
    let lane = asm.op("and.b32", Class::B32, &[&frame.tid, &31]);
    let [across, own] = ["div.u32", "rem.u32"].map(|op| match (plan.abreast(), op) {
        (1, "div.u32") => warp,
        (n, _) => asm.op(op, Class::B32, &[&warp, &n]),
    });
    let base = asm.op("mov.u32", Class::B32, &[&"dynamic"]);
    let stages = asm.op("add.s32", Class::B32, &[&base, &plan.left]);
    let ring = Ring::begin(asm, frame, plan, [stages, warp, lane], rows);
    ring.init(asm);
    ring.bind(asm, own, rows[1]);
    let array = asm.shared(plan.sums(), 16);
    let bits = plan.order.lanes.trailing_zeros();
    let work = Work {
        frame,
        plan,
        turn: ring.turn(asm),
        ring: &ring,
        lane,
        team: asm.op("shr.u32", Class::B32, &[&lane, &bits]),
        across,
        meets: asm.op("add.s32", Class::B32, &[&base, &plan.meets_at()]),
        sums: asm.op("mov.u32", Class::B32, &[&array]),
    };
    // What is met by one row may take the place of the other stages until it is in registers.
    let next = match plan.m {
        1 => {
            ring.fill(asm, frame, &work.turn, across);
            across
        }
        _ => ring.fill_all(asm, frame, &work.turn, (across, 0)),
    };
    let threads = plan.threads() as u32;
    let prologue = Prologue::begin(asm, frame.kernel, (threads, plan.crowd()), chain);
    if let Some(prologue) = &prologue {
        prologue.prefetch(asm, frame);
    }
    frame.scope.wait(asm);
    let cols = plan.block_rows.next_power_of_two();
    let origin = [Int::Imm(0), Int::Reg(rows[0])];
    let ahead = Ahead::load(asm, frame, [plan.m, cols], origin, threads);
    if let Some(prologue) = &prologue {
        prologue.run(asm, frame);
    }
    match plan.m {
        1 => work.held(asm, prologue.as_ref(), own),
        _ => work.shared(asm, prologue.as_ref(), (own, next), rows),
    }
    asm.put("bar.sync 0");
    add_segments(asm, plan, frame.tid, work.sums, rows);
    let sums = Sums {
        base: work.sums,
        rows: plan.m,
        cols,
        pitch: plan.block_rows,
    };
    match ahead {
        Some(ahead) => out::finish(asm, frame, &sums, ahead),
        None => out::run(asm, frame, &sums, Int::Imm(0), rows[0], threads),
    }
}

/// Adds the sums of segments in order, in the place of the first.
fn add_segments(asm: &mut Asm, plan: RingPlan, tid: R, sums: R, [first, end]: [R; 2]) {
    if plan.order.segments == 1 {
        return;
    }
    let count = asm.op("sub.s32", Class::B32, &[&end, &first]);
    for m in 0..plan.m {
        let row = asm.op("mov.b32", Class::B32, &[&tid]);
        let step = Int::Imm(plan.threads() as i64);
        asm.count_rolled(row, Int::Reg(count), step, |asm| {
            let at = asm.op("mad.lo.s32", Class::B32, &[&row, &4, &sums]);
            let part = |asm: &mut Asm, segment: usize| {
                let (part, ahead) = (asm.reg(Class::F32), segment * plan.m + m);
                let ahead = 4 * ahead * plan.block_rows;
                asm.put(format_args!("ld.shared.f32 {part}, [{at}+{ahead}]"));
                part
            };
            let mut sum = part(asm, 0);
            for segment in 1..plan.order.segments {
                let part = part(asm, segment);
                sum = asm.op("add.rn.f32", Class::F32, &[&sum, &part]);
            }
            let ahead = 4 * m * plan.block_rows;
            asm.put(format_args!("st.shared.f32 [{at}+{ahead}], {sum}"));
        });
    }
    asm.put("bar.sync 0");
}
