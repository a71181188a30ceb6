//! Weights that are derived of others: folded, joined, turned, scaled, by whoever can compute them.
//!
//! They are one side file beside the files that they are made of, and are found by name like these. Each is
//! made whole, one at a time: what makes them need not be able to make some of the rows. The name of one says all of how it is
//! made, so a side file is what the job makes if it has the same names, of the same files, by this version.

use super::make::{Job, Wanted};
use super::{Store, StoreError, identity, name};
use crate::files::fnv::Fnv;
use crate::files::index::Found;
use crate::files::{Weights, WeightsError};
use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use trt_kernel::DType;

/// A weight that is to be derived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derivation {
    /// Its name, which tells how it is made from any other way.
    pub name: String,
    /// The dtype of its values.
    pub dtype: DType,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// Gives a weight, by its place in the list: little-endian elements, row-major.
pub type Derive<'a> =
    dyn Fn(usize) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> + Sync + 'a;

/// Weights and the file of those that are derived of them.
#[derive(Debug)]
pub struct WithDerived {
    /// All of them; their fingerprint is that of those that are not derived.
    pub weights: Weights,
    /// Where those that are derived lie; nothing if they are in memory.
    pub file: Option<PathBuf>,
}

impl Weights {
    /// These weights and some that are derived of them, which a store keeps: `derive` is asked for each, once, unless all are
    /// there. At most one is in memory at a time beside what a store in memory holds.
    ///
    /// # Errors
    /// [`StoreError::Derive`] if one cannot be made, or not in its shape; [`WeightsError::Duplicate`] for a name that
    /// is taken; what the system says where they are kept.
    pub fn with_derived(
        &self,
        wanted: &[Derivation],
        derive: &Derive<'_>,
        store: &Store,
    ) -> Result<WithDerived, StoreError> {
        let tensor = |d: &Derivation| Wanted {
            name: d.name.clone(),
            encoding: d.dtype.into(),
            shape: d.shape.clone(),
        };
        // Threads that write rows of one share it.
        let last: Mutex<Option<(usize, Vec<u8>)>> = Mutex::new(None);
        let rows = |number: usize, rows: Range<usize>, out: &mut [u8]| {
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.as_ref().is_none_or(|(at, _)| *at != number) {
                *last = None;
                let made = whole(&wanted[number], derive(number))?;
                *last = Some((number, made));
            }
            let all = last.as_ref().map_or(&[][..], |(_, bytes)| bytes);
            let start = rows.start * (out.len() / rows.len().max(1));
            out.copy_from_slice(&all[start..start + out.len()]);
            Ok(())
        };
        let mut names = Fnv::new();
        wanted.iter().for_each(|d| names.text(&d.name));
        let job = Job {
            made: format!(
                "derived {} {:016x}",
                env!("CARGO_PKG_VERSION"),
                names.value()
            ),
            source: identity(self)?,
            tensors: wanted.iter().map(tensor).collect(),
            rows: &rows,
            progress: &|_, _| {},
        };
        let side = store.hold(&job, self, &name(self, &job.made, &job.source))?;
        let path = side.file.path.clone();
        let (mut weights, ids) = self.beside(side.file, side.header.infos());
        let mut added = HashMap::new();
        for (one, id) in wanted.iter().zip(ids) {
            if weights.by_name.contains_key(&one.name) || added.contains_key(&one.name) {
                let tensor = one.name.clone();
                let (first, second) = (self.place(&tensor).unwrap_or(path.clone()), path);
                let taken = WeightsError::Duplicate {
                    tensor,
                    first,
                    second,
                };
                return Err(taken.into());
            }
            added.insert(one.name.clone(), Found::Usable(id));
        }
        weights.by_name.extend(added);
        let file = (*store != Store::Memory).then_some(path);
        Ok(WithDerived { weights, file })
    }

    /// The file that a tensor is in.
    fn place(&self, name: &str) -> Option<PathBuf> {
        let info = self.get(self.lookup(name)?)?;
        Some(self.path(info.file).to_path_buf())
    }
}

/// What was made, if it has as many bytes as it should.
fn whole(
    wanted: &Derivation,
    made: Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>>,
) -> Result<Vec<u8>, StoreError> {
    let failed = |error| StoreError::Derive {
        tensor: wanted.name.clone(),
        error,
    };
    let bytes = made.map_err(failed)?;
    let expected = super::side::bytes(wanted.dtype.into(), &wanted.shape);
    match expected == Some(bytes.len()) {
        true => Ok(bytes),
        false => {
            let (found, shape) = (bytes.len(), &wanted.shape);
            let what = format!("{found} bytes for {}{shape:?}", wanted.dtype);
            Err(failed(what.into()))
        }
    }
}
