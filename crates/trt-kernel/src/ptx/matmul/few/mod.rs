//! Up to 8 rows of `a`: every byte of `b` is read once, 16 at a time, and goes straight into
//! registers.
//!
//! A *team* of threads computes a few neighbouring rows of `b` against all rows of `a`. Its
//! threads take the 16-byte pieces of a row in turn, several pieces of several rows in flight
//! each, and `a` comes through the first-level cache, which `b` bypasses, or from shared memory,
//! where the block has computed it ([`left`]). How many threads a team has, and how many rows
//! they take at once, follows from all sizes ([`cut`]); in which order they sum follows from `k`
//! and the dtype of `b` alone ([`crate::SumOrder`], [`fold`]): so an output has the same bits
//! whatever is computed beside it.
//!
//! Bound by memory: `n * k` elements at the speed of the device's memory (33.5 MB of a
//! 4096 x 4096 bf16 weight are 12 µs at 2.8 TB/s). An element of `b` costs 1 instruction to
//! unpack and `m` to multiply, and `m / rows` of the loads and unpacking of `a`: 11 at 8 rows of
//! `a` and 4 of `b`, where an H100 has time for 21 (bf16).

mod blocks;
mod cut;
mod fold;
mod left;
mod packed;
mod pieces;

pub(in crate::ptx) use left::STAGED;

use super::out::{self, Ahead, Sums};
use super::slab::Slab;
use super::{MatmulFrame, over, over_rows};
use crate::launch::Extent;
use crate::ptx::asm::{Asm, Class, Int, R};
use crate::ptx::block::Block;
use crate::ptx::emitted::Target;
use crate::{Encoding, Matmul, SumOrder, fusible};
use cut::Cut;
use left::Prologue;
use pieces::PieceReader;

/// The order in which sums are taken, if rows of both operands can be read in pieces.
pub(super) fn order(kernel: &Matmul) -> Option<SumOrder> {
    let order = || SumOrder::new(kernel.k.constant_size()?, kernel.right());
    fusible::LEFT.read_in_pieces(kernel).then(order).flatten()
}

/// Whether up to `m` rows of `a` meet packed rows as they are.
pub(super) fn reads_packed(kernel: &Matmul, target: Target, order: SumOrder, m: usize) -> bool {
    packed::StreamPlan::new(kernel, order, m, target).is_some()
}

/// An entry for up to `m` rows of `a`.
pub(super) fn emit(
    kernel: &Matmul,
    target: Target,
    of: (SumOrder, usize),
    slab: Option<Slab>,
) -> Block {
    assemble(kernel, target, of, slab, Shares::default())
}

/// The same as a part of a launch with so many weights.
pub(super) fn part(
    kernel: &Matmul,
    target: Target,
    of: (SumOrder, usize),
    slab: Option<Slab>,
    among: usize,
) -> Block {
    let chain = false;
    assemble(kernel, target, of, slab, Shares { among, chain })
}

/// The same as a part of a chain.
pub(super) fn link(kernel: &Matmul, target: Target, order: SumOrder, m: usize) -> Block {
    let shares = Shares {
        among: 0,
        chain: true,
    };
    assemble(kernel, target, (order, m), None, shares)
}

/// What a product shares its launch with.
#[derive(Clone, Copy, Default)]
struct Shares {
    /// Elements of the weights of a launch of several.
    among: usize,
    /// Whether it is a part of a chain.
    chain: bool,
}

/// Brings the first pieces of `b` of a block to the second-level cache, before the wait for the
/// launch ahead: those of a later part of a chain. The weight is streamed. None of a weight in blocks: a
/// token of 8B was 1 % slower with it on a H200.
pub(super) fn prefetch(kernel: &Matmul, target: Target, order: SumOrder, m: usize) -> Option<Asm> {
    kernel.right().as_plain()?;
    let mut asm = Asm::default();
    let frame = MatmulFrame::begin_early(&mut asm, kernel, target);
    let cut = Cut::new(kernel, order, m);
    let n0 = frame.block_row(&mut asm, "x", cut.block_rows());
    let place = cut.place(&mut asm, frame.tid);
    pieces::prefetch(&mut asm, &frame, cut, n0, place);
    Some(asm)
}

fn assemble(
    kernel: &Matmul,
    target: Target,
    (order, m): (SumOrder, usize),
    slab: Option<Slab>,
    Shares { among, chain }: Shares,
) -> Block {
    if let Encoding::Blocks(block) = kernel.right() {
        let plan = blocks::RingPlan::new(kernel, (block, order, m), target, among);
        return blocks::assemble(kernel, target, plan, chain);
    }
    if let (None, Some(plan)) = (slab, packed::StreamPlan::new(kernel, order, m, target)) {
        return packed::assemble(kernel, target, plan, chain);
    }
    let cut = Cut::new(kernel, order, m);
    let mut asm = Asm::default();
    // Pieces of a streamed weight are on their way before the launch ahead has ended.
    let frame = match kernel.ranged && slab.is_none() {
        true => MatmulFrame::begin_early(&mut asm, kernel, target),
        false => MatmulFrame::begin_slab(&mut asm, kernel, target, slab),
    };
    body(&mut asm, &frame, cut, chain);
    let shared = left::bytes(kernel) as u32;
    Block {
        name: format!("few{}", cut.m),
        asm,
        threads: cut.threads as u32,
        crowd: Some(cut.crowd()),
        grid: [
            over_rows(kernel, cut.block_rows()),
            Extent::Fixed(1),
            over(&kernel.batch, 1),
        ],
        shared,
        order: Some(cut.order),
    }
}

fn body(asm: &mut Asm, frame: &MatmulFrame<'_>, cut: Cut, chain: bool) {
    let n0 = frame.block_row(asm, "x", cut.block_rows());
    let place = cut.place(asm, frame.tid);
    // Before what comes first, or the assembler finds a worse order of loads.
    let zeros: Vec<R> = (0..cut.outputs()).map(|_| asm.f32(0.0)).collect();
    let prologue = Prologue::begin(asm, frame.kernel, (cut.threads as u32, cut.crowd()), chain);
    if let Some(prologue) = &prologue {
        prologue.prefetch(asm, frame);
    }
    let (mut ahead, outputs) = (None, [cut.m, cut.block_rows()]);
    let then = |asm: &mut Asm| {
        let (origin, threads) = ([Int::Imm(0), Int::Reg(n0)], cut.threads as u32);
        ahead = Ahead::load(asm, frame, outputs, origin, threads);
    };
    let reader = PieceReader::begin(asm, frame, cut, n0, place, prologue);
    let sums = reader.multiply(asm, frame, place, zeros, then);

    let array = asm.shared(cut.m * cut.block_rows() * 4, 16);
    let base = asm.op("mov.u32", Class::B32, &[&array]);
    fold::fold(asm, cut, &sums, base, place);
    asm.put("bar.sync 0");
    let sums = Sums {
        base,
        rows: cut.m,
        cols: cut.block_rows(),
        pitch: cut.block_rows(),
    };
    match ahead {
        Some(ahead) => out::finish(asm, frame, &sums, ahead),
        None => out::run(asm, frame, &sums, Int::Imm(0), n0, cut.threads as u32),
    }
}
