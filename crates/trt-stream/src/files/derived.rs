//! Weights with some of their tensors in another file than they came in.

use super::index::Weights;
use super::tensor::{FileId, TensorId, TensorInfo, WeightFile};
use std::sync::Arc;

impl Weights {
    /// These weights with tensors of one more file beside them, which are found by id only and are no part of the
    /// fingerprint: they are made of the others.
    pub(super) fn beside(
        &self,
        file: WeightFile,
        tensors: Vec<TensorInfo>,
    ) -> (Weights, Vec<TensorId>) {
        let mut all = self.clone();
        all.beside = Some(self.fingerprint());
        let id = FileId(all.files.len() as u32);
        all.files.push(file);
        let first = all.tensors.len() as u32;
        let ids = (first..).map(TensorId).take(tensors.len()).collect();
        all.tensors.extend(tensors.into_iter().map(|t| t.of(id)));
        (all, ids)
    }

    /// These weights with tensors of one more file in the place of some of theirs.
    pub(super) fn replaced(
        &self,
        file: WeightFile,
        tensors: Vec<TensorInfo>,
        instead_of: &[TensorId],
    ) -> Weights {
        let mut all = self.clone();
        all.beside = None;
        let packing = self.packing.as_ref();
        all.packing = packing.map(|p| Arc::new(p.without(instead_of)));
        let id = FileId(all.files.len() as u32);
        all.files.push(file);
        for (tensor, place) in tensors.into_iter().zip(instead_of) {
            if let Some(old) = all.tensors.get_mut(place.0 as usize) {
                *old = tensor.of(id);
            }
        }
        all
    }
}
