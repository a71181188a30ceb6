//! What holds of nodes without operands.

use super::site::{Checked, Site, ensure, list, rank};
use crate::graph::Literal;
use trt_kernel::{DType, Dim, Encoding};

pub(super) fn input(site: &Site, index: u32) -> Checked {
    let declared = site.graph.inputs.get(index as usize);
    let declared = declared.ok_or_else(|| format!("input {index} is not declared"))?;
    as_declared(site, &declared.shape, declared.dtype)
}

pub(super) fn state(site: &Site, index: u32) -> Checked {
    let declared = site.graph.states.get(index as usize);
    let declared = declared.ok_or_else(|| format!("state {index} is not declared"))?;
    as_declared(site, &declared.shape, declared.dtype)
}

fn as_declared(site: &Site, shape: &[Dim], dtype: DType) -> Checked {
    let node = site.node;
    ensure(shape == node.shape && dtype == node.dtype, || {
        format!("declared as {dtype}{}", list(shape))
    })
}

pub(super) fn weight(site: &Site, encoding: Encoding) -> Checked {
    let node = site.node;
    let mut shape = node.shape.iter();
    ensure(shape.all(|d| d.constant_size().is_some()), || {
        format!("shape {} is not constant", list(&node.shape))
    })?;
    ensure(encoding.dtype() == node.dtype, || {
        format!("{encoding} has values of {}", encoding.dtype())
    })?;
    let columns = node.shape.last().and_then(Dim::constant_size);
    ensure(encoding.row_bytes(columns.unwrap_or(1)).is_some(), || {
        format!(
            "rows of {} are no whole blocks of {encoding}",
            list(&node.shape)
        )
    })
}

pub(super) fn constant(site: &Site, literal: &Literal) -> Checked {
    let node = site.node;
    let elements = Dim::product(&node.shape).constant_size();
    let bytes = elements.map(|n| n * node.dtype.size());
    let found = literal.bytes.len();
    ensure(bytes == Some(found), || {
        format!("{found} bytes for {}{}", node.dtype, list(&node.shape))
    })
}

/// A generated tensor of so many axes, whose dtype fits.
pub(super) fn generated(site: &Site, axes: usize, fits: impl Fn(DType) -> bool) -> Checked {
    rank(site.node, axes)?;
    let dtype = site.node.dtype;
    ensure(fits(dtype), || format!("dtype {dtype}"))
}
