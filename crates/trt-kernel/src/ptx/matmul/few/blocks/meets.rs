//! What rows of `b` meet: rows of `a`, brought into the order of pieces and made ready for numbers.
//!
//! All threads bring four columns at a time to the pieces' places in shared memory, scaled as
//! [`Sums`] says; neighbouring lanes have those of a group, and sum them up on the way. A place is wider than its
//! values, so that lanes that read 16 bytes each meet all banks.

use super::super::super::MatmulFrame;
use super::super::left::Prologue;
use super::plan::RingPlan;
use super::put::add_partner;
use crate::ptx::access::{self, multiple};
use crate::ptx::asm::{Asm, Class, Int, R, imm};
use crate::sum_order::blocks::{Number, PIECE, Sums, TAIL, UPPER};

/// Bytes of a piece's values.
const VALUES: usize = 4 * PIECE;
/// Bytes from a piece to the next: values, what the sum of each group starts with and the sum of what it
/// meets, and what makes it an odd number of 16 bytes.
pub(super) const PITCH: usize = VALUES + 32 + 16;

/// How many times four columns a thread has on their way at most.
const TOGETHER: usize = 8;

/// Some pieces of a row of `a`: the first, where they end, and where they go.
#[derive(Clone, Copy)]
pub(super) struct Stretch {
    pub row: Int,
    pub first: Int,
    pub end: Int,
    pub to: R,
}

/// Brings pieces to shared memory, with all threads; the barrier is the caller's.
pub(super) fn bring(
    asm: &mut Asm,
    frame: &MatmulFrame<'_>,
    plan: RingPlan,
    prologue: Option<&Prologue>,
    stretch: Stretch,
) {
    let k = frame.kernel.k.constant_size().unwrap_or(0);
    let own = asm.op("shl.b32", Class::B32, &[&frame.tid, &2]);
    let columns = |asm: &mut Asm, pieces: Int| match pieces {
        Int::Imm(pieces) => Int::Imm(pieces * PIECE as i64),
        Int::Reg(r) => Int::Reg(asm.op("mul.lo.s32", Class::B32, &[&r, &PIECE])),
    };
    let first = columns(asm, stretch.first);
    let end = match columns(asm, stretch.end) {
        Int::Imm(end) => Int::Imm(end.min(k as i64)),
        Int::Reg(end) => Int::Reg(asm.op("min.s32", Class::B32, &[&end, &k])),
    };
    // Where the row's first piece would be.
    let before = asm.op("mov.b32", Class::B32, &[&stretch.first]);
    let to = asm.op(
        "mad.lo.s32",
        Class::B32,
        &[&before, &-(PITCH as i64), &stretch.to],
    );
    // Those of a thread are on their way together: one after another, each would wait for memory.
    let step = 4 * plan.threads();
    let pieces = plan.order.pieces.min(plan.brought * plan.order.lanes);
    let each = (pieces * PIECE).min(k).div_ceil(step);
    let together = each.div_ceil(each.div_ceil(TOGETHER));
    let last = asm.op("mov.b32", Class::B32, &[&end]);
    let last = asm.op("add.s32", Class::B32, &[&last, &-4]);
    let sums = Sums::of(plan.block);
    // The same for all threads, since lanes exchange sums.
    let base = asm.op("mov.b32", Class::B32, &[&first]);
    let some = |asm: &mut Asm| {
        let column = asm.op("add.s32", Class::B32, &[&own, &base]);
        let own = |asm: &mut Asm, i: usize| asm.op("add.s32", Class::B32, &[&column, &(i * step)]);
        let columns: Vec<R> = (0..together).map(|i| own(asm, i)).collect();
        let load = |asm: &mut Asm, column: &R| {
            let column = asm.op("min.s32", Class::B32, &[column, &last]);
            four(asm, frame, prologue, stretch.row, column)
        };
        let fours: Vec<Vec<R>> = columns.iter().map(|c| load(asm, c)).collect();
        for (column, four) in columns.into_iter().zip(fours) {
            let four = ready(asm, &sums, four);
            let inside = asm.op("setp.le.s32", Class::Pred, &[&column, &last]);
            let (piece, i) = place(asm, plan, column);
            let piece = asm.op("mad.lo.s32", Class::B32, &[&piece, &PITCH, &to]);
            let at = asm.op("mad.lo.s32", Class::B32, &[&i, &4, &piece]);
            let list = four.iter().map(R::to_string).collect::<Vec<_>>().join(", ");
            asm.put(format_args!(
                "@{inside} st.shared.v4.f32 [{at}], {{{list}}}"
            ));
            total(asm, &sums, &four, (piece, i, inside));
        }
    };
    match together == each {
        true => some(asm),
        false => asm.count_rolled(base, end, Int::Imm((together * step) as i64), some),
    }
    if plan.halved() {
        // The last piece has a second half that is met by nothing.
        let last = plan.order.pieces - 1;
        let own = asm.op("setp.gt.s32", Class::Pred, &[&stretch.end, &last]);
        let spare = asm.op("setp.lt.and.s32", Class::Pred, &[&frame.tid, &8, &own]);
        asm.when(spare, true, |asm| {
            let at = asm.op("mad.lo.s32", Class::B32, &[&frame.tid, &16, &to]);
            let at = asm.op("add.s32", Class::B32, &[&at, &(last * PITCH + VALUES / 2)]);
            let zeros = [asm.f32(0.0); 4];
            put(asm, at, &zeros);
            let at = asm.op("add.s32", Class::B32, &[&to, &(last * PITCH + VALUES + 8)]);
            put(asm, at, &zeros[..2]);
        });
    }
}

fn put(asm: &mut Asm, at: R, values: &[R]) {
    let list = values
        .iter()
        .map(R::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    let n = values.len();
    asm.put(format_args!("st.shared.v{n}.f32 [{at}], {{{list}}}"));
}

/// Loads neighbouring floats, two or four.
pub(super) fn get(asm: &mut Asm, at: R, ahead: usize, n: usize) -> Vec<R> {
    let values = asm.regs(Class::F32, n);
    let list = values
        .iter()
        .map(R::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    asm.put(format_args!(
        "ld.shared.v{n}.f32 {{{list}}}, [{at}+{ahead}]"
    ));
    values
}

/// The piece of a column that is a multiple of four, and its place there.
fn place(asm: &mut Asm, plan: RingPlan, column: R) -> (R, R) {
    let field = |asm: &mut Asm, at: usize, bits: usize| {
        asm.op("bfe.u32", Class::B32, &[&column, &at, &bits])
    };
    let striped = plan.block.column(0, 16) != 16;
    match striped {
        false => (
            asm.op("shr.u32", Class::B32, &[&column, &PIECE.trailing_zeros()]),
            asm.op("and.b32", Class::B32, &[&column, &(PIECE - 1)]),
        ),
        true => {
            // Halves of a block are two pieces each, of every other stripe of 16.
            let half = asm.op("shr.u32", Class::B32, &[&column, &7]);
            let part = field(asm, 4, 1);
            let piece = asm.op("mad.lo.s32", Class::B32, &[&half, &2, &part]);
            let stripe = field(asm, 5, 2);
            let within = asm.op("and.b32", Class::B32, &[&column, &15]);
            let i = asm.op("mad.lo.s32", Class::B32, &[&stripe, &16, &within]);
            (piece, i)
        }
    }
}

/// Four neighbours of a row of `a`.
fn four(
    asm: &mut Asm,
    frame: &MatmulFrame<'_>,
    prologue: Option<&Prologue>,
    row: Int,
    column: R,
) -> Vec<R> {
    let dtype = frame.kernel.left_dtype();
    let size = dtype.size();
    if let Some(prologue) = prologue {
        let k = frame.kernel.k.constant_size().unwrap_or(0);
        let at = asm.op("mov.b32", Class::B32, &[&row]);
        let at = asm.op("mad.lo.s32", Class::B32, &[&at, &k, &column]);
        let at = asm.op("mad.lo.s32", Class::B32, &[&at, &size, &prologue.base]);
        let words = asm.regs(Class::B32, size);
        let list = words
            .iter()
            .map(R::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        asm.put(format_args!("ld.shared.v{size}.b32 {{{list}}}, [{at}]"));
        return access::decode(asm, dtype, &words, 4);
    }
    if aligned(frame) {
        let at = frame.a_at(asm, row, Int::Reg(column));
        let words = access::load(asm, at, 0, 4 * size, size);
        return access::decode(asm, dtype, &words, 4);
    }
    let one = |i: usize| {
        let column = asm.op("add.s32", Class::B32, &[&column, &i]);
        let at = frame.a_at(asm, row, Int::Reg(column));
        let bits = access::load(asm, at, 0, size, size);
        access::decode(asm, dtype, &bits, 1)[0]
    };
    (0..4).map(one).collect()
}

/// Whether four neighbours of a row are one load.
fn aligned(frame: &MatmulFrame<'_>) -> bool {
    let Some(a) = frame.kernel.a.stored() else {
        return false;
    };
    let view = &a.view;
    let starts = [&view.offset, &view.strides[0], &view.strides[1]];
    view.strides[2].is(1) && starts.iter().all(|d| multiple(d, 4))
}

/// Four neighbours as numbers meet them.
fn ready(asm: &mut Asm, sums: &Sums, x: Vec<R>) -> Vec<R> {
    let factor = imm(sums.factor());
    let scaled: Vec<R> = match sums.number {
        Number::Exact | Number::Shifted(0) => x,
        Number::Paired | Number::Shifted(_) => (x.iter())
            .map(|x| asm.op("mul.rn.f32", Class::F32, &[x, &factor]))
            .collect(),
    };
    match sums.number {
        Number::Exact | Number::Shifted(_) => scaled,
        Number::Paired => {
            let tail = imm(-TAIL);
            let less = |i: usize| {
                asm.op(
                    "fma.rn.f32",
                    Class::F32,
                    &[&scaled[i + 2], &tail, &scaled[i]],
                )
            };
            let lower: Vec<R> = (0..2).map(less).collect();
            [lower, scaled[2..].to_vec()].concat()
        }
    }
}

/// Sums up what a group meets, of which neighbouring lanes have four values each: `four` is at a place in the
/// piece at an address, if it is inside the row at all.
fn total(asm: &mut Asm, sums: &Sums, four: &[R], (piece, i, inside): (R, R, R)) {
    let mut add = |a: R, b: R| asm.op("add.rn.f32", Class::F32, &[&a, &b]);
    let [low, high] = [add(four[0], four[1]), add(four[2], four[3])];
    let mut totals = match sums.number {
        Number::Exact => return,
        Number::Paired => vec![low, high],
        Number::Shifted(_) => vec![add(low, high)],
    };
    let lanes = sums.each() / 4;
    let mut bit = 1;
    while bit < lanes {
        let all = |t: &R| add_partner(asm, *t, *t, bit);
        totals = totals.iter().map(all).collect();
        bit *= 2;
    }
    let own = asm.op("and.b32", Class::B32, &[&i, &(sums.each() - 1)]);
    let first = asm.op("setp.eq.and.s32", Class::Pred, &[&own, &0, &inside]);
    let upper = *totals.last().unwrap_or(&low);
    let both = start(asm, sums, [totals[0], upper]);
    let group = asm.op("shr.u32", Class::B32, &[&i, &sums.each().trailing_zeros()]);
    let at = asm.op("mad.lo.s32", Class::B32, &[&group, &8, &piece]);
    asm.put(format_args!(
        "@{first} st.shared.v2.f32 [{at}+{VALUES}], {{{}, {}}}",
        both[0], both[1]
    ));
}

/// What the sum of a group starts with, and the sum of what it meets as it was.
fn start(asm: &mut Asm, sums: &Sums, [lower, upper]: [R; 2]) -> [R; 2] {
    match sums.number {
        Number::Exact | Number::Shifted(_) => {
            let up = imm(1.0 / sums.factor());
            let all = asm.op("mul.rn.f32", Class::F32, &[&lower, &up]);
            let start = asm.op("mul.rn.f32", Class::F32, &[&all, &imm(-sums.offset())]);
            [start, all]
        }
        Number::Paired => {
            let all = asm.op("mul.rn.f32", Class::F32, &[&lower, &imm(8.0)]);
            let up = imm(8.0 * (1.0 + TAIL));
            let all = asm.op("fma.rn.f32", Class::F32, &[&upper, &up, &all]);
            let lower = asm.op("mul.rn.f32", Class::F32, &[&lower, &imm(-128.0)]);
            let paired = asm.op("fma.rn.f32", Class::F32, &[&upper, &imm(-UPPER), &lower]);
            match sums.zero {
                0.0 => [paired, all],
                zero => {
                    let less = imm(-zero);
                    [
                        asm.op("fma.rn.f32", Class::F32, &[&all, &less, &paired]),
                        all,
                    ]
                }
            }
        }
    }
}

/// What the sums of groups of a piece at `at` start with, and the sums of what they meet.
pub(super) fn totals(asm: &mut Asm, sums: &Sums, at: R, ahead: usize) -> [Vec<R>; 2] {
    if let Number::Exact = sums.number {
        let zeros = vec![asm.f32(0.0); sums.groups];
        return [zeros.clone(), zeros];
    }
    let pairs = (0..sums.groups / 2).flat_map(|i| get(asm, at, ahead + VALUES + 16 * i, 4));
    let pairs: Vec<R> = pairs.collect();
    [0, 1].map(|i| pairs.iter().skip(i).step_by(2).copied().collect())
}
