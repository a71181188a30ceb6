//! What every variant starts from: sizes, the block's range of rows, addresses of operands.

use super::slab::Slab;
use super::{in_memory, right_dtype, vars};
use crate::ptx::asm::{Asm, Class, Int, R};
use crate::ptx::emitted::Target;
use crate::ptx::scope::{Scope, Tiles};
use crate::{DType, Dim, Encoding, Matmul};

/// What every variant starts from, in registers.
pub(super) struct MatmulFrame<'a> {
    pub kernel: &'a Matmul,
    /// The dtypes of the arguments' values.
    pub types: Vec<DType>,
    pub scope: Scope,
    pub tiles: Option<Tiles>,
    /// The address of the first row of this launch, if its rows are in working memory.
    pub unpacked: Option<R>,
    /// Rows of `a`.
    pub m: Int,
    /// The first row of `b` in this launch.
    pub first: Int,
    /// The end of the rows of `b` in this launch.
    pub end: Int,
    /// Which of the independent products.
    pub batch: Int,
    /// The thread in its block.
    pub tid: R,
}

impl<'a> MatmulFrame<'a> {
    pub fn begin(asm: &mut Asm, kernel: &'a Matmul, target: Target) -> MatmulFrame<'a> {
        let frame = MatmulFrame::begin_early(asm, kernel, target);
        frame.scope.wait(asm);
        frame
    }

    /// As [`MatmulFrame::begin`], of a product whose weight is in working memory, a slab of its rows.
    pub fn begin_slab(
        asm: &mut Asm,
        kernel: &'a Matmul,
        target: Target,
        slab: Option<Slab>,
    ) -> MatmulFrame<'a> {
        let mut frame = MatmulFrame::begin(asm, kernel, target);
        if let (Some(slab), Some(tiles)) = (slab, &frame.tiles) {
            let (base, first) = slab.find(asm, &frame.scope, tiles.first);
            let end = asm.op("add.s32", Class::B32, &[&first, &slab.rows]);
            let end = asm.op("min.s32", Class::B32, &[&end, &tiles.end]);
            frame.first = Int::Reg(first);
            frame.end = Int::Reg(end);
            frame.unpacked = Some(base);
        }
        frame
    }

    /// As [`MatmulFrame::begin`], but does not wait for the launch ahead.
    pub fn begin_early(asm: &mut Asm, kernel: &'a Matmul, target: Target) -> MatmulFrame<'a> {
        let scope = Scope::begin_early(asm, target, kernel.args.len(), &vars(kernel));
        let tiles = kernel.ranged.then(|| Tiles::begin(asm));
        let (first, end) = match &tiles {
            Some(t) => (Int::Reg(t.first), Int::Reg(t.end)),
            None => (Int::Imm(0), scope.size(asm, &kernel.n)),
        };
        let batch = match kernel.batch.is(1) {
            true => Int::Imm(0),
            false => Int::Reg(asm.op("mov.u32", Class::B32, &[&"%ctaid.z"])),
        };
        MatmulFrame {
            m: scope.size(asm, &kernel.m),
            tid: asm.op("mov.u32", Class::B32, &[&"%tid.x"]),
            types: kernel.dtypes(),
            kernel,
            scope,
            tiles,
            unpacked: None,
            first,
            end,
            batch,
        }
    }

    /// The dtypes of `a` and `b`.
    pub fn dtypes(&self) -> [DType; 2] {
        [self.kernel.left_dtype(), right_dtype(self.kernel)]
    }

    /// The address of `a[batch, m, k]`, which is in memory.
    pub fn a_at(&self, asm: &mut Asm, m: Int, k: Int) -> R {
        let o = in_memory(self.kernel);
        let size = self.kernel.left_dtype().size();
        self.scope
            .address(asm, o.arg, &o.view, &[self.batch, m, k], size)
    }

    /// The address of `b[batch, n, k]`, `n` in the range of the launch, if `b` is plain.
    pub fn b_at(&self, asm: &mut Asm, n: R, k: Int) -> R {
        let o = &self.kernel.b;
        let size = right_dtype(self.kernel).size();
        match &self.tiles {
            None => {
                let at = [self.batch, Int::Reg(n), k];
                self.scope.address(asm, o.arg, &o.view, &at, size)
            }
            Some(tiles) => {
                let row = self.tile_row(asm, tiles, n);
                match k {
                    Int::Imm(0) => row,
                    Int::Imm(k) => asm.op("add.s64", Class::B64, &[&row, &(k * size as i64)]),
                    Int::Reg(k) => asm.op("mad.wide.s32", Class::B64, &[&k, &size, &row]),
                }
            }
        }
    }

    /// The address of a row of a weight.
    fn tile_row(&self, asm: &mut Asm, tiles: &Tiles, n: R) -> R {
        let kernel = self.kernel;
        let bytes = match kernel.right() {
            Encoding::Plain(dtype) => &kernel.k * &Dim::from(dtype.size()),
            // Checked with the kernel: rows are whole blocks.
            encoding @ (Encoding::Blocks(_) | Encoding::Packed(_) | Encoding::Code) => {
                let bytes = kernel.k.constant_size().and_then(|k| encoding.row_bytes(k));
                Dim::from(bytes.unwrap_or(0))
            }
        };
        let bytes = self.scope.size(asm, &bytes);
        if let Some(base) = self.unpacked {
            let within = asm.op("sub.s32", Class::B32, &[&n, &self.first]);
            return asm.op("mad.wide.s32", Class::B64, &[&within, &bytes, &base]);
        }
        tiles.row(asm, n, &bytes)
    }

    /// The address of a row of `b` in the range of the launch.
    pub fn b_row(&self, asm: &mut Asm, n: R) -> R {
        match &self.tiles {
            Some(tiles) => self.tile_row(asm, tiles, n),
            None => self.b_at(asm, n, Int::Imm(0)),
        }
    }

    /// The first row of `b` of this block, by its place on a grid axis (`x`, `y`).
    pub fn block_row(&self, asm: &mut Asm, axis: &str, per: usize) -> R {
        let block = asm.op("mov.u32", Class::B32, &[&format_args!("%ctaid.{axis}")]);
        asm.op("mad.lo.s32", Class::B32, &[&block, &per, &self.first])
    }
}
