//! A ring of stages in shared memory, through which both operands of a product come.
//!
//! A stage holds 64 elements along `k` of the block's rows of `a`, then of its rows of `b`: 128
//! bytes a row, in 8 pieces of 16. The pieces of a row are permuted by the row's low bits (piece
//! `p` of row `r` lies at `p ^ (r & 7)`), so that 8 rows meet every bank once; this is also the
//! 128-byte swizzle that the products of warp groups read. Pieces come by `cp.async`; rows
//! beyond `m` or the range and pieces beyond `k` arrive as zeros.

use super::MatmulFrame;
use crate::ptx::asm::{Asm, Class, Int, R};

/// Elements along `k` of a stage; 128 bytes.
pub(super) const DEPTH: usize = 64;
/// Bytes of a row of a stage.
pub(super) const ROW: usize = 128;

/// What a ring holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ring {
    /// Rows of `a` of a stage.
    pub rows: usize,
    /// Rows of `b` of a stage.
    pub cols: usize,
    pub stages: usize,
    /// Threads that fill it.
    pub threads: usize,
}

impl Ring {
    pub fn stage_bytes(&self) -> usize {
        (self.rows + self.cols) * ROW
    }

    /// Floats of a row of sums, which take the ring's place in the end: 8 off the bank cycle,
    /// so that fragments are written without conflicts.
    pub fn pitch(&self) -> usize {
        self.cols + 8
    }

    /// Bytes of shared memory, for stages and sums.
    pub fn shared(&self) -> usize {
        (self.stages * self.stage_bytes()).max(self.rows * self.pitch() * 4)
    }

    /// Moves the offset of a stage to the next one.
    pub fn turn(&self, asm: &mut Asm, offset: R) {
        let bytes = self.stage_bytes();
        asm.op_to("add.s32", offset, &[&offset, &bytes]);
        let end = bytes * self.stages;
        let end = asm.op("setp.ge.s32", Class::Pred, &[&offset, &end]);
        asm.put(format_args!("@{end} mov.b32 {offset}, 0"));
    }
}

/// Brings stages. A thread takes one piece of every so many rows, the same piece in each.
pub(super) struct Filler {
    ring: Ring,
    /// Address in global memory, bytes that exist (16 or 0), and bytes into a stage.
    items: Vec<(R, R, R)>,
    /// The first element along `k` of the thread's piece in the next stage.
    k: R,
    /// Whether there are others for other parts of `k`: then stages may be asked for beyond its end.
    part: bool,
    /// Shared address of the next stage.
    stage: R,
    base: R,
}

impl Filler {
    /// Where stages begin at the first element along `k`, or at another.
    pub fn begin(
        asm: &mut Asm,
        frame: &MatmulFrame<'_>,
        ring: Ring,
        [m0, n0]: [R; 2],
        base: R,
        first: Option<R>,
    ) -> Filler {
        let row = asm.op("shr.u32", Class::B32, &[&frame.tid, &3]);
        let piece = asm.op("and.b32", Class::B32, &[&frame.tid, &7]);
        let k = asm.op("shl.b32", Class::B32, &[&piece, &3]);
        let k = match first {
            Some(first) => asm.op("add.s32", Class::B32, &[&k, &first]),
            None => k,
        };
        // Rows are taken in steps of a multiple of 8, so the permutation is the same in each.
        let low = asm.op("and.b32", Class::B32, &[&row, &7]);
        let permuted = asm.op("xor.b32", Class::B32, &[&piece, &low]);
        let place = asm.op("shl.b32", Class::B32, &[&permuted, &4]);
        let place = asm.op("mad.lo.s32", Class::B32, &[&row, &ROW, &place]);
        let step = ring.threads / 8;
        let last = [frame.m, frame.end].map(|end| asm.op("add.s32", Class::B32, &[&end, &-1]));
        let mut items = Vec::new();
        for at in (0..ring.rows + ring.cols).step_by(step) {
            let is_a = at < ring.rows;
            let (origin, last, skip) = match is_a {
                true => (m0, last[0], 0),
                false => (n0, last[1], ring.rows),
            };
            let index = asm.op("add.s32", Class::B32, &[&row, &(at - skip)]);
            let index = asm.op("add.s32", Class::B32, &[&index, &origin]);
            let exists = asm.op("setp.le.s32", Class::Pred, &[&index, &last]);
            let bytes = asm.op("selp.b32", Class::B32, &[&16, &0, &exists]);
            let index = asm.op("min.s32", Class::B32, &[&index, &last]);
            let from = match is_a {
                true => frame.a_at(asm, Int::Reg(index), Int::Reg(k)),
                false => frame.b_at(asm, index, Int::Reg(k)),
            };
            let from = asm.op("mov.b64", Class::B64, &[&from]);
            let to = asm.op("add.s32", Class::B32, &[&place, &(at * ROW)]);
            items.push((from, bytes, to));
        }
        Filler {
            ring,
            items,
            k,
            part: first.is_some(),
            stage: asm.op("mov.b32", Class::B32, &[&0]),
            base,
        }
    }

    /// Starts the copies of the next stage.
    pub fn fill(&self, asm: &mut Asm, frame: &MatmulFrame<'_>) {
        let k = frame.kernel.k.constant_size().unwrap_or(0);
        let beyond = self.part || !k.is_multiple_of(DEPTH);
        let inside = beyond.then(|| asm.op("setp.lt.s32", Class::Pred, &[&self.k, &k]));
        let stage = asm.op("add.s32", Class::B32, &[&self.stage, &self.base]);
        for (from, bytes, to) in &self.items {
            let to = asm.op("add.s32", Class::B32, &[&stage, to]);
            let bytes = match inside {
                Some(p) => asm.op("selp.b32", Class::B32, &[bytes, &0, &p]),
                None => *bytes,
            };
            asm.put(format_args!(
                "cp.async.cg.shared.global [{to}], [{from}], 16, {bytes}"
            ));
            asm.op_to("add.s64", *from, &[from, &(2 * DEPTH)]);
        }
        asm.op_to("add.s32", self.k, &[&self.k, &DEPTH]);
        self.ring.turn(asm, self.stage);
    }
}

/// The 16 x 8 fragments of sums of a warp: a lane holds two neighbours of a row, and two of the
/// row 8 below.
pub(super) struct WarpSums<'a> {
    /// The lane.
    pub lane: R,
    /// The warp's first row and column.
    pub origin: [R; 2],
    /// Fragments side by side.
    pub across: usize,
    /// 4 registers for each fragment, those side by side, then those 16 rows below.
    pub acc: &'a [R],
}

/// Writes the fragments of a warp to the sums of its block.
pub(super) fn put_down(asm: &mut Asm, ring: Ring, base: R, fragments: &WarpSums<'_>) {
    let WarpSums {
        lane,
        origin,
        across,
        acc,
    } = fragments;
    let pitch = ring.pitch();
    let row = asm.op("shr.u32", Class::B32, &[lane, &2]);
    let row = asm.op("add.s32", Class::B32, &[&row, &origin[0]]);
    let pair = asm.op("and.b32", Class::B32, &[lane, &3]);
    let col = asm.op("mad.lo.s32", Class::B32, &[&pair, &2, &origin[1]]);
    let at = asm.op("mad.lo.s32", Class::B32, &[&row, &pitch, &col]);
    let at = asm.op("mad.lo.s32", Class::B32, &[&at, &4, &base]);
    for (i, pair) in acc.chunks(2).enumerate() {
        let (fragment, half) = (i / 2, i % 2);
        let (down, right) = (fragment / across, fragment % across);
        let offset = ((16 * down + 8 * half) * pitch + 8 * right) * 4;
        let [x, y] = [pair[0], pair[1]];
        asm.put(format_args!(
            "st.shared.v2.f32 [{at}+{offset}], {{{x}, {y}}}"
        ));
    }
}
