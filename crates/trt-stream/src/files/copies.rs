//! Weights that do not come as files: copied once, into a file that lives in memory.
//!
//! Everything else here works on files: pages are mapped and let go, copies to a device read
//! the file. So bytes that a caller holds are written to a file without a name, and that file is
//! the one host copy for all engines; the caller can let go of each tensor as soon as it was
//! added. Borrowing the caller's memory instead would save the copy, but its pages could never be
//! let go, and nothing would keep the caller from changing them.

use super::WeightsError;
use super::file::File;
use super::header::{Entry, Stored};
use super::index::Weights;
use super::near;
use super::open::map;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use trt_device::{ALIGN, memory_file, seal_size};
use trt_kernel::DType;

/// What errors call the file.
const NAME: &str = "tensors-in-memory";

/// Weights that are being copied.
///
/// ```
/// use trt_kernel::DType;
/// use trt_stream::Copies;
///
/// let mut copies = Copies::new()?;
/// copies.add("proj.weight", DType::F32, &[2, 3], &[0; 24])?;
/// let weights = copies.finish()?;
/// assert_eq!(weights.bytes(weights.find("proj.weight")?), Some(&[0; 24][..]));
/// # Ok::<(), trt_stream::WeightsError>(())
/// ```
#[derive(Debug)]
pub struct Copies {
    file: std::fs::File,
    end: usize,
    entries: Vec<Entry>,
}

impl Copies {
    /// No weights yet.
    ///
    /// # Errors
    /// If the system makes no file in memory.
    pub fn new() -> Result<Copies, WeightsError> {
        Ok(Copies {
            file: memory_file("candle-trt-weights")?,
            end: 0,
            entries: Vec::new(),
        })
    }

    /// Copies a weight, whose elements are little-endian and row-major.
    ///
    /// # Errors
    /// Bytes that are not as many as the shape and dtype need; what the system says when they are
    /// written.
    pub fn add(
        &mut self,
        name: &str,
        dtype: DType,
        shape: &[usize],
        bytes: &[u8],
    ) -> Result<(), WeightsError> {
        let elements = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let expected = elements.and_then(|n| n.checked_mul(dtype.size()));
        if expected != Some(bytes.len()) {
            return Err(WeightsError::WrongLength {
                file: NAME.into(),
                tensor: name.into(),
                found: bytes.len() as u64,
                dtype: dtype.name().into(),
                shape: shape.to_vec(),
                expected: expected.map_or(u64::MAX, |n| n as u64),
            });
        }
        let start = self.end.next_multiple_of(ALIGN);
        self.file
            .write_all_at(bytes, start as u64)
            .map_err(|e| WeightsError::io("write", Path::new(NAME), e))?;
        self.end = start + bytes.len();
        self.entry(name, Stored::As(dtype.into()), shape, start);
        Ok(())
    }

    /// Gives a weight that was added a second name, and perhaps another shape of as many
    /// elements. Nothing is copied.
    ///
    /// # Errors
    /// If nothing was added as `of`, or the shape has another number of elements.
    pub fn alias(&mut self, name: &str, shape: &[usize], of: &str) -> Result<(), WeightsError> {
        let known = self.entries.iter().find(|e| e.name == of);
        let first = known.ok_or_else(|| WeightsError::Missing {
            name: of.into(),
            count: self.entries.len(),
            near: near::names(of, self.entries.iter().map(|e| &e.name)),
        })?;
        let elements = |shape: &[usize]| shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        if elements(shape) != elements(&first.shape) {
            return Err(WeightsError::WrongShape {
                file: NAME.into(),
                tensor: name.into(),
                expected: first.shape.clone(),
                found: shape.to_vec(),
            });
        }
        let (stored, range) = (first.stored.clone(), first.range.clone());
        self.entries.push(Entry {
            name: name.into(),
            stored,
            shape: shape.to_vec(),
            range,
        });
        Ok(())
    }

    /// Mentions a tensor of a dtype that kernels cannot use; as in a file, that is an error only
    /// where the tensor is asked for. Nothing is copied.
    pub fn mention(&mut self, name: &str, dtype: &str, shape: &[usize]) {
        self.entry(name, Stored::of(dtype.to_uppercase()), shape, self.end);
    }

    fn entry(&mut self, name: &str, stored: Stored, shape: &[usize], start: usize) {
        self.entries.push(Entry {
            name: name.into(),
            stored,
            shape: shape.to_vec(),
            range: start..self.end,
        });
    }

    /// The weights, in the order in which they were added. A name that was given twice is an
    /// error.
    ///
    /// # Errors
    /// A name that was given twice; what the system says when the file is mapped.
    pub fn finish(self) -> Result<Weights, WeightsError> {
        let path = Path::new(NAME);
        // An empty file has no mapping.
        let len = self.end.max(1) as u64;
        self.file
            .set_len(len)
            .map_err(|e| WeightsError::io("size", path, e))?;
        seal_size(&self.file)?;
        let [exact, passing] = map(path, &self.file)?;
        Weights::build(vec![File {
            path: path.into(),
            file: Arc::new(self.file),
            map: exact,
            passing,
            tensors: self.entries,
        }])
    }
}
