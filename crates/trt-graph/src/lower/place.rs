//! Where a stored tensor is, and what layout ops make of that.

use crate::graph::Op;
use crate::program::Source;
use trt_kernel::{DType, Dim};

/// A strided tensor in a buffer or weight; one stride for each of its axes, in elements.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Place {
    pub source: Source,
    pub dtype: DType,
    pub offset: Dim,
    pub strides: Vec<Dim>,
}

/// Row-major strides.
pub(super) fn row_major(shape: &[Dim]) -> Vec<Dim> {
    trt_kernel::View::contiguous(shape).strides
}

impl Place {
    pub fn contiguous(source: Source, dtype: DType, shape: &[Dim]) -> Place {
        Place {
            source,
            dtype,
            offset: Dim::from(0),
            strides: row_major(shape),
        }
    }

    /// The place of a layout op's result, if strides can express it.
    pub fn viewed(&self, op: &Op, from: &[Dim], to: &[Dim]) -> Option<Place> {
        let mut out = self.clone();
        match op {
            Op::Permute(perm) => {
                out.strides = perm.iter().map(|p| self.strides[*p].clone()).collect()
            }
            Op::Broadcast => {
                for ((s, f), t) in out.strides.iter_mut().zip(from).zip(to) {
                    if f != t {
                        *s = Dim::from(0);
                    }
                }
            }
            Op::Narrow { axis, start } => {
                out.offset = &self.offset + &(start * &self.strides[*axis])
            }
            Op::Unfold {
                axis,
                step,
                dilation,
            } => {
                let stride = self.strides[*axis].clone();
                out.strides[*axis] = &stride * &Dim::from(*step);
                out.strides
                    .insert(axis + 1, &stride * &Dim::from(*dilation));
            }
            Op::Reshape => out.strides = reshape(&self.strides, from, to)?,
            _ => return None,
        }
        Some(out)
    }

    /// Whether both hold the elements of a tensor of this shape at the same addresses.
    pub fn is_same(&self, other: &Place, shape: &[Dim]) -> bool {
        let mut strides = shape.iter().zip(self.strides.iter().zip(&other.strides));
        self.source == other.source
            && self.offset == other.offset
            && strides.all(|(size, (a, b))| a == b || size.is(1))
    }

    /// The place of a part that starts at `start` along an axis.
    pub fn part(&self, axis: usize, start: &Dim) -> Place {
        let mut out = self.clone();
        out.offset = &self.offset + &(start * &self.strides[axis]);
        out
    }
}

/// Strides under another shape: runs of axes that are contiguous among themselves are joined and
/// split again.
fn reshape(strides: &[Dim], from: &[Dim], to: &[Dim]) -> Option<Vec<Dim>> {
    // Blocks of the operand: (size, stride of the innermost element), size-1 axes dropped.
    let mut blocks: Vec<(Dim, Dim)> = Vec::new();
    for (f, s) in from.iter().zip(strides).filter(|(f, _)| !f.is(1)) {
        match blocks.last_mut() {
            Some((size, inner)) if *inner == f * s => (*size, *inner) = (&*size * f, s.clone()),
            _ => blocks.push((f.clone(), s.clone())),
        }
    }
    // Result axes are filled from the innermost block outwards.
    let mut out = vec![Dim::from(0); to.len()];
    let mut used = Dim::from(1);
    let mut block = blocks.pop();
    for (axis, t) in to.iter().enumerate().rev().filter(|(_, t)| !t.is(1)) {
        if block.as_ref().is_some_and(|(size, _)| *size == used) {
            (block, used) = (blocks.pop(), Dim::from(1));
        }
        let (size, inner) = block.as_ref()?;
        size.divide(&(&used * t))?;
        out[axis] = inner * &used;
        used = &used * t;
    }
    let done = blocks.is_empty() && block.is_none_or(|(size, _)| size == used);
    done.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dims(v: &[i64]) -> Vec<Dim> {
        v.iter().map(|d| Dim::from(*d)).collect()
    }

    #[test]
    fn contiguous_axes_split_and_join() {
        let s = reshape(&dims(&[12, 4, 1]), &dims(&[2, 3, 4]), &dims(&[6, 2, 2])).unwrap();
        assert_eq!(s, dims(&[4, 2, 1]));
    }

    #[test]
    fn a_permuted_axis_can_still_be_split() {
        // [s, h*d] permuted is not joined, but [h*d] of stride 1 splits.
        let s = reshape(&dims(&[1, 6]), &dims(&[6, 5]), &dims(&[2, 3, 5])).unwrap();
        assert_eq!(s, dims(&[3, 1, 6]));
    }

    #[test]
    fn joining_what_is_not_contiguous_is_refused() {
        assert_eq!(reshape(&dims(&[1, 6]), &dims(&[6, 5]), &dims(&[30])), None);
    }

    #[test]
    fn size_one_axes_come_and_go() {
        let s = reshape(&dims(&[0, 4, 1]), &dims(&[1, 3, 4]), &dims(&[3, 1, 4])).unwrap();
        assert_eq!(s, dims(&[4, 0, 1]));
    }
}
