//! What is the same for all rows that a lane sees: where the bytes of its piece lie, and constants.

use super::bytes::BytesAt;
use super::plan::{Fill, RingPlan};
use crate::BlockType;
use crate::encoding::{IQ4_VALUES, MXFP4_DOUBLED};
use crate::ptx::asm::{Asm, Class, R};

/// Registers that are the same for all rows.
pub(super) struct Constants {
    /// The exponents of 128 and of 2^23, and two of them.
    pub at_128: R,
    pub at_23: R,
    pub pair: R,
    /// 2^16 and 2^3, which the assembler does not know: products with them are none of the shifts, of
    /// which there are enough.
    pub up: [R; 2],
    /// Of Q4_K: which bytes are scales and minima, and masks.
    pub sixes: [R; 4],
    /// Which of 8 bytes are those of a lane's stripes.
    pub every_other: R,
    /// Bits to the half of a block, where it has 4, and to the quarter.
    pub side_bits: R,
    pub quarter_bits: R,
    /// Which bit of a byte is the lane's fifth, moved to be the seventh.
    pub fifth: R,
    /// Numbers of a table, and 128.
    pub table: [R; 4],
}

impl Constants {
    pub fn new(asm: &mut Asm, block: BlockType, piece: R) -> Constants {
        let quarter = asm.op("and.b32", Class::B32, &[&piece, &3]);
        let part = asm.op("and.b32", Class::B32, &[&piece, &1]);
        let side = asm.op("shr.u32", Class::B32, &[&quarter, &1]);
        let odd = asm.op("setp.ne.s32", Class::Pred, &[&part, &0]);
        let upper = asm.op("setp.ne.s32", Class::Pred, &[&side, &0]);
        let mut choose = |yes: u32, no: u32, p: R| {
            let [yes, no] = [yes, no].map(|c| format!("{c:#x}"));
            asm.op("selp.b32", Class::B32, &[&yes, &no, &p])
        };
        let sixes = [
            choose(0x7632, 0x5410, odd),
            choose(0, 0x3f3f_3f3f, upper),
            choose(0x0f0f_0f0f, 0, upper),
            choose(0x3030_3030, 0, upper),
        ];
        let lookup = matches!(
            block,
            BlockType::Iq4Nl | BlockType::Iq4Xs | BlockType::Mxfp4
        );
        let every_other = match lookup {
            true => asm.op("mov.b32", Class::B32, &[&0x3210_3210]),
            false => choose(0x7531, 0x6420, odd),
        };
        let table = match block {
            BlockType::Mxfp4 => MXFP4_DOUBLED,
            _ => IQ4_VALUES,
        };
        let words = [0, 1, 2, 3].map(|i| {
            let byte = |b: usize| u32::from((i32::from(table[4 * i + b]) + 128) as u8) << (8 * b);
            (0..4).map(byte).sum::<u32>()
        });
        let mut word = |w: u32| asm.op("mov.b32", Class::B32, &[&format_args!("{w:#x}")]);
        let (at_128, at_23, pair) = (word(0x4300_0000), word(0x4b00_0000), word(0x4300_4300));
        let table = match lookup {
            true => words.map(word),
            false => [at_128; 4],
        };
        let twice = asm.op("mul.lo.s32", Class::B32, &[&quarter, &2]);
        // No grid of these has more than one block along y.
        let one = asm.op("mov.u32", Class::B32, &[&"%nctaid.y"]);
        Constants {
            at_128,
            at_23,
            pair,
            up: [16, 3].map(|by| asm.op("shl.b32", Class::B32, &[&one, &by])),
            sixes,
            every_other,
            side_bits: asm.op("mul.lo.s32", Class::B32, &[&side, &4]),
            quarter_bits: asm.op("mul.lo.s32", Class::B32, &[&quarter, &4]),
            fifth: asm.op("sub.s32", Class::B32, &[&6, &twice]),
            table,
        }
    }
}

/// Where the bytes of a lane's piece lie in a row's segment.
pub(super) fn places(asm: &mut Asm, plan: RingPlan, piece: R, second: Option<R>) -> Vec<BytesAt> {
    let (block, bytes) = (plan.block, plan.block.bytes());
    // What rows begin on a multiple of in shared memory.
    let rows = match plan.unaligned() && plan.fill != Fill::Bytes {
        true => lowest(plan.row_bytes),
        false => 16,
    };
    if block.values() == 32 {
        let align = lowest(2 * bytes);
        let first = asm.op("mul.lo.s32", Class::B32, &[&piece, &(2 * bytes)]);
        let other = match second {
            None => first,
            // Where there is none, the first is read again and not used.
            Some(p) => {
                let again = asm.op("add.s32", Class::B32, &[&first, &-(bytes as i64)]);
                asm.op("selp.b32", Class::B32, &[&first, &again, &p])
            }
        };
        let align_other = if second.is_some() {
            lowest(bytes)
        } else {
            align
        };
        let quants = match block {
            BlockType::Mxfp4 => 1,
            BlockType::Q4_1 | BlockType::Q5_1 => 4,
            _ => 2,
        };
        return vec![
            BytesAt::new(asm, first, align, 0, rows),
            BytesAt::new(asm, other, align_other, bytes, rows),
            BytesAt::new(asm, first, align, quants, rows),
            BytesAt::new(asm, other, align_other, bytes + quants, rows),
        ];
    }
    let number = asm.op("shr.u32", Class::B32, &[&piece, &2]);
    let start = asm.op("mul.lo.s32", Class::B32, &[&number, &bytes]);
    let quarter = asm.op("and.b32", Class::B32, &[&piece, &3]);
    let side = asm.op("shr.u32", Class::B32, &[&quarter, &1]);
    let part = asm.op("and.b32", Class::B32, &[&piece, &1]);
    let mut place = |side_bytes: usize, part_bytes: usize, quarter_bytes: usize, offset: usize| {
        let mut at = start;
        for (which, each) in [
            (side, side_bytes),
            (part, part_bytes),
            (quarter, quarter_bytes),
        ] {
            if each > 0 {
                at = asm.op("mad.lo.s32", Class::B32, &[&which, &each, &at]);
            }
        }
        let all = bytes | side_bytes | part_bytes | quarter_bytes;
        BytesAt::new(asm, at, lowest(all), offset, rows)
    };
    match block {
        BlockType::Q2K => vec![
            place(32, 16, 0, 16),
            place(0, 0, 0, 0),
            place(8, 0, 0, 0),
            place(0, 0, 0, 80),
        ],
        BlockType::Q3K => vec![
            place(32, 16, 0, 32),
            place(0, 16, 0, 0),
            place(0, 0, 0, 96),
            place(0, 0, 0, 108),
        ],
        BlockType::Q5K => vec![place(0, 0, 0, 0), place(0, 0, 32, 48), place(0, 0, 0, 16)],
        BlockType::Q6K => vec![
            place(64, 16, 0, 0),
            place(32, 16, 0, 128),
            place(8, 0, 0, 192),
            place(0, 0, 0, 208),
        ],
        BlockType::Iq4Xs => vec![place(0, 0, 0, 0), place(0, 0, 32, 8), place(0, 0, 1, 4)],
        _ => vec![place(0, 0, 0, 0), place(0, 0, 32, 16)],
    }
}

/// The largest power of two, up to 16, that divides a number.
fn lowest(n: usize) -> usize {
    1 << n.trailing_zeros().min(4)
}
