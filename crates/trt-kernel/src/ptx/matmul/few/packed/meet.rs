//! What a warp's rows meet: the pieces of `a` that its lanes have in the stretch.

use super::super::left::Prologue;
use super::super::pieces::{load, unpack};
use super::plan::{ROUNDS, StreamPlan, WARP};
use super::rows::Rows;
use crate::DType;
use crate::ptx::asm::{Asm, Class, Int, R};
use crate::ptx::matmul::MatmulFrame;
use trt_pack::PIECE;

pub(super) struct Meet {
    plan: StreamPlan,
    a: DType,
    b: DType,
    /// The lane's first piece of each row of `a`: a pointer, and bytes.
    at: Vec<(R, i64)>,
    /// What loads it.
    name: &'static str,
    /// The words of all rounds, if they are kept.
    held: Option<Vec<Vec<R>>>,
}

impl Meet {
    /// `a` is there; `stretch` is the warp's.
    pub fn begin(
        asm: &mut Asm,
        frame: &MatmulFrame<'_>,
        plan: StreamPlan,
        prologue: Option<&Prologue>,
        [stretch, lane]: [R; 2],
        rows: &Rows,
    ) -> Meet {
        let [a, b] = frame.dtypes();
        let each = PIECE * a.size();
        let first = ROUNDS * WARP;
        let first = asm.op("mad.lo.u32", Class::B32, &[&stretch, &first, &lane]);
        let place = |asm: &mut Asm, m: Int| match prologue {
            None => {
                let start = frame.a_at(asm, m, Int::Imm(0));
                asm.op("mad.wide.s32", Class::B64, &[&first, &each, &start])
            }
            Some(p) => asm.op("mad.lo.s32", Class::B32, &[&first, &each, &p.base]),
        };
        let stride = match frame.kernel.a.stored() {
            Some(a) => &a.view.strides[1],
            None => &frame.kernel.k,
        };
        let at = match (frame.m, stride.constant()) {
            (Int::Imm(_), Some(stride)) => {
                let first = place(asm, Int::Imm(0));
                let bytes = |m| m as i64 * stride * a.size() as i64;
                (0..plan.m).map(|m| (first, bytes(m))).collect()
            }
            // Rows beyond m are read as the last, and their sums are not used.
            _ => (0..plan.m)
                .map(|m| {
                    let last = asm.op("add.s32", Class::B32, &[&frame.m, &-1]);
                    let m = asm.op("min.s32", Class::B32, &[&last, &m]);
                    (place(asm, Int::Reg(m)), 0)
                })
                .collect(),
        };
        let name = match prologue {
            None => "ld.global",
            Some(_) => "ld.shared",
        };
        let mut meet = Meet {
            plan,
            a,
            b,
            at,
            name,
            held: None,
        };
        if plan.held {
            let words: Vec<Vec<R>> = (0..ROUNDS)
                .map(|_| asm.regs(Class::B32, each / 4))
                .collect();
            for (round, words) in words.iter().enumerate() {
                rows.round(asm, round, |asm| meet.load(asm, 0, round, words));
            }
            meet.held = Some(words);
        }
        meet
    }

    /// Loads what a round meets in a row of `a`.
    fn load(&self, asm: &mut Asm, m: usize, round: usize, words: &[R]) {
        let (base, offset) = self.at[m];
        let at = (base, offset + (round * WARP * words.len() * 4) as i64);
        load(asm, self.name, words, at, None);
    }

    /// The values that a round meets in a row of `a`.
    fn piece(&self, asm: &mut Asm, m: usize, round: usize) -> Vec<R> {
        if let Some(held) = &self.held {
            return unpack(asm, &held[round], self.a);
        }
        let words = asm.regs(Class::B32, PIECE * self.a.size() / 4);
        self.load(asm, m, round, &words);
        unpack(asm, &words, self.a)
    }

    /// Adds all products of some rows to sums: for each row of `a` those of rows of `b`.
    pub fn multiply(&self, asm: &mut Asm, rows: &Rows, sums: &[R]) {
        for round in 0..ROUNDS {
            rows.round(asm, round, |asm| {
                let values: Vec<Vec<R>> = (rows.pairs.iter())
                    .map(|pairs| unpack(asm, &pairs[round], self.b))
                    .collect();
                for (m, sums) in sums.chunks(self.plan.rows).enumerate() {
                    let x = self.piece(asm, m, round);
                    for (j, x) in x.iter().enumerate() {
                        for (row, sum) in values.iter().zip(sums) {
                            asm.op_to("fma.rn.f32", *sum, &[&row[j], x, sum]);
                        }
                    }
                }
            });
        }
    }
}
