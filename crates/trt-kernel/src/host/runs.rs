//! Runs of elements moved with the best instructions, for code that is not itself a job.

use super::HostError;
use super::simd::{Job, Simd};
use super::span::{Args, Run};
use super::tile::PANEL;
use crate::Arg;

/// [`Args::load_f32`] with the best instructions.
pub(super) struct Load<'a>(pub &'a Args<'a>, pub Arg, pub Run, pub &'a mut [f32]);

impl Job for Load<'_> {
    type Out = Result<(), HostError>;
    #[inline(always)]
    fn run<S: Simd>(self) -> Self::Out {
        self.0.load_f32::<S>(self.1, self.2, self.3)
    }
}

/// [`Args::store_f32`] with the best instructions.
pub(super) struct Store<'a>(pub &'a Args<'a>, pub Arg, pub Run, pub &'a [f32]);

impl Job for Store<'_> {
    type Out = Result<(), HostError>;
    #[inline(always)]
    fn run<S: Simd>(self) -> Self::Out {
        self.0.store_f32::<S>(self.1, self.2, self.3)
    }
}

/// Rows of values in panels of 64 columns, `[panel, key, 64]`, padded with zeros.
pub(super) struct Values<'a> {
    pub args: &'a Args<'a>,
    pub arg: Arg,
    pub offset: i64,
    /// Elements between keys, and between the elements of a value.
    pub strides: (i64, i64),
    pub keys: usize,
    pub value: usize,
    pub out: &'a mut [f32],
}

impl Job for Values<'_> {
    type Out = Result<(), HostError>;
    #[inline(always)]
    fn run<S: Simd>(self) -> Self::Out {
        for (panel, out) in self.out.chunks_exact_mut(PANEL * PANEL).enumerate() {
            let first = panel * PANEL;
            let cols = PANEL.min(self.value - first);
            for (j, row) in out.chunks_exact_mut(PANEL).take(self.keys).enumerate() {
                let run = Run {
                    offset: self.offset + j as i64 * self.strides.0 + first as i64 * self.strides.1,
                    stride: self.strides.1,
                    count: cols,
                };
                self.args.load_f32::<S>(self.arg, run, &mut row[..cols])?;
                row[cols..].fill(0.0);
            }
        }
        Ok(())
    }
}
