//! The index of all weights: what is where, without reading any of it.
//!
//! A [`WeightId`] is a position in file order (files in the order opened, tensors by offset),
//! so ids are stable for the same files. Tensors of dtypes that kernels cannot use are kept
//! aside: they are an error only when asked for.

use crate::WeightsError;
use crate::header::Entry;
use crate::near;
use memmap2::Mmap;
use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use trt_kernel::DType;

/// A weight, by its position in [`Weights`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightId(pub u32);

/// A file of a [`Weights`], by its position in [`Weights::files`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u32);

/// What and where a weight is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its element type: f32, f16 or bf16.
    pub dtype: DType,
    /// Its shape, row-major.
    pub shape: Vec<usize>,
    /// The file that holds it.
    pub file: FileId,
    /// Its bytes in that file.
    pub range: Range<usize>,
}

impl TensorInfo {
    /// Bytes.
    pub fn bytes(&self) -> usize {
        self.range.len()
    }

    /// Rows when used as a matrix: the first axis, or 1 for a scalar.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }
}

/// An opened and mapped file.
pub(crate) struct File {
    pub path: PathBuf,
    pub file: Arc<std::fs::File>,
    pub map: Arc<Mmap>,
    pub passing: Arc<Mmap>,
    pub tensors: Vec<Entry>,
}

/// A mapped file.
#[derive(Clone, Debug)]
pub struct WeightFile {
    /// Where it was opened.
    pub path: PathBuf,
    /// The open file.
    pub file: Arc<std::fs::File>,
    /// The read-only mapping, for `Device::map`.
    pub map: Arc<Mmap>,
    /// The same again, for what is read in place as it streams by: its pages come and go in
    /// another way, and a mapping has one way.
    pub passing: Arc<Mmap>,
}

/// The weights of a model, mapped and not read.
pub struct Weights {
    files: Vec<WeightFile>,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, Found>,
}

/// What a name leads to.
#[derive(Clone, Debug)]
enum Found {
    Usable(WeightId),
    Unsupported { dtype: String, file: FileId },
}

impl Weights {
    pub(crate) fn build(opened: Vec<File>) -> Result<Weights, WeightsError> {
        let mut weights = Weights {
            files: Vec::with_capacity(opened.len()),
            tensors: Vec::new(),
            by_name: HashMap::new(),
        };
        for file in opened {
            let id = FileId(weights.files.len() as u32);
            weights.files.push(WeightFile {
                path: file.path,
                file: file.file,
                map: file.map,
                passing: file.passing,
            });
            for entry in file.tensors {
                weights.add(id, entry)?;
            }
        }
        Ok(weights)
    }

    fn add(&mut self, file: FileId, entry: Entry) -> Result<(), WeightsError> {
        if let Some(first) = self.by_name.get(&entry.name) {
            let first = match first {
                Found::Usable(id) => self.info(*id).file,
                Found::Unsupported { file, .. } => *file,
            };
            return Err(WeightsError::Duplicate {
                tensor: entry.name,
                first: self.path(first).to_path_buf(),
                second: self.path(file).to_path_buf(),
            });
        }
        let dtype = match entry.dtype.as_str() {
            "F32" => Some(DType::F32),
            "F16" => Some(DType::F16),
            "BF16" => Some(DType::BF16),
            _ => None,
        };
        let found = match dtype {
            None => Found::Unsupported {
                dtype: entry.dtype,
                file,
            },
            Some(dtype) => {
                self.tensors.push(TensorInfo {
                    name: entry.name.clone(),
                    dtype,
                    shape: entry.shape,
                    file,
                    range: entry.range,
                });
                Found::Usable(WeightId(self.tensors.len() as u32 - 1))
            }
        };
        self.by_name.insert(entry.name, found);
        Ok(())
    }

    /// The weight of this name, if it exists with a dtype that kernels can use.
    pub fn lookup(&self, name: &str) -> Option<WeightId> {
        match self.by_name.get(name)? {
            Found::Usable(id) => Some(*id),
            Found::Unsupported { .. } => None,
        }
    }

    /// The weight of this name, or an error that says what there is instead.
    pub fn find(&self, name: &str) -> Result<WeightId, WeightsError> {
        match self.by_name.get(name) {
            Some(Found::Usable(id)) => Ok(*id),
            Some(Found::Unsupported { dtype, file }) => Err(WeightsError::UnsupportedDType {
                file: self.path(*file).to_path_buf(),
                tensor: name.to_string(),
                dtype: dtype.clone(),
            }),
            None => Err(WeightsError::Missing {
                name: name.to_string(),
                count: self.by_name.len(),
                near: near::names(name, self.by_name.keys()),
            }),
        }
    }

    /// The weight of this name with this shape and, if given, this dtype.
    pub fn require(
        &self,
        name: &str,
        shape: &[usize],
        dtype: Option<DType>,
    ) -> Result<WeightId, WeightsError> {
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
        match dtype {
            Some(expected) if expected != info.dtype => Err(WeightsError::WrongDType {
                file: self.path(info.file).to_path_buf(),
                tensor: name.to_string(),
                expected,
                found: info.dtype,
            }),
            Some(_) | None => Ok(id),
        }
    }

    /// What and where a weight is, if `id` is of these weights.
    pub fn get(&self, id: WeightId) -> Option<&TensorInfo> {
        self.tensors.get(id.0 as usize)
    }

    /// The same for an id that is known to be of these weights: they gave it, or `check_roles`
    /// has seen it.
    pub(crate) fn info(&self, id: WeightId) -> &TensorInfo {
        &self.tensors[id.0 as usize]
    }

    /// All weights in file order.
    pub fn iter(&self) -> impl Iterator<Item = (WeightId, &TensorInfo)> + '_ {
        self.ids().zip(&self.tensors)
    }

    /// The ids of all weights in file order.
    pub fn ids(&self) -> impl Iterator<Item = WeightId> + '_ {
        (0..self.tensors.len() as u32).map(WeightId)
    }

    /// The names of all weights in file order.
    pub fn names(&self) -> impl Iterator<Item = &str> + '_ {
        self.tensors.iter().map(|t| t.name.as_str())
    }

    /// How many weights there are.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Bytes of all weights.
    pub fn total_bytes(&self) -> u64 {
        self.tensors.iter().map(|t| t.bytes() as u64).sum()
    }

    /// The mapped files.
    pub fn files(&self) -> &[WeightFile] {
        &self.files
    }

    /// A weight's bytes, through the mapping: touching them reads the file. Nothing if `id` is not
    /// of these weights.
    pub fn bytes(&self, id: WeightId) -> Option<&[u8]> {
        let info = self.get(id)?;
        // Ranges were checked against the file's length when it was opened.
        Some(&self.files[info.file.0 as usize].map[info.range.clone()])
    }

    /// A hash of names, shapes, dtypes, offsets and file sizes: the same on every machine and
    /// run, different for other weights files. Contents are not read and not part of it.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
        for file in &self.files {
            hash.number(file.map.len());
        }
        for t in &self.tensors {
            hash.text(&t.name);
            hash.text(t.dtype.name());
            hash.number(t.shape.len());
            t.shape.iter().for_each(|&d| hash.number(d));
            hash.number(t.file.0 as usize);
            hash.number(t.range.start);
            hash.number(t.range.end);
        }
        hash.0
    }

    /// The file that holds a tensor of any dtype.
    pub(crate) fn file_of(&self, name: &str) -> Option<&Path> {
        let file = match self.by_name.get(name)? {
            Found::Usable(id) => self.info(*id).file,
            Found::Unsupported { file, .. } => *file,
        };
        Some(self.path(file))
    }

    fn path(&self, file: FileId) -> &Path {
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

/// FNV-1a: short, and the same everywhere.
struct Fnv(u64);

impl Fnv {
    fn bytes(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.0 = (self.0 ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn number(&mut self, n: usize) {
        self.bytes(&(n as u64).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len());
        self.bytes(text.as_bytes());
    }
}
