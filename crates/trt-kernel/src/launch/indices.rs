//! Sizes that a kernel counts with 32 bits: what it computes with them is right only while they are
//! small enough, and nothing in it looks. So whoever launches asks first.

use crate::{Dim, Env};

/// The largest size that the text may count with 32 bits: what lies between it and 2^31 is more
/// than a block goes beyond the end of an axis.
pub const LARGEST_INDEX: i64 = (1 << 31) - (1 << 13);

/// A size of a call that 32-bit indices do not cover.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{dim} is {value} in this call, and indices of 32 bits go to {LARGEST_INDEX}")]
pub struct TooLarge {
    /// The size.
    pub dim: Dim,
    /// Its value, or the largest of 64 bits where that is not enough.
    pub value: i64,
}

/// Whether all these sizes are covered in a call.
///
/// # Errors
///
/// [`TooLarge`] with the first that is not.
pub fn within(limits: &[Dim], env: &Env) -> Result<(), TooLarge> {
    let value = |dim: &Dim| dim.checked_eval(env).unwrap_or(i64::MAX);
    let covered = |dim: &&Dim| (-LARGEST_INDEX..=LARGEST_INDEX).contains(&value(dim));
    match limits.iter().find(|dim| !covered(dim)) {
        None => Ok(()),
        Some(dim) => Err(TooLarge {
            dim: dim.clone(),
            value: value(dim),
        }),
    }
}
