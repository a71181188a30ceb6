//! What the warps of a block have found, as one.

use super::{DecodeBlock, Tile, inside};
use crate::ptx::asm::{Asm, Class, Int, R, imm};
use crate::ptx::attention::combine::{self, Share};
use crate::ptx::attention::mem::{self, over_lanes};
use crate::ptx::attention::{fragment, int};

impl DecodeBlock<'_> {
    /// Merges the warps' sums in shared memory, in their order, and writes.
    pub(super) fn merge(&self, asm: &mut Asm, tiles: &[Tile]) {
        let rows = 8 * tiles.len();
        // Padded, so that lanes of different rows hit different banks.
        let pitch = (self.f.plan.k.value_dim + 4) * 4;
        let values = mem::array(asm, self.warps * rows * pitch);
        let sums = mem::array(asm, self.warps * rows * 8);
        let mine = mem::cell(asm, values, self.warp, rows * pitch);
        let mine_sums = mem::cell(asm, sums, self.warp, rows * 8);
        // The four lanes of a row have the same.
        let one = asm.op("setp.eq.u32", Class::Pred, &[&self.t, &0]);
        for (i, tile) in tiles.iter().enumerate() {
            let sum = over_lanes(asm, "add.f32", tile.sum, &[1, 2]);
            let at = mem::cell(asm, mine_sums, self.g, 8);
            let max = tile.max;
            asm.put(format_args!(
                "@{one} st.shared.v2.f32 [{at}+{}], {{{max}, {sum}}}",
                i * 64
            ));
            self.share(asm, tile, mine, i * 8 * pitch, pitch);
        }
        asm.put("bar.sync 0");
        let columns = self.f.plan.k.value_dim / 4;
        for from in (0..rows * columns).step_by(32 * self.warps) {
            let item = int::add(asm, self.f.tid, Int::Imm(from as i64));
            let row = int::div(asm, item, Int::Imm(columns as i64));
            let column = int::rem(asm, item, Int::Imm(columns as i64));
            let index = int::add(asm, self.first, row);
            let p = asm.op("setp.lt.s32", Class::Pred, &[&index, &self.f.rows]);
            let p = asm.op("setp.lt.and.s32", Class::Pred, &[&row, &rows, &p]);
            asm.when(p, true, |asm| {
                let [row, column] = [row, column].map(|i| asm.op("mov.b32", Class::B32, &[&i]));
                let at = mem::cell(asm, values, row, pitch);
                let at = mem::cell(asm, at, column, 16);
                let sums = mem::cell(asm, sums, row, 8);
                let parts = [(at, rows * pitch), (sums, rows * 8)];
                let merged = merged(asm, self.warps, parts);
                self.write(asm, index, column, merged);
            });
        }
        if let Some(share) = &self.share {
            asm.when(share.split.alone, false, |asm| share.finish(asm, self.f));
        }
    }

    /// Writes a tile's values to shared memory.
    fn share(&self, asm: &mut Asm, tile: &Tile, to: R, offset: usize, pitch: usize) {
        let to = mem::cell(asm, to, self.t, 2 * pitch);
        let to = mem::cell(asm, to, self.g, 32);
        for (h, part) in tile.values.chunks(4).enumerate() {
            let inside = inside(asm, (self.g, 64, self.f.plan.k.value_dim), h);
            let guard = inside.map(|p| format!("@{p} ")).unwrap_or_default();
            for row in 0..2 {
                for (i, two) in part.chunks(2).enumerate() {
                    let v = [two[0][row], two[0][2 + row], two[1][row], two[1][2 + row]];
                    let at = offset + row * pitch + h * 256 + i * 16;
                    asm.put(format_args!(
                        "{guard}st.shared.v4.f32 [{to}+{at}], {{{}, {}, {}, {}}}",
                        v[0], v[1], v[2], v[3]
                    ));
                }
            }
        }
    }

    /// Writes four columns of a row: finished, or into the record of the split.
    fn write(&self, asm: &mut Asm, index: Int, column: R, merged: (R, R, [R; 4])) {
        match &self.share {
            None => self.write_out(asm, index, column, merged),
            Some(share) => {
                let alone = share.split.alone;
                asm.when(alone, true, |asm| {
                    self.write_out(asm, index, column, merged)
                });
                asm.when(alone, false, |asm| {
                    self.write_record(asm, index, column, merged, share);
                });
            }
        }
    }

    fn write_out(&self, asm: &mut Asm, index: Int, column: R, (_, sum, values): (R, R, [R; 4])) {
        let first = asm.op("mul.lo.u32", Class::B32, &[&column, &4]);
        let row = self.f.row(asm, self.kv_head, index);
        let inverse = mem::inverse(asm, sum);
        let values = values.map(|v| asm.op("mul.f32", Class::F32, &[&v, &inverse]));
        combine::write_four(asm, self.f, &row, first.into(), values);
    }

    fn write_record(
        &self,
        asm: &mut Asm,
        index: Int,
        column: R,
        (max, sum, [a, b, c, d]): (R, R, [R; 4]),
        share: &Share,
    ) {
        let record = share.record(asm, self.f, index, share.index);
        let at = asm.op("mad.wide.u32", Class::B64, &[&column, &16, &record]);
        asm.put(format_args!(
            "st.global.v4.f32 [{at}], {{{a}, {b}, {c}, {d}}}"
        ));
        let once = asm.op("setp.eq.u32", Class::Pred, &[&column, &0]);
        asm.when(once, true, |asm| share.write_sums(asm, record, max, sum));
    }
}

/// Maximum, sum and four values of a row over all warps.
fn merged(
    asm: &mut Asm,
    warps: usize,
    [(values, next_values), (sums, next_sums)]: [(R, usize); 2],
) -> (R, R, [R; 4]) {
    let parts: Vec<[R; 2]> = (0..warps)
        .map(|w| {
            let [max, sum] = [asm.reg(Class::F32), asm.reg(Class::F32)];
            let at = w * next_sums;
            asm.put(format_args!(
                "ld.shared.v2.f32 {{{max}, {sum}}}, [{sums}+{at}]"
            ));
            [max, sum]
        })
        .collect();
    let max = asm.op("mov.f32", Class::F32, &[&imm(f32::NEG_INFINITY)]);
    for [m, _] in &parts {
        asm.op_to("max.f32", max, &[&max, m]);
    }
    let reference = mem::reference(asm, max);
    let (sum, total) = (asm.f32(0.0), fragment::zeros(asm));
    for (w, [m, s]) in parts.iter().enumerate() {
        let weight = mem::weight(asm, *m, reference);
        asm.op_to("fma.rn.f32", sum, &[s, &weight, &sum]);
        let part = mem::load4(asm, values, w * next_values);
        for (t, p) in total.iter().zip(&part) {
            asm.op_to("fma.rn.f32", *t, &[p, &weight, t]);
        }
    }
    (max, sum, total)
}
