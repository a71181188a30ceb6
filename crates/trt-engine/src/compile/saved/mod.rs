//! A compiled engine as a file: its programs and plans, not its weights.
//!
//! The file begins with what says whether it can be used at all: a mark, the format and version
//! of this library, the fingerprint of the weight index, and the length and hash of the rest. The
//! rest is programs that pass the same checks as those that were just lowered; kernels are loaded
//! and plans are checked when it is read. A file is there whole or not at all: it is written
//! under another name first.
//!
//! Who wrote a file is not trusted. Memory is taken for what a regular file holds, once its header
//! fits these weights, and not for what it says: lengths inside of it are bounded by the bytes that
//! are left, and no type of it contains itself, so reading ends.

mod header;
mod replace;

use super::ready::Lowered;
use crate::error::{Error, SavedError};
use crate::report::{ClassReport, WeightRead};
use crate::run::engine::Engine;
use crate::run::program::Recipe;
use candle_core::DType;
pub(super) use header::hash;
use header::{HEADER, Header};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;
use trt_graph::program::Program;
use trt_graph::{Class, Profile, Split};
use trt_stream::{FileError, Weights};

/// The most bytes after a header: what a model needs beside its weights is far less.
const MOST: u64 = 4 << 30;

/// All of a file after its header.
#[derive(Serialize, Deserialize)]
pub(crate) struct Saved {
    dtype: String,
    pub notes: Vec<String>,
    /// How weights that the programs read are derived of others.
    pub recipes: Vec<Recipe>,
    /// Weights whose values model code read.
    pub read: Vec<WeightRead>,
    /// How the profile that was asked for became that of the classes.
    pub splits: Vec<Split>,
    pub classes: Vec<SavedClass>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct SavedClass {
    class: Class,
    program: Program,
    offsets: Vec<u64>,
    pub report: ClassReport,
}

impl Engine {
    /// Saves the compiled programs to a file that [`Compiler::load`](crate::Compiler::load) reads:
    /// constants are in it, weights are not. In Torch-TensorRT `torch_tensorrt.save` saves a
    /// module with its serialised engines. The file belongs to this version of the library and
    /// to these weights; on which device and with which budget it is loaded is open. An existing
    /// file is replaced in one step, and what is in its place afterwards is on the disk. Files that
    /// killed saves to the same path left beside it are removed.
    ///
    /// # Errors
    /// [`Error::Saved`] if the system refuses, or the programs are more than a file may have.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        let fingerprint = self.run().weights().files().fingerprint();
        let core = self.core();
        let classes = core.programs().iter().zip(&self.report().classes);
        let saved = Saved {
            dtype: core.dtype().as_str().into(),
            notes: self.report().notes.clone(),
            recipes: core.recipes().to_vec(),
            read: self.report().read.clone(),
            splits: self.report().splits.clone(),
            classes: classes
                .map(|(p, report)| SavedClass {
                    class: p.class.clone(),
                    program: p.program.clone(),
                    offsets: p.arena.offsets.clone(),
                    report: ClassReport {
                        by_host: Vec::new(),
                        ..report.clone()
                    },
                })
                .collect(),
        };
        let damaged = |e: postcard::Error| SavedError::Damaged {
            what: e.to_string(),
        };
        let write = |body: Vec<u8>| {
            let found = body.len() as u64;
            if found > MOST {
                return Err(SavedError::TooLarge { found, most: MOST });
            }
            let header = header::before(fingerprint, &body);
            replace::replace(path, &[&header, &body]).map_err(|error| SavedError::Io {
                action: "write",
                error,
            })
        };
        let body = postcard::to_allocvec(&saved).map_err(damaged);
        body.and_then(write)
            .map_err(|source| Error::saved(path, source))
    }
}

/// A file whose header was read, and not more.
pub(crate) struct Opened {
    file: File,
    header: Header,
    /// Bytes after the header.
    pub len: usize,
}

impl Opened {
    /// Opens a file and checks that its header is of this version and of weights with this
    /// fingerprint: nothing else is read of a file of another kind, which may be large, and no
    /// memory is taken for it.
    ///
    /// # Errors
    /// If the file cannot be read, or its header is of another kind, version, length or of other weights.
    pub fn new(path: &Path, fingerprint: u64) -> Result<Opened, SavedError> {
        let file = trt_stream::open_regular(path).map_err(|e| match e {
            FileError::Io(error) => unread(error),
            other => SavedError::File(other),
        })?;
        let found = file.metadata().map_err(unread)?.len();
        let mut header = Vec::with_capacity(HEADER);
        let mut head = (&file).take(HEADER as u64);
        head.read_to_end(&mut header).map_err(unread)?;
        let header = Header::read(&header, found)?;
        if header.fingerprint != fingerprint {
            return Err(SavedError::OtherWeights {
                saved: header.fingerprint,
                found: fingerprint,
            });
        }
        let len = header.len(found, MOST)?;
        Ok(Opened { file, header, len })
    }

    /// Reads what was saved.
    ///
    /// # Errors
    /// If it cannot be read, there is no memory for it, or it is damaged.
    pub fn read(self) -> Result<Saved, SavedError> {
        let Opened { file, header, len } = self;
        let mut body = Vec::new();
        let bytes = len as u64;
        body.try_reserve_exact(len)
            .map_err(|_| SavedError::File(FileError::Memory { bytes }))?;
        let mut rest = (&file).take(bytes);
        rest.read_to_end(&mut body).map_err(unread)?;
        header.check(&body)?;
        let damaged = |e: postcard::Error| SavedError::Damaged {
            what: e.to_string(),
        };
        let (saved, rest) = postcard::take_from_bytes::<Saved>(&body).map_err(damaged)?;
        match rest.is_empty() {
            true => Ok(saved),
            false => Err(SavedError::Damaged {
                what: format!("{} bytes are left over", rest.len()),
            }),
        }
    }
}

fn unread(error: io::Error) -> SavedError {
    let action = "read";
    SavedError::Io { action, error }
}

impl Saved {
    /// The dtype in which weights appear to the model.
    ///
    /// # Errors
    /// [`SavedError::Damaged`] if there is no such dtype.
    pub fn dtype(&self) -> Result<DType, SavedError> {
        DType::from_str(&self.dtype).map_err(|e| SavedError::Damaged {
            what: e.to_string(),
        })
    }

    pub fn profile(&self) -> Profile {
        Profile {
            classes: self.classes.iter().map(|c| c.class.clone()).collect(),
        }
    }

    /// Whether weights have the values that model code read.
    ///
    /// # Errors
    /// [`SavedError::OtherValues`] if one of them has not.
    pub fn holds_for(&self, weights: &Weights) -> Result<(), SavedError> {
        match self.read.iter().find(|read| !read.is_of(weights)) {
            None => Ok(()),
            Some(read) => Err(SavedError::OtherValues {
                name: read.name.clone(),
            }),
        }
    }

    /// Whether this is what was asked for, as far as anything was.
    ///
    /// # Errors
    /// [`SavedError::OtherOptions`] if it is not.
    pub fn agrees(
        &self,
        dtype: Option<DType>,
        profile: Option<&Profile>,
    ) -> Result<(), SavedError> {
        if let Some(asked) = dtype.map(|d| d.as_str()).filter(|d| *d != self.dtype) {
            return Err(SavedError::OtherOptions {
                what: "dtype",
                saved: self.dtype.clone(),
                asked: asked.into(),
            });
        }
        let saved = self.profile();
        let same = |asked: &Profile| asked.apart(&self.splits).is_ok_and(|p| p == saved);
        match profile.filter(|p| !same(p)) {
            None => Ok(()),
            Some(asked) => Err(SavedError::OtherOptions {
                what: "the profile",
                saved: crate::error::classes(&saved),
                asked: crate::error::classes(asked),
            }),
        }
    }
}

impl SavedClass {
    /// The program, once it is known to keep its invariants.
    ///
    /// # Errors
    /// [`SavedError::Damaged`] if it does not.
    pub fn lowered(&mut self) -> Result<Lowered, SavedError> {
        let damaged = |what: String| SavedError::Damaged { what };
        let program = std::mem::take(&mut self.program);
        program.verify().map_err(|e| damaged(e.to_string()))?;
        let class = self.class.clone();
        if class.ints != program.ints || class.max_context != program.max_context {
            return Err(damaged(format!(
                "class {} and its program differ in their runtime integers",
                class.name
            )));
        }
        Ok(Lowered {
            class,
            program,
            offsets: Some(std::mem::take(&mut self.offsets)),
        })
    }
}

#[cfg(test)]
mod tests;
