//! Weights that also lie packed: made once, unit by unit.

mod order;
mod sample;
mod write;

use super::cut::Cut;
use super::hold::{Making, Side};
use super::side::{Entry, Header};
use super::units::STEP;
use super::{Store, StoreError, hold, identity, name, whole};
use crate::files::packed::{PackedRows, Packing};
use crate::files::{Copies, FileId, TensorId, Weights};
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use trt_kernel::{DType, PackedType};
use trt_pack::Code;

/// What is done. The number rises when packing means other bytes, or other tensors.
const MADE: &str = "packed 1";

/// How weights are packed.
pub struct PackOptions<'a> {
    /// Where what is packed is kept.
    pub store: Store,
    /// Told how many bytes of weights are done of how many; not called if all are there.
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
}

impl PackOptions<'_> {
    /// Kept in a store, without a word.
    pub fn new(store: Store) -> PackOptions<'static> {
        PackOptions {
            store,
            progress: &|_, _| {},
        }
    }
}

impl fmt::Debug for PackOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackOptions")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

/// A tensor that may be packed.
#[derive(Clone, Debug)]
struct Candidate {
    id: TensorId,
    cut: Cut,
}

/// The packing of some weights.
struct Job<'a> {
    weights: &'a Weights,
    source: String,
    /// In the order in which they are to lie.
    candidates: Vec<Candidate>,
    progress: &'a (dyn Fn(u64, u64) + Sync),
}

impl Weights {
    /// These weights, of which those that it pays for also lie packed in a side file, without the loss of a bit: see
    /// [`Weights::packed`]. Matrices of bf16 and f16 of 64 KiB and more whose rows are whole pieces of 8 values are packed, where that takes
    /// less than 95 % of their bytes; of several matrices in one tensor (experts) only where each is whole units.
    ///
    /// Nothing else about them changes: names, bytes and the fingerprint are those of these weights. Weights that are made of
    /// others in another way, such as [`Weights::quantised`], are to be made before.
    ///
    /// # Errors
    /// What the system says where they are kept.
    pub fn pack(self: &Arc<Self>, options: &PackOptions<'_>) -> Result<Arc<Weights>, StoreError> {
        if self.packing.is_some() {
            return Ok(self.clone());
        }
        let job = Job::new(self, options.progress)?;
        if job.candidates.is_empty() {
            return Ok(self.clone());
        }
        let which = format!("{:016x}", self.fingerprint());
        let side = options.store.hold(&job, self, &name(self, MADE, &which))?;
        let in_memory = options.store == Store::Memory;
        Ok(Arc::new(job.packed(side, in_memory)?))
    }

    /// The same with a side file that was made before, wherever it lies. Nothing is made; weights that know packed rows already stay as they
    /// are.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] for a file that is not what was packed of these weights; what the system says of it.
    pub fn with_packed(self: &Arc<Self>, path: &Path) -> Result<Arc<Weights>, StoreError> {
        if self.packing.is_some() {
            return Ok(self.clone());
        }
        let job = Job::new(self, &|_, _| {})?;
        let side = hold::at(path, &job)?;
        Ok(Arc::new(job.packed(side, false)?))
    }
}

impl Making for Job<'_> {
    fn makes(&self, header: &Header) -> bool {
        header.made == MADE && header.source == self.source && self.of(header).is_some()
    }

    fn write(&self, path: &Path, file: &File) -> Result<(), StoreError> {
        write::write(self, path, file)
    }
}

impl<'a> Job<'a> {
    fn new(
        weights: &'a Weights,
        progress: &'a (dyn Fn(u64, u64) + Sync),
    ) -> Result<Job<'a>, StoreError> {
        let candidate = |id: TensorId| {
            let info = weights.info(id);
            let cut = Cut::of(info.encoding, &info.shape)?;
            Some(Candidate { id, cut })
        };
        let mut candidates: Vec<Candidate> = weights.ids().filter_map(candidate).collect();
        candidates.sort_by_cached_key(|c| order::key(&weights.info(c.id).name));
        Ok(Job {
            weights,
            source: identity(weights)?,
            candidates,
            progress,
        })
    }
}

impl Job<'_> {
    /// The candidate that each tensor of a side file is, if each is one; which of them it pays for is known only when they were read.
    fn of(&self, header: &Header) -> Option<Vec<&Candidate>> {
        let mut candidates = self.candidates.iter();
        let mut of = |entry: &Entry| {
            let same = |c: &&Candidate| {
                let info = self.weights.info(c.id);
                info.name == entry.name
                    && info.encoding == entry.encoding
                    && info.shape == entry.shape
            };
            candidates.find(same).filter(|_| entry.code.is_some())
        };
        header.tensors.iter().map(&mut of).collect()
    }

    /// The weights, knowing what a side file of this job holds.
    fn packed(&self, side: Side, in_memory: bool) -> Result<Weights, StoreError> {
        let path = side.file.path.clone();
        let damaged = |what: String| StoreError::Damaged {
            path: path.clone(),
            what,
        };
        let other = || damaged("it has other tensors".into());
        let of = self.of(&side.header).ok_or_else(other)?;
        let mut codes = Copies::new()?;
        let mut found = Vec::new();
        for (entry, of) in side.header.tensors.iter().zip(of) {
            let places = whole::units(entry, &of.cut, &side.file.map).map_err(damaged)?;
            let code = entry.code.as_deref().unwrap_or_default();
            let (code, _) = Code::from_bytes(code).map_err(|e| damaged(e.to_string()))?;
            let argument = argument(&code, &places.offsets);
            let name = format!("{}.code", entry.name);
            codes.add(&name, DType::U8, &[argument.len()], &argument)?;
            found.push((of, entry.start, places.offsets, code.arity()));
        }
        let codes = codes.finish()?;
        let Some(code_file) = codes.files.last().cloned() else {
            return Err(other());
        };
        let (all, _) = self.weights.beside(side.file, Vec::new());
        let (mut all, ids) = all.beside(code_file, codes.tensors);
        let files = [2, 1].map(|back| FileId((all.files.len() - back) as u32));
        let rows = found.into_iter().zip(&ids);
        let rows = rows.map(|((of, start, offsets, arity), code)| {
            let packed = PackedRows {
                encoding: PackedType::of(of.cut.kind, arity),
                rows: of.cut.rows,
                columns: of.cut.geometry.columns(),
                file: files[0],
                start,
                unit_rows: of.cut.unit_rows,
                offsets: offsets.into(),
                code: *code,
            };
            (of.id, packed)
        });
        let rows = rows.collect();
        let first = ids.first().map_or(0, |id| id.0);
        all.packing = Some(Arc::new(Packing {
            rows,
            codes: first..first + ids.len() as u32,
            files,
            path: (!in_memory).then_some(path),
        }));
        Ok(all)
    }
}

/// What kernels read beside packed rows: the code as a table, then where each unit begins and the last ends, in 16 bytes.
fn argument(code: &Code, offsets: &[usize]) -> Vec<u8> {
    let places: Vec<u32> = offsets.iter().map(|at| (at / STEP) as u32).collect();
    trt_pack::argument(code, &places)
}
