//! The running softmax of a tile of eight rows.

use super::{DecodeBlock, Tile};
use crate::ptx::access;
use crate::ptx::asm::{Asm, Class, Int, R};
use crate::ptx::attention::fragment::from_lane;
use crate::ptx::attention::int;
use crate::ptx::attention::mem::{self, over_lanes};

impl DecodeBlock<'_> {
    /// Takes 16 scores of each row into maximum and sum; the weights are a right side.
    pub(super) fn softmax(
        &self,
        asm: &mut Asm,
        key: R,
        tile: &Tile,
        index: usize,
        scores: &[[R; 4]],
    ) -> [R; 2] {
        let first = asm.op("mad.lo.s32", Class::B32, &[&self.t, &2, &key]);
        let mut all = Vec::new();
        for (n, dots) in scores.iter().enumerate() {
            let key = int::add(asm, first, Int::Imm(8 * n as i64));
            let key = asm.op("mov.b32", Class::B32, &[&key]);
            let dots = &dots[2 * index..][..2];
            let scores = self.f.scores(asm, &tile.row, key, dots);
            for (j, score) in scores.into_iter().enumerate() {
                let key = int::add(asm, key, Int::Imm(j as i64));
                all.push(self.f.mask(asm, &tile.row, tile.horizon, key, score));
            }
        }
        let max = (all.iter().copied())
            .reduce(|a, b| asm.op("max.f32", Class::F32, &[&a, &b]))
            .unwrap_or(tile.max);
        let max = over_lanes(asm, "max.f32", max, &[1, 2]);
        let max = asm.op("max.f32", Class::F32, &[&max, &tile.max]);
        let reference = mem::reference(asm, max);
        let fade = mem::weight(asm, tile.max, reference);
        asm.op_to("mov.f32", tile.max, &[&max]);
        asm.op_to("mul.f32", tile.sum, &[&tile.sum, &fade]);
        let weights: Vec<R> = all
            .iter()
            .map(|s| mem::weight(asm, *s, reference))
            .collect();
        for w in &weights {
            asm.op_to("add.f32", tile.sum, &[&tile.sum, w]);
        }
        self.fade(asm, tile, fade);
        [0, 2].map(|i| self.pack(asm, weights[i], weights[i + 1]))
    }

    /// Scales the values to a new maximum. Row `2t` is lane `8t`'s row.
    fn fade(&self, asm: &mut Asm, tile: &Tile, fade: R) {
        for j in 0..2 {
            let lane = asm.op("mad.lo.u32", Class::B32, &[&self.t, &8, &(4 * j)]);
            let fade = from_lane(asm, fade, lane);
            for v in &tile.values {
                asm.op_to("mul.f32", v[j], &[&v[j], &fade]);
                asm.op_to("mul.f32", v[2 + j], &[&v[2 + j], &fade]);
            }
        }
    }

    fn pack(&self, asm: &mut Asm, low: R, high: R) -> R {
        let plan = self.f.plan;
        access::encode_halves(asm, plan.target, plan.dtype(&plan.k.v), [low, high])
    }
}
