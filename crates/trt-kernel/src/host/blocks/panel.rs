//! Codes of blocks and their scales, laid out in panels of 64 columns.

use super::{Head, Make, OfBlocks, RowsAt, Unpack, in_memory, of_blocks};
use crate::BlockType;
use crate::host::HostError;
use crate::host::coded::{MOST_SCALE, Stretch, middle};
use crate::host::codes::{Codes, Sixteen};
use crate::host::simd::{self, Job, Simd};
use crate::host::span::{Args, Run};
use crate::host::tile::PANEL;

/// Columns and pairs that are transposed in one go.
const SIDE: usize = 16;
/// Values of 16 columns that are read before they are transposed: a block has as many at most.
const STRIP: usize = 256;

/// Values of a sub-block of a type.
pub(in crate::host) fn sub_block(block: BlockType) -> usize {
    struct Sub;
    impl OfBlocks for Sub {
        type Out = usize;
        #[inline(always)]
        fn run<T: Unpack>(self) -> usize {
            T::SUB
        }
    }
    of_blocks(block, Sub)
}

/// Elements that the panel of a stretch of `len` values takes at most.
pub(in crate::host) const fn elements(len: usize) -> usize {
    PANEL * (len / 2 + len / 16 + len / 16)
}

/// Packs `len` values, whole blocks, of `cols` (at most 64) columns: column `j` starts at value `at.offset + j * at.stride`, a
/// whole number of blocks. The columns up to 64 are zero. None if a scale is not finite or too large.
pub(in crate::host) fn pack<'a>(
    args: &Args,
    at: RowsAt,
    (cols, len): (usize, usize),
    out: &'a mut [f32],
) -> Result<Option<Stretch<'a>>, HostError> {
    let sub = sub_block(at.block);
    let (words, rest) = out.split_at_mut(len / 2 * PANEL);
    let (scales, least) = rest.split_at_mut(len / sub * PANEL);
    let (mut lines, mut fits) = (false, true);
    for (group, first) in (0..PANEL).step_by(SIDE).enumerate() {
        let mut columns = [[].as_slice(); SIDE];
        for (j, column) in columns
            .iter_mut()
            .enumerate()
            .take(cols.saturating_sub(first))
        {
            let run = Run {
                offset: at.offset + (first + j) as i64 * at.stride,
                stride: 1,
                count: len,
            };
            *column = args.whole_blocks(at.arg, at.block, run)?;
        }
        let (has_least, fit) = simd::run(Pack {
            block: at.block,
            columns,
            first: group * SIDE,
            len,
            words: &mut *words,
            scales: &mut *scales,
            least: &mut *least,
        });
        lines |= has_least;
        fits &= fit;
    }
    let least = lines.then_some(&*least);
    let stretch = Stretch {
        words,
        scales,
        least,
    };
    Ok(fits.then_some(stretch))
}

/// Makes the codes themselves, as far from the middle of their range as they are.
#[derive(Clone, Copy)]
struct Numbers(u8);

impl<C: Codes> Make<C> for Numbers {
    type Out = C::B;
    #[inline(always)]
    unsafe fn four(self, _: usize, codes: &'static Sixteen, b: C::B, from: u32) -> C::B {
        // SAFETY: the caller's promise.
        unsafe { C::less(C::look(codes, b, from), self.0) }
    }
    #[inline(always)]
    unsafe fn bytes(self, _: usize, b: C::B) -> C::B {
        // SAFETY: the caller's promise.
        unsafe { C::less(b, self.0) }
    }
}

/// Blocks of 16 columns, from column `first` of the panel on; empty ones are zero.
pub(super) struct Pack<'a> {
    pub block: BlockType,
    pub columns: [&'a [u8]; SIDE],
    pub first: usize,
    pub len: usize,
    pub words: &'a mut [f32],
    pub scales: &'a mut [f32],
    pub least: &'a mut [f32],
}

impl Job for Pack<'_> {
    /// Whether values have minima, and whether all scales are as they must be.
    type Out = (bool, bool);
    #[inline(always)]
    fn run<S: Simd>(self) -> (bool, bool) {
        let set = std::marker::PhantomData::<S>;
        of_blocks(self.block, Typed { pack: self, set })
    }
}

struct Typed<'a, S> {
    pack: Pack<'a>,
    set: std::marker::PhantomData<S>,
}

impl<S: Simd> OfBlocks for Typed<'_, S> {
    type Out = (bool, bool);
    #[inline(always)]
    fn run<T: Unpack>(self) -> (bool, bool) {
        let pack = self.pack;
        let (bytes, values) = (T::TYPE.bytes(), T::TYPE.values());
        let (mut lines, mut fits) = (false, true);
        let mut rows = [0f32; SIDE * STRIP / 2];
        for from in (0..pack.len).step_by(STRIP) {
            let len = STRIP.min(pack.len - from);
            for (j, row) in rows.chunks_exact_mut(STRIP / 2).enumerate() {
                let blocks = pack.columns[j].chunks_exact(bytes).skip(from / values);
                let mut place = from / T::SUB * PANEL + pack.first + j;
                if pack.columns[j].is_empty() {
                    row.fill(0.0);
                    for s in 0..len / T::SUB {
                        pack.scales[place + s * PANEL] = 0.0;
                        if let Some(least) = pack.least.get_mut(place + s * PANEL) {
                            *least = 0.0;
                        }
                    }
                    continue;
                }
                for (block, row) in blocks.zip(row[..len / 2].chunks_exact_mut(values / 2)) {
                    let head = codes::<S, T>(block, row);
                    for sub in 0..values / T::SUB {
                        let scale = head.scale(sub);
                        pack.scales[place] = scale;
                        fits &= scale.abs() <= MOST_SCALE;
                        if let Some(least) = head.least(sub) {
                            // What was taken from codes comes back here; times a power of two, so it is rounded once.
                            let least = f32::from(middle(T::TYPE)) * scale + least;
                            pack.least[place] = least;
                            fits &= least.abs() <= MOST_SCALE;
                            lines = true;
                        }
                        place += PANEL;
                    }
                }
            }
            for pair in (0..len / 2).step_by(SIDE) {
                let to = (from / 2 + pair) * PANEL + pack.first;
                let to = &mut pack.words[to..][..(SIDE - 1) * PANEL + SIDE];
                // SAFETY: a job has the instructions, 16 rows have `pair + 16` elements, as blocks have whole 32 values, and
                // `to` spans 16 rows of a panel.
                unsafe {
                    S::transpose(rows.as_ptr().add(pair), STRIP / 2, to.as_mut_ptr(), PANEL);
                }
            }
        }
        (lines, fits)
    }
}

/// The codes of one block, in pairs, and its head.
#[inline(always)]
fn codes<S: Simd, T: Unpack>(block: &[u8], row: &mut [f32]) -> T::Head {
    assert!(block.len() >= T::TYPE.bytes() && row.len() >= T::TYPE.values() / 2);
    let (block, words) = (block.as_ptr(), row.as_mut_ptr().cast::<i16>());
    let make = Numbers(middle(T::TYPE));
    let mut head = T::Head::default();
    // SAFETY: a job has the instructions, the block is whole, and vectors end with its values.
    unsafe {
        T::head::<S>(block, &mut head);
        in_memory::<T>(&mut head);
        for unit in 0..T::TYPE.values() / T::UNIT {
            let mut at = 0;
            while at < T::UNIT {
                let codes = T::codes::<S, _>(block, unit, at, make);
                S::words(codes, words.add(unit * T::UNIT + at));
                at += S::LANES;
            }
        }
    }
    head
}
