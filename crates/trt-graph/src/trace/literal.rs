//! Constants that change between calls, recognised by value.
//!
//! Model code builds masks and position ranges from the call's integers. Each sample shows one
//! instance; a family fits if it reproduces every element of every sample. Families: equal data,
//! one repeated value, consecutive integers, and the causal mask with an optional window, in any
//! two values.

use super::fit;
use crate::graph::{Literal, Op};
use crate::reference::{decode, hidden};
use trt_kernel::{DType, Dim};

/// A family that reproduces all samples.
pub(super) enum Family {
    /// The same data everywhere.
    Same(Literal),
    /// One value, repeated.
    Fill(f64),
    /// `start, start + step, …` along the only axis of more than one element.
    Arange { start: Dim, step: i64 },
    /// `hidden` where the key is hidden from the query, `visible` elsewhere, over the last two
    /// axes (others have size 1).
    Causal { op: Op, hidden: f64, visible: f64 },
}

/// One instance: shape and data at a sample point.
pub(super) struct Instance<'a> {
    pub shape: Vec<usize>,
    pub literal: &'a Literal,
}

pub(super) fn recognise(
    points: &[Vec<i64>],
    instances: &[Instance<'_>],
    dtype: DType,
) -> Option<Family> {
    let first = &instances[0];
    if instances
        .iter()
        .all(|i| i.literal == first.literal && i.shape == first.shape)
    {
        return Some(Family::Same(first.literal.clone()));
    }
    let data: Vec<Vec<f64>> = instances
        .iter()
        .map(|i| decode(&i.literal.bytes, dtype))
        .collect();
    fill(&data)
        .or_else(|| arange(points, instances, &data))
        .or_else(|| causal(points, instances, &data))
}

fn fill(data: &[Vec<f64>]) -> Option<Family> {
    let value = *data.iter().find_map(|d| d.first())?;
    let same = |v: &f64| v.to_bits() == value.to_bits();
    data.iter()
        .all(|d| d.iter().all(same))
        .then_some(Family::Fill(value))
}

fn arange(points: &[Vec<i64>], instances: &[Instance<'_>], data: &[Vec<f64>]) -> Option<Family> {
    let line = |i: &Instance<'_>| i.shape.iter().filter(|n| **n > 1).count() <= 1;
    if !instances.iter().all(line) || data.iter().any(Vec::is_empty) {
        return None;
    }
    let step = data
        .iter()
        .find(|d| d.len() > 1)
        .map_or(1.0, |d| d[1] - d[0]);
    let consecutive = |d: &Vec<f64>| d.windows(2).all(|w| w[1] - w[0] == step);
    let whole = data.iter().all(|d| d[0].fract() == 0.0) && step.fract() == 0.0;
    if !whole || !data.iter().all(consecutive) {
        return None;
    }
    let starts: Vec<i64> = data.iter().map(|d| d[0] as i64).collect();
    Some(Family::Arange {
        start: fit::affine(points, &starts)?,
        step: step as i64,
    })
}

fn causal(points: &[Vec<i64>], instances: &[Instance<'_>], data: &[Vec<f64>]) -> Option<Family> {
    let matrix = |i: &Instance<'_>| {
        let n = i.shape.len();
        (n >= 2 && i.shape[..n - 2].iter().all(|d| *d == 1))
            .then(|| (i.shape[n - 2], i.shape[n - 1]))
    };
    let sizes: Vec<(usize, usize)> = instances.iter().map(matrix).collect::<Option<_>>()?;
    // A key after all others is hidden from the first query wherever a mask hides anything there;
    // key 0 is visible unless a window hides it. Two distinct values are needed to tell.
    let (hide, show) = two_values(data, &sizes)?;
    let mut offsets = Vec::new();
    let mut windows: Vec<Option<i64>> = Vec::new();
    for (d, (queries, keys)) in data.iter().zip(&sizes) {
        let row = &d[(queries - 1) * keys..];
        let last = row.iter().rposition(|v| *v == show)? as i64;
        let first = row.iter().position(|v| *v == show)? as i64;
        offsets.push(last - (*queries as i64 - 1));
        windows.push((first > 0).then_some(last - first + 1));
    }
    let window = windows.iter().flatten().next().copied();
    let window = window.map(|w| w as usize);
    let agree = data
        .iter()
        .zip(&sizes)
        .zip(&offsets)
        .all(|((d, (_, keys)), offset)| {
            d.iter().enumerate().all(|(at, v)| {
                let expected = if hidden(at / keys, at % keys, *offset, window) {
                    hide
                } else {
                    show
                };
                v.to_bits() == expected.to_bits()
            })
        });
    let offset = fit::affine(points, &offsets)?;
    agree.then_some(Family::Causal {
        op: Op::Causal { offset, window },
        hidden: hide,
        visible: show,
    })
}

/// The values for hidden and visible keys: the last query always sees the last key.
fn two_values(data: &[Vec<f64>], sizes: &[(usize, usize)]) -> Option<(f64, f64)> {
    let show = data
        .iter()
        .zip(sizes)
        .find(|(_, (q, k))| q * k > 0)
        .map(|(d, (q, k))| d[q * k - 1])?;
    let hide = data
        .iter()
        .flatten()
        .copied()
        .find(|v| v.to_bits() != show.to_bits())?;
    Some((hide, show))
}
