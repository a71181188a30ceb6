//! Bytes of a lane's piece in shared memory, which may begin anywhere: as words.
//!
//! Shared memory is read in words that are whole. Where it is known how far a place is from one, words are
//! read from there and whoever takes bytes of them skips some; where it is not, neighbouring words are
//! shifted into each other.

use crate::ptx::asm::{Asm, Class, R};

/// Where bytes of a lane lie in the segment of a row.
#[derive(Clone, Copy)]
pub(super) struct BytesAt {
    /// Bytes to them, of the lane.
    lane: R,
    /// What that is a multiple of.
    align: usize,
    /// And so many more.
    offset: usize,
    /// The lane's bytes to a whole word, and how many bits these are from it, if that is the same in
    /// all rows and depends on the lane.
    whole: Option<[R; 2]>,
}

impl BytesAt {
    /// `offset` bytes behind those of the lane, which are a multiple of `align`, in rows that begin on a
    /// multiple of `rows`.
    pub fn new(asm: &mut Asm, lane: R, align: usize, offset: usize, rows: usize) -> BytesAt {
        let fixed = align < 4 && rows >= 4;
        BytesAt {
            lane,
            align: align.min(rows),
            offset,
            whole: fixed.then(|| down(asm, lane, offset)),
        }
    }

    /// The bytes in the segment that begins at a shared address, so many bytes behind a register that
    /// is a multiple of 16; `misplaced` bytes further if rows begin anywhere.
    pub fn at(&self, asm: &mut Asm, (base, ahead): (R, usize), misplaced: Option<R>) -> Bytes {
        let mut at = asm.op("add.s32", Class::B32, &[&base, &self.lane]);
        if let Some(more) = misplaced {
            at = asm.op("add.s32", Class::B32, &[&at, &more]);
        }
        let exact = (at, ahead + self.offset);
        let shifted = match (self.align, self.whole) {
            (4.., _) => None,
            (_, Some([whole, bits])) => {
                let mut at = asm.op("add.s32", Class::B32, &[&base, &whole]);
                if let Some(more) = misplaced {
                    at = asm.op("add.s32", Class::B32, &[&at, &more]);
                }
                Some((at, ahead, bits))
            }
            (_, None) => {
                let [at, bits] = down(asm, at, ahead + self.offset);
                Some((at, 0, bits))
            }
        };
        Bytes {
            exact,
            align: self.align,
            shifted,
        }
    }
}

/// A place rounded down to a whole word, and the bits from there.
fn down(asm: &mut Asm, at: R, offset: usize) -> [R; 2] {
    let at = asm.op("add.s32", Class::B32, &[&at, &offset]);
    [
        asm.op("and.b32", Class::B32, &[&at, &-4]),
        asm.op("shl.b32", Class::B32, &[&at, &3]),
    ]
}

/// Bytes in shared memory.
pub(super) struct Bytes {
    /// Where they begin: a register, and bytes.
    exact: (R, usize),
    /// What the register is a multiple of.
    align: usize,
    /// Whole words before them, and the bits from there.
    shifted: Option<(R, usize, R)>,
}

/// Words, of whose first so many bytes are not asked for.
pub(super) struct Words {
    pub words: Vec<R>,
    pub skip: usize,
}

impl Bytes {
    /// `4 * n` bytes from one on, a multiple of 4. What follows them is read too unless they are `last`.
    pub fn words(&self, asm: &mut Asm, from: usize, n: usize, last: bool) -> Words {
        let Some((at, ahead, bits)) = self.shifted else {
            let (at, ahead) = (self.exact.0, self.exact.1 + from);
            let skip = ahead % 4;
            let n = n + usize::from(skip > 0);
            let words = load(asm, at, ahead - skip, n, self.align);
            return Words { words, skip };
        };
        let mut words = load(asm, at, ahead + from, n, 4);
        words.push(match last {
            false => load(asm, at, ahead + from + 4 * n, 1, 4)[0],
            true => {
                let (at, ahead) = (self.exact.0, self.exact.1 + from + 4 * n - 1);
                let end = asm.op("add.s32", Class::B32, &[&at, &ahead]);
                let end = asm.op("and.b32", Class::B32, &[&end, &-4]);
                load(asm, end, 0, 1, 4)[0]
            }
        });
        let pairs = words.windows(2);
        let shift = |pair: &[R]| asm.op("shf.r.wrap.b32", Class::B32, &[&pair[0], &pair[1], &bits]);
        Words {
            words: pairs.map(shift).collect(),
            skip: 0,
        }
    }

    /// A number of f16.
    pub fn half(&self, asm: &mut Asm, from: usize) -> R {
        let bits = asm.reg(Class::B16);
        let (at, ahead) = (self.exact.0, self.exact.1 + from);
        asm.put(format_args!("ld.shared.b16 {bits}, [{at}+{ahead}]"));
        asm.op("cvt.f32.f16", Class::F32, &[&bits])
    }

    /// A byte.
    pub fn byte(&self, asm: &mut Asm, from: usize) -> R {
        let bits = asm.reg(Class::B32);
        let (at, ahead) = (self.exact.0, self.exact.1 + from);
        asm.put(format_args!("ld.shared.u8 {bits}, [{at}+{ahead}]"));
        bits
    }
}

impl Words {
    /// Whole words from the first byte on.
    pub fn whole(self, asm: &mut Asm) -> Vec<R> {
        match self.skip {
            0 => self.words,
            skip => {
                let pairs = self.words.windows(2);
                let bits = 8 * skip;
                let shift =
                    |pair: &[R]| asm.op("shf.r.wrap.b32", Class::B32, &[&pair[0], &pair[1], &bits]);
                pairs.map(shift).collect()
            }
        }
    }
}

/// Loads words in vectors as wide as their place allows.
fn load(asm: &mut Asm, at: R, mut ahead: usize, n: usize, align: usize) -> Vec<R> {
    let regs = asm.regs(Class::B32, n);
    let mut rest = regs.as_slice();
    while let Some(first) = rest.first() {
        let fits = |v: &usize| {
            *v <= rest.len() && align.is_multiple_of(4 * v) && ahead.is_multiple_of(4 * v)
        };
        let wide = [4, 2].into_iter().find(fits).unwrap_or(1);
        match wide {
            1 => asm.put(format_args!("ld.shared.b32 {first}, [{at}+{ahead}]")),
            _ => {
                let list = rest[..wide]
                    .iter()
                    .map(R::to_string)
                    .collect::<Vec<_>>()
                    .join(", ");
                asm.put(format_args!(
                    "ld.shared.v{wide}.b32 {{{list}}}, [{at}+{ahead}]"
                ));
            }
        }
        rest = &rest[wide..];
        ahead += 4 * wide;
    }
    regs
}
