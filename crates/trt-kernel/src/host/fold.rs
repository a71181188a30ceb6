//! Folds over the columns of a row.
//!
//! Column `i` always goes to accumulator `i % 64` and the accumulators are folded as a tree, so
//! the result does not depend on how the row was cut into blocks.

use super::program::Slot;
use super::simd::{self, Job, Simd};
use crate::Reduce;

/// Accumulators of a fold.
const FOLD: usize = 64;

/// A fold in progress. Integers are folded exactly, so any order gives the same.
#[allow(
    clippy::large_enum_variant,
    reason = "it lives on a stack, one for each fold of a row"
)]
pub(super) enum RunningFold {
    Float(FloatFold),
    Integer(Reduce, i64),
}

impl RunningFold {
    /// A fold of what is in a slot, if that is numbers.
    pub fn new(kind: Reduce, of: Slot) -> Option<RunningFold> {
        match of {
            Slot::F32(_) => Some(RunningFold::Float(FloatFold::new(kind))),
            Slot::I64(_) => Some(RunningFold::Integer(
                kind,
                match kind {
                    Reduce::Sum => 0,
                    Reduce::Max => i64::MIN,
                    Reduce::Min => i64::MAX,
                },
            )),
            Slot::Bool(_) | Slot::None => None,
        }
    }
}

/// Folds integers into one.
pub(super) fn integers(kind: Reduce, acc: i64, x: &[i64]) -> i64 {
    x.iter().fold(acc, |acc, x| match kind {
        Reduce::Sum => acc.wrapping_add(*x),
        Reduce::Max => acc.max(*x),
        Reduce::Min => acc.min(*x),
    })
}

/// A fold of floats.
pub(super) struct FloatFold {
    kind: Reduce,
    lanes: [f32; FOLD],
}

impl FloatFold {
    pub fn new(kind: Reduce) -> FloatFold {
        let neutral = match kind {
            Reduce::Sum => 0.0,
            Reduce::Max => f32::NEG_INFINITY,
            Reduce::Min => f32::INFINITY,
        };
        FloatFold {
            kind,
            lanes: [neutral; FOLD],
        }
    }

    /// Folds the next columns in; all calls but the last of a row take a multiple of 64 lanes.
    pub fn take(&mut self, x: &[f32]) {
        simd::run(Take(self, x));
    }

    #[inline(always)]
    fn fold(&mut self, x: &[f32]) {
        match self.kind {
            Reduce::Sum => each(&mut self.lanes, x, |a, x| a + x),
            Reduce::Max => each(&mut self.lanes, x, |a, x| if x > a { x } else { a }),
            Reduce::Min => each(&mut self.lanes, x, |a, x| if x < a { x } else { a }),
        }
    }

    /// The folded value.
    pub fn finish(mut self) -> f32 {
        let mut half = FOLD / 2;
        while half > 0 {
            let (lo, hi) = self.lanes.split_at_mut(half);
            let hi = &hi[..half];
            match self.kind {
                Reduce::Sum => lo.iter_mut().zip(hi).for_each(|(a, x)| *a += x),
                Reduce::Max => lo
                    .iter_mut()
                    .zip(hi)
                    .for_each(|(a, x)| *a = if *x > *a { *x } else { *a }),
                Reduce::Min => lo
                    .iter_mut()
                    .zip(hi)
                    .for_each(|(a, x)| *a = if *x < *a { *x } else { *a }),
            }
            half /= 2;
        }
        self.lanes[0]
    }
}

#[inline(always)]
fn each(acc: &mut [f32; FOLD], x: &[f32], f: impl Fn(f32, f32) -> f32) {
    let (chunks, rest) = x.as_chunks::<FOLD>();
    let mut local = *acc;
    for chunk in chunks {
        for (a, x) in local.iter_mut().zip(chunk) {
            *a = f(*a, *x);
        }
    }
    for (a, x) in local.iter_mut().zip(rest) {
        *a = f(*a, *x);
    }
    *acc = local;
}

struct Take<'a>(&'a mut FloatFold, &'a [f32]);

impl Job for Take<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        self.0.fold(self.1);
    }
}
