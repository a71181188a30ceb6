//! What holds of ops that move elements and compute none.

use super::site::{Checked, Site, ensure, list, rank};
use crate::graph::{Margin, Op};
use trt_kernel::Dim;

pub(super) fn reshape(site: &Site) -> Checked {
    let x = site.operand()?;
    site.same_dtype(x)?;
    let (a, b) = (Dim::product(&x.shape), Dim::product(&site.node.shape));
    ensure(a == b, || format!("{a} elements become {b}"))
}

pub(super) fn permute(site: &Site, perm: &[usize]) -> Checked {
    let (x, node) = (site.operand()?, site.node);
    site.same_dtype(x)?;
    let mut sorted = perm.to_vec();
    sorted.sort_unstable();
    let mut moved = perm.iter().zip(&node.shape);
    let valid =
        sorted.iter().copied().eq(0..x.shape.len()) && moved.all(|(p, d)| x.shape[*p] == *d);
    ensure(valid, || {
        let (from, to) = (list(&x.shape), list(&node.shape));
        format!("axes {perm:?} of {from} give {to}")
    })
}

pub(super) fn broadcast(site: &Site) -> Checked {
    let (x, node) = (site.operand()?, site.node);
    site.same_dtype(x).and(rank(x, node.shape.len()))?;
    let mut axes = x.shape.iter().zip(&node.shape);
    ensure(axes.all(|(a, b)| a == b || a.is(1)), || {
        format!("{} to {}", list(&x.shape), list(&node.shape))
    })
}

pub(super) fn narrow(site: &Site, axis: usize) -> Checked {
    let (x, node) = (site.operand()?, site.node);
    site.axis(axis)
        .and(site.same_dtype(x))
        .and(rank(x, node.shape.len()))?;
    let others = (0..node.shape.len()).all(|i| i == axis || x.shape[i] == node.shape[i]);
    ensure(others, || part(site))
}

pub(super) fn pad(site: &Site, margins: &[Margin]) -> Checked {
    let x = site.operand()?;
    site.same_dtype(x)?;
    let axes = margins.iter().zip(&x.shape);
    let padded: Vec<Dim> = axes.map(|(m, d)| m.around(d)).collect();
    let each = margins.len() == x.shape.len() && padded == site.node.shape;
    ensure(each, || part(site))
}

fn part(site: &Site) -> String {
    let (from, to) = (list(&site.inputs[0].shape), list(&site.node.shape));
    format!("{to} from {from}")
}

/// The last element of the last window is inside of the axis in every call.
pub(super) fn unfold(site: &Site, axis: usize, step: usize, dilation: usize) -> Checked {
    let (x, node) = (site.operand()?, site.node);
    site.axis(axis + 1).and(site.same_dtype(x))?;
    let mut others = node.shape.clone();
    let window = others.remove(axis + 1);
    let one = Dim::from(1);
    let span = |n: &Dim, by: usize| &(n - &one) * &Dim::from(by);
    let reach = &(&span(&others[axis], step) + &span(&window, dilation)) + &one;
    let fits = others.len() == x.shape.len()
        && (0..others.len()).all(|i| i == axis || others[i] == x.shape[i])
        && step > 0
        && dilation > 0
        && site
            .graph
            .integers()
            .never_negative(&(&x.shape[axis] - &reach));
    ensure(fits, || {
        format!(
            "{} from {}: windows along axis {axis} reach {reach} elements",
            list(&node.shape),
            list(&x.shape)
        )
    })
}

/// Parts that are joined along an axis.
pub(super) fn cat(site: &Site, axis: usize) -> Checked {
    let node = site.node;
    site.axis(axis)?;
    let mut total = Dim::from(0);
    for i in &site.inputs {
        rank(i, node.shape.len()).and(site.same_dtype(i))?;
        let others = (0..node.shape.len()).all(|x| x == axis || i.shape[x] == node.shape[x]);
        ensure(others, || {
            format!("part {} of {}", list(&i.shape), list(&node.shape))
        })?;
        total = &total + &i.shape[axis];
    }
    ensure(total == node.shape[axis], || {
        format!("parts sum to {total}, result {}", list(&node.shape))
    })
}

/// The same, of a state and what it grows by.
pub(super) fn append(site: &Site, axis: usize) -> Checked {
    cat(site, axis)?;
    let first = site.inputs.first();
    let state = first.is_some_and(|i| matches!(i.op, Op::State(_)));
    ensure(site.inputs.len() == 2 && state, || {
        "appends to no state".into()
    })
}
