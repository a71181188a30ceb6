//! Where a block of a packed weight lies.

use super::Layout;
use crate::ptx::asm::{Asm, Class, Int, R};
use crate::ptx::divide;
use crate::ptx::scope::{Scope, Tiles};
use trt_pack::{STREAMS, TABLE_BYTES};

/// Bytes of a word that says where something lies, and what it counts in.
const PLACE: usize = 4;
const UNIT: usize = 16;
/// Bytes of where streams start.
const STARTS: usize = 2 * STREAMS;
/// The bits of a place that are no mark.
const NUMBER: &str = "0x7fffffff";

/// What blocks are found with.
pub(in crate::ptx) struct Blocks<'a> {
    pub layout: Layout,
    pub scope: &'a Scope,
    pub tiles: Tiles,
}

/// A block.
pub(in crate::ptx) struct Found {
    /// The global address of its first byte.
    pub start: R,
    /// Its first row of the weight, and how many it has.
    pub row: R,
    pub rows: R,
    /// Pieces of each of its rows.
    pub width: Int,
    /// Whether it is packed, and whether its values are stored as they are; neither where it does not lie in its unit.
    pub packed: R,
    pub stored: R,
    /// Of a packed one: bytes before those of the words, and how many these are.
    pub before: R,
    pub words: R,
}

impl Blocks<'_> {
    /// The block that has this stretch of a row of the launch.
    pub fn find(&self, asm: &mut Asm, row: R, stretch: R) -> Found {
        let Layout {
            geometry,
            unit_rows,
            ..
        } = self.layout;
        let (unit, within) = divide::div_rem(asm, row, unit_rows as u32);
        let group = divide::div(asm, within, geometry.block_rows() as u32);
        let first = asm.op("mul.lo.u32", Class::B32, &[&group, &geometry.block_rows()]);
        let skipped = asm.op("mul.lo.u32", Class::B32, &[&unit, &unit_rows]);
        let own = asm.op("sub.u32", Class::B32, &[&self.layout.rows, &skipped]);
        let own = asm.op("min.u32", Class::B32, &[&own, &unit_rows]);
        let rows = asm.op("sub.u32", Class::B32, &[&own, &first]);
        let rows = asm.op("min.u32", Class::B32, &[&rows, &geometry.block_rows()]);

        let (at, units) = self.unit(asm, row, unit);
        let number = asm.op(
            "mad.lo.u32",
            Class::B32,
            &[&group, &geometry.stretches(), &stretch],
        );
        let place = asm.op("mad.wide.u32", Class::B64, &[&number, &PLACE, &at]);
        let [from, end] = [0, PLACE].map(|next| {
            let place = format!("[{place}+{next}]");
            asm.op("ld.global.nc.b32", Class::B32, &[&place])
        });
        let stored = asm.op("setp.lt.s32", Class::Pred, &[&from, &0]);
        let [from, end] = [from, end].map(|p| asm.op("and.b32", Class::B32, &[&p, &NUMBER]));

        let width = self.width(asm, stretch);
        let pieces = asm.op("mul.lo.u32", Class::B32, &[&rows, &width]);
        // A piece has 8 plain bytes, or 16 that are stored.
        let plain = asm.op("add.u32", Class::B32, &[&pieces, &(1 + STARTS / 8)]);
        let plain = asm.op("shr.u32", Class::B32, &[&plain, &1]);
        let least = asm.op("selp.b32", Class::B32, &[&pieces, &plain, &stored]);
        let least = asm.op("add.u32", Class::B32, &[&from, &least]);
        let room = asm.op("setp.le.u32", Class::Pred, &[&least, &end]);
        let inside = asm.op("setp.le.and.u32", Class::Pred, &[&end, &units, &room]);
        let packed = asm.reg(Class::Pred);
        asm.put(format_args!("not.pred {packed}, {stored}"));
        let [packed, stored] =
            [packed, stored].map(|p| asm.op("and.pred", Class::Pred, &[&p, &inside]));

        let words = asm.op("sub.u32", Class::B32, &[&end, &least]);
        Found {
            start: asm.op("mad.wide.u32", Class::B64, &[&from, &UNIT, &at]),
            row: asm.op("add.u32", Class::B32, &[&skipped, &first]),
            rows,
            width,
            packed,
            stored,
            before: asm.op("mul.lo.u32", Class::B32, &[&plain, &UNIT]),
            words: asm.op("mul.lo.u32", Class::B32, &[&words, &UNIT]),
        }
    }

    /// The address of a unit, and how many times 16 bytes it has.
    fn unit(&self, asm: &mut Asm, row: R, unit: R) -> (R, R) {
        let (within, base) = self.tiles.tile(asm, row);
        // A tile begins with a unit.
        let tile = asm.op("sub.u32", Class::B32, &[&row, &within]);
        let tile = divide::div(asm, tile, self.layout.unit_rows as u32);
        let places = self.scope.arg(self.layout.code);
        let mut place = |unit: R, next: usize| {
            let at = asm.op("mad.wide.u32", Class::B64, &[&unit, &PLACE, &places]);
            let at = format!("[{at}+{}]", TABLE_BYTES + next);
            asm.op("ld.global.nc.b32", Class::B32, &[&at])
        };
        let (first, start, end) = (place(tile, 0), place(unit, 0), place(unit, PLACE));
        let skipped = asm.op("sub.u32", Class::B32, &[&start, &first]);
        (
            asm.op("mad.wide.u32", Class::B64, &[&skipped, &UNIT, &base]),
            asm.op("sub.u32", Class::B32, &[&end, &start]),
        )
    }

    /// Pieces of a row in a stretch.
    fn width(&self, asm: &mut Asm, stretch: R) -> Int {
        let (geometry, last) = (self.layout.geometry, self.layout.last());
        if last == geometry.stretch() || geometry.stretches() == 1 {
            return Int::Imm(last as i64);
        }
        let is_last = geometry.stretches() - 1;
        let is_last = asm.op("setp.eq.u32", Class::Pred, &[&stretch, &is_last]);
        let widths = [last, geometry.stretch()];
        Int::Reg(asm.op("selp.b32", Class::B32, &[&widths[0], &widths[1], &is_last]))
    }
}

impl Found {
    /// Bytes before those that are plain.
    pub const PLAIN: usize = STARTS;

    /// The first byte of a stream among the words, as the block says it.
    pub fn stream(&self, asm: &mut Asm, stream: R) -> R {
        let at = asm.op("mad.wide.u32", Class::B64, &[&stream, &2, &self.start]);
        let half = asm.op("ld.global.nc.u16", Class::B16, &[&format_args!("[{at}]")]);
        asm.op("cvt.u32.u16", Class::B32, &[&half])
    }
}
