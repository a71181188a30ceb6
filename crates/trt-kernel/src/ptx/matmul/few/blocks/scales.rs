//! Scales and minima of the groups of a piece, as floats.

use super::bytes::Bytes;
use super::lane::Constants;
use super::unpack::float;
use crate::BlockType;
use crate::ptx::asm::{Asm, Class, R, imm};

/// What groups are multiplied by.
pub(super) struct Scales {
    /// Of each group.
    pub scales: Vec<R>,
    /// What a group's minimum is multiplied by; empty where there are none.
    pub minima: Vec<R>,
    /// What all is multiplied by, and what all minima are.
    pub all: Vec<R>,
}

/// Scales of blocks of 32, of which a piece has two.
pub(super) fn of_blocks(asm: &mut Asm, block: BlockType, pair: &[&Bytes; 2]) -> Scales {
    let scale = |asm: &mut Asm, bytes: &Bytes| match block {
        BlockType::Mxfp4 => exponent(asm, bytes),
        _ => bytes.half(asm, 0),
    };
    let scales = pair.map(|bytes| scale(asm, bytes));
    let minima = match block {
        BlockType::Q4_1 | BlockType::Q5_1 => pair.map(|b| b.half(asm, 2)).to_vec(),
        _ => Vec::new(),
    };
    Scales {
        scales: scales.to_vec(),
        minima,
        all: Vec::new(),
    }
}

/// Half of the power of two that an exponent byte stands for.
fn exponent(asm: &mut Asm, bytes: &Bytes) -> R {
    let e = bytes.byte(asm, 0);
    let less = asm.op("add.s32", Class::B32, &[&e, &-1]);
    let normal = asm.op("shl.b32", Class::B32, &[&less, &23]);
    let small = asm.op("mov.b32", Class::B32, &[&0x0020_0000]);
    let small = asm.op("shl.b32", Class::B32, &[&small, &e]);
    let is_small = asm.op("setp.lt.u32", Class::Pred, &[&e, &2]);
    asm.op("selp.b32", Class::B32, &[&small, &normal, &is_small])
}

/// Both halves of a word, as floats.
fn halves(asm: &mut Asm, word: R) -> Vec<R> {
    let halves = asm.regs(Class::B16, 2);
    asm.put(format_args!(
        "mov.b32 {{{}, {}}}, {word}",
        halves[0], halves[1]
    ));
    let float = |h: &R| asm.op("cvt.f32.f16", Class::F32, &[h]);
    halves.iter().map(float).collect()
}

/// Of Q4_K and Q5_K: `head` is the block's first 16 bytes.
pub(super) fn of_sixes(asm: &mut Asm, constants: &Constants, head: &[R]) -> Scales {
    let [select, first, fours, tops] = constants.sixes;
    // Bytes of two scales, then of their minima.
    let own = asm.op("prmt.b32", Class::B32, &[&head[1], &head[2], &select]);
    let high = asm.op("shr.u32", Class::B32, &[&head[3], &4]);
    let other = asm.op("prmt.b32", Class::B32, &[&head[3], &high, &select]);
    let other = asm.op("and.b32", Class::B32, &[&other, &fours]);
    let both = and_or(asm, own, first, other);
    let top = asm.op("shr.u32", Class::B32, &[&own, &2]);
    let both = and_or(asm, top, tops, both);
    let bytes: Vec<R> = (0..4).map(|i| float(asm, constants, both, i, 0)).collect();
    Scales {
        scales: bytes[..2].to_vec(),
        minima: bytes[2..].to_vec(),
        all: halves(asm, head[0]),
    }
}

/// Of Q6_K: bytes with a sign, of 8 bytes every other one is the lane's.
pub(super) fn of_bytes(asm: &mut Asm, constants: &Constants, eight: &[R], d: R) -> Scales {
    let own = asm.op(
        "prmt.b32",
        Class::B32,
        &[&eight[0], &eight[1], &constants.every_other],
    );
    let own = asm.op("xor.b32", Class::B32, &[&own, &0x8080_8080u32]);
    Scales {
        scales: (0..4).map(|i| float(asm, constants, own, i, 128)).collect(),
        minima: Vec::new(),
        all: vec![d],
    }
}

/// Of Q2_K: halves of bytes, of 8 bytes every other one.
pub(super) fn of_nibbles(asm: &mut Asm, constants: &Constants, eight: &[R], all: Vec<R>) -> Scales {
    let own = asm.op(
        "prmt.b32",
        Class::B32,
        &[&eight[0], &eight[1], &constants.every_other],
    );
    let high = asm.op("shr.u32", Class::B32, &[&own, &4]);
    let [low, high] = [own, high].map(|r| asm.op("and.b32", Class::B32, &[&r, &0x0f0f_0f0f]));
    let mut floats = |r| (0..4).map(|i| float(asm, constants, r, i, 0)).collect();
    Scales {
        scales: floats(low),
        minima: floats(high),
        all,
    }
}

/// Of Q3_K: 6 bits about 32, four of them in one half of a byte, two in a quarter of another.
pub(super) fn of_split_sixes(asm: &mut Asm, constants: &Constants, twelve: &[R], d: R) -> Scales {
    let low = asm.op(
        "prmt.b32",
        Class::B32,
        &[&twelve[0], &twelve[1], &constants.every_other],
    );
    let low = asm.op("shr.u32", Class::B32, &[&low, &constants.side_bits]);
    let low = asm.op("and.b32", Class::B32, &[&low, &0x0f0f_0f0f]);
    // Two bytes, twice.
    let twice = asm.op("and.b32", Class::B32, &[&constants.every_other, &0x3333]);
    let top = asm.op("prmt.b32", Class::B32, &[&twelve[2], &twelve[2], &twice]);
    let top = asm.op("shr.u32", Class::B32, &[&top, &constants.side_bits]);
    let up = asm.op("shl.b32", Class::B32, &[&top, &4]);
    let over = asm.op("shl.b32", Class::B32, &[&top, &2]);
    let all = and_or(asm, up, 0x0000_3030, low);
    let all = and_or(asm, over, 0x3030_0000, all);
    Scales {
        scales: (0..4).map(|i| float(asm, constants, all, i, 32)).collect(),
        minima: Vec::new(),
        all: vec![d],
    }
}

/// Of IQ4_XS: the same split, in the block's first word and the lane's byte after it.
pub(super) fn of_quarters(asm: &mut Asm, constants: &Constants, head: R, byte: R) -> Scales {
    let d = halves(asm, head)[0];
    let tops = asm.op("shr.u32", Class::B32, &[&head, &constants.quarter_bits]);
    let scale = |asm: &mut Asm, g: usize| {
        let top = asm.op("bfe.u32", Class::B32, &[&tops, &(16 + 2 * g), &2]);
        let low = asm.op("bfe.u32", Class::B32, &[&byte, &(4 * g), &4]);
        let six = asm.op("mad.lo.s32", Class::B32, &[&top, &16, &low]);
        float(asm, constants, six, 0, 32)
    };
    Scales {
        scales: (0..2).map(|g| scale(asm, g)).collect(),
        minima: Vec::new(),
        all: vec![d],
    }
}

/// `a & mask | or`.
pub(super) fn and_or(asm: &mut Asm, a: R, mask: impl std::fmt::Display, or: R) -> R {
    asm.op("lop3.b32", Class::B32, &[&a, &mask, &or, &"0xEA"])
}

impl Scales {
    /// Scales what groups sum to and adds: the sum of a piece. `met` is what each group met.
    pub fn join(
        &self,
        asm: &mut Asm,
        block: BlockType,
        sums: &[R],
        met: &[R],
        second: Option<R>,
    ) -> R {
        let mul = |asm: &mut Asm, a: R, b: R| asm.op("mul.rn.f32", Class::F32, &[&a, &b]);
        let fma = |asm: &mut Asm, a: R, b: R, c: R| asm.op("fma.rn.f32", Class::F32, &[&a, &b, &c]);
        let mut t = mul(asm, self.scales[0], sums[0]);
        match block {
            BlockType::Q4_1 | BlockType::Q5_1 => {
                t = fma(asm, self.minima[0], met[0], t);
                let both = fma(asm, self.scales[1], sums[1], t);
                let both = fma(asm, self.minima[1], met[1], both);
                either(asm, both, t, second)
            }
            BlockType::Q4_0
            | BlockType::Q5_0
            | BlockType::Q8_0
            | BlockType::Iq4Nl
            | BlockType::Mxfp4 => {
                let both = fma(asm, self.scales[1], sums[1], t);
                either(asm, both, t, second)
            }
            BlockType::Q3K | BlockType::Q6K | BlockType::Iq4Xs => {
                for (scale, sum) in self.scales.iter().zip(sums).skip(1) {
                    t = fma(asm, *scale, *sum, t);
                }
                mul(asm, self.all[0], t)
            }
            BlockType::Q2K | BlockType::Q4K | BlockType::Q5K => {
                let mut u = mul(asm, self.minima[0], met[0]);
                for g in 1..self.scales.len() {
                    t = fma(asm, self.scales[g], sums[g], t);
                    u = fma(asm, self.minima[g], met[g], u);
                }
                let u = mul(asm, self.all[1], u);
                let u = asm.op("neg.f32", Class::F32, &[&u]);
                fma(asm, self.all[0], t, u)
            }
        }
    }
}

/// The first where there is a second block.
fn either(asm: &mut Asm, both: R, one: R, second: Option<R>) -> R {
    match second {
        None => both,
        Some(p) => asm.op("selp.f32", Class::F32, &[&both, &one, &p]),
    }
}

/// What is taken off a float whose mantissa ends in a number, so that it is the number less `zero`.
pub(super) fn bias(zero: usize) -> String {
    imm(-(8_388_608.0 + zero as f32))
}
