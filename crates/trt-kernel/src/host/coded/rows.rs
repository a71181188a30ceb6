//! Rows of activations as numbers of 16 bits, with a scale for each sub-block.

use crate::host::simd::{Job, Simd};

/// The largest number.
const TOP: f32 = 32767.0;
/// Activations of a sub-block may be as large as this, 2^60: then no sum leaves f32.
pub(super) const MOST: f32 = 1.152_921_5e18;
/// Unless all are zero, the largest of a sub-block is no smaller, 2^-80: then a scale is a normal number.
pub(super) const LEAST: f32 = 8.271_806e-25;
/// Added to a number below 2^22 in size it leaves the nearest integer, to even, in the low bits.
const ROUND: f32 = 12_582_912.0;

/// How a row of `k` values lies in memory: numbers, then scales, then sums, each of a sub-block.
#[derive(Clone, Copy, Debug)]
pub(in crate::host) struct Layout {
    /// Values of a row, a multiple of `sub`.
    pub k: usize,
    /// Values of a sub-block: 16 or 32.
    pub sub: usize,
}

impl Layout {
    /// Elements between rows.
    pub fn pitch(self) -> usize {
        self.sums() + self.k / self.sub
    }
    /// The element of the numbers from value `at`, an even one, on.
    pub fn words(self, at: usize) -> usize {
        at / 2
    }
    /// The element where scales begin.
    pub fn scales(self) -> usize {
        self.k / 2
    }
    /// The element where sums begin.
    pub fn sums(self) -> usize {
        self.scales() + self.k / self.sub
    }
    /// Whether a row was not written, since it has values that numbers of 16 bits cannot stand for.
    pub fn is_refused(self, row: &[f32]) -> bool {
        row.get(self.scales()).is_some_and(|scale| scale.is_nan())
    }
}

/// Writes a row of `k` activations. One that cannot be written within the bound becomes zeros whose first
/// scale is not a number ([`Layout::is_refused`]).
pub(in crate::host) struct Quantise<'a> {
    pub layout: Layout,
    pub x: &'a [f32],
    pub row: &'a mut [f32],
}

impl Job for Quantise<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let Quantise { layout, x, row } = self;
        let (words, rest) = row.split_at_mut(layout.scales());
        let (scales, sums) = rest.split_at_mut(layout.k / layout.sub);
        let words: &mut [i16] = bytemuck::cast_slice_mut(words);
        let done = match layout.sub {
            16 => write::<16>(x, words, scales, sums),
            _ => write::<32>(x, words, scales, sums),
        };
        if !done {
            words.fill(0);
            sums.fill(0.0);
            scales.fill(f32::NAN);
        }
    }
}

/// Whether all could be written.
#[inline(always)]
fn write<const SUB: usize>(
    x: &[f32],
    words: &mut [i16],
    scales: &mut [f32],
    sums: &mut [f32],
) -> bool {
    let (x, words) = (x.as_chunks::<SUB>().0, words.as_chunks_mut::<SUB>().0);
    let each = (x.iter().zip(words)).zip(scales.iter_mut().zip(sums));
    let mut fits = true;
    for ((x, words), (scale, sum)) in each {
        // As integers, what is infinite or not a number is larger than all others.
        let size = |x: &f32| x.to_bits() & 0x7fff_ffff;
        let largest = x.iter().map(size).fold(0, u32::max);
        let fit = largest >= LEAST.to_bits() && largest <= MOST.to_bits();
        fits &= fit || largest == 0;
        let (by, unit) = match fit {
            true => {
                let largest = f32::from_bits(largest);
                (TOP / largest, largest / TOP)
            }
            false => (0.0, 0.0),
        };
        let mut total = 0;
        for (x, word) in x.iter().zip(words) {
            let bits = (x * by + ROUND).to_bits() as i32;
            let number = bits.wrapping_sub(ROUND.to_bits() as i32);
            *word = number as i16;
            total += i32::from(*word);
        }
        *scale = unit;
        *sum = total as f32 * unit;
    }
    fits
}
