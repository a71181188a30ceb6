//! How a kernel's index space walks over a tensor.
//!
//! An [`Access`] gives each axis of a tensor as a linear function of the kernel's axes. Layout
//! ops turn the access of their result into one of their operand, if it stays linear. A reshape that splits what
//! one axis of the kernel walks over is linear once that axis is two; so a refusal names it ([`Split`]).

use crate::graph::Op;
use std::cmp::Ordering;
use trt_kernel::{Dim, View};

/// `offset + Σ stride * index[axis]`: the index along one axis of a tensor.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Index {
    pub offset: Dim,
    pub terms: Vec<(usize, Dim)>,
}

impl Index {
    pub fn axis(axis: usize) -> Index {
        Index {
            offset: Dim::from(0),
            terms: vec![(axis, Dim::from(1))],
        }
    }

    /// The same index at every point.
    pub fn at(index: usize) -> Index {
        Index {
            offset: Dim::from(index),
            terms: vec![],
        }
    }

    fn shifted(&self, by: &Dim) -> Index {
        Index {
            offset: &self.offset + by,
            terms: self.terms.clone(),
        }
    }

    fn scaled(&self, by: &Dim) -> Index {
        Index {
            offset: &self.offset * by,
            terms: self.terms.iter().map(|(a, s)| (*a, s * by)).collect(),
        }
    }

    /// The quotient and the remainder by a size.
    fn split(&self, by: &Dim, space: &[Dim]) -> Result<(Index, Index), Bent> {
        let (mut quotient, mut rest) = (Index::default(), Index::default());
        quotient.offset = self.offset.divide(by).ok_or(NEVER)?;
        // One more than the largest remainder.
        let mut reach = Dim::from(1);
        for (axis, stride) in &self.terms {
            if let Some(stride) = stride.divide(by) {
                quotient.terms.push((*axis, stride));
                continue;
            }
            let (axis, inner) = (*axis, by.divide(stride).ok_or(NEVER)?);
            if inner.divide(&space[axis]).is_none() {
                let halves = space[axis].divide(&inner).is_some();
                return Err(halves.then_some(Split { axis, inner }));
            }
            reach = &reach + &(stride * &(&space[axis] - &Dim::from(1)));
            rest.terms.push((axis, stride.clone()));
        }
        let below = (by - &reach).constant().is_some_and(|left| left >= 0);
        below.then_some((quotient, rest)).ok_or(NEVER)
    }

    /// The same index where an axis of the kernel became two.
    pub fn after(&self, split: &Split) -> Index {
        let two = |(axis, stride): &(usize, Dim)| match axis.cmp(&split.axis) {
            Ordering::Less => vec![(*axis, stride.clone())],
            Ordering::Equal => vec![(*axis, stride * &split.inner), (axis + 1, stride.clone())],
            Ordering::Greater => vec![(axis + 1, stride.clone())],
        };
        Index {
            offset: self.offset.clone(),
            terms: self.terms.iter().flat_map(two).collect(),
        }
    }

    fn plus(&self, other: &Index) -> Index {
        let mut terms = self.terms.clone();
        terms.extend(other.terms.iter().cloned());
        Index {
            offset: &self.offset + &other.offset,
            terms,
        }
    }
}

/// One [`Index`] for each axis of a tensor.
pub(super) type Access = Vec<Index>;

/// An axis of a kernel, and the size of the inner one if it becomes two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Split {
    pub axis: usize,
    pub inner: Dim,
}

/// No index is linear; but one may be after a split.
pub(super) type Bent = Option<Split>;

/// No index is linear, whatever is split.
const NEVER: Bent = None;

/// A layout op between an operand and its result, and the sizes of the kernel's axes.
pub(super) struct Layout<'a> {
    pub op: &'a Op,
    pub from: &'a [Dim],
    pub to: &'a [Dim],
    pub space: &'a [Dim],
}

/// The access of a layout op's operand that reads what `access` reads of its result.
pub(super) fn through(layout: &Layout<'_>, access: &Access) -> Result<Access, Bent> {
    let (from, to) = (layout.from, layout.to);
    match layout.op {
        Op::Permute(perm) => {
            let mut out = vec![Index::default(); from.len()];
            perm.iter()
                .zip(access)
                .for_each(|(p, index)| out[*p] = index.clone());
            Ok(out)
        }
        Op::Broadcast => {
            let pick = |((f, t), i): ((&Dim, &Dim), &Index)| {
                if f != t { Index::default() } else { i.clone() }
            };
            Ok(from.iter().zip(to).zip(access).map(pick).collect())
        }
        Op::Narrow { axis, start } => {
            let mut out = access.clone();
            out[*axis] = out[*axis].shifted(start);
            Ok(out)
        }
        Op::Unfold {
            axis,
            step,
            dilation,
        } => {
            let mut out = access.clone();
            let within = out.remove(axis + 1).scaled(&Dim::from(*dilation));
            out[*axis] = out[*axis].scaled(&Dim::from(*step)).plus(&within);
            Ok(out)
        }
        Op::Reshape => reshaped(layout, access),
        _ => Err(NEVER),
    }
}

/// Axes are taken in runs of one size on both sides, as short as can be. The result's axes of a run are joined to
/// one index, which is split into the operand's.
fn reshaped(layout: &Layout<'_>, access: &Access) -> Result<Access, Bent> {
    let mut out = vec![Index::default(); layout.from.len()];
    let wide =
        |dims: &[Dim]| -> Vec<usize> { (0..dims.len()).filter(|i| !dims[*i].is(1)).collect() };
    let (from, to) = (wide(layout.from), wide(layout.to));
    let (mut i, mut j) = (0, 0);
    while i < from.len() || j < to.len() {
        let (start, mut index) = (i, Index::default());
        let (mut size, mut joined) = (Dim::from(1), Dim::from(1));
        while i == start || size != joined {
            // The side that is the smaller one takes its next axis.
            match size.divide(&joined).is_some() && i > start {
                true => {
                    let t = &layout.to[*to.get(j).ok_or(NEVER)?];
                    index = index.scaled(t).plus(&access[to[j]]);
                    joined = &joined * t;
                    j += 1;
                }
                false => {
                    joined.divide(&size).ok_or(NEVER)?;
                    size = &size * &layout.from[*from.get(i).ok_or(NEVER)?];
                    i += 1;
                }
            }
        }
        for axis in from[start + 1..i].iter().rev() {
            (index, out[*axis]) = index.split(&layout.from[*axis], layout.space)?;
        }
        out[from[start]] = index;
    }
    Ok(out)
}

/// The view of memory with these strides that an access reads.
pub(super) fn view(offset: &Dim, strides: &[Dim], access: &Access, axes: usize) -> View {
    let mut view = View {
        offset: offset.clone(),
        strides: vec![Dim::from(0); axes],
    };
    for (stride, index) in strides.iter().zip(access) {
        view.offset = &view.offset + &(stride * &index.offset);
        for (axis, s) in &index.terms {
            view.strides[*axis] = &view.strides[*axis] + &(stride * s);
        }
    }
    view
}

#[cfg(test)]
mod tests {
    use super::*;
    use trt_kernel::Var;

    fn dims(v: &[i64]) -> Vec<Dim> {
        v.iter().map(|d| Dim::from(*d)).collect()
    }

    fn reshape(from: &[Dim], to: &[Dim], space: &[Dim], access: &Access) -> Result<Access, Bent> {
        let layout = Layout {
            op: &Op::Reshape,
            from,
            to,
            space,
        };
        through(&layout, access)
    }

    fn plain(axes: usize) -> Access {
        (0..axes).map(Index::axis).collect()
    }

    #[test]
    fn joined_axes_are_one_index() {
        let (from, to) = (dims(&[6, 1, 5]), dims(&[2, 3, 5]));
        let found = reshape(&from, &to, &to, &plain(3)).unwrap();
        let joined = Index {
            offset: Dim::from(0),
            terms: vec![(0, Dim::from(3)), (1, Dim::from(1))],
        };
        assert_eq!(found, [joined, Index::default(), Index::axis(2)]);
    }

    #[test]
    fn an_axis_that_is_several_of_the_operand_is_named_and_split() {
        let n = Dim::var(Var(0));
        let places = &n * &n;
        let from = [Dim::from(2), Dim::from(4), places];
        let to = [Dim::from(8), n.clone(), n.clone()];
        let split = Split {
            axis: 0,
            inner: Dim::from(4),
        };
        let refused = reshape(&from, &to, &to, &plain(3)).unwrap_err();
        assert_eq!(refused, Some(split.clone()));
        let space = [Dim::from(2), Dim::from(4), n.clone(), n.clone()];
        let access: Access = plain(3).iter().map(|i| i.after(&split)).collect();
        let found = reshape(&from, &to, &space, &access).unwrap();
        let joined = Index {
            offset: Dim::from(0),
            terms: vec![(2, n), (3, Dim::from(1))],
        };
        assert_eq!(found, [Index::axis(0), Index::axis(1), joined]);
    }

    #[test]
    fn no_split_helps_where_sizes_do_not_divide() {
        let (from, to) = (dims(&[4, 9]), dims(&[6, 6]));
        assert_eq!(reshape(&from, &to, &to, &plain(2)), Err(None));
        // Neighbours that cross the border of what is split.
        let (from, to) = (dims(&[2, 4]), dims(&[8]));
        let space = dims(&[7]);
        let shifted = vec![Index {
            offset: Dim::from(1),
            terms: vec![(0, Dim::from(1))],
        }];
        assert_eq!(reshape(&from, &to, &space, &shifted), Err(None));
    }
}
