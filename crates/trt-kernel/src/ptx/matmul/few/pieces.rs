//! How products with few rows read: `b` in pieces of 16 bytes, each used against all rows of `a`
//! and never again, several in flight for each thread.

use super::super::MatmulFrame;
use super::cut::{Cut, InTeam};
use super::left::Prologue;
use crate::DType;
use crate::ptx::asm::{Asm, Class, Int, R, imm};

/// Bytes of `b` that one load brings.
pub(super) const PIECE: usize = 16;

/// Reads pieces of `b` and what they meet of `a`.
pub(super) struct PieceReader {
    cut: Cut,
    a: DType,
    b: DType,
    /// The thread's place in the first row of `b` of its team; walks along `k`.
    b_at: R,
    /// Bytes from a row of `b` to the next.
    b_row: i64,
    /// The thread's place in each row of `a`: a pointer that walks along `k`, and bytes.
    a_at: Vec<(R, i64)>,
    /// What computes `a`, if it is not in memory but shared.
    prologue: Option<Prologue>,
    /// Whether no launch writes `b`.
    constant: bool,
}

impl PieceReader {
    pub fn begin(
        asm: &mut Asm,
        frame: &MatmulFrame<'_>,
        cut: Cut,
        n0: R,
        at: InTeam,
        prologue: Option<Prologue>,
    ) -> PieceReader {
        let [a, b] = frame.dtypes();
        let first = at.first;
        let (b_at, b_row) = start(asm, frame, cut, n0, at);
        let a_piece = PIECE / b.size() * a.size();
        let place = |asm: &mut Asm, m: Int| match &prologue {
            None => {
                let start = frame.a_at(asm, m, Int::Imm(0));
                asm.op("mad.wide.s32", Class::B64, &[&first, &a_piece, &start])
            }
            Some(p) => asm.op("mad.lo.s32", Class::B32, &[&first, &a_piece, &p.base]),
        };
        let a_stride = match frame.kernel.a.stored() {
            Some(a) => &a.view.strides[1],
            None => &frame.kernel.k,
        };
        let a_at = match (frame.m, a_stride.constant()) {
            (Int::Imm(_), Some(stride)) => {
                let first = place(asm, Int::Imm(0));
                let bytes = |m| m as i64 * stride * a.size() as i64;
                (0..cut.m).map(|m| (first, bytes(m))).collect()
            }
            // Rows beyond m are read as the last, and their sums are not used.
            _ => (0..cut.m)
                .map(|m| {
                    let last = asm.op("add.s32", Class::B32, &[&frame.m, &-1]);
                    let m = asm.op("min.s32", Class::B32, &[&last, &m]);
                    (place(asm, Int::Reg(m)), 0)
                })
                .collect(),
        };
        PieceReader {
            cut,
            a,
            b,
            b_at,
            b_row,
            a_at,
            prologue,
            constant: frame.kernel.ranged && frame.unpacked.is_none(),
        }
    }

    /// Sums all products of the thread's pieces, for each row of `a` and each of `b`; `sums` are
    /// zeros.
    ///
    /// With many pieces, a register that has been multiplied is loaded again at once, so that
    /// always as many loads are in flight. The last round, the rest and a ragged piece, which
    /// not all threads have, are straight code.
    ///
    /// The first pieces of a streamed weight start before the wait for the launch ahead, and all
    /// first pieces before `a` is computed. `then` emits what else is asked for after the wait.
    pub fn multiply(
        &self,
        asm: &mut Asm,
        frame: &MatmulFrame<'_>,
        place: InTeam,
        sums: Vec<R>,
        then: impl FnOnce(&mut Asm),
    ) -> Vec<R> {
        let (ahead, whole) = (self.cut.ahead, self.cut.whole());
        let looped = whole >= 2 * ahead;
        let early = if looped { ahead } else { whole };
        let mut flying: Vec<Flying> = (0..early).map(|i| self.start(asm, i, None)).collect();
        if !looped {
            self.start_ragged(asm, place, &mut flying);
        }
        if self.constant {
            frame.scope.wait(asm);
        }
        then(asm);
        if let Some(prologue) = &self.prologue {
            prologue.run(asm, frame);
        }
        let running = RunningSums::begin(asm, self.cut, sums);
        if looped {
            let rounds = whole / ahead - 1;
            let i = asm.op("mov.b32", Class::B32, &[&0]);
            asm.count_rolled(i, Int::Imm(rounds as i64), Int::Imm(1), |asm| {
                for f in &flying {
                    self.meet(asm, &running.sums, f);
                    self.load_b(asm, f, f.piece + ahead);
                }
                self.advance(asm, ahead);
                running.round(asm, i);
            });
            for _ in 0..whole % ahead {
                flying.push(self.start(asm, flying.len(), None));
            }
            self.start_ragged(asm, place, &mut flying);
        }
        for f in &flying {
            self.meet(asm, &running.sums, f);
        }
        running.end(asm)
    }

    /// Starts the last piece, if some lanes have one more than others.
    fn start_ragged(&self, asm: &mut Asm, place: InTeam, flying: &mut Vec<Flying>) {
        let ragged = self.cut.ragged();
        if ragged > 0 {
            let inside = asm.op("setp.lt.s32", Class::Pred, &[&place.lane, &ragged]);
            flying.push(self.start(asm, flying.len(), Some(inside)));
        }
    }

    /// Starts to load a piece of each row of `b`, where the guard holds.
    fn start(&self, asm: &mut Asm, piece: usize, guard: Option<R>) -> Flying {
        let rows = (0..self.cut.rows)
            .map(|_| asm.regs(Class::B32, PIECE / 4))
            .collect();
        let flying = Flying { piece, guard, rows };
        self.load_b(asm, &flying, piece);
        flying
    }

    fn load_b(&self, asm: &mut Asm, to: &Flying, piece: usize) {
        let at = (piece * self.cut.order.lanes * PIECE) as i64;
        for (r, words) in to.rows.iter().enumerate() {
            let place = (self.b_at, at + r as i64 * self.b_row);
            // What another launch may have written must not come through the constant cache.
            let name = match self.constant {
                true => "ld.global.nc.L1::no_allocate",
                false => "ld.global.L1::no_allocate",
            };
            load(asm, name, words, place, to.guard);
        }
    }

    /// Multiplies a piece of each row of `b` with all rows of `a`.
    fn meet(&self, asm: &mut Asm, acc: &[R], piece: &Flying) {
        let a_piece = PIECE / self.b.size() * self.a.size();
        let at = (piece.piece * self.cut.order.lanes * a_piece) as i64;
        let rows: Vec<Vec<R>> = piece.rows.iter().map(|w| unpack(asm, w, self.b)).collect();
        for (m, sums) in acc.chunks(self.cut.rows).enumerate() {
            let (base, offset) = self.a_at[m];
            let words = asm.regs(Class::B32, a_piece / 4);
            let name = match self.prologue {
                None => "ld.global",
                Some(_) => "ld.shared",
            };
            load(asm, name, &words, (base, at + offset), piece.guard);
            let x = unpack(asm, &words, self.a);
            // Who has no piece adds nothing: a product of zeros could change the sign of a sum.
            let fma = match piece.guard {
                None => "fma.rn.f32".to_string(),
                Some(guard) => format!("@{guard} fma.rn.f32"),
            };
            for (j, x) in x.iter().enumerate() {
                for (row, sum) in rows.iter().zip(sums) {
                    asm.op_to(&fma, *sum, &[&row[j], x, sum]);
                }
            }
        }
    }

    /// Walks `count` rounds along `k`.
    fn advance(&self, asm: &mut Asm, count: usize) {
        let pieces = count * self.cut.order.lanes;
        asm.op_to("add.s64", self.b_at, &[&self.b_at, &(pieces * PIECE)]);
        let a_piece = PIECE / self.b.size() * self.a.size();
        let mut pointers: Vec<R> = self.a_at.iter().map(|(p, _)| *p).collect();
        pointers.dedup();
        for p in pointers {
            let add = match p.class {
                Class::B64 => "add.s64",
                _ => "add.s32",
            };
            asm.op_to(add, p, &[&p, &(pieces * a_piece)]);
        }
    }
}

/// A thread's place in the first row of `b` of its team, and the bytes from a row to the next.
fn start(asm: &mut Asm, frame: &MatmulFrame<'_>, cut: Cut, n0: R, place: InTeam) -> (R, i64) {
    // A team beyond the range reads the last rows instead, and its sums are not used.
    let row = asm.op("mad.lo.s32", Class::B32, &[&place.team, &cut.rows, &n0]);
    let last = asm.op("sub.s32", Class::B32, &[&frame.end, &cut.rows]);
    let row = asm.op("min.s32", Class::B32, &[&row, &last]);
    let start = frame.b_at(asm, row, Int::Imm(0));
    let at = asm.op("mad.wide.s32", Class::B64, &[&place.first, &PIECE, &start]);
    let stride = frame.kernel.b.view.strides[1].constant().unwrap_or(0);
    (at, stride * frame.dtypes()[1].size() as i64)
}

/// Brings the pieces to the second-level cache that a reader loads first.
pub(super) fn prefetch(asm: &mut Asm, frame: &MatmulFrame<'_>, cut: Cut, n0: R, place: InTeam) {
    let (at, row) = start(asm, frame, cut, n0, place);
    let whole = cut.whole();
    let first = match whole >= 2 * cut.ahead {
        true => cut.ahead,
        false => whole,
    };
    for r in 0..cut.rows as i64 {
        for piece in 0..first {
            let offset = r * row + (piece * cut.order.lanes * PIECE) as i64;
            asm.put(format_args!("prefetch.global.L2 [{at}+{offset}]"));
        }
    }
}

/// The sums of a thread on its way through its segments.
struct RunningSums {
    /// Those of the segment that it is in: for each row of `a`, those of rows of `b`.
    sums: Vec<R>,
    /// Those of the segments before, if it goes through several.
    before: Vec<R>,
    /// Rounds of the loop in a segment.
    each: usize,
    /// Counts those that are left, if their number is no power of two.
    left: Option<R>,
}

impl RunningSums {
    fn begin(asm: &mut Asm, cut: Cut, sums: Vec<R>) -> RunningSums {
        let several = cut.segments() > 1;
        let each = cut.order.segment_rounds() / cut.ahead;
        // What is added to -0 stays as it is.
        let before = sums.iter().filter(|_| several).map(|_| asm.f32(-0.0));
        RunningSums {
            before: before.collect(),
            sums,
            each,
            left: (several && !each.is_power_of_two())
                .then(|| asm.op("mov.b32", Class::B32, &[&each])),
        }
    }

    /// What the `i`-th round of the loop ends with: where a segment ends, its sums are added to
    /// those of the ones before.
    fn round(&self, asm: &mut Asm, i: R) {
        let flush = |asm: &mut Asm| {
            for (sum, before) in self.sums.iter().zip(&self.before) {
                asm.op_to("add.rn.f32", *before, &[before, sum]);
                asm.put(format_args!("mov.f32 {sum}, {}", imm(0.0)));
            }
        };
        match (self.left, self.each) {
            _ if self.before.is_empty() => {}
            (None, 1) => flush(asm),
            (None, each) => {
                let round = asm.op("and.b32", Class::B32, &[&i, &(each - 1)]);
                let end = asm.op("setp.eq.s32", Class::Pred, &[&round, &(each - 1)]);
                asm.when(end, true, flush);
            }
            (Some(left), each) => {
                asm.op_to("add.s32", left, &[&left, &-1]);
                let end = asm.op("setp.eq.s32", Class::Pred, &[&left, &0]);
                asm.when(end, true, |asm| {
                    flush(asm);
                    asm.put(format_args!("mov.b32 {left}, {each}"));
                });
            }
        }
    }

    /// The thread's sums after its last piece.
    fn end(self, asm: &mut Asm) -> Vec<R> {
        match self.before.is_empty() {
            true => self.sums,
            false => {
                let each = self.sums.iter().zip(&self.before);
                each.map(|(sum, before)| asm.op("add.rn.f32", Class::F32, &[before, sum]))
                    .collect()
            }
        }
    }
}

/// A piece of each row of `b`, on its way into registers.
struct Flying {
    /// Which piece of the thread, counted from where its pointers stand.
    piece: usize,
    /// Who has it, if not all do.
    guard: Option<R>,
    /// Its words, for each row.
    rows: Vec<Vec<R>>,
}

/// Loads words in pieces of up to 16 bytes; zeros where the guard does not hold.
pub(super) fn load(asm: &mut Asm, name: &str, regs: &[R], at: (R, i64), guard: Option<R>) {
    let mut when = String::new();
    if let Some(p) = guard {
        when = format!("@{p} ");
        for r in regs {
            asm.put(format_args!("mov.b32 {r}, 0"));
        }
    }
    for (i, part) in regs.chunks(4).enumerate() {
        let list = part.iter().map(R::to_string).collect::<Vec<_>>().join(", ");
        let place = format!("[{}+{}]", at.0, at.1 + 16 * i as i64);
        match part.len() {
            1 => asm.put(format_args!("{when}{name}.b32 {list}, {place}")),
            n => asm.put(format_args!("{when}{name}.v{n}.b32 {{{list}}}, {place}")),
        }
    }
}

/// The floats in some words, in order.
pub(super) fn unpack(asm: &mut Asm, words: &[R], dtype: DType) -> Vec<R> {
    let mut out = Vec::new();
    for w in words {
        match dtype {
            DType::BF16 => {
                out.push(asm.op("shl.b32", Class::B32, &[w, &16]));
                out.push(asm.op("and.b32", Class::B32, &[w, &"0xffff0000"]));
            }
            DType::F16 => {
                let halves = asm.regs(Class::B16, 2);
                asm.put(format_args!(
                    "mov.b32 {{{}, {}}}, {w}",
                    halves[0], halves[1]
                ));
                out.extend(
                    halves
                        .iter()
                        .map(|h| asm.op("cvt.f32.f16", Class::F32, &[h])),
                );
            }
            _ => out.push(*w),
        }
    }
    out
}
