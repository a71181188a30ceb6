//! From the sums of lanes to those of outputs, in shared memory.
//!
//! Both ways add in the order of [`crate::SumOrder`]: segments one after another, then lanes as a
//! tree. Where a thread has gone through all segments, only lanes are left, and they exchange sums
//! by shuffles. Where each warp of a team has a segment, the sums of its lanes go through shared
//! memory, some outputs at a time, and one warp for each output adds the segments and then lanes.

use super::cut::{Cut, InTeam, WARP};
use crate::ptx::asm::{Asm, Class, R};

/// The most bytes of shared memory through which segments are exchanged.
const EXCHANGE: usize = 16 << 10;

/// Leaves the sums of a block, `[m][row of b]`, in shared memory at `base`; the barrier after that
/// is the caller's.
pub(super) fn fold(asm: &mut Asm, cut: Cut, acc: &[R], base: R, place: InTeam) {
    match cut.warps {
        1 => lanes(asm, cut, acc, base, place),
        _ => segments(asm, cut, acc, base, place),
    }
}

/// Folds the sums of a warp (or of a smaller team).
///
/// At each step a thread adds what its partner has. While the number of sums is even, each of
/// the two keeps one half of them only; so sums end up spread over the lanes. Either way an
/// output is folded over the same tree.
fn lanes(asm: &mut Asm, cut: Cut, acc: &[R], base: R, place: InTeam) {
    let mut sums = acc.to_vec();
    let mut first = asm.op("mov.b32", Class::B32, &[&0]);
    let mut copies = 0;
    let mut bit = cut.order.lanes / 2;
    while bit > 0 {
        if sums.len().is_multiple_of(2) {
            let half = sums.len() / 2;
            let own = asm.op("and.b32", Class::B32, &[&place.lane, &bit]);
            let upper = asm.op("setp.ne.s32", Class::Pred, &[&own, &0]);
            let (low, high) = sums.split_at(half);
            let pairs: Vec<(R, R)> = low.iter().copied().zip(high.iter().copied()).collect();
            sums = pairs
                .iter()
                .map(|(low, high)| {
                    let kept = asm.op("selp.f32", Class::F32, &[high, low, &upper]);
                    let given = asm.op("selp.f32", Class::F32, &[low, high, &upper]);
                    add_partner(asm, kept, given, bit)
                })
                .collect();
            let skipped = asm.op("selp.b32", Class::B32, &[&half, &0, &upper]);
            first = asm.op("add.s32", Class::B32, &[&first, &skipped]);
        } else {
            copies |= bit;
            sums = sums.iter().map(|s| add_partner(asm, *s, *s, bit)).collect();
        }
        bit /= 2;
    }
    let copy = asm.op("and.b32", Class::B32, &[&place.lane, &copies]);
    let original = asm.op("setp.eq.s32", Class::Pred, &[&copy, &0]);
    asm.when(original, true, |asm| {
        for (i, sum) in sums.iter().enumerate() {
            let which = asm.op("add.s32", Class::B32, &[&first, &i]);
            store(asm, cut, which, place.team, base, *sum);
        }
    });
}

/// Adds the segments that the warps of a team have, then folds lanes.
fn segments(asm: &mut Asm, cut: Cut, acc: &[R], base: R, place: InTeam) {
    let some = (EXCHANGE / (4 * cut.threads)).clamp(1, acc.len());
    let array = asm.shared(some * cut.threads * 4, 16);
    let slots = asm.op("mov.u32", Class::B32, &[&array]);
    let threads = asm.op(
        "mad.lo.s32",
        Class::B32,
        &[&place.team, &cut.team(), &place.thread],
    );
    let own = asm.op("mad.lo.s32", Class::B32, &[&threads, &4, &slots]);
    let warp = asm.op("shr.u32", Class::B32, &[&place.thread, &5]);
    // Where the first segment of this team's lane is.
    let lane = asm.op(
        "mad.lo.s32",
        Class::B32,
        &[&place.team, &cut.team(), &place.lane],
    );
    let lane = asm.op("mad.lo.s32", Class::B32, &[&lane, &4, &slots]);
    for (round, sums) in acc.chunks(some).enumerate() {
        if round > 0 {
            asm.put("bar.sync 0");
        }
        for (i, sum) in sums.iter().enumerate() {
            let at = i * cut.threads * 4;
            asm.put(format_args!("st.shared.f32 [{own}+{at}], {sum}"));
        }
        asm.put("bar.sync 0");
        for turn in 0..sums.len().div_ceil(cut.warps) {
            let which = asm.op("add.s32", Class::B32, &[&warp, &(turn * cut.warps)]);
            let add = |asm: &mut Asm| {
                let at = asm.op(
                    "mad.lo.s32",
                    Class::B32,
                    &[&which, &(cut.threads * 4), &lane],
                );
                let output = asm.op("add.s32", Class::B32, &[&which, &(round * some)]);
                one(asm, cut, at, output, base, place);
            };
            match sums.len() - turn * cut.warps < cut.warps {
                false => add(asm),
                true => {
                    let some = asm.op("setp.lt.s32", Class::Pred, &[&which, &sums.len()]);
                    asm.when(some, true, add);
                }
            }
        }
    }
}

/// One output, whose segments are a warp apart from `at` on.
fn one(asm: &mut Asm, cut: Cut, at: R, output: R, base: R, place: InTeam) {
    let part = |asm: &mut Asm, segment: usize| {
        let (part, offset) = (asm.reg(Class::F32), segment * WARP * 4);
        asm.put(format_args!("ld.shared.f32 {part}, [{at}+{offset}]"));
        part
    };
    let mut sum = part(asm, 0);
    for segment in 1..cut.warps {
        let part = part(asm, segment);
        sum = asm.op("add.rn.f32", Class::F32, &[&sum, &part]);
    }
    let mut bit = WARP / 2;
    while bit > 0 {
        sum = add_partner(asm, sum, sum, bit);
        bit /= 2;
    }
    let first = asm.op("setp.eq.s32", Class::Pred, &[&place.lane, &0]);
    asm.when(first, true, |asm| {
        store(asm, cut, output, place.team, base, sum)
    });
}

/// Stores the sum of an output of a team, numbered by row of `a`, then row of `b`.
fn store(asm: &mut Asm, cut: Cut, output: R, team: R, base: R, sum: R) {
    let bits = cut.rows.trailing_zeros();
    let m = asm.op("shr.u32", Class::B32, &[&output, &bits]);
    let row = asm.op("and.b32", Class::B32, &[&output, &(cut.rows - 1)]);
    let row = asm.op("mad.lo.s32", Class::B32, &[&team, &cut.rows, &row]);
    let at = asm.op("mad.lo.s32", Class::B32, &[&m, &cut.block_rows(), &row]);
    let at = asm.op("mad.lo.s32", Class::B32, &[&at, &4, &base]);
    asm.put(format_args!("st.shared.f32 [{at}], {sum}"));
}

/// `kept` plus what the lane at distance `bit` gives.
fn add_partner(asm: &mut Asm, kept: R, given: R, bit: usize) -> R {
    let got = asm.op(
        "shfl.sync.bfly.b32",
        Class::F32,
        &[&given, &bit, &"0x1f", &"0xffffffff"],
    );
    asm.op("add.rn.f32", Class::F32, &[&kept, &got])
}
