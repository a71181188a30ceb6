//! Products of which integers say what is computed: rows meet the weight of the expert that is theirs.

use crate::{Matmul, Operand};
use serde::{Deserialize, Serialize};

/// A product at the rows whose integer is the number of the batch: `sum[batch, m, n]` and what follows of
/// it, where `ids[m] = first + batch`. Nothing else is computed, read of `b`, or stored.
///
/// Each batch has a weight of its own, an expert; the left operand and what the epilogue stores are
/// usually the same in all of them, so that each row of the result comes from one expert. Integers that
/// are no expert's choose none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Routed {
    /// What is computed. Its left operand is in memory.
    pub product: Matmul,
    /// Integers over axis `[m]`.
    pub ids: Operand,
    /// The number of the first batch.
    pub first: usize,
}
