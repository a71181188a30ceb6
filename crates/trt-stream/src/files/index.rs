//! The index of all weights: what is where, without reading any of it.
//!
//! A [`TensorId`] is a position in file order (files in the order opened, tensors by offset),
//! so ids are stable for the same files. Tensors that cannot be had, of dtypes that kernels cannot
//! use or promised by an index and not there, are kept aside: they are an error only when asked
//! for.

use super::WeightsError;
use super::file::File;
use super::fnv::Fnv;
use super::gguf::{Metadata, Model, Names};
use super::header::{Entry, Other, Stored};
use super::near;
use super::packed::Packing;
use super::shards::ShardIndex;
use super::tensor::{FileId, TensorId, TensorInfo, WeightFile};
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use trt_kernel::Encoding;

/// The weights of a model, mapped and not read. A clone shares the mappings.
#[derive(Clone)]
pub struct Weights {
    pub(super) files: Vec<WeightFile>,
    pub(super) tensors: Vec<TensorInfo>,
    pub(super) by_name: HashMap<String, Found>,
    /// Tensors stored in a way that kernels cannot read.
    unsupported: Vec<Unsupported>,
    /// The index that says which tensors there are, if one does.
    index: Option<ShardIndex>,
    /// What a GGUF file says of the model.
    metadata: Option<Metadata>,
    /// What Hugging Face calls the tensors of a GGUF model, if its architecture is known.
    pub(super) names: Option<Names>,
    /// The fingerprint of the weights that some of these were made of.
    pub(super) beside: Option<u64>,
    /// What of these weights also lies packed.
    pub(super) packing: Option<Arc<Packing>>,
}

/// How a tensor is stored that kernels cannot read, and where.
#[derive(Clone, Debug)]
struct Unsupported {
    dtype: Other,
    file: FileId,
}

/// What a name leads to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found {
    Usable(TensorId),
    /// By its place among [`Weights::unsupported`].
    Unsupported(u32),
    /// In this file, but not named by the index.
    Unnamed(FileId),
    /// Not in the file that the index names.
    Promised(FileId),
    /// In a shard of the index that does not exist.
    Absent(u32),
}

impl Weights {
    /// All tensors of these files.
    pub(crate) fn build(opened: Vec<File>) -> Result<Weights, WeightsError> {
        let mut weights = Weights {
            files: Vec::with_capacity(opened.len()),
            tensors: Vec::new(),
            by_name: HashMap::new(),
            unsupported: Vec::new(),
            index: None,
            metadata: None,
            names: None,
            beside: None,
            packing: None,
        };
        // Reserved at once: growing would hold twice as much at times.
        let entries = || opened.iter().flat_map(|f| &f.tensors);
        let (all, read) = (entries().count(), |e: &&Entry| {
            matches!(e.stored, Stored::As(_))
        });
        let usable = entries().filter(read).count();
        weights.tensors.reserve_exact(usable);
        weights.unsupported.reserve_exact(all - usable);
        weights.by_name.reserve(all);
        for file in opened {
            let (id, tensors) = weights.file(file);
            for entry in tensors {
                weights.add(id, entry)?;
            }
        }
        Ok(weights)
    }

    /// All tensors of a GGUF model.
    pub(crate) fn build_gguf(model: Model) -> Result<Weights, WeightsError> {
        let mut weights = Weights::build(model.files)?;
        weights.names = Names::of(&model.metadata)?;
        weights.metadata = Some(model.metadata);
        Ok(weights)
    }

    /// The tensors that an index names, of the files that it says they are in.
    pub(crate) fn build_by(opened: Vec<File>, index: ShardIndex) -> Result<Weights, WeightsError> {
        let mut weights = Weights::build(Vec::new())?;
        for file in opened {
            let (id, tensors) = weights.file(file);
            for entry in tensors {
                let shard = index.tensors.get(&entry.name);
                match shard.map(|s| index.shards[*s as usize].file) {
                    Some(at) if at == Some(id.0) => weights.add(id, entry)?,
                    // The index says that the one in another file counts.
                    Some(_) => {}
                    None => {
                        weights.by_name.insert(entry.name, Found::Unnamed(id));
                    }
                }
            }
        }
        for (name, shard) in &index.tensors {
            if !weights.by_name.contains_key(name) {
                let missing = match index.shards[*shard as usize].file {
                    Some(file) => Found::Promised(FileId(file)),
                    None => Found::Absent(*shard),
                };
                weights.by_name.insert(name.clone(), missing);
            }
        }
        weights.index = Some(index);
        Ok(weights)
    }

    fn file(&mut self, file: File) -> (FileId, Vec<Entry>) {
        let id = FileId(self.files.len() as u32);
        self.files.push(WeightFile {
            path: file.path,
            file: file.file,
            map: file.map,
            passing: file.passing,
        });
        (id, file.tensors)
    }

    fn add(&mut self, file: FileId, entry: Entry) -> Result<(), WeightsError> {
        if let Some(first) = self.by_name.get(&entry.name) {
            let first = match first {
                Found::Usable(id) => self.info(*id).file,
                Found::Unsupported(at) => self.unsupported[*at as usize].file,
                Found::Unnamed(_) | Found::Promised(_) | Found::Absent(_) => file,
            };
            return Err(WeightsError::Duplicate {
                tensor: entry.name,
                first: self.path(first).to_path_buf(),
                second: self.path(file).to_path_buf(),
            });
        }
        let found = match entry.stored {
            Stored::Otherwise(dtype) => {
                self.unsupported.push(Unsupported { dtype, file });
                Found::Unsupported(self.unsupported.len() as u32 - 1)
            }
            Stored::As(encoding) => {
                self.tensors.push(TensorInfo {
                    name: entry.name.clone(),
                    encoding,
                    shape: entry.shape,
                    file,
                    range: entry.range,
                });
                Found::Usable(TensorId(self.tensors.len() as u32 - 1))
            }
        };
        self.by_name.insert(entry.name, found);
        Ok(())
    }

    /// The weight of this name, if it exists with an encoding that kernels can use.
    pub fn lookup(&self, name: &str) -> Option<TensorId> {
        match self.found(name)? {
            Found::Usable(id) => Some(*id),
            Found::Unsupported(_) | Found::Unnamed(_) | Found::Promised(_) | Found::Absent(_) => {
                None
            }
        }
    }

    /// Whether there is a tensor of this name, or should be one: whether [`find`](Self::find)
    /// gives it or says why it cannot be had. What an index does not name is not there.
    pub fn contains(&self, name: &str) -> bool {
        match self.found(name) {
            None | Some(Found::Unnamed(_)) => false,
            Some(
                Found::Usable(_) | Found::Unsupported(_) | Found::Promised(_) | Found::Absent(_),
            ) => true,
        }
    }

    /// The weight of this name, or an error that says what there is instead.
    ///
    /// # Errors
    /// [`WeightsError`] says what there is instead: nothing of the name, a dtype that kernels cannot use,
    /// or a shard that does not hold it.
    pub fn find(&self, name: &str) -> Result<TensorId, WeightsError> {
        let tensor = name.to_string();
        let index = || {
            self.index
                .as_ref()
                .map_or(PathBuf::new(), |i| i.path.clone())
        };
        let path = |file: &FileId| self.path(*file).to_path_buf();
        let shard = |at: &u32| {
            let shards = self.index.as_ref().map(|i| &i.shards);
            let shard = shards.and_then(|s| s.get(*at as usize));
            shard.map_or_else(String::new, |s| s.name.clone())
        };
        Err(match self.found(name) {
            Some(Found::Usable(id)) => return Ok(*id),
            Some(Found::Unsupported(at)) => {
                let Unsupported { dtype, file } = &self.unsupported[*at as usize];
                WeightsError::UnsupportedDType {
                    file: path(file),
                    tensor,
                    dtype: dtype.to_string(),
                }
            }
            Some(Found::Unnamed(file)) => WeightsError::NotInIndex {
                tensor,
                file: path(file),
                index: index(),
            },
            Some(Found::Promised(file)) => WeightsError::NotInShard {
                tensor,
                index: index(),
                file: path(file),
            },
            Some(Found::Absent(at)) => WeightsError::MissingShard {
                index: index(),
                shard: shard(at),
                tensor,
            },
            None => WeightsError::Missing {
                name: tensor,
                count: self.by_name.len(),
                near: near::names(name, self.by_name.keys()),
            },
        })
    }

    /// The weight of this name with this shape and, if given, in this encoding.
    ///
    /// # Errors
    /// As [`find`](Self::find); another shape or encoding.
    pub fn require(
        &self,
        name: &str,
        shape: &[usize],
        encoding: Option<Encoding>,
    ) -> Result<TensorId, WeightsError> {
        let id = self.find(name)?;
        let info = self.info(id);
        if info.shape != shape {
            return Err(WeightsError::WrongShape {
                file: self.path(info.file).to_path_buf(),
                tensor: name.to_string(),
                expected: shape.to_vec(),
                found: info.shape.clone(),
            });
        }
        match encoding {
            Some(expected) if expected != info.encoding => Err(WeightsError::WrongDType {
                file: self.path(info.file).to_path_buf(),
                tensor: name.to_string(),
                expected,
                found: info.encoding,
            }),
            Some(_) | None => Ok(id),
        }
    }

    /// What and where a weight is, if `id` is of these weights.
    pub fn get(&self, id: TensorId) -> Option<&TensorInfo> {
        self.tensors.get(id.0 as usize)
    }

    /// The same for an id that is known to be of these weights: they gave it, or `check_roles`
    /// has seen it.
    pub(crate) fn info(&self, id: TensorId) -> &TensorInfo {
        &self.tensors[id.0 as usize]
    }

    /// All weights in file order.
    pub fn iter(&self) -> impl Iterator<Item = (TensorId, &TensorInfo)> + '_ {
        self.ids().map(|id| (id, self.info(id)))
    }

    /// The ids of all weights in file order.
    pub fn ids(&self) -> impl Iterator<Item = TensorId> + '_ {
        let all = (0..self.tensors.len() as u32).map(TensorId);
        all.filter(|id| self.packing.as_ref().is_none_or(|p| !p.is_code(*id)))
    }

    /// The names of all weights in file order.
    pub fn names(&self) -> impl Iterator<Item = &str> + '_ {
        self.iter().map(|(_, t)| t.name.as_str())
    }

    /// How many weights there are.
    pub fn len(&self) -> usize {
        self.ids().count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ids().next().is_none()
    }

    /// Bytes of all weights.
    pub fn total_bytes(&self) -> u64 {
        self.iter().map(|(_, t)| t.bytes() as u64).sum()
    }

    /// What a GGUF file says of the model; nothing for weights in other files.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }

    /// The mapped files.
    pub fn files(&self) -> &[WeightFile] {
        &self.files
    }

    /// A weight's bytes, through the mapping: touching them reads the file. Nothing if `id` is not
    /// of these weights.
    pub fn bytes(&self, id: TensorId) -> Option<&[u8]> {
        let info = self.get(id)?;
        // Ranges were checked against the file's length when it was opened.
        Some(&self.files[info.file.0 as usize].map[info.range.clone()])
    }

    /// A hash of names, shapes, encodings, offsets and file sizes: the same on every machine and
    /// run, different for other weights files. Contents are not read and not part of it, and neither is what was made of
    /// these weights and lies beside them.
    pub fn fingerprint(&self) -> u64 {
        if let Some(fingerprint) = self.beside {
            return fingerprint;
        }
        let mut hash = Fnv::new();
        let packed = self.packing.as_ref().map(|p| p.files);
        for (number, file) in self.files.iter().enumerate() {
            if !packed.is_some_and(|files| files.contains(&FileId(number as u32))) {
                hash.number(file.map.len());
            }
        }
        for (_, t) in self.iter() {
            hash.text(&t.name);
            hash.text(t.encoding.name());
            hash.number(t.shape.len());
            t.shape.iter().for_each(|&d| hash.number(d));
            hash.number(t.file.0 as usize);
            hash.number(t.range.start);
            hash.number(t.range.end);
        }
        // In what order rows are taken to lie is not seen in shapes.
        if let Some(names) = &self.names {
            names.facts().into_iter().for_each(|n| hash.number(n));
        }
        hash.value()
    }

    pub(super) fn path(&self, file: FileId) -> &Path {
        &self.files[file.0 as usize].path
    }
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Weights({} tensors, {} bytes, {} files)",
            self.len(),
            self.total_bytes(),
            self.files.len()
        )
    }
}
