//! What holds of ops whose values decide what is read.

use super::site::{Checked, Site, ensure, list, rank};
use crate::graph::{Node, Op};
use trt_kernel::{DType, Dim};

pub(super) fn index_select(site: &Site) -> Checked {
    site.arity(2)?;
    let (table, ids) = (site.inputs[0], site.inputs[1]);
    rank(table, 2)
        .and(rank(ids, 1))
        .and(site.same_dtype(table))?;
    let expected = [ids.shape[0].clone(), table.shape[1].clone()];
    ensure(site.node.shape == expected, || {
        let (found, expected) = (list(&site.node.shape), list(&expected));
        format!("result {found}, expected {expected}")
    })
}

/// Integers that pick along an axis; along the others they are as many as the elements, or fewer.
pub(super) fn gather(site: &Site, axis: usize) -> Checked {
    site.arity(2)?;
    let (x, ids) = (site.inputs[0], site.inputs[1]);
    rank(x, ids.shape.len())
        .and(site.axis(axis))
        .and(site.same_shape(ids))
        .and(site.same_dtype(x))?;
    ensure(!ids.dtype.is_float(), || format!("ids of {}", ids.dtype))?;
    let ranges = site.graph.ranges();
    let mut axes = x.shape.iter().zip(&ids.shape).enumerate();
    let fits = axes.all(|(a, (all, some))| a == axis || (all - some).bounds(&ranges).min >= 0);
    ensure(fits, || {
        let (from, ids) = (list(&x.shape), list(&ids.shape));
        format!("{ids} of {from} along axis {axis}")
    })
}

pub(super) fn within(site: &Site) -> Checked {
    let x = site.operand()?;
    ensure(!x.dtype.is_float(), || format!("ids of {}", x.dtype))?;
    site.same_shape(x).and(site.same_dtype(x))
}

pub(super) fn arg_sort(site: &Site) -> Checked {
    let x = site.operand()?;
    let axes = !x.shape.is_empty();
    ensure(axes && site.node.dtype == DType::U32, || {
        format!("places of {} in {}", list(&x.shape), site.node.dtype)
    })?;
    site.same_shape(x)
}

/// Every row has a matrix, so that every row of the result is computed.
pub(super) fn experts(site: &Site) -> Checked {
    let [x, ids, matrices @ ..] = &site.inputs[..] else {
        return Err(format!("{} inputs, expected 3 or more", site.inputs.len()));
    };
    rank(x, 2).and(rank(ids, 1)).and(rank(site.node, 2))?;
    let count = count(matrices);
    let [m, n] = [&site.node.shape[0], &site.node.shape[1]];
    let mine = |w: &&Node| w.shape.ends_with(&[n.clone(), x.shape[1].clone()]);
    let fits = count.is_some()
        && matrices.iter().all(mine)
        && x.shape[0] == *m
        && ids.shape[0] == *m
        && count
            .as_ref()
            .is_some_and(|count| ids.op == Op::Within(count.clone()));
    ensure(fits, || {
        let shapes: Vec<String> = site.inputs.iter().map(|i| list(&i.shape)).collect();
        format!("{} give {}", shapes.join(" x "), list(&site.node.shape))
    })?;
    let floats = matrices.iter().chain([x]).all(|i| i.dtype.is_float());
    ensure(floats && site.node.dtype.is_float(), || {
        format!("{} gives {}", x.dtype, site.node.dtype)
    })
}

/// How many matrices there are, if they are some of two axes or one of three.
fn count(matrices: &[&Node]) -> Option<Dim> {
    match matrices {
        [all] if all.shape.len() == 3 => Some(all.shape[0].clone()),
        [] => None,
        each => (each.iter().all(|w| w.shape.len() == 2)).then(|| Dim::from(each.len())),
    }
}
