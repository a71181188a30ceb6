//! How a kernel's index space walks over a tensor.
//!
//! An [`Access`] gives each axis of a tensor as a linear function of the kernel's axes. Layout
//! ops turn the access of their result into one of their operand, if it stays linear.

use crate::graph::Op;
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

/// The access of a layout op's operand (of shape `from`) that reads what `access` reads of its
/// result (of shape `to`).
pub(super) fn through(op: &Op, access: &Access, from: &[Dim], to: &[Dim]) -> Option<Access> {
    match op {
        Op::Permute(perm) => {
            let mut out = vec![Index::default(); from.len()];
            perm.iter()
                .zip(access)
                .for_each(|(p, index)| out[*p] = index.clone());
            Some(out)
        }
        Op::Broadcast => {
            let pick = |((f, t), i): ((&Dim, &Dim), &Index)| {
                if f != t { Index::default() } else { i.clone() }
            };
            Some(from.iter().zip(to).zip(access).map(pick).collect())
        }
        Op::Narrow { axis, start } => {
            let mut out = access.clone();
            out[*axis] = out[*axis].shifted(start);
            Some(out)
        }
        Op::Unfold {
            axis,
            step,
            dilation,
        } => {
            let mut out = access.clone();
            let within = out.remove(axis + 1).scaled(&Dim::from(*dilation));
            out[*axis] = out[*axis].scaled(&Dim::from(*step)).plus(&within);
            Some(out)
        }
        Op::Reshape => merge(access, from, to),
        _ => None,
    }
}

/// Each operand axis is one result axis, or several joined, or has size 1.
fn merge(access: &Access, from: &[Dim], to: &[Dim]) -> Option<Access> {
    let mut out = Vec::with_capacity(from.len());
    let mut j = 0;
    for f in from {
        if f.is(1) {
            out.push(Index::default());
            continue;
        }
        let (mut index, mut size) = (Index::default(), Dim::from(1));
        while size != *f {
            let t = to.get(j)?;
            // Joining past the operand's size would mean that a result axis is split.
            f.divide(&(&size * t))?;
            index = index.scaled(t).plus(&access[j]);
            size = &size * t;
            j += 1;
        }
        out.push(index);
    }
    to[j..].iter().all(|t| t.is(1)).then_some(out)
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
