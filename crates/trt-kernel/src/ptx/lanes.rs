//! Bodies as instructions: a body for some neighbouring points of its index space.
//!
//! The points differ in the last axis only and are as many as there are *lanes*. A value that
//! does not depend on the last axis is one register for all lanes; what does is one register
//! for each. Loads and stores that touch neighbouring elements are one access of up to 16 bytes.

use super::asm::{Asm, Int, R};
use super::scope::Scope;
use crate::{Body, DType};

/// Where a body runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point<'a> {
    /// The index along each axis (signed 32-bit); the last is that of the first lane, and a
    /// multiple of `lanes`.
    pub at: &'a [Int],
    /// Neighbouring points along the last axis, all inside of the space: 1, 2, 4 or 8.
    pub lanes: usize,
    /// The template's value for each lane (f32), if it has one.
    pub input: &'a [R],
}

/// Emits a body without reductions at a point; returns what it yields, for each lane (f32).
pub(super) fn run(
    asm: &mut Asm,
    scope: &Scope,
    body: &Body,
    args: &[DType],
    point: Point<'_>,
) -> Vec<R> {
    let _ = (asm, scope, body, args, point);
    Vec::new()
}
