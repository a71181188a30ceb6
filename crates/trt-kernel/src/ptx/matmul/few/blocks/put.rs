//! The sums of lanes are folded, and those of segments put down.

use super::work::{Pass, Work};
use crate::ptx::asm::{Asm, Class, R};

impl Work<'_> {
    /// The number in the block of the team's first row of a group.
    pub(super) fn number(&self, asm: &mut Asm, group: R) -> R {
        let plan = &self.plan;
        let row = asm.op("mul.lo.s32", Class::B32, &[&group, &plan.warp_rows()]);
        match plan.teams() {
            1 => row,
            _ => asm.op("mad.lo.s32", Class::B32, &[&self.team, &plan.rows, &row]),
        }
    }

    /// Folds the sums of lanes and puts down those of the segment.
    ///
    /// At each step a lane adds what its partner has; while there is an even number of sums, each of
    /// the two keeps one half of them only. Either way a sum is folded over the same tree.
    pub(super) fn fold(&self, asm: &mut Asm, mut sums: Vec<R>, group: R, pass: &Pass<'_>) {
        let (plan, lane) = (&self.plan, self.lane);
        let mut first = asm.op("mov.b32", Class::B32, &[&0]);
        let (mut bit, mut copies) = (plan.order.lanes / 2, 0);
        while bit > 0 {
            if sums.len().is_multiple_of(2) {
                let half = sums.len() / 2;
                let own = asm.op("and.b32", Class::B32, &[&lane, &bit]);
                let upper = asm.op("setp.ne.s32", Class::Pred, &[&own, &0]);
                let pairs: Vec<(R, R)> = (0..half).map(|i| (sums[i], sums[half + i])).collect();
                let exchange = |(low, high): (R, R)| {
                    let kept = asm.op("selp.f32", Class::F32, &[&high, &low, &upper]);
                    let given = asm.op("selp.f32", Class::F32, &[&low, &high, &upper]);
                    add_partner(asm, kept, given, bit)
                };
                sums = pairs.into_iter().map(exchange).collect();
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
        let row = self.number(asm, group);
        for (i, sum) in sums.iter().enumerate() {
            let which = asm.op("add.s32", Class::B32, &[&first, &i]);
            let bits = plan.rows.trailing_zeros();
            let own = asm.op("and.b32", Class::B32, &[&which, &(plan.rows - 1)]);
            let row = asm.op("add.s32", Class::B32, &[&row, &own]);
            let m = asm.op("shr.u32", Class::B32, &[&which, &bits]);
            let m = asm.op("add.s32", Class::B32, &[&m, &pass.first]);
            let inside = [&row, &plan.block_rows as &dyn std::fmt::Display, &original];
            let mut inside = asm.op("setp.lt.and.s32", Class::Pred, &inside);
            if pass.m * plan.m.div_ceil(pass.m) > plan.m {
                let real = [&m, &plan.m as &dyn std::fmt::Display, &inside];
                inside = asm.op("setp.lt.and.s32", Class::Pred, &real);
            }
            let at = asm.op(
                "mad.lo.s32",
                Class::B32,
                &[&pass.place.segment, &plan.m, &m],
            );
            let at = asm.op("mad.lo.s32", Class::B32, &[&at, &plan.block_rows, &row]);
            let at = asm.op("mad.lo.s32", Class::B32, &[&at, &4, &self.sums]);
            asm.put(format_args!("@{inside} st.shared.f32 [{at}], {sum}"));
        }
    }
}

/// `kept` plus what the lane at distance `bit` gives.
pub(super) fn add_partner(asm: &mut Asm, kept: R, given: R, bit: usize) -> R {
    let got = asm.op(
        "shfl.sync.bfly.b32",
        Class::F32,
        &[&given, &bit, &"0x1f", &"0xffffffff"],
    );
    asm.op("add.rn.f32", Class::F32, &[&kept, &got])
}
