//! Constants that change between calls, recognised by value.
//!
//! Model code builds masks and position ranges from the call's integers. Each sample shows one
//! instance; a family fits if it reproduces every element of every sample. Families: equal data,
//! one repeated value, consecutive integers, the causal mask with an optional window, in any
//! two values, and whatever follows from the distance of two positions ([`super::relative`]).

use super::fit;
use super::relative::{self, Relative};
use crate::graph::{Literal, Op};
use crate::reference::{element, hidden};
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
    /// A function of the distance of two positions.
    Relative(Relative),
}

/// One instance: shape and data at a sample point.
pub(super) struct Instance<'a> {
    pub shape: Vec<usize>,
    pub literal: &'a Literal,
}

/// The elements of an instance. They may be many, so none is kept in another form.
#[derive(Clone, Copy)]
pub(super) struct Data<'a> {
    bytes: &'a [u8],
    dtype: DType,
}

impl<'a> Data<'a> {
    fn len(self) -> usize {
        self.bytes.len() / self.dtype.size()
    }

    fn at(self, i: usize) -> Option<f64> {
        element(self.bytes, i, self.dtype)
    }

    fn iter(self) -> impl DoubleEndedIterator<Item = f64> + ExactSizeIterator + 'a {
        let each = self.bytes.chunks_exact(self.dtype.size());
        each.map(move |c| element(c, 0, self.dtype).unwrap_or(f64::NAN))
    }

    /// Bytes of an element.
    pub fn width(self) -> usize {
        self.dtype.size()
    }

    /// The bytes of each element.
    pub fn raw(self) -> impl Iterator<Item = &'a [u8]> {
        self.bytes.chunks_exact(self.dtype.size())
    }

    /// The elements of one row of so many.
    fn row(self, row: usize, cols: usize) -> Data<'a> {
        let width = cols * self.dtype.size();
        let bytes = self.bytes.get(row * width..(row + 1) * width);
        Data {
            bytes: bytes.unwrap_or_default(),
            dtype: self.dtype,
        }
    }
}

pub(super) fn recognise(
    points: &[Vec<i64>],
    instances: &[Instance<'_>],
    dtype: DType,
) -> Option<Family> {
    let first = instances.first()?;
    if instances
        .iter()
        .all(|i| i.literal == first.literal && i.shape == first.shape)
    {
        return Some(Family::Same(first.literal.clone()));
    }
    let data: Vec<Data<'_>> = instances
        .iter()
        .map(|i| Data {
            bytes: &i.literal.bytes,
            dtype,
        })
        .collect();
    fill(&data)
        .or_else(|| arange(points, instances, &data))
        .or_else(|| causal(points, instances, &data))
        .or_else(|| relative::recognise(instances, &data).map(Family::Relative))
}

fn fill(data: &[Data<'_>]) -> Option<Family> {
    let value = data.iter().find_map(|d| d.at(0))?;
    let same = |v: f64| v.to_bits() == value.to_bits();
    data.iter()
        .all(|d| d.iter().all(same))
        .then_some(Family::Fill(value))
}

fn arange(points: &[Vec<i64>], instances: &[Instance<'_>], data: &[Data<'_>]) -> Option<Family> {
    let line = |i: &Instance<'_>| i.shape.iter().filter(|n| **n > 1).count() <= 1;
    if !instances.iter().all(line) {
        return None;
    }
    let firsts = data.iter().map(|d| d.at(0));
    let firsts = firsts.collect::<Option<Vec<f64>>>()?;
    let step = data
        .iter()
        .find_map(|d| Some(d.at(1)? - d.at(0)?))
        .unwrap_or(1.0);
    let consecutive = |d: &Data<'_>| d.iter().zip(d.iter().skip(1)).all(|(a, b)| b - a == step);
    let whole = firsts.iter().all(|v| v.fract() == 0.0) && step.fract() == 0.0;
    if !whole || !data.iter().all(consecutive) {
        return None;
    }
    let starts: Vec<i64> = firsts.iter().map(|v| *v as i64).collect();
    Some(Family::Arange {
        start: fit::affine(points, &starts)?,
        step: step as i64,
    })
}

fn causal(points: &[Vec<i64>], instances: &[Instance<'_>], data: &[Data<'_>]) -> Option<Family> {
    let matrix = |i: &Instance<'_>| {
        let n = i.shape.len();
        (n >= 2 && i.shape[..n - 2].iter().all(|d| *d == 1))
            .then(|| (i.shape[n - 2], i.shape[n - 1]))
    };
    let sizes: Vec<(usize, usize)> = instances.iter().map(matrix).collect::<Option<_>>()?;
    // A key after all others is hidden from the first query wherever a mask hides anything there;
    // key 0 is visible unless a window hides it. Two distinct values are needed to tell.
    let (hide, show) = two_values(data)?;
    let mut offsets = Vec::new();
    let mut windows: Vec<Option<i64>> = Vec::new();
    for (d, (queries, keys)) in data.iter().zip(&sizes) {
        let row = d.row(queries.checked_sub(1)?, *keys);
        let last = row.iter().rposition(|v| v == show)? as i64;
        let first = row.iter().position(|v| v == show)? as i64;
        offsets.push(last - (*queries as i64 - 1));
        windows.push((first > 0).then_some(last - first + 1));
    }
    let window = windows.iter().flatten().next().copied();
    let window = window.map(|w| w as usize);
    let offset = fit::affine(points, &offsets)?;
    let instance = |((d, (_, keys)), offset): ((&Data<'_>, &(usize, usize)), &i64)| {
        d.iter().enumerate().all(|(at, v)| {
            let expected = match hidden(at / keys, at % keys, *offset, window) {
                true => hide,
                false => show,
            };
            v.to_bits() == expected.to_bits()
        })
    };
    let mut all = data.iter().zip(&sizes).zip(&offsets);
    all.all(instance).then_some(Family::Causal {
        op: Op::Causal { offset, window },
        hidden: hide,
        visible: show,
    })
}

/// The values for hidden and visible keys: the last query always sees the last key.
fn two_values(data: &[Data<'_>]) -> Option<(f64, f64)> {
    let last = |d: &Data<'_>| d.at(d.len().checked_sub(1)?);
    let show = data.iter().find_map(last)?;
    let other = |v: &f64| v.to_bits() != show.to_bits();
    let hide = data.iter().find_map(|d| d.iter().find(other))?;
    Some((hide, show))
}
