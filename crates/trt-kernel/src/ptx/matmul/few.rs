//! Up to 8 rows of `a`: every byte of `b` is read once, 16 at a time, and goes straight into
//! registers.
//!
//! A *team* of threads computes a few neighbouring rows of `b` against all rows of `a`. Its
//! threads take the 16-byte pieces of a row in turn, several pieces of several rows in flight
//! each, and `a` comes through the first-level cache, which `b` bypasses. The sums of a team are
//! folded by shuffles, then over its warps through shared memory, always in the same order.
//!
//! Bound by memory: `n * k` elements at the speed of the device's memory (33.5 MB of a
//! 4096 x 4096 bf16 weight are 12 µs at 2.8 TB/s). An element of `b` costs 1 instruction to
//! unpack and `m` to multiply, and `m / rows` of the loads and unpacking of `a`: 11 at 8 rows of
//! `a` and 4 of `b`, where an H100 has time for 21 (bf16).

use super::out::{self, Sums};
use super::{Frame, aligned_rows, dtype, over, over_rows};
use crate::ptx::asm::{Asm, Class, Int, R};
use crate::ptx::block::Block;
use crate::ptx::emitted::{Extent, Target};
use crate::{DType, Matmul};

/// Bytes of `b` that one load brings.
const PIECE: usize = 16;
/// Threads that keep enough bytes in flight for the memory of a large device, with few rows of
/// `a`; with more, each has more in flight.
const ENOUGH: usize = 1 << 17;
/// Blocks that give each multiprocessor of a large device some.
const BLOCKS: usize = 264;

/// Whether rows of both operands can be read in pieces.
pub(super) fn fits(kernel: &Matmul) -> bool {
    let Some(k) = kernel.k.constant_size() else {
        return false;
    };
    let (a, b) = (dtype(kernel, &kernel.a), dtype(kernel, &kernel.b));
    let piece = PIECE / b.size();
    k > 0
        && k % piece == 0
        && kernel.b.view.strides[1].constant().is_some()
        && aligned_rows(kernel, &kernel.b, PIECE)
        && aligned_rows(kernel, &kernel.a, PIECE.min(piece * a.size()))
}

/// How the work is cut; a function of whole sizes, never of a range.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Rows of `a`.
    m: usize,
    /// Rows of `b` of a team.
    rows: usize,
    /// Threads of a team, a power of two from 8 on.
    team: usize,
    /// Threads of a block.
    threads: usize,
    /// Pieces of a row that a thread has in flight.
    ahead: usize,
    /// Pieces of a row of `b`.
    pieces: usize,
}

impl Cut {
    fn new(kernel: &Matmul, m: usize) -> Cut {
        let size = dtype(kernel, &kernel.b).size();
        let pieces = kernel.k.constant_size().unwrap_or(0) * size / PIECE;
        let n = kernel.n.constant_size().unwrap_or(1);
        let batch = kernel.batch.constant_size().unwrap_or(1);
        let wanted: usize = match m {
            1 => 1,
            2 => 2,
            _ => 4,
        };
        let rows = [4, 2, 1]
            .into_iter()
            .find(|r| *r <= wanted && n % r == 0)
            .unwrap_or(1);
        let total = |team: usize| batch * n * team / rows;
        // Small teams waste no lanes on short rows; large ones give few rows enough threads.
        let mut team = match pieces {
            128.. => 32,
            _ => 8,
        };
        let enough = if m <= 2 { ENOUGH } else { ENOUGH / 2 };
        while total(team) < enough && pieces >= 8 * team && team < 256 {
            team *= 2;
        }
        let mut threads = team.max(128);
        while threads > team.max(32) && total(team) < BLOCKS * threads {
            threads /= 2;
        }
        Cut {
            m,
            rows,
            team,
            threads,
            ahead: match m {
                ..=2 => 4 / rows,
                3..=4 => 2,
                _ => 4 / rows,
            },
            pieces,
        }
    }

    /// Rows of `b` of a block.
    fn block_rows(&self) -> usize {
        self.threads / self.team * self.rows
    }

    /// Blocks that a multiprocessor should hold: 1024 threads, if the sums and the pieces of `a`
    /// leave room for that; else what the text takes, which loads as early as it says.
    fn crowd(&self) -> u32 {
        match self.m {
            // No multiprocessor is sure to hold more than 16 blocks.
            ..=2 => (1024 / self.threads).min(16) as u32,
            _ => 1,
        }
    }

    /// Warps of a team, each with sums of its own.
    fn parts(&self) -> usize {
        self.team.div_ceil(32)
    }
}

/// An entry for up to `m` rows of `a`.
pub(super) fn emit(kernel: &Matmul, target: Target, m: usize) -> Block {
    let cut = Cut::new(kernel, m);
    let mut asm = Asm::default();
    let frame = Frame::begin(&mut asm, kernel, target);
    body(&mut asm, &frame, cut);
    Block {
        name: format!("few{m}"),
        asm,
        threads: cut.threads as u32,
        crowd: Some(cut.crowd()),
        grid: [
            over_rows(kernel, cut.block_rows()),
            Extent::Fixed(1),
            over(&kernel.batch, 1),
        ],
        shared: 0,
    }
}

fn body(asm: &mut Asm, frame: &Frame<'_>, cut: Cut) {
    let n0 = frame.block_row(asm, "x", cut.block_rows());
    let team = asm.op(
        "shr.u32",
        Class::B32,
        &[&frame.tid, &cut.team.trailing_zeros()],
    );
    let lane = asm.op("and.b32", Class::B32, &[&frame.tid, &(cut.team - 1)]);
    let acc: Vec<R> = (0..cut.m * cut.rows).map(|_| asm.f32(0.0)).collect();
    let reader = Reader::begin(asm, frame, cut, n0, team, lane);
    reader.multiply(asm, lane, &acc);

    let bytes = cut.parts() * cut.m * cut.block_rows() * 4;
    let array = asm.shared(bytes, 16);
    let base = asm.op("mov.u32", Class::B32, &[&array]);
    fold(asm, cut, &acc, base, [team, lane]);
    asm.put("bar.sync 0");
    let sums = Sums {
        base,
        rows: cut.m,
        cols: cut.block_rows(),
        pitch: cut.block_rows(),
        parts: cut.parts(),
    };
    out::run(asm, frame, &sums, Int::Imm(0), n0, cut.threads as u32);
}

/// Reads pieces of `b` and what they meet of `a`.
struct Reader {
    cut: Cut,
    a: DType,
    b: DType,
    /// The thread's place in the first row of `b` of its team; walks along `k`.
    b_at: R,
    /// Bytes from a row of `b` to the next.
    b_row: i64,
    /// The thread's place in each row of `a`: a pointer that walks along `k`, and bytes.
    a_at: Vec<(R, i64)>,
}

impl Reader {
    fn begin(asm: &mut Asm, frame: &Frame<'_>, cut: Cut, n0: R, team: R, lane: R) -> Reader {
        let [a, b] = frame.dtypes();
        // A team beyond the range reads the last rows instead, and its sums are not used.
        let row = asm.op("mad.lo.s32", Class::B32, &[&team, &cut.rows, &n0]);
        let last = asm.op("sub.s32", Class::B32, &[&frame.end, &cut.rows]);
        let row = asm.op("min.s32", Class::B32, &[&row, &last]);
        let start = frame.b_at(asm, row, Int::Imm(0));
        let b_at = asm.op("mad.wide.s32", Class::B64, &[&lane, &PIECE, &start]);
        let stride = frame.kernel.b.view.strides[1].constant().unwrap_or(0);

        let a_piece = PIECE / b.size() * a.size();
        let place = |asm: &mut Asm, m: Int| {
            let start = frame.a_at(asm, m, Int::Imm(0));
            asm.op("mad.wide.s32", Class::B64, &[&lane, &a_piece, &start])
        };
        let a_stride = frame.kernel.a.view.strides[1].constant();
        let a_at = match (frame.m, a_stride) {
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
        Reader {
            cut,
            a,
            b,
            b_at,
            b_row: stride * b.size() as i64,
            a_at,
        }
    }

    /// Adds all products of the thread's pieces to `acc[m][row]`.
    ///
    /// With many pieces, a register that has been multiplied is loaded again at once, so that
    /// always as many loads are in flight. The last round, the rest and a ragged piece, which
    /// not all threads have, are straight code.
    fn multiply(&self, asm: &mut Asm, lane: R, acc: &[R]) {
        let Cut {
            team,
            ahead,
            pieces,
            ..
        } = self.cut;
        let (whole, ragged) = (pieces / team, pieces % team);
        let mut flying: Vec<Flying> = Vec::new();
        let mut rest = whole;
        if whole >= 2 * ahead {
            flying = (0..ahead).map(|i| self.start(asm, i, None)).collect();
            let rounds = whole / ahead - 1;
            let i = asm.op("mov.b32", Class::B32, &[&0]);
            asm.count_rolled(i, Int::Imm(rounds as i64), Int::Imm(1), |asm| {
                for f in &flying {
                    self.meet(asm, acc, f);
                    self.load_b(asm, f, f.piece + ahead);
                }
                self.advance(asm, ahead);
            });
            rest = whole % ahead;
        }
        for _ in 0..rest {
            flying.push(self.start(asm, flying.len(), None));
        }
        if ragged > 0 {
            let inside = asm.op("setp.lt.s32", Class::Pred, &[&lane, &ragged]);
            flying.push(self.start(asm, flying.len(), Some(inside)));
        }
        for f in &flying {
            self.meet(asm, acc, f);
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
        let at = (piece * self.cut.team * PIECE) as i64;
        for (r, words) in to.rows.iter().enumerate() {
            let place = (self.b_at, at + r as i64 * self.b_row);
            load(asm, "ld.global.nc.L1::no_allocate", words, place, to.guard);
        }
    }

    /// Multiplies a piece of each row of `b` with all rows of `a`.
    fn meet(&self, asm: &mut Asm, acc: &[R], piece: &Flying) {
        let a_piece = PIECE / self.b.size() * self.a.size();
        let at = (piece.piece * self.cut.team * a_piece) as i64;
        let rows: Vec<Vec<R>> = piece.rows.iter().map(|w| unpack(asm, w, self.b)).collect();
        for (m, sums) in acc.chunks(self.cut.rows).enumerate() {
            let (base, offset) = self.a_at[m];
            let words = asm.regs(Class::B32, a_piece / 4);
            load(
                asm,
                "ld.global.nc",
                &words,
                (base, at + offset),
                piece.guard,
            );
            let x = unpack(asm, &words, self.a);
            for (j, x) in x.iter().enumerate() {
                for (row, sum) in rows.iter().zip(sums) {
                    asm.op_to("fma.rn.f32", *sum, &[&row[j], x, sum]);
                }
            }
        }
    }

    /// Walks `count` pieces of the team along `k`.
    fn advance(&self, asm: &mut Asm, count: usize) {
        let pieces = count * self.cut.team;
        asm.op_to("add.s64", self.b_at, &[&self.b_at, &(pieces * PIECE)]);
        let a_piece = PIECE / self.b.size() * self.a.size();
        let mut pointers: Vec<R> = self.a_at.iter().map(|(p, _)| *p).collect();
        pointers.dedup();
        for p in pointers {
            asm.op_to("add.s64", p, &[&p, &(pieces * a_piece)]);
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
fn load(asm: &mut Asm, name: &str, regs: &[R], at: (R, i64), guard: Option<R>) {
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
fn unpack(asm: &mut Asm, words: &[R], dtype: DType) -> Vec<R> {
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

/// Folds the sums of a warp (or of a smaller team) and leaves them in shared memory.
///
/// At each step a thread adds what its partner has. While the number of sums is even, each of
/// the two keeps one half of them only; so sums end up spread over the lanes. Either way an
/// output is folded over the same tree.
fn fold(asm: &mut Asm, cut: Cut, acc: &[R], base: R, [team, lane]: [R; 2]) {
    let mut sums = acc.to_vec();
    let mut first = asm.op("mov.b32", Class::B32, &[&0]);
    let mut copies = 0;
    let mut bit = cut.team.min(32) / 2;
    while bit > 0 {
        if sums.len() % 2 == 0 {
            let half = sums.len() / 2;
            let own = asm.op("and.b32", Class::B32, &[&lane, &bit]);
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
    let copy = asm.op("and.b32", Class::B32, &[&lane, &copies]);
    let original = asm.op("setp.eq.s32", Class::Pred, &[&copy, &0]);
    asm.when(original, true, |asm| {
        let part = asm.op("shr.u32", Class::B32, &[&lane, &5]);
        for (i, sum) in sums.iter().enumerate() {
            let which = asm.op("add.s32", Class::B32, &[&first, &i]);
            let m = asm.op("shr.u32", Class::B32, &[&which, &cut.rows.trailing_zeros()]);
            let row = asm.op("and.b32", Class::B32, &[&which, &(cut.rows - 1)]);
            let row = asm.op("mad.lo.s32", Class::B32, &[&team, &cut.rows, &row]);
            let at = asm.op("mad.lo.s32", Class::B32, &[&part, &cut.m, &m]);
            let at = asm.op("mad.lo.s32", Class::B32, &[&at, &cut.block_rows(), &row]);
            let at = asm.op("mad.lo.s32", Class::B32, &[&at, &4, &base]);
            asm.put(format_args!("st.shared.f32 [{at}], {sum}"));
        }
    });
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
