//! Some rows of a stretch of a block, out of their stream into registers.
//!
//! Three ways lead there. Nearly always the words are in shared memory. If a block has more than fit there, a lane reads its
//! stream from where it lies, and puts pieces into what is the warp's for words: slow, and rare. Values that are stored are
//! loaded as they are; those of a block that does not lie in its unit are zeros.

use super::plan::{ROUNDS, StreamPlan, WARP};
use crate::ptx::asm::{Asm, Class, Int, R};
use crate::ptx::emitted::Target;
use crate::ptx::packed::{BEHIND, Found, Piece, Source, Stream, Words};

/// Bytes of a piece, packed and as it is.
const PLAIN: usize = 8;
const PIECE: usize = 16;
/// Pieces of a step for all lanes.
const STEP: usize = 2 * WARP;

pub(super) struct Rows {
    plan: StreamPlan,
    target: Target,
    found: Found,
    lane: R,
    /// The warp's place for words.
    words: R,
    /// Whether words fit there.
    small: R,
    stream: Stream,
    /// Whether the stretch has a round, if not all have.
    has: Option<Vec<R>>,
    /// The first byte of the lane's stream, on its way.
    byte: R,
    /// The plain bytes of the next rows, on their way: four registers for each step.
    plain: Vec<[Vec<R>; ROUNDS / 2]>,
    /// The values of rows: pairs of each round.
    pub pairs: Vec<[Vec<R>; ROUNDS]>,
}

impl Rows {
    /// Sends for the words of a block, and for the plain bytes of its first rows.
    pub fn begin(
        asm: &mut Asm,
        plan: StreamPlan,
        target: Target,
        found: Found,
        [lane, words]: [R; 2],
    ) -> Rows {
        let most = plan.room - BEHIND;
        let fits = asm.op("setp.le.u32", Class::Pred, &[&found.words, &most]);
        let small = asm.op("and.pred", Class::Pred, &[&fits, &found.packed]);
        let bytes = asm.op("selp.b32", Class::B32, &[&found.words, &0, &small]);
        let from = asm.op("cvt.u64.u32", Class::B64, &[&found.before]);
        let from = asm.op("add.s64", Class::B64, &[&found.start, &from]);
        let copied = Words::copy(asm, target, (lane, from, words), (bytes, most));
        let ragged = plan.layout.last() < plan.layout.geometry.stretch();
        let has = ragged.then(|| {
            let first = |round: usize| round * WARP;
            let each =
                (0..ROUNDS).map(|r| asm.op("setp.gt.u32", Class::Pred, &[&found.width, &first(r)]));
            each.collect()
        });
        let stream = Stream::new(asm, plan.layout.packed);
        stream.bind(asm, copied);
        let four = |asm: &mut Asm| asm.regs(Class::B32, 4);
        let rows = Rows {
            byte: asm.op("mov.b32", Class::B32, &[&0]),
            plain: (0..plan.rows)
                .map(|_| std::array::from_fn(|_| four(asm)))
                .collect(),
            pairs: (0..plan.rows)
                .map(|_| std::array::from_fn(|_| four(asm)))
                .collect(),
            plan,
            target,
            found,
            lane,
            words,
            small,
            stream,
            has,
        };
        let packed = rows.found.packed;
        asm.when(packed, true, |asm| {
            let byte = rows.found.stream(asm, lane);
            asm.put(format_args!("mov.b32 {}, {byte}", rows.byte));
        });
        for r in rows.plain.iter().flatten().flatten() {
            asm.put(format_args!("mov.b32 {r}, 0"));
        }
        let first = asm.op("mov.b32", Class::B32, &[&0]);
        rows.load(asm, first);
        let next = asm.op("mov.b32", Class::B32, &[&plan.rows]);
        rows.prefetch(asm, next);
        rows
    }

    /// Begins with the stream, once `table` and the warp's words are there.
    pub fn start(&mut self, asm: &mut Asm, table: R) {
        Words::wait(asm, self.target);
        self.stream = self.stream.clone().with(table);
        asm.when(self.small, true, |asm| self.stream.begin(asm, self.byte));
        let large = self.large(asm);
        asm.when(large, true, |asm| {
            let stream = self.stream.from(Source::Global(self.found.start));
            let end = asm.op(
                "add.u32",
                Class::B32,
                &[&self.found.before, &self.found.words],
            );
            let last = asm.op("sub.u32", Class::B32, &[&end, &4]);
            stream.bind_at(asm, self.found.before, last);
            stream.begin(asm, self.byte);
        });
    }

    /// Whether the block is packed and its words are not in shared memory.
    fn large(&self, asm: &mut Asm) -> R {
        let large = asm.reg(Class::Pred);
        asm.put(format_args!("not.pred {large}, {}", self.small));
        asm.op("and.pred", Class::Pred, &[&large, &self.found.packed])
    }

    /// Emits what belongs to a round, for stretches that have it.
    pub fn round(&self, asm: &mut Asm, round: usize, what: impl FnOnce(&mut Asm)) {
        match &self.has {
            Some(has) if round > 0 => asm.when(has[round], true, what),
            _ => what(asm),
        }
    }

    /// Emits what is asked for rows from one on that are packed and there; it is given which they are.
    fn each(&self, asm: &mut Asm, first: R, mut what: impl FnMut(&mut Asm, usize, R)) {
        for r in 0..self.plan.rows {
            let row = asm.op("add.u32", Class::B32, &[&first, &r]);
            let there = asm.op("setp.lt.u32", Class::Pred, &[&row, &self.found.rows]);
            let there = asm.op("and.pred", Class::Pred, &[&there, &self.found.packed]);
            asm.when(there, true, |asm| what(asm, r, row));
        }
    }

    /// Sends for the plain bytes of rows from one on.
    fn load(&self, asm: &mut Asm, first: R) {
        self.each(asm, first, |asm, r, row| {
            let at = self.plain_at(asm, row);
            for (s, four) in self.plain[r].iter().enumerate() {
                self.round(asm, 2 * s, |asm| self.load_step(asm, at, s, four));
            }
        });
    }

    /// Brings the plain bytes of rows from one on to the second-level cache.
    fn prefetch(&self, asm: &mut Asm, first: R) {
        self.each(asm, first, |asm, _, row| {
            let at = self.plain_at(asm, row);
            let at = asm.op("mad.wide.u32", Class::B64, &[&self.lane, &(2 * PLAIN), &at]);
            for step in 0..ROUNDS / 2 {
                self.round(asm, 2 * step + 1, |asm| {
                    let offset = Found::PLAIN + step * STEP * PLAIN;
                    asm.put(format_args!("prefetch.global.L2 [{at}+{offset}]"));
                });
            }
        });
    }

    /// Where the plain bytes of a row begin, but for those of where streams start.
    fn plain_at(&self, asm: &mut Asm, row: R) -> R {
        let at = asm.op("mul.lo.u32", Class::B32, &[&row, &self.found.width]);
        asm.op(
            "mad.wide.u32",
            Class::B64,
            &[&at, &PLAIN, &self.found.start],
        )
    }

    /// Loads the plain bytes of a step: side by side where both rounds are there.
    fn load_step(&self, asm: &mut Asm, at: R, step: usize, four: &[R]) {
        let offset = Found::PLAIN + step * STEP * PLAIN;
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| four[i]);
        let name = "ld.global.nc.L1::no_allocate";
        let both = |asm: &mut Asm| {
            let at = asm.op("mad.wide.u32", Class::B64, &[&self.lane, &(2 * PLAIN), &at]);
            asm.put(format_args!(
                "{name}.v4.b32 {{{a}, {b}, {c}, {d}}}, [{at}+{offset}]"
            ));
        };
        let Some(has) = &self.has else {
            return both(asm);
        };
        let second = has[2 * step + 1];
        asm.when(second, true, both);
        asm.when(second, false, |asm| {
            let at = asm.op("mad.wide.u32", Class::B64, &[&self.lane, &PLAIN, &at]);
            asm.put(format_args!("{name}.v2.b32 {{{a}, {b}}}, [{at}+{offset}]"));
        });
    }

    /// Brings the rows from `first` on into [`Rows::pairs`], and sends for the plain bytes of the next ones.
    pub fn take(&self, asm: &mut Asm, first: R) {
        let second = asm.op("add.u32", Class::B32, &[&first, &(2 * self.plan.rows)]);
        self.prefetch(asm, second);
        let (other, end) = (asm.label(), asm.label());
        asm.put(format_args!("@!{} bra {other}", self.small));
        for (row, steps) in self.plain.iter().enumerate() {
            for (s, plain) in steps.iter().enumerate() {
                self.round(asm, 2 * s, |asm| {
                    let rounds = &self.pairs[row][2 * s..];
                    self.step(asm, [&rounds[0], &rounds[1]], plain, 2 * s);
                });
            }
        }
        asm.put(format_args!("bra {end}"));
        asm.place(&other);
        let (stored, large) = (asm.label(), self.large(asm));
        asm.put(format_args!("@!{large} bra {stored}"));
        self.slowly(asm, first);
        asm.put(format_args!("bra {end}"));
        asm.place(&stored);
        self.stored(asm, first);
        asm.place(&end);
        let next = asm.op("add.u32", Class::B32, &[&first, &self.plan.rows]);
        self.load(asm, next);
    }

    /// A step of the stream in shared memory.
    fn step(&self, asm: &mut Asm, [one, other]: [&[R]; 2], plain: &[R], round: usize) {
        let stream = &self.stream;
        let first = stream.piece(asm, [plain[0], plain[1]], one);
        let both = |asm: &mut Asm, first: &Piece| {
            let second = stream.piece(asm, [plain[2], plain[3]], other);
            stream.escapes(asm, &[first, &second]);
        };
        let Some(has) = &self.has else {
            return both(asm, &first);
        };
        let (alone, end) = (asm.label(), asm.label());
        asm.put(format_args!("@!{} bra {alone}", has[round + 1]));
        both(asm, &first);
        asm.put(format_args!("bra {end}"));
        asm.place(&alone);
        stream.escapes(asm, &[&first]);
        asm.place(&end);
    }

    /// The rows of a block whose words are not in shared memory.
    fn slowly(&self, asm: &mut Asm, first: R) {
        let stream = self.stream.from(Source::Global(self.found.start));
        // All have what they loaded from there.
        asm.put("bar.warp.sync 0xffffffff");
        let own = asm.op("mad.lo.u32", Class::B32, &[&self.lane, &PIECE, &self.words]);
        let to = asm.op("mov.b32", Class::B32, &[&own]);
        let row = asm.op("mov.b32", Class::B32, &[&first]);
        let end = asm.op("add.u32", Class::B32, &[&first, &self.plan.rows]);
        let end = asm.op("min.u32", Class::B32, &[&end, &self.found.rows]);
        asm.count_rolled(row, Int::Reg(end), Int::Imm(1), |asm| {
            let at = self.plain_at(asm, row);
            for step in 0..ROUNDS / 2 {
                self.round(asm, 2 * step, |asm| {
                    let four = asm.regs(Class::B32, 4);
                    self.load_step(asm, at, step, &four);
                    let pairs = [asm.regs(Class::B32, 4), asm.regs(Class::B32, 4)];
                    let one = stream.piece(asm, [four[0], four[1]], &pairs[0]);
                    let (alone, end) = (asm.label(), asm.label());
                    if let Some(has) = &self.has {
                        asm.put(format_args!("@!{} bra {alone}", has[2 * step + 1]));
                    }
                    let other = stream.piece(asm, [four[2], four[3]], &pairs[1]);
                    stream.escapes(asm, &[&one, &other]);
                    put(asm, to, 2 * step + 1, &pairs[1]);
                    if self.has.is_some() {
                        asm.put(format_args!("bra {end}"));
                        asm.place(&alone);
                        stream.escapes(asm, &[&one]);
                        asm.place(&end);
                    }
                    put(asm, to, 2 * step, &pairs[0]);
                });
            }
            asm.op_to("add.u32", to, &[&to, &(ROUNDS * WARP * PIECE)]);
        });
        for (r, rounds) in self.pairs.iter().enumerate() {
            let row = asm.op("add.u32", Class::B32, &[&first, &r]);
            let there = asm.op("setp.lt.u32", Class::Pred, &[&row, &self.found.rows]);
            zeros(asm, rounds);
            asm.when(there, true, |asm| {
                for (round, pairs) in rounds.iter().enumerate() {
                    let offset = (r * ROUNDS + round) * WARP * PIECE;
                    self.round(asm, round, |asm| {
                        asm.put(format_args!(
                            "ld.shared.v4.b32 {}, [{own}+{offset}]",
                            list(pairs)
                        ));
                    });
                }
            });
        }
    }

    /// The rows of a block with values as they are, or of none.
    fn stored(&self, asm: &mut Asm, first: R) {
        for (r, rounds) in self.pairs.iter().enumerate() {
            let row = asm.op("add.u32", Class::B32, &[&first, &r]);
            let there = asm.op("setp.lt.u32", Class::Pred, &[&row, &self.found.rows]);
            let there = asm.op("and.pred", Class::Pred, &[&there, &self.found.stored]);
            zeros(asm, rounds);
            asm.when(there, true, |asm| {
                let at = asm.op(
                    "mad.lo.u32",
                    Class::B32,
                    &[&row, &self.found.width, &self.lane],
                );
                let at = asm.op(
                    "mad.wide.u32",
                    Class::B64,
                    &[&at, &PIECE, &self.found.start],
                );
                for (round, pairs) in rounds.iter().enumerate() {
                    let offset = round * WARP * PIECE;
                    self.round(asm, round, |asm| {
                        asm.put(format_args!(
                            "ld.global.nc.v4.b32 {}, [{at}+{offset}]",
                            list(pairs)
                        ));
                    });
                }
            });
        }
    }
}

/// Puts a round's piece to where the warp's words would be.
fn put(asm: &mut Asm, to: R, round: usize, pairs: &[R]) {
    let offset = round * WARP * PIECE;
    asm.put(format_args!(
        "st.shared.v4.b32 [{to}+{offset}], {}",
        list(pairs)
    ));
}

fn zeros(asm: &mut Asm, rounds: &[Vec<R>; ROUNDS]) {
    for pair in rounds.iter().flatten() {
        asm.put(format_args!("mov.b32 {pair}, 0"));
    }
}

fn list(regs: &[R]) -> String {
    let names = regs.iter().map(R::to_string).collect::<Vec<_>>();
    format!("{{{}}}", names.join(", "))
}
