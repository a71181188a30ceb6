//! From dot products to weights, in the registers that hold them.

use super::{FlashBlock, Fragments};
use crate::ptx::access;
use crate::ptx::asm::{Asm, Class, Int, R, imm};
use crate::ptx::attention::int;
use crate::ptx::attention::mem::{self, over_lanes};
use std::f32::consts::LOG2_E;

/// The running softmax of a row. A lane has rows `g`, `g + 8`, `g + 16`, …: two of a fragment.
pub(super) struct FlashRow {
    pub max: R,
    /// Of the keys that this lane had.
    pub sum: R,
}

impl FlashRow {
    pub fn new(asm: &mut Asm) -> FlashRow {
        FlashRow {
            max: asm.f32(f32::NEG_INFINITY),
            sum: asm.f32(0.0),
        }
    }
}

impl FlashBlock<'_> {
    /// Takes a tile's scores into maxima and sums; the weights are left sides of 16 keys each.
    pub(super) fn softmax(
        &self,
        asm: &mut Asm,
        key: R,
        rows: &[FlashRow],
        sums: &[Fragments],
        scores: &[Fragments],
    ) -> Vec<Fragments> {
        let first = asm.op("mad.lo.s32", Class::B32, &[&self.t, &2, &key]);
        let factor = self.factor();
        if factor.is_none() {
            self.score_body(asm, first, scores);
        }
        let edge = self.edge(asm, key);
        asm.when(edge, true, |asm| self.mask(asm, first, scores));
        let factor = imm(factor.unwrap_or(1.0));
        let mut fades = Vec::new();
        for (i, row) in rows.iter().enumerate() {
            let mine: Vec<R> = (scores[i / 2].iter())
                .flat_map(|s| [s[i % 2 * 2], s[i % 2 * 2 + 1]])
                .collect();
            fades.push(self.weights(asm, row, &mine, &factor));
        }
        fade(asm, sums, &fades);
        let plan = self.f.plan;
        let dtype = plan.dtype(&plan.k.v);
        let mut pack = |s: &[R]| access::encode_halves(asm, plan.target, dtype, [s[0], s[1]]);
        (scores.iter())
            .map(|part| {
                (part.chunks_exact(2))
                    .map(|s| [&s[0][..2], &s[0][2..], &s[1][..2], &s[1][2..]].map(&mut pack))
                    .collect()
            })
            .collect()
    }

    /// The factor that turns dot products into scores times log2(e), where that is all and does
    /// not turn the largest into the smallest.
    fn factor(&self) -> Option<f32> {
        self.f.plan.factor.filter(|f| *f > 0.0).map(|f| f * LOG2_E)
    }

    /// Turns dot products into scores.
    fn score_body(&self, asm: &mut Asm, first: R, scores: &[Fragments]) {
        for i in 0..2 * self.shape.parts {
            let (_, row) = self.row(asm, i);
            for (n, sums) in scores[i / 2].iter().enumerate() {
                let key = asm.op("add.s32", Class::B32, &[&first, &(8 * n)]);
                let dots = &sums[i % 2 * 2..][..2];
                let scores = self.f.scores(asm, &row, key, dots);
                for (to, score) in dots.iter().zip(scores) {
                    asm.op_to("mov.f32", *to, &[&score]);
                }
            }
        }
    }

    /// Whether some query of the warp does not see all keys of a tile.
    fn edge(&self, asm: &mut Asm, key: R) -> R {
        let first = self.f.query(asm, self.head, self.first[1].into());
        let last = int::add(asm, self.first[1], Int::Imm(self.shape.own() as i64 - 1));
        let last = self.f.query(asm, self.head, last);
        let horizon = self.f.horizon(asm, &first, self.keys.end);
        let end = asm.op("add.s32", Class::B32, &[&key, &self.shape.tile]);
        let edge = asm.op("setp.gt.s32", Class::Pred, &[&end, &horizon]);
        match last.low {
            None => edge,
            Some(low) => asm.op("setp.lt.or.s32", Class::Pred, &[&key, &low, &edge]),
        }
    }

    fn mask(&self, asm: &mut Asm, first: R, scores: &[Fragments]) {
        for i in 0..2 * self.shape.parts {
            let (_, row) = self.row(asm, i);
            let horizon = self.f.horizon(asm, &row, self.keys.end);
            for (n, sums) in scores[i / 2].iter().enumerate() {
                for (j, score) in sums[i % 2 * 2..][..2].iter().enumerate() {
                    let key = int::add(asm, first, Int::Imm((8 * n + j) as i64));
                    let masked = self.f.mask(asm, &row, horizon, key, *score);
                    asm.op_to("mov.f32", *score, &[&masked]);
                }
            }
        }
    }

    /// Turns a row's scores into weights; returns what its sums so far weigh.
    fn weights(&self, asm: &mut Asm, row: &FlashRow, scores: &[R], factor: &str) -> R {
        let max = asm.op("mov.f32", Class::F32, &[&row.max]);
        for s in scores {
            asm.op_to("max.f32", max, &[&max, s]);
        }
        let max = over_lanes(asm, "max.f32", max, &[1, 2]);
        let reference = mem::reference(asm, max);
        let reference = asm.op("mul.f32", Class::F32, &[&reference, &factor]);
        let minus = asm.op("neg.f32", Class::F32, &[&reference]);
        let weight = |asm: &mut Asm, to: R, x: R| {
            let power = asm.op("fma.rn.f32", Class::F32, &[&x, &factor, &minus]);
            asm.op_to("ex2.approx.ftz.f32", to, &[&power]);
        };
        let fade = asm.reg(Class::F32);
        weight(asm, fade, row.max);
        asm.op_to("mov.f32", row.max, &[&max]);
        asm.op_to("mul.f32", row.sum, &[&row.sum, &fade]);
        for s in scores {
            weight(asm, *s, *s);
            asm.op_to("add.f32", row.sum, &[&row.sum, s]);
        }
        fade
    }
}

/// Scales sums to new maxima, which are rarely new after the first tiles.
fn fade(asm: &mut Asm, sums: &[Fragments], fades: &[R]) {
    let some = asm.op("setp.neu.f32", Class::Pred, &[&fades[0], &imm(1.0)]);
    for f in &fades[1..] {
        asm.op_to("setp.neu.or.f32", some, &[f, &imm(1.0), &some]);
    }
    let any = asm.op("vote.sync.any.pred", Class::Pred, &[&some, &"0xffffffff"]);
    asm.when(any, true, |asm| {
        for (i, fade) in fades.iter().enumerate() {
            for sum in &sums[i / 2] {
                for s in &sum[i % 2 * 2..][..2] {
                    asm.op_to("mul.f32", *s, &[s, fade]);
                }
            }
        }
    });
}
