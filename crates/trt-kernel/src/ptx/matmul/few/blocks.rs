//! How products with few rows read a right operand in blocks: value by value.
//!
//! A piece is a block; its values are made where they are multiplied, by the definition of
//! [`BlockType::decode`], and products are added in the order of [`crate::SumOrder`]. Bound by
//! instructions: 6 or so for each value beside its products, and narrow loads.

use super::super::Frame;
use super::cut::{Cut, InTeam};
use super::left::Prologue;
use crate::ptx::access;
use crate::ptx::asm::{Asm, Class, Int, R, imm};
use crate::ptx::encoded;
use crate::{BlockType, DType};

/// Reads blocks of `b` and what they meet of `a`.
pub(super) struct BlockReader {
    cut: Cut,
    block: BlockType,
    a: DType,
    /// The thread's place in the first row of `b` of its team; walks along `k`.
    b_at: R,
    /// Bytes from a row of `b` to the next.
    b_row: usize,
    /// The thread's place in each row of `a`; walks along `k`.
    a_at: Vec<R>,
    /// The thread's lane.
    lane: R,
    /// What computes `a`, if it is not in memory but shared.
    prologue: Option<Prologue>,
}

impl BlockReader {
    pub fn begin(
        asm: &mut Asm,
        frame: &Frame<'_>,
        (cut, block): (Cut, BlockType),
        n0: R,
        place: InTeam,
        prologue: Option<Prologue>,
    ) -> BlockReader {
        let a = frame.kernel.left_dtype();
        // A team beyond the range reads the last rows instead, and its sums are not used.
        let row = asm.op("mad.lo.s32", Class::B32, &[&place.team, &cut.rows, &n0]);
        let last = asm.op("sub.s32", Class::B32, &[&frame.end, &cut.rows]);
        let row = asm.op("min.s32", Class::B32, &[&row, &last]);
        let start = frame.b_row(asm, row);
        let b_at = asm.op(
            "mad.wide.s32",
            Class::B64,
            &[&place.first, &block.bytes(), &start],
        );
        let column = asm.op("mul.lo.s32", Class::B32, &[&place.first, &block.values()]);
        let a_at = (0..cut.m).map(|m| {
            // Rows beyond m are read as the last, and their sums are not used.
            let last = match frame.m {
                Int::Imm(rows) => Int::Imm(rows - 1),
                Int::Reg(rows) => Int::Reg(asm.op("add.s32", Class::B32, &[&rows, &-1])),
            };
            let m = asm.op("min.s32", Class::B32, &[&last, &m]);
            match &prologue {
                None => {
                    let at = frame.a_at(asm, Int::Reg(m), Int::Reg(column));
                    asm.op("mov.b64", Class::B64, &[&at])
                }
                Some(p) => {
                    let k = frame.scope.size(asm, &frame.kernel.k);
                    let row = asm.op("mad.lo.s32", Class::B32, &[&m, &k, &column]);
                    asm.op("mad.lo.s32", Class::B32, &[&row, &a.size(), &p.base])
                }
            }
        });
        BlockReader {
            a_at: a_at.collect(),
            b_row: cut.order.pieces * block.bytes(),
            lane: place.lane,
            cut,
            block,
            a,
            b_at,
            prologue,
        }
    }

    /// Sums all products of the thread's blocks, for each row of `a` and each of `b`; `sums` are
    /// zeros.
    pub fn multiply(
        &self,
        asm: &mut Asm,
        frame: &Frame<'_>,
        sums: Vec<R>,
        then: impl FnOnce(&mut Asm),
    ) -> Vec<R> {
        frame.scope.wait(asm);
        then(asm);
        if let Some(prologue) = &self.prologue {
            prologue.run(asm, frame);
        }
        // What is added to -0 stays as it is.
        let totals: Vec<R> = sums.iter().map(|_| asm.f32(-0.0)).collect();
        let (segments, ragged) = (self.cut.segments(), self.cut.ragged());
        let segment = asm.op("mov.b32", Class::B32, &[&0]);
        let end = Int::Imm(segments as i64);
        asm.count_rolled(segment, end, Int::Imm(1), |asm| {
            let round = asm.op("mov.b32", Class::B32, &[&0]);
            let end = Int::Imm((self.cut.whole() / segments) as i64);
            asm.count_rolled(round, end, Int::Imm(1), |asm| {
                self.meet(asm, &sums);
                self.advance(asm);
            });
            if ragged > 0 {
                let inside = asm.op("setp.lt.s32", Class::Pred, &[&self.lane, &ragged]);
                asm.when(inside, true, |asm| self.meet(asm, &sums));
            }
            for (sum, total) in sums.iter().zip(&totals) {
                asm.op_to("add.rn.f32", *total, &[total, sum]);
                asm.put(format_args!("mov.f32 {sum}, {}", imm(0.0)));
            }
        });
        totals
    }

    /// Multiplies a block of each row of `b` with all rows of `a`.
    fn meet(&self, asm: &mut Asm, sums: &[R]) {
        match self.block {
            BlockType::Q8_0 => self.meet_q8_0(asm, sums),
        }
    }

    fn meet_q8_0(&self, asm: &mut Asm, sums: &[R]) {
        let rows = (0..self.cut.rows).map(|row| row * self.b_row);
        let scales: Vec<R> = rows
            .clone()
            .map(|at| {
                let bits = asm.reg(Class::B16);
                asm.put(format_args!(
                    "ld.global.nc.b16 {bits}, [{}+{at}]",
                    self.b_at
                ));
                asm.op("cvt.f32.f16", Class::F32, &[&bits])
            })
            .collect();
        for i in 0..self.block.values() {
            let values: Vec<R> = rows
                .clone()
                .zip(&scales)
                .map(|(at, scale)| {
                    let bits = asm.reg(Class::B32);
                    let at = at + 2 + i;
                    asm.put(format_args!("ld.global.nc.u8 {bits}, [{}+{at}]", self.b_at));
                    encoded::q8_0(asm, *scale, bits)
                })
                .collect();
            for (m, sums) in sums.chunks(self.cut.rows).enumerate() {
                let x = self.left(asm, m, i);
                for (value, sum) in values.iter().zip(sums) {
                    asm.op_to("fma.rn.f32", *sum, &[value, &x, sum]);
                }
            }
        }
    }

    /// A value of the left operand.
    fn left(&self, asm: &mut Asm, m: usize, i: usize) -> R {
        let size = self.a.size();
        let (at, offset) = (self.a_at[m], (i * size) as i64);
        let bits = match self.prologue {
            None => access::load(asm, at, offset, size, size),
            Some(_) => {
                let bits = asm.reg(if size == 2 { Class::B16 } else { Class::B32 });
                asm.put(format_args!(
                    "ld.shared.b{} {bits}, [{at}+{offset}]",
                    8 * size
                ));
                vec![bits]
            }
        };
        access::decode(asm, self.a, &bits, 1)[0]
    }

    /// Walks one round along `k`.
    fn advance(&self, asm: &mut Asm) {
        let lanes = self.cut.order.lanes;
        asm.op_to(
            "add.s64",
            self.b_at,
            &[&self.b_at, &(lanes * self.block.bytes())],
        );
        let bytes = lanes * self.block.values() * self.a.size();
        for at in &self.a_at {
            let add = match at.class {
                Class::B64 => "add.s64",
                _ => "add.s32",
            };
            asm.op_to(add, *at, &[at, &bytes]);
        }
    }
}
