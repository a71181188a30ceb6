//! Where an element of a result comes from, in ops that compute none.

use super::Array;
use crate::graph::Margin;

/// The index in the operand of `permute`.
pub(super) fn permuted(perm: &[usize], index: &[usize]) -> Vec<usize> {
    let mut source = vec![0; index.len()];
    perm.iter().zip(index).for_each(|(p, x)| source[*p] = *x);
    source
}

/// The index in the operand of `broadcast`, which has this shape.
pub(super) fn repeated(shape: &[usize], index: &[usize]) -> Vec<usize> {
    let axes = index.iter().zip(shape);
    axes.map(|(x, n)| if *n == 1 { 0 } else { *x }).collect()
}

/// The index in the operand of `narrow`.
pub(super) fn shifted(index: &[usize], axis: usize, start: usize) -> Vec<usize> {
    let mut source = index.to_vec();
    source[axis] += start;
    source
}

/// The index in the operand of `unfold`.
pub(super) fn in_window(index: &[usize], axis: usize, step: usize, dilation: usize) -> Vec<usize> {
    let mut source = index.to_vec();
    let within = source.remove(axis + 1);
    source[axis] = source[axis] * step + within * dilation;
    source
}

pub(super) fn cat_at(parts: &[&Array], axis: usize, index: &[usize]) -> f64 {
    let mut source = index.to_vec();
    for part in parts {
        if source[axis] < part.shape[axis] {
            return part.at(&source);
        }
        source[axis] -= part.shape[axis];
    }
    f64::NAN
}

/// An element of a padded tensor: one of `x`, or a zero.
pub(super) fn padded_at(x: &Array, margins: &[Margin], index: &[usize]) -> f64 {
    let source = |((i, m), n): ((&usize, &Margin), &usize)| {
        let at = i.checked_sub(m.before)?;
        let pitch = m.between + 1;
        (at % pitch == 0 && at / pitch < *n).then_some(at / pitch)
    };
    let each = index.iter().zip(margins).zip(&x.shape).map(source);
    each.collect::<Option<Vec<usize>>>()
        .map_or(0.0, |source| x.at(&source))
}
