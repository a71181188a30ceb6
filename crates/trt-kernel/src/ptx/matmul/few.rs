//! Up to 8 rows of `a`: every byte of `b` is read once, 16 at a time, and goes straight into
//! registers.
//!
//! A *team* of threads computes a few neighbouring rows of `b` against all rows of `a`. Its
//! threads take the 16-byte pieces of a row in turn, several pieces of several rows in flight
//! each, and `a` comes through the first-level cache, which `b` bypasses, or from shared memory,
//! where the block has computed it ([`left`]). The sums of a team are folded by shuffles, then
//! over its warps through shared memory, always in the same order.
//!
//! Bound by memory: `n * k` elements at the speed of the device's memory (33.5 MB of a
//! 4096 x 4096 bf16 weight are 12 µs at 2.8 TB/s). An element of `b` costs 1 instruction to
//! unpack and `m` to multiply, and `m / rows` of the loads and unpacking of `a`: 11 at 8 rows of
//! `a` and 4 of `b`, where an H100 has time for 21 (bf16).

use super::left::{self, Prologue};
use super::out::{self, Ahead, Sums};
use super::pieces::{self, PIECE, Reader};
use super::{Frame, aligned_rows, over, over_rows, right_dtype};
use crate::launch::Extent;
use crate::ptx::asm::{Asm, Class, Int, R};
use crate::ptx::block::Block;
use crate::ptx::emitted::Target;
use crate::{Matmul, Operand};

/// Threads that keep enough bytes in flight for the memory of a large device, with few rows of
/// `a`; with more, each has more in flight.
const ENOUGH: usize = 1 << 17;
/// Blocks that give each multiprocessor of a large device some.
const BLOCKS: usize = 264;

/// Up to this many threads, a block that computes `a` is small.
const SMALL: usize = 64;

/// Whether rows of both operands can be read in pieces.
pub(super) fn fits(kernel: &Matmul) -> bool {
    let Some(k) = kernel.k.constant_size() else {
        return false;
    };
    let (a, b) = (kernel.left_dtype(), right_dtype(kernel));
    let piece = PIECE / b.size();
    let aligned = |a: &Operand, bytes: usize| aligned_rows(kernel, a, bytes);
    let stored = kernel.a.stored();
    // Four rows are read at constant distances, which have 32 bits of bytes.
    let near = |stride: i64| stride.abs() < 1 << 27;
    k > 0
        && k % piece == 0
        && kernel.b.view.strides[1].constant().is_some_and(near)
        && aligned(&kernel.b, PIECE)
        && stored.is_none_or(|s| aligned(s, PIECE.min(piece * a.size())))
}

/// How the work is cut; a function of whole sizes, never of a range.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// Rows of `a`.
    pub m: usize,
    /// Rows of `b` of a team.
    pub rows: usize,
    /// Threads of a team, a power of two from 8 on.
    pub team: usize,
    /// Threads of a block.
    threads: usize,
    /// Pieces of a row that a thread has in flight.
    pub ahead: usize,
    /// Pieces of a row of `b`.
    pub pieces: usize,
    /// Whether the block computes `a`.
    computes: bool,
}

impl Cut {
    fn new(kernel: &Matmul, m: usize) -> Cut {
        let size = right_dtype(kernel).size();
        let pieces = kernel.k.constant_size().unwrap_or(0) * size / PIECE;
        let n = kernel.n.constant_size();
        let batch = kernel.batch.constant_size().unwrap_or(1);
        let wanted: usize = match m {
            1 => 1,
            2 => 2,
            _ => 4,
        };
        let rows = [4, 2, 1]
            .into_iter()
            .find(|r| *r <= wanted && n.is_some_and(|n| n % r == 0))
            .unwrap_or(1);
        let n = n.unwrap_or(1024);
        let total = |team: usize| batch * n * team / rows;
        // Small teams waste no lanes on short rows; large ones give few rows enough threads.
        let mut team = match pieces {
            128.. => 32,
            _ => 8,
        };
        let enough = if m <= 2 { ENOUGH } else { ENOUGH / 2 };
        while total(team) < enough && pieces >= 8 * team && team < 256 {
            team *= 2;
        }
        // Few blocks compute a left operand few times.
        let mut threads = match kernel.a.stored() {
            Some(_) => team.max(128),
            None => 512,
        };
        while threads > team.max(32) && total(team) < BLOCKS * threads {
            threads /= 2;
        }
        Cut {
            m,
            rows,
            team,
            threads,
            ahead: match m {
                ..=2 => 4 / rows,
                3..=4 => 2,
                _ => 4 / rows,
            },
            pieces,
            computes: kernel.a.stored().is_none(),
        }
    }

    /// Rows of `b` of a block.
    fn block_rows(&self) -> usize {
        self.threads / self.team * self.rows
    }

    /// Blocks that a multiprocessor should hold: 1024 threads, if the sums and the pieces of `a`
    /// leave room for that, and fewer where small blocks compute `a`, since there are few of them
    /// and registers keep what they compute; else what the text takes, which loads as early as it
    /// says.
    fn crowd(&self) -> u32 {
        let threads = match self.computes && self.threads <= SMALL {
            true => 512,
            false => 1024,
        };
        match self.m {
            // No multiprocessor is sure to hold more than 16 blocks.
            ..=2 => (threads / self.threads).min(16) as u32,
            _ => 1,
        }
    }

    /// A thread's team and its place in that.
    fn place(&self, asm: &mut Asm, tid: R) -> [R; 2] {
        let bits = self.team.trailing_zeros();
        let team = asm.op("shr.u32", Class::B32, &[&tid, &bits]);
        let lane = asm.op("and.b32", Class::B32, &[&tid, &(self.team - 1)]);
        [team, lane]
    }

    /// Warps of a team, each with sums of its own.
    fn parts(&self) -> usize {
        self.team.div_ceil(32)
    }
}

/// An entry for up to `m` rows of `a`.
pub(super) fn emit(kernel: &Matmul, target: Target, m: usize) -> Block {
    assemble(kernel, target, m, false)
}

/// The same as a part of a chain.
pub(super) fn link(kernel: &Matmul, target: Target, m: usize) -> Block {
    assemble(kernel, target, m, true)
}

/// Brings the first pieces of `b` of a block to the second-level cache, before the wait for the
/// launch ahead: those of a later part of a chain. The weight is streamed.
pub(in crate::ptx) fn prefetch(kernel: &Matmul, target: Target) -> Asm {
    let cut = Cut::new(kernel, kernel.m.constant_size().unwrap_or(1));
    let mut asm = Asm::default();
    let frame = Frame::begin_early(&mut asm, kernel, target);
    let n0 = frame.block_row(&mut asm, "x", cut.block_rows());
    let place = cut.place(&mut asm, frame.tid);
    pieces::prefetch(&mut asm, &frame, cut, n0, place);
    asm
}

fn assemble(kernel: &Matmul, target: Target, m: usize, chain: bool) -> Block {
    let cut = Cut::new(kernel, m);
    let mut asm = Asm::default();
    // Pieces of a streamed weight are on their way before the launch ahead has ended.
    let frame = match kernel.ranged {
        true => Frame::begin_early(&mut asm, kernel, target),
        false => Frame::begin(&mut asm, kernel, target),
    };
    body(&mut asm, &frame, cut, chain);
    let shared = left::bytes(kernel) as u32;
    Block {
        name: format!("few{m}"),
        asm,
        threads: cut.threads as u32,
        crowd: Some(cut.crowd()),
        grid: [
            over_rows(kernel, cut.block_rows()),
            Extent::Fixed(1),
            over(&kernel.batch, 1),
        ],
        shared,
    }
}

fn body(asm: &mut Asm, frame: &Frame<'_>, cut: Cut, chain: bool) {
    let n0 = frame.block_row(asm, "x", cut.block_rows());
    let [team, lane] = cut.place(asm, frame.tid);
    let acc: Vec<R> = (0..cut.m * cut.rows).map(|_| asm.f32(0.0)).collect();
    let prologue = Prologue::begin(asm, frame.kernel, (cut.threads as u32, cut.crowd()), chain);
    if let Some(prologue) = &prologue {
        prologue.prefetch(asm, frame);
    }
    let reader = Reader::begin(asm, frame, cut, n0, [team, lane], prologue);
    let (mut ahead, outputs) = (None, [cut.m, cut.block_rows()]);
    reader.multiply(asm, frame, lane, &acc, |asm| {
        let (origin, threads) = ([Int::Imm(0), Int::Reg(n0)], cut.threads as u32);
        ahead = Ahead::load(asm, frame, outputs, cut.parts(), origin, threads);
    });

    let bytes = cut.parts() * cut.m * cut.block_rows() * 4;
    let array = asm.shared(bytes, 16);
    let base = asm.op("mov.u32", Class::B32, &[&array]);
    fold(asm, cut, &acc, base, [team, lane]);
    asm.put("bar.sync 0");
    let sums = Sums {
        base,
        rows: cut.m,
        cols: cut.block_rows(),
        pitch: cut.block_rows(),
        parts: cut.parts(),
    };
    match ahead {
        Some(ahead) => out::finish(asm, frame, &sums, ahead),
        None => out::run(asm, frame, &sums, Int::Imm(0), n0, cut.threads as u32),
    }
}

/// Folds the sums of a warp (or of a smaller team) and leaves them in shared memory.
///
/// At each step a thread adds what its partner has. While the number of sums is even, each of
/// the two keeps one half of them only; so sums end up spread over the lanes. Either way an
/// output is folded over the same tree.
fn fold(asm: &mut Asm, cut: Cut, acc: &[R], base: R, [team, lane]: [R; 2]) {
    let mut sums = acc.to_vec();
    let mut first = asm.op("mov.b32", Class::B32, &[&0]);
    let mut copies = 0;
    let mut bit = cut.team.min(32) / 2;
    while bit > 0 {
        if sums.len().is_multiple_of(2) {
            let half = sums.len() / 2;
            let own = asm.op("and.b32", Class::B32, &[&lane, &bit]);
            let upper = asm.op("setp.ne.s32", Class::Pred, &[&own, &0]);
            let (low, high) = sums.split_at(half);
            let pairs: Vec<(R, R)> = low.iter().copied().zip(high.iter().copied()).collect();
            sums = pairs
                .iter()
                .map(|(low, high)| {
                    let kept = asm.op("selp.f32", Class::F32, &[high, low, &upper]);
                    let given = asm.op("selp.f32", Class::F32, &[low, high, &upper]);
                    add_partner(asm, kept, given, bit)
                })
                .collect();
            let skipped = asm.op("selp.b32", Class::B32, &[&half, &0, &upper]);
            first = asm.op("add.s32", Class::B32, &[&first, &skipped]);
        } else {
            copies |= bit;
            sums = sums.iter().map(|s| add_partner(asm, *s, *s, bit)).collect();
        }
        bit /= 2;
    }
    let copy = asm.op("and.b32", Class::B32, &[&lane, &copies]);
    let original = asm.op("setp.eq.s32", Class::Pred, &[&copy, &0]);
    asm.when(original, true, |asm| {
        let part = asm.op("shr.u32", Class::B32, &[&lane, &5]);
        for (i, sum) in sums.iter().enumerate() {
            let which = asm.op("add.s32", Class::B32, &[&first, &i]);
            let m = asm.op("shr.u32", Class::B32, &[&which, &cut.rows.trailing_zeros()]);
            let row = asm.op("and.b32", Class::B32, &[&which, &(cut.rows - 1)]);
            let row = asm.op("mad.lo.s32", Class::B32, &[&team, &cut.rows, &row]);
            let at = asm.op("mad.lo.s32", Class::B32, &[&part, &cut.m, &m]);
            let at = asm.op("mad.lo.s32", Class::B32, &[&at, &cut.block_rows(), &row]);
            let at = asm.op("mad.lo.s32", Class::B32, &[&at, &4, &base]);
            asm.put(format_args!("st.shared.f32 [{at}], {sum}"));
        }
    });
}

/// `kept` plus what the lane at distance `bit` gives.
fn add_partner(asm: &mut Asm, kept: R, given: R, bit: usize) -> R {
    let got = asm.op(
        "shfl.sync.bfly.b32",
        Class::F32,
        &[&given, &bit, &"0x1f", &"0xffffffff"],
    );
    asm.op("add.rn.f32", Class::F32, &[&kept, &got])
}
