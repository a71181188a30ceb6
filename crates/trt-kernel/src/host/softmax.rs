//! The running softmax of attention: a maximum, a sum and weighted values for each row.
//!
//! Invariant after any number of keys: `values = Σ exp(s - max) v` and `sum = Σ exp(s - max)`
//! over the keys taken so far; `max` is minus infinity while none was seen. When the maximum
//! rises, both are scaled by `exp(old - new)`.

use super::math;
use super::simd::{Job, Simd};
use super::tile::PANEL;
use std::ops::Range;

/// The state of some rows.
pub(super) struct Running<'a> {
    max: &'a mut [f32],
    sum: &'a mut [f32],
    /// Rows of `value_dim` rounded up to a multiple of 64.
    pub values: &'a mut [f32],
    wide: usize,
}

impl<'a> Running<'a> {
    /// Floats that the state of `rows` rows takes.
    pub fn floats(rows: usize, value: usize) -> usize {
        rows * (2 + value.next_multiple_of(PANEL))
    }

    /// The state in `buffer`, whatever it holds.
    pub fn over(buffer: &'a mut [f32], rows: usize, value: usize) -> Running<'a> {
        let (max, buffer) = buffer.split_at_mut(rows);
        let (sum, values) = buffer.split_at_mut(rows);
        let wide = value.next_multiple_of(PANEL);
        Running {
            max,
            sum,
            values,
            wide,
        }
    }

    /// The state before any key.
    pub fn new(buffer: &'a mut [f32], rows: usize, value: usize) -> Running<'a> {
        let running = Running::over(buffer, rows, value);
        running.max.fill(f32::NEG_INFINITY);
        running.sum.fill(0.0);
        running.values.fill(0.0);
        running
    }

    /// The values of one row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.wide..][..self.wide]
    }

    /// Takes in the keys that `other` saw, all after the ones seen here.
    pub fn merge(&mut self, other: &Running) {
        for row in 0..self.max.len() {
            let max = if other.max[row] > self.max[row] {
                other.max[row]
            } else {
                self.max[row]
            };
            if other.sum[row] == 0.0 {
                continue;
            }
            let (a, b) = (factor(self.max[row], max), factor(other.max[row], max));
            self.max[row] = max;
            self.sum[row] = self.sum[row] * a + other.sum[row] * b;
            let mine = &mut self.values[row * self.wide..][..self.wide];
            for (x, y) in mine.iter_mut().zip(other.row(row)) {
                *x = *x * a + *y * b;
            }
        }
    }

    /// Divides the values by the sums; a row that saw no key becomes zero.
    pub fn finish(&mut self) {
        for (sum, row) in self
            .sum
            .iter()
            .zip(self.values.chunks_exact_mut(self.wide.max(1)))
        {
            let factor = if *sum == 0.0 { 0.0 } else { 1.0 / sum };
            row.iter_mut().for_each(|x| *x *= factor);
        }
    }
}

/// What a row weighs after its maximum moved from `old` to `new`.
#[inline(always)]
fn factor(old: f32, new: f32) -> f32 {
    if old == new { 1.0 } else { (old - new).exp() }
}

/// Takes a block of at most 64 keys into the maxima and sums, turns its scores into weights
/// (zero where a key is not visible) and scales the values to the new maxima.
pub(super) struct SoftmaxStep<'a, 'b, F> {
    pub running: &'a mut Running<'b>,
    /// Rows 64 apart.
    pub scores: &'a mut [f32],
    pub keys: usize,
    pub scale: f32,
    pub visible: F,
}

impl<F: Fn(usize) -> Range<usize>> Job for SoftmaxStep<'_, '_, F> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self) {
        let running = self.running;
        for (row, all) in self.scores.chunks_exact_mut(PANEL).enumerate() {
            let seen = (self.visible)(row);
            let all = &mut all[..self.keys];
            all[..seen.start].fill(0.0);
            all[seen.end..].fill(0.0);
            let scores = &mut all[seen];
            let mut max = running.max[row];
            max = maximum(scores, self.scale, max);
            if max == f32::NEG_INFINITY {
                scores.fill(0.0);
                continue;
            }
            let sum = weights::<S>(scores, max);
            let old = running.max[row];
            if old != max {
                let factor = if old == f32::NEG_INFINITY {
                    0.0
                } else {
                    math::exp::<S>(old - max)
                };
                running.max[row] = max;
                running.sum[row] *= factor;
                let values = &mut running.values[row * running.wide..][..running.wide];
                values.iter_mut().for_each(|x| *x *= factor);
            }
            running.sum[row] += sum;
        }
    }
}

/// The larger of two; NaN if one of them is, so that a row with such a score does not seem to have seen no key.
#[inline(always)]
fn larger(max: f32, score: f32) -> f32 {
    if score > max || score.is_nan() {
        score
    } else {
        max
    }
}

/// Scales scores and returns the largest of them and `max`.
#[inline(always)]
fn maximum(scores: &mut [f32], scale: f32, max: f32) -> f32 {
    let mut lanes = [max; 16];
    let (chunks, rest) = scores.as_chunks_mut::<16>();
    for chunk in chunks {
        for (m, s) in lanes.iter_mut().zip(chunk) {
            *s *= scale;
            *m = larger(*m, *s);
        }
    }
    for (m, s) in lanes.iter_mut().zip(rest) {
        *s *= scale;
        *m = larger(*m, *s);
    }
    lanes.iter().copied().fold(max, larger)
}

/// Turns scores into `exp(score - max)` and returns their sum.
#[inline(always)]
fn weights<S: Simd>(scores: &mut [f32], max: f32) -> f32 {
    let mut lanes = [0f32; 16];
    let (chunks, rest) = scores.as_chunks_mut::<16>();
    for chunk in chunks {
        for (l, s) in lanes.iter_mut().zip(chunk) {
            *s = math::exp::<S>(*s - max);
            *l += *s;
        }
    }
    for (l, s) in lanes.iter_mut().zip(rest) {
        *s = math::exp::<S>(*s - max);
        *l += *s;
    }
    lanes.iter().sum()
}
