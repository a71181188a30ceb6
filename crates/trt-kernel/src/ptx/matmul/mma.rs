//! Products on tensor cores by `mma.sync`, for bf16 and f16 from `sm_80` on.
//!
//! A block computes `rows x cols` outputs, 64 along `k` at a time. Both operands come through
//! a [`ring`] of stages in shared memory, from where `ldmatrix` reads them. Each warp holds its
//! outputs as 16 x 8 fragments in f32 registers.
//!
//! With many rows it is bound by the tensor cores, and by what `mma.sync` can get of them (on
//! Hopper about 0.6 of their peak); with few by the bytes of `b`, read once for every `rows`
//! rows of `a`. With few outputs it is bound by what a block waits for its stages, so blocks share them ([`Cut`]).

use super::out::{self, Sums};
use super::parts::{self, Part};
use super::ring::{self, DEPTH, Filler, ROW, Ring, WarpSums};
use super::slab::Slab;
use super::{MatmulFrame, aligned_rows, over, over_rows, right_dtype};
use crate::launch::Extent;
use crate::ptx::asm::{Asm, Class, Int, R};
use crate::ptx::block::Block;
use crate::ptx::emitted::Target;
use crate::{DType, Matmul};

/// Elements of a 16-byte piece.
const PIECE: usize = 8;
/// How a block is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MmaShape {
    /// Rows of `a` of a block, and warps along them.
    rows: (usize, usize),
    /// Rows of `b` of a block, and warps along them.
    cols: (usize, usize),
    /// Stages of the ring.
    stages: usize,
}

pub(super) const SMALL: MmaShape = MmaShape {
    rows: (64, 2),
    cols: (64, 2),
    stages: 4,
};
pub(super) const LARGE: MmaShape = MmaShape {
    rows: (128, 2),
    cols: (128, 4),
    stages: 3,
};

/// How `k` is cut where so few blocks have outputs that one after another would wait for each stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Blocks that share outputs.
    pub blocks: usize,
    /// Blocks' worth of outputs at most.
    pub tiles: usize,
}

/// The cuts of a product of rows of `k` elements, those of fewest outputs first: so many blocks as a large device runs at
/// once, with three stages for each of them at least.
pub(super) fn cuts(k: usize) -> impl Iterator<Item = Cut> {
    let steps = k.div_ceil(DEPTH);
    let cuts = [(8, 32), (4, 96)].into_iter();
    cuts.map(|(blocks, tiles)| Cut { blocks, tiles })
        .filter(move |cut| steps >= 3 * cut.blocks)
}

impl Cut {
    /// The most rows of `a` for so many rows of `b`.
    pub fn rows(&self, n: usize) -> usize {
        self.tiles / n.div_ceil(SMALL.cols.0).max(1) * SMALL.rows.0
    }

    /// Bytes of working memory.
    pub fn scratch(&self) -> usize {
        self.tiles * self.blocks * parts::BYTES
    }
}

/// Whether the operands can go to tensor cores.
pub(super) fn fits(kernel: &Matmul, target: Target) -> bool {
    let Some(left) = kernel.a.stored() else {
        return false;
    };
    let (a, b) = (kernel.left_dtype(), right_dtype(kernel));
    target >= Target::Sm80
        && a == b
        && matches!(a, DType::BF16 | DType::F16)
        && kernel
            .k
            .constant_size()
            .is_some_and(|k| k % PIECE == 0 && k > 0)
        && aligned_rows(kernel, left, 16)
        && aligned_rows(kernel, &kernel.b, 16)
}

impl MmaShape {
    fn warps(&self) -> usize {
        self.rows.1 * self.cols.1
    }

    fn threads(&self) -> usize {
        32 * self.warps()
    }

    fn ring(&self) -> Ring {
        Ring {
            rows: self.rows.0,
            cols: self.cols.0,
            stages: self.stages,
            threads: self.threads(),
        }
    }

    /// Fragments of a warp along `m` (16 each) and along `n` (8 each, an even number).
    fn fragments(&self) -> (usize, usize) {
        (
            self.rows.0 / self.rows.1 / 16,
            self.cols.0 / self.cols.1 / 8,
        )
    }
}

/// An entry of one shape.
pub(super) fn emit(kernel: &Matmul, target: Target, shape: MmaShape, slab: Option<Slab>) -> Block {
    let mut asm = Asm::default();
    let frame = MatmulFrame::begin_slab(&mut asm, kernel, target, slab);
    body(&mut asm, &frame, shape, None);
    block(kernel, asm, shape)
}

/// An entry in which some blocks share outputs: each takes a part of `k`, and the last of them adds the parts.
/// Their sums lie in working memory, behind a weight that is written out.
pub(super) fn emit_cut(kernel: &Matmul, target: Target, cut: Cut, slab: Option<Slab>) -> Block {
    let mut asm = Asm::default();
    let frame = MatmulFrame::begin_slab(&mut asm, kernel, target, slab);
    let behind = slab.map_or(0, |slab| slab.size(kernel));
    body(&mut asm, &frame, SMALL, Some((cut, behind)));
    let block = block(kernel, asm, SMALL);
    let [x, y, _] = block.grid;
    Block {
        name: format!("mma{}x{}k{}", SMALL.rows.0, SMALL.cols.0, cut.blocks),
        grid: [x, y, Extent::Fixed(cut.blocks as u32)],
        ..block
    }
}

fn block(kernel: &Matmul, asm: Asm, shape: MmaShape) -> Block {
    Block {
        name: format!("mma{}x{}", shape.rows.0, shape.cols.0),
        asm,
        threads: shape.threads() as u32,
        // Most devices of the family have shared memory for one block or two.
        crowd: Some(1),
        // Blocks of the same rows of `b` run together, so these come from memory once.
        grid: [
            over(&kernel.m, shape.rows.0),
            over_rows(kernel, shape.cols.0),
            over(&kernel.batch, 1),
        ],
        shared: shape.ring().shared() as u32,
        order: None,
    }
}

fn body(asm: &mut Asm, frame: &MatmulFrame<'_>, shape: MmaShape, cut: Option<(Cut, usize)>) {
    let block = asm.op("mov.u32", Class::B32, &[&"%ctaid.x"]);
    let m0 = asm.op("mul.lo.s32", Class::B32, &[&block, &shape.rows.0]);
    let n0 = frame.block_row(asm, "y", shape.cols.0);
    let base = asm.op("mov.u32", Class::B32, &[&"dynamic"]);

    let ring = shape.ring();
    let all = frame.kernel.k.constant_size().unwrap_or(0).div_ceil(DEPTH);
    let part = cut.map(|(cut, behind)| Part::begin(asm, cut, all, behind));
    let steps = part
        .as_ref()
        .map_or(Int::Imm(all as i64), |p| Int::Reg(p.steps));
    let first = part.as_ref().map(|p| p.first);
    let filler = Filler::begin(asm, frame, ring, [m0, n0], base, first);
    let warp = Warp::begin(asm, frame, shape, base);
    let least = cut.map_or(all, |(cut, _)| all.div_ceil(cut.blocks));
    for stage in 0..shape.stages - 1 {
        // The last part may be shorter: what it fetches beyond its own is not multiplied.
        if stage < least {
            filler.fill(asm, frame);
        }
        asm.put("cp.async.commit_group");
    }
    let read = asm.op("mov.b32", Class::B32, &[&0]);
    let step = asm.op("mov.b32", Class::B32, &[&0]);
    let ahead = shape.stages as i64 - 1;
    let filled = match steps {
        Int::Imm(steps) => Int::Imm(steps - ahead),
        Int::Reg(steps) => Int::Reg(asm.op("add.s32", Class::B32, &[&steps, &-ahead])),
    };
    asm.count_rolled(step, steps, Int::Imm(1), |asm| {
        asm.put(format_args!("cp.async.wait_group {}", shape.stages - 2));
        // Also says that all have read the stage that is filled next.
        asm.put("bar.sync 0");
        let more = asm.op("setp.lt.s32", Class::Pred, &[&step, &filled]);
        asm.when(more, true, |asm| filler.fill(asm, frame));
        asm.put("cp.async.commit_group");
        warp.multiply(asm, read);
        ring.turn(asm, read);
    });
    asm.put("cp.async.wait_group 0");
    asm.put("bar.sync 0");
    let (_, across) = shape.fragments();
    let fragments = WarpSums {
        lane: warp.lane,
        origin: warp.origin,
        across,
        acc: &warp.acc,
    };
    ring::put_down(asm, ring, base, &fragments);
    asm.put("bar.sync 0");
    let sums = Sums {
        base,
        rows: shape.rows.0,
        cols: shape.cols.0,
        pitch: ring.pitch(),
    };
    let threads = shape.threads() as u32;
    let run = |asm: &mut Asm| out::run(asm, frame, &sums, Int::Reg(m0), n0, threads);
    match &part {
        None => run(asm),
        Some(part) => part.finish(asm, frame, &sums, threads, run),
    }
}

/// A warp's part of a block.
struct Warp {
    shape: MmaShape,
    dtype: DType,
    /// The warp's first row and column in the block.
    origin: [R; 2],
    /// The lane.
    lane: R,
    /// Shared address of the row that the lane names to `ldmatrix`, of `a` and `b`, in stage 0.
    rows: [R; 2],
    /// Bytes into that row of the lane's piece, for each step of 16 along `k`.
    pieces: [Vec<R>; 2],
    /// Sums: fragments along `m`, then along `n`, 4 registers each.
    acc: Vec<R>,
}

impl Warp {
    fn begin(asm: &mut Asm, frame: &MatmulFrame<'_>, shape: MmaShape, base: R) -> Warp {
        let lane = asm.op("and.b32", Class::B32, &[&frame.tid, &31]);
        let warp = asm.op("shr.u32", Class::B32, &[&frame.tid, &5]);
        let down = asm.op("rem.u32", Class::B32, &[&warp, &shape.rows.1]);
        let across = asm.op("div.u32", Class::B32, &[&warp, &shape.rows.1]);
        let m0 = asm.op(
            "mul.lo.s32",
            Class::B32,
            &[&down, &(shape.rows.0 / shape.rows.1)],
        );
        let n0 = asm.op(
            "mul.lo.s32",
            Class::B32,
            &[&across, &(shape.cols.0 / shape.cols.1)],
        );
        // The four 8 x 8 matrices of an `ldmatrix.x4`: lanes 8i.. name the rows of the i-th.
        // For a: rows 0-7 and 8-15 of the first piece, then of the second. For b: both pieces
        // of rows 0-7, then of 8-15.
        let low = asm.op("and.b32", Class::B32, &[&lane, &7]);
        let bit3 = asm.op("bfe.u32", Class::B32, &[&lane, &3, &1]);
        let bit4 = asm.op("bfe.u32", Class::B32, &[&lane, &4, &1]);
        let side = |asm: &mut Asm, origin: R, skip: usize, row_bit: R, piece_bit: R| {
            let row = asm.op("mad.lo.s32", Class::B32, &[&row_bit, &8, &low]);
            let row = asm.op("add.s32", Class::B32, &[&row, &origin]);
            let row = asm.op("mad.lo.s32", Class::B32, &[&row, &ROW, &base]);
            let row = asm.op("add.s32", Class::B32, &[&row, &(skip * ROW)]);
            let pieces = (0..DEPTH / 16)
                .map(|k| {
                    let piece = asm.op("add.s32", Class::B32, &[&piece_bit, &(2 * k)]);
                    let piece = asm.op("xor.b32", Class::B32, &[&piece, &low]);
                    asm.op("shl.b32", Class::B32, &[&piece, &4])
                })
                .collect();
            (row, pieces)
        };
        let (a_row, a_pieces) = side(asm, m0, 0, bit3, bit4);
        let (b_row, b_pieces) = side(asm, n0, shape.rows.0, bit4, bit3);
        let (down, across) = shape.fragments();
        Warp {
            shape,
            dtype: frame.dtypes()[0],
            origin: [m0, n0],
            lane,
            rows: [a_row, b_row],
            pieces: [a_pieces, b_pieces],
            acc: (0..4 * down * across).map(|_| asm.f32(0.0)).collect(),
        }
    }

    /// Adds the products of the stage at an offset.
    fn multiply(&self, asm: &mut Asm, stage: R) {
        let (down, across) = self.shape.fragments();
        let rows = self
            .rows
            .map(|row| asm.op("add.s32", Class::B32, &[&row, &stage]));
        let load = |asm: &mut Asm, k: usize| {
            let [a, b] = [0, 1].map(|side| {
                let at = asm.op("add.s32", Class::B32, &[&rows[side], &self.pieces[side][k]]);
                let count = if side == 0 { down } else { across / 2 };
                (0..count)
                    .map(|i| ldmatrix(asm, at, i * 16 * ROW))
                    .collect::<Vec<_>>()
            });
            (a, b)
        };
        let mut next = load(asm, 0);
        for k in 0..DEPTH / 16 {
            let (a, b) = next.clone();
            if k + 1 < DEPTH / 16 {
                next = load(asm, k + 1);
            }
            for (i, a) in a.iter().enumerate() {
                for j in 0..across {
                    let b = &b[j / 2][2 * (j % 2)..];
                    self.mma(asm, &self.acc[4 * (i * across + j)..], a, b);
                }
            }
        }
    }

    fn mma(&self, asm: &mut Asm, acc: &[R], a: &[R], b: &[R]) {
        let ty = self.dtype.name();
        let [s0, s1, s2, s3] = [acc[0], acc[1], acc[2], acc[3]];
        asm.put(format_args!(
            "mma.sync.aligned.m16n8k16.row.col.f32.{ty}.{ty}.f32 {{{s0}, {s1}, {s2}, {s3}}}, \
             {{{}, {}, {}, {}}}, {{{}, {}}}, {{{s0}, {s1}, {s2}, {s3}}}",
            a[0], a[1], a[2], a[3], b[0], b[1]
        ));
    }
}

/// Four 8 x 8 matrices of 16-bit elements.
fn ldmatrix(asm: &mut Asm, at: R, offset: usize) -> Vec<R> {
    let r = asm.regs(Class::B32, 4);
    asm.put(format_args!(
        "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{{}, {}, {}, {}}}, [{at}+{offset}]",
        r[0], r[1], r[2], r[3]
    ));
    r
}
