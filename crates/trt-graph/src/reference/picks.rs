//! The definition of ops whose values decide what is read.

use super::Array;
use crate::Error;
use std::cmp::Ordering;

/// Rows of a table.
pub(super) fn index_select(table: &Array, ids: &Array, shape: &[usize]) -> Result<Array, Error> {
    let entries = table.shape[0];
    let outside = |v: &&f64| **v < 0.0 || **v >= entries as f64;
    if let Some(bad) = ids.data.iter().find(outside) {
        let what = format!("id {bad} outside a table of {entries}");
        return Err(Error::Reference(what));
    }
    let row = |i: &[usize]| table.at(&[ids.data[i[0]] as usize, i[1]]);
    Ok(Array::from_fn(shape, row))
}

/// The index that an id is, if it is below a size.
fn index(id: f64, size: usize) -> Result<usize, Error> {
    match id >= 0.0 && id < size as f64 {
        true => Ok(id as usize),
        false => Err(Error::Reference(format!(
            "index {id} is outside of an axis of {size}"
        ))),
    }
}

pub(super) fn gather(x: &Array, ids: &Array, axis: usize) -> Result<Array, Error> {
    let size = x.shape[axis];
    for id in &ids.data {
        index(*id, size)?;
    }
    Ok(Array::from_fn(&ids.shape, |i| {
        let mut from = i.to_vec();
        from[axis] = ids.at(i) as usize;
        x.at(&from)
    }))
}

pub(super) fn within(x: &Array, size: i64) -> Result<Array, Error> {
    let size = usize::try_from(size).unwrap_or(0);
    x.data
        .iter()
        .try_for_each(|id| index(*id, size).map(|_| ()))?;
    Ok(x.clone())
}

/// Places of a row's elements in order; a sort that keeps the order of equals.
pub(super) fn arg_sort(x: &Array, asc: bool) -> Array {
    let mut out = x.clone();
    let columns = x.shape.last().copied().unwrap_or(1).max(1);
    for row in out.data.chunks_mut(columns) {
        let mut places: Vec<usize> = (0..row.len()).collect();
        places.sort_by(|i, j| {
            let (a, b) = (row[*i], row[*j]);
            let order = if asc {
                a.partial_cmp(&b)
            } else {
                b.partial_cmp(&a)
            };
            // A NaN is equal to none, and after all numbers.
            order
                .unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
                .then(Ordering::Equal)
        });
        row.iter_mut()
            .zip(places)
            .for_each(|(to, i)| *to = i as f64);
    }
    out
}

/// Each row of `x` by the matrix that its id says: of several, or of one tensor of all.
pub(super) fn experts(x: &Array, ids: &Array, matrices: &[&Array], shape: &[usize]) -> Array {
    Array::from_fn(shape, |i| {
        let expert = ids.at(&i[..1]) as usize;
        let element = |k: usize| match matrices {
            [all] if all.shape.len() == 3 => all.at(&[expert, i[1], k]),
            each => each[expert].at(&[i[1], k]),
        };
        (0..x.shape[1]).map(|k| x.at(&[i[0], k]) * element(k)).sum()
    })
}
