//! How large tensors may be while a model is traced.
//!
//! Nothing is computed then, so a size costs nothing by itself, and model code (or a config file
//! that it obeys) can ask for any. Every tensor is held to [`LARGEST`] elements when it is made,
//! counting axes of size 0 as 1: so all products of its sizes, and those with an element's bytes,
//! fit 64 bits from here on. What is stored element by element is held to [`CONSTANT`] bytes.

use candle_core::shape::ShapeWithOneHole;
use candle_core::{Result, Shape, bail};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The most elements of a tensor.
pub const LARGEST: usize = 1 << 48;
/// The most bytes of a constant that is stored element by element.
pub const CONSTANT: usize = 1 << 30;
/// The most elements of all tensors that are computed to read elements while a model is traced.
pub const COMPUTED: usize = 1 << 26;
/// The most bytes of weights that elements which are read while a model is traced may depend on.
pub const READ: usize = 1 << 20;
/// The most parts that a tensor is cut into or made of by one call.
pub const PARTS: usize = 1 << 16;

/// The number of elements of a shape.
pub(super) fn checked(dims: &[usize]) -> Result<usize> {
    let all = dims.iter().try_fold(1usize, |n, d| {
        n.checked_mul((*d).max(1)).filter(|n| *n <= LARGEST)
    });
    match all {
        Some(_) => Ok(dims.iter().product()),
        None => bail!("a tensor of shape {dims:?} is too large: more than {LARGEST} elements"),
    }
}

/// The shape that is asked for, of so many elements.
pub(super) fn shape<S: ShapeWithOneHole>(s: S, elements: usize) -> Result<Shape> {
    // candle multiplies the sizes without looking, which panics where overflow is checked.
    let asked = catch_unwind(AssertUnwindSafe(|| s.into_shape(elements)));
    let Ok(shape) = asked else {
        bail!("a shape for {elements} elements is asked for whose sizes overflow");
    };
    let shape = shape?;
    match checked(shape.dims())? == elements {
        true => Ok(shape),
        false => bail!("{elements} elements do not have shape {shape:?}"),
    }
}

/// Room for a constant of so many elements, or an error.
pub(super) fn room<T>(elements: usize, what: &str) -> Result<Vec<T>> {
    let bytes = elements.checked_mul(size_of::<T>().max(1));
    if bytes.is_none_or(|b| b > CONSTANT) {
        bail!("{what}: a constant of {elements} elements is too large: more than {CONSTANT} bytes");
    }
    let mut room = Vec::new();
    match room.try_reserve_exact(elements) {
        Ok(()) => Ok(room),
        Err(e) => bail!("{what}: no memory for a constant of {elements} elements: {e}"),
    }
}

/// Whether a tensor may be cut into, or made of, so many parts.
pub(super) fn parts(n: usize, what: &str) -> Result<usize> {
    match n <= PARTS {
        true => Ok(n),
        false => bail!("{what}: {n} parts are too many: more than {PARTS}"),
    }
}
