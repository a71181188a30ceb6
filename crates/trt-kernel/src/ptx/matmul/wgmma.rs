//! Products on Hopper's tensor cores by `wgmma`, for bf16 and f16 on `sm_90a`.
//!
//! Two groups of four warps compute 64 rows of a block each. The instruction reads both operands
//! from shared memory itself, in the layout that [`ring`] gives them, and runs on its own: while
//! the products of one stage are under way, all threads wait for the next, and start the copies
//! of the one that the products *before* these have read. So a stage is filled `stages - 2`
//! ahead, and one barrier a stage is enough.
//!
//! Copies write shared memory as threads do, products read it as the hardware's own agent: each
//! thread fences between the arrival of its copies and the barrier.
//!
//! Bound by the tensor cores with many rows. A block of 128 x 256 takes 1024 cycles a stage and
//! brings 48 KiB for it; one of 128 x 128 brings 32 KiB for 512 cycles, which the second-level
//! cache of an H100 may not give to all at once. That one is for results too small to give large
//! blocks to all multiprocessors.

use super::out::{self, Sums};
use super::ring::{self, DEPTH, Filler, ROW, Ring, WarpSums};
use super::slab::Slab;
use super::{MatmulFrame, over, over_rows};
use crate::Matmul;
use crate::ptx::asm::{Asm, Class, Int, R};
use crate::ptx::block::Block;
use crate::ptx::emitted::Target;

/// Rows of `a` of a block.
pub(super) const ROWS: usize = 128;
/// Rows of `a` of a group of warps, which the instruction fixes.
const GROUP_ROWS: usize = 64;
/// Threads of both groups.
pub(super) const THREADS: usize = 256;
/// What of a matrix descriptor is not the address: a swizzle of 128 bytes, 1024 bytes between
/// groups of 8 rows, and a leading dimension that this swizzle leaves unused.
const DESCRIPTOR: u64 = 1 << 62 | (8 * ROW as u64 / 16) << 32 | 1 << 16;

/// Rows of `b` of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WgmmaShape {
    Narrow,
    Wide,
}

impl WgmmaShape {
    pub fn cols(self) -> usize {
        match self {
            WgmmaShape::Narrow => 128,
            WgmmaShape::Wide => 256,
        }
    }

    pub fn ring(self) -> Ring {
        Ring {
            rows: ROWS,
            cols: self.cols(),
            stages: match self {
                WgmmaShape::Narrow => 6,
                WgmmaShape::Wide => 4,
            },
            threads: THREADS,
        }
    }
}

/// An entry of one shape.
pub(super) fn emit(
    kernel: &Matmul,
    target: Target,
    shape: WgmmaShape,
    slab: Option<Slab>,
) -> Block {
    let mut asm = Asm::default();
    let frame = MatmulFrame::begin_slab(&mut asm, kernel, target, slab);
    body(&mut asm, &frame, shape);
    Block {
        name: format!("wgmma{ROWS}x{}", shape.cols()),
        asm,
        threads: THREADS as u32,
        crowd: Some(1),
        // Blocks of the same rows of `b` run together, so these come from memory once.
        grid: [
            over(&kernel.m, ROWS),
            over_rows(kernel, shape.cols()),
            over(&kernel.batch, 1),
        ],
        shared: shape.ring().shared() as u32,
        order: None,
    }
}

fn body(asm: &mut Asm, frame: &MatmulFrame<'_>, shape: WgmmaShape) {
    let block = asm.op("mov.u32", Class::B32, &[&"%ctaid.x"]);
    let m0 = asm.op("mul.lo.s32", Class::B32, &[&block, &ROWS]);
    let n0 = frame.block_row(asm, "y", shape.cols());
    let base = asm.op("mov.u32", Class::B32, &[&"dynamic"]);
    let ring = shape.ring();
    let filler = Filler::begin(asm, frame, ring, [m0, n0], base, None);

    let steps = frame.kernel.k.constant_size().unwrap_or(0).div_ceil(DEPTH);
    let ahead = ring.stages - 2;
    for stage in 0..ahead {
        if stage < steps {
            filler.fill(asm, frame);
        }
        asm.put("cp.async.commit_group");
    }
    let group_base = group_rows(asm, frame, base);
    let acc: Vec<R> = (0..shape.cols() / 2).map(|_| asm.f32(0.0)).collect();
    let read = asm.op("mov.b32", Class::B32, &[&0]);
    let step = asm.op("mov.b32", Class::B32, &[&0]);
    asm.count_rolled(step, Int::Imm(steps as i64), Int::Imm(1), |asm| {
        asm.put(format_args!("cp.async.wait_group {}", ahead - 1));
        asm.put("fence.proxy.async.shared::cta");
        // Also says that the products of the step before the last are done in both groups.
        asm.put("bar.sync 0");
        let a = asm.op("add.s32", Class::B32, &[&group_base, &read]);
        let b = asm.op("add.s32", Class::B32, &[&base, &read]);
        let b = asm.op("add.s32", Class::B32, &[&b, &(ROWS * ROW)]);
        multiply(asm, frame, &acc, [a, b]);
        let last = steps as i64 - ahead as i64;
        let more = asm.op("setp.lt.s32", Class::Pred, &[&step, &last]);
        asm.when(more, true, |asm| filler.fill(asm, frame));
        asm.put("cp.async.commit_group");
        asm.put("wgmma.wait_group.sync.aligned 1");
        ring.turn(asm, read);
    });
    asm.put("cp.async.wait_group 0");
    let products = Products {
        shape,
        base,
        origin: [m0, n0],
        acc: &acc,
    };
    finish(asm, frame, &products, "bar.sync 0");
}

/// The shared address of the first row of `a` of this thread's group in the first stage.
pub(super) fn group_rows(asm: &mut Asm, frame: &MatmulFrame<'_>, base: R) -> R {
    let group = asm.op("shr.u32", Class::B32, &[&frame.tid, &7]);
    let rows = GROUP_ROWS * ROW;
    asm.op("mad.lo.s32", Class::B32, &[&group, &rows, &base])
}

/// The products of a block.
pub(super) struct Products<'a> {
    pub shape: WgmmaShape,
    /// Shared address of the stages.
    pub base: R,
    /// The block's first row of `a` and of `b`.
    pub origin: [R; 2],
    /// The thread's sums.
    pub acc: &'a [R],
}

/// Waits for the last products and runs the epilogue over the sums, which take the place of the
/// stages; `sync` is a barrier of the threads of both groups.
pub(super) fn finish(asm: &mut Asm, frame: &MatmulFrame<'_>, products: &Products<'_>, sync: &str) {
    let Products { shape, base, .. } = *products;
    let [m0, n0] = products.origin;
    let ring = shape.ring();
    asm.put("wgmma.wait_group.sync.aligned 0");
    asm.put(sync);
    let lane = asm.op("and.b32", Class::B32, &[&frame.tid, &31]);
    let warp = asm.op("shr.u32", Class::B32, &[&frame.tid, &5]);
    let row = asm.op("shl.b32", Class::B32, &[&warp, &4]);
    let col = asm.op("mov.b32", Class::B32, &[&0]);
    let fragments = WarpSums {
        lane,
        origin: [row, col],
        across: shape.cols() / 8,
        acc: products.acc,
    };
    ring::put_down(asm, ring, base, &fragments);
    asm.put(sync);
    let sums = Sums {
        base,
        rows: ROWS,
        cols: shape.cols(),
        pitch: ring.pitch(),
    };
    out::run(asm, frame, &sums, Int::Reg(m0), n0, THREADS as u32);
}

/// Starts the products of a stage, whose rows of `a` of this group and of `b` start at these
/// shared addresses.
pub(super) fn multiply(asm: &mut Asm, frame: &MatmulFrame<'_>, acc: &[R], sides: [R; 2]) {
    let ty = frame.dtypes()[0].name();
    let columns = acc.len() * 2;
    let sums: Vec<String> = acc.iter().map(R::to_string).collect();
    let sums = sums.join(", ");
    let descriptors = sides.map(|at| {
        let at = asm.op("shr.u32", Class::B32, &[&at, &4]);
        let at = asm.op("cvt.u64.u32", Class::B64, &[&at]);
        asm.op(
            "or.b64",
            Class::B64,
            &[&at, &format_args!("{DESCRIPTOR:#x}")],
        )
    });
    asm.put("wgmma.fence.sync.aligned");
    for k in 0..DEPTH / 16 {
        // 16 elements are 32 bytes; the swizzle is a function of the address.
        let [a, b] = descriptors.map(|d| match k {
            0 => d,
            _ => asm.op("add.s64", Class::B64, &[&d, &(2 * k)]),
        });
        asm.put(format_args!(
            "wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{ty}.{ty} {{{sums}}}, {a}, {b}, \
             1, 1, 1, 0, 0"
        ));
    }
    asm.put("wgmma.commit_group.sync.aligned");
}
