//! Rows that integers choose: a warp for each row of `b`.
//!
//! A warp looks through the integers of all rows of `a` and multiplies where one names its expert, so of a
//! weight nothing is read that no row asks for, and what several ask for comes from the first-level cache
//! after the first. Lanes take neighbouring pieces of a row, one warp's width of them at a time, and are
//! added as a tree; the order follows from `k` and from how operands lie. Tensor cores have no part in
//! it, so with many rows for each expert this is bound by f32 lanes.

use super::frame::MatmulFrame;
use super::{aligned_rows, in_memory, over, over_rows, right_dtype};
use crate::launch::Extent;
use crate::ptx::access;
use crate::ptx::asm::{Asm, Class, Int, R};
use crate::ptx::block::Block;
use crate::ptx::emitted::Target;
use crate::ptx::encoded::{Lies, RUN, Run};
use crate::ptx::fold::FoldTeam;
use crate::ptx::lanes::{self, Point};
use crate::{Encoding, Matmul, Reduce, Routed};

/// Rows of `b` of a block, a warp each.
const ROWS: usize = 4;

pub(super) fn emit(kernel: &Routed, target: Target) -> Block {
    let product = &kernel.product;
    let mut asm = Asm::default();
    let frame = MatmulFrame::begin(&mut asm, product, target);
    let warp = asm.op("shr.u32", Class::B32, &[&frame.tid, &5]);
    let first = frame.block_row(&mut asm, "x", ROWS);
    let row = asm.op("add.s32", Class::B32, &[&first, &warp]);
    let inside = asm.op("setp.lt.s32", Class::Pred, &[&row, &frame.end]);
    let job = RoutedJob {
        kernel,
        lane: asm.op("and.b32", Class::B32, &[&frame.tid, &31]),
        frame,
        row,
        each: each(product),
    };
    asm.when(inside, true, |asm| job.run(asm));
    Block {
        grid: [
            over_rows(product, ROWS),
            Extent::Fixed(1),
            over(&product.batch, 1),
        ],
        ..Block::new("routed", asm, 32 * ROWS as u32, Extent::Fixed(1))
    }
}

/// Elements of a row that a lane takes together.
fn each(product: &Matmul) -> usize {
    let Encoding::Plain(right) = product.right() else {
        return RUN;
    };
    let widest = product.left_dtype().size().max(right.size());
    let wide = access::WIDEST / widest;
    let bytes = |size: usize| wide * size;
    let lies = [
        aligned_rows(
            product,
            in_memory(product),
            bytes(product.left_dtype().size()),
        ),
        aligned_rows(product, &product.b, bytes(right.size())),
    ];
    match lies.iter().all(|lies| *lies) && product.k.is_multiple_of(wide) {
        true => wide,
        false => 1,
    }
}

struct RoutedJob<'a> {
    kernel: &'a Routed,
    frame: MatmulFrame<'a>,
    lane: R,
    /// The row of `b`.
    row: R,
    each: usize,
}

impl RoutedJob<'_> {
    /// Goes through the rows of `a`.
    fn run(&self, asm: &mut Asm) {
        let frame = &self.frame;
        let number = match frame.batch {
            Int::Imm(batch) => asm.op("mov.b64", Class::B64, &[&batch]),
            Int::Reg(batch) => asm.op("cvt.s64.s32", Class::B64, &[&batch]),
        };
        let number = asm.op("add.s64", Class::B64, &[&number, &self.kernel.first]);
        let ids = &self.kernel.ids;
        let dtype = frame.types[ids.arg.0 as usize];
        let m = asm.op("mov.b32", Class::B32, &[&0]);
        asm.count_rolled(m, frame.m, Int::Imm(1), |asm| {
            let at = [Int::Reg(m)];
            let size = dtype.size();
            let address = frame.scope.address(asm, ids.arg, &ids.view, &at, size);
            let bits = access::load(asm, address, 0, size, size);
            let id = access::decode(asm, dtype, &bits, 1)[0];
            let ours = asm.op("setp.eq.s64", Class::Pred, &[&id, &number]);
            asm.when(ours, true, |asm| self.product(asm, m));
        });
    }

    /// The product of a row of `a` with the row of `b`, and what follows of it.
    fn product(&self, asm: &mut Asm, m: R) {
        let frame = &self.frame;
        let sum = asm.f32(0.0);
        let b = frame.b_row(asm, self.row);
        let k = frame.scope.size(asm, &self.kernel.product.k);
        let at = asm.op("mul.lo.s32", Class::B32, &[&self.lane, &self.each]);
        let step = Int::Imm(32 * self.each as i64);
        asm.count_rolled(at, k, step, |asm| {
            let [x, w] = [self.left(asm, m, at), self.right(asm, b, at)];
            for (x, w) in x.iter().zip(&w) {
                asm.op_to("fma.rn.f32", sum, &[x, w, &sum]);
            }
        });
        let team = FoldTeam { threads: 32 };
        let sum = team.fold(asm, &[(Reduce::Sum, sum)]);
        let first = asm.op("setp.eq.s32", Class::Pred, &[&self.lane, &0]);
        asm.when(first, true, |asm| {
            let point = Point {
                at: &[frame.batch, Int::Reg(m), Int::Reg(self.row)],
                lanes: 1,
                input: &sum,
            };
            let epilogue = &self.kernel.product.epilogue;
            lanes::run(asm, &frame.scope, epilogue, &frame.types, point);
        });
    }

    /// Neighbouring elements of a row of `a`.
    fn left(&self, asm: &mut Asm, m: R, k: R) -> Vec<R> {
        let frame = &self.frame;
        let operand = in_memory(&self.kernel.product);
        let dtype = self.kernel.product.left_dtype();
        let size = dtype.size();
        let view = &operand.view;
        // Pieces as wide as rows are known to be aligned.
        let wide = access::width(view, None, self.each, size);
        let piece = |asm: &mut Asm, from: usize| {
            let k = asm.op("add.s32", Class::B32, &[&k, &from]);
            let at = frame.a_at(asm, Int::Reg(m), Int::Reg(k));
            let bits = access::load(asm, at, 0, wide * size, size);
            access::decode(asm, dtype, &bits, wide)
        };
        let pieces = (0..self.each).step_by(wide);
        pieces.flat_map(|from| piece(asm, from)).collect()
    }

    /// Neighbouring elements of a row of `b` that starts at an address.
    fn right(&self, asm: &mut Asm, row: R, k: R) -> Vec<R> {
        let product = &self.kernel.product;
        match product.right() {
            Encoding::Blocks(block) => {
                let run = Run::of_row(asm, block, (row, k), RUN, Lies::Anywhere);
                run.values(asm)
            }
            Encoding::Plain(_) | Encoding::Packed(_) | Encoding::Code => {
                let dtype = right_dtype(product);
                let size = dtype.size();
                let stride = self.frame.scope.size(asm, &product.b.view.strides[2]);
                let along = asm.op("mul.lo.s32", Class::B32, &[&k, &stride]);
                let at = asm.op("mad.wide.s32", Class::B64, &[&along, &size, &row]);
                let bits = access::load(asm, at, 0, self.each * size, size);
                access::decode(asm, dtype, &bits, self.each)
            }
        }
    }
}
