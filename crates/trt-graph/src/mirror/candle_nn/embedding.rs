//! Embedding: rows of a table picked by ids.

use super::var_builder::VarBuilder;
use crate::mirror::tensor::{Module, Tensor};
use candle_core::Result;

/// A table of `vocab` rows of `hidden_size` elements.
#[derive(Clone, Debug)]
pub struct Embedding {
    embeddings: Tensor,
    hidden_size: usize,
}

impl Embedding {
    /// From a table of shape `(vocab, hidden_size)`.
    pub fn new(embeddings: Tensor, hidden_size: usize) -> Self {
        Self {
            embeddings,
            hidden_size,
        }
    }

    /// The table.
    pub fn embeddings(&self) -> &Tensor {
        &self.embeddings
    }

    /// Elements of a row.
    pub fn hidden_size(&self) -> usize {
        self.hidden_size
    }
}

impl Module for Embedding {
    #[track_caller]
    fn forward(&self, indexes: &Tensor) -> Result<Tensor> {
        let mut dims = indexes.dims().to_vec();
        dims.push(self.hidden_size);
        self.embeddings
            .index_select(&indexes.flatten_all()?, 0)?
            .reshape(dims)
    }
}

/// An embedding whose table is the tensor `weight`.
///
/// # Errors
///
/// If a weight is missing or has another shape.
#[track_caller]
pub fn embedding(in_size: usize, out_size: usize, vb: VarBuilder) -> Result<Embedding> {
    Ok(Embedding::new(
        vb.get((in_size, out_size), "weight")?,
        out_size,
    ))
}
