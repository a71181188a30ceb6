//! A compiled engine as a file: its programs and plans, not its weights.
//!
//! The file begins with what says whether it can be used at all: a mark, the format and version
//! of this library, the fingerprint of the weight index, and the length and hash of the rest. The
//! rest is programs that pass the same checks as those that were just lowered; kernels are loaded
//! and plans are checked when it is read. A file is there whole or not at all: it is written
//! under another name first.

use crate::ready::Lowered;
use crate::report::ClassReport;
use crate::{Engine, Error, Profile};
use candle_core::DType;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use trt_graph::Class;
use trt_graph::program::Program;

/// The first bytes of a file; not text, and changed by transfers that mangle line ends.
const MARK: [u8; 8] = *b"\x93trt\r\n\x1a\n";
/// Counts changes of what follows the header, types of other crates included.
const FORMAT: u32 = 3;
/// Bytes that the library's version takes in the header.
const VERSION: usize = 16;
/// Mark, format, version, fingerprint, length, hash.
const HEADER: usize = 8 + 4 + VERSION + 8 + 8 + 8;

/// What is wrong with a saved engine, or why it could not be saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SavedError {
    /// The system refused.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A file of another kind.
    #[error("this is no saved engine")]
    Foreign,
    /// A file of another version of this library.
    #[error("saved by version {found}, but this is version {expected}: compile again")]
    Version {
        /// Version and format of the file.
        found: String,
        /// Version and format that can be read.
        expected: String,
    },
    /// The file ends too early, or goes on after its end.
    #[error("the file has {found} bytes of {needed}")]
    Length {
        /// Bytes that it should have.
        needed: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// The bytes are not those that were written.
    #[error("the file is damaged: {what}")]
    Damaged {
        /// What does not fit.
        what: String,
    },
    /// It was compiled for other weights.
    #[error(
        "saved for weights with fingerprint {saved:016x}, but these have {found:016x}: names, \
         shapes, dtypes or places in the files differ"
    )]
    OtherWeights {
        /// The fingerprint that was saved.
        saved: u64,
        /// That of the weights given.
        found: u64,
    },
    /// It was compiled with other options than asked for.
    #[error("saved with {what} {saved}, but {asked} was asked for")]
    OtherOptions {
        /// The option.
        what: &'static str,
        /// What was saved.
        saved: String,
        /// What the compiler was told.
        asked: String,
    },
}

/// All of a file after its header.
#[derive(Serialize, Deserialize)]
pub(crate) struct Saved {
    dtype: String,
    pub notes: Vec<String>,
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
    /// constants are in it, weights are not. The file belongs to this version of the library and
    /// to these weights; on which device and with which budget it is loaded is open. An existing
    /// file is replaced in one step.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        let fingerprint = self.run().streamer.weights().fingerprint();
        let inner = &self.0;
        let classes = inner.programs.iter().zip(&self.report().classes);
        let saved = Saved {
            dtype: inner.dtype.as_str().into(),
            notes: self.report().notes.clone(),
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
        let body = postcard::to_allocvec(&saved).map_err(damaged);
        body.and_then(|body| replace(path, &header(fingerprint, &body), &body))
            .map_err(|source| Error::saved(path, source))
    }
}

/// A file whose header was read, and not more.
pub(crate) struct Opened {
    file: File,
    header: Vec<u8>,
    /// Bytes after the header.
    pub len: usize,
}

impl Opened {
    /// Opens a file and checks its header: nothing else is read of a file of another kind, which
    /// may be large.
    pub fn new(path: &Path) -> Result<Opened, SavedError> {
        let file = File::open(path).map_err(unread)?;
        let found = file.metadata().map_err(unread)?.len();
        let mut header = Vec::with_capacity(HEADER);
        let mut head = (&file).take(HEADER as u64);
        head.read_to_end(&mut header).map_err(unread)?;
        let len = Header::check(&header, found)?;
        Ok(Opened { file, header, len })
    }

    /// Reads what was saved for weights with this fingerprint.
    pub fn read(self, fingerprint: u64) -> Result<Saved, SavedError> {
        let Opened { file, header, len } = self;
        let mut body = Vec::with_capacity(len);
        let mut rest = (&file).take(len as u64);
        rest.read_to_end(&mut body).map_err(unread)?;
        Header::check_body(&header, &body)?;
        let saved = word(&header, 8 + 4 + VERSION);
        if saved != fingerprint {
            let found = fingerprint;
            return Err(SavedError::OtherWeights { saved, found });
        }
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

fn unread(source: io::Error) -> SavedError {
    let action = "read";
    SavedError::Io { action, source }
}

impl Saved {
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

    /// Whether this is what was asked for, as far as anything was.
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
        match profile.filter(|p| **p != saved) {
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

/// The header before these bytes.
fn header(fingerprint: u64, body: &[u8]) -> Vec<u8> {
    let mut header = Vec::with_capacity(HEADER);
    header.extend(MARK);
    header.extend(FORMAT.to_le_bytes());
    header.extend(version());
    header.extend(fingerprint.to_le_bytes());
    header.extend((body.len() as u64).to_le_bytes());
    header.extend(hash(&[&header, body]).to_le_bytes());
    header
}

/// The version of this library, as the header has it.
fn version() -> [u8; VERSION] {
    let mut padded = [0; VERSION];
    let text = env!("CARGO_PKG_VERSION").bytes();
    padded
        .iter_mut()
        .zip(text)
        .for_each(|(to, from)| *to = from);
    padded
}

fn word(header: &[u8], at: usize) -> u64 {
    let bytes = header.get(at..at + 8).and_then(|b| b.first_chunk::<8>());
    bytes.map_or(0, |b| u64::from_le_bytes(*b))
}

struct Header;

impl Header {
    /// Whether a file of `found` bytes with this header can be used; the length of its body.
    fn check(header: &[u8], found: u64) -> Result<usize, SavedError> {
        if !header.starts_with(&MARK) {
            return Err(SavedError::Foreign);
        }
        let short = |needed: u64| SavedError::Length { needed, found };
        if header.len() < HEADER {
            return Err(short(HEADER as u64));
        }
        let (format, theirs) = (word(header, 8) as u32, &header[12..12 + VERSION]);
        if format != FORMAT || theirs != version() {
            let name = |version: &[u8], format| {
                let text = String::from_utf8_lossy(version);
                format!("{} (format {format})", text.trim_end_matches('\0'))
            };
            return Err(SavedError::Version {
                found: name(theirs, format),
                expected: name(&version(), FORMAT),
            });
        }
        let len = word(header, HEADER - 16);
        let needed = len.saturating_add(HEADER as u64);
        match (needed == found, usize::try_from(len)) {
            (true, Ok(len)) => Ok(len),
            _ => Err(short(needed)),
        }
    }

    fn check_body(header: &[u8], body: &[u8]) -> Result<(), SavedError> {
        let (before, hashed) = header.split_at(HEADER - 8);
        match hash(&[before, body]) == word(hashed, 0) {
            true => Ok(()),
            false => Err(SavedError::Damaged {
                what: "its hash is another than was written".into(),
            }),
        }
    }
}

/// A hash that any change of a word changes: each step is a bijection of the words before.
fn hash(parts: &[&[u8]]) -> u64 {
    let mix = |hash: u64, word: u64| {
        let mixed = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ (mixed >> 32)
    };
    let mut state = 0x6c62_272e_07bb_0142;
    for part in parts {
        let (words, rest) = part.as_chunks::<8>();
        for bytes in words {
            state = mix(state, u64::from_le_bytes(*bytes));
        }
        for byte in rest {
            state = mix(state, u64::from(*byte));
        }
        state = mix(state, part.len() as u64);
    }
    state
}

/// Writes a file beside the path and puts it in its place.
fn replace(path: &Path, header: &[u8], body: &[u8]) -> Result<(), SavedError> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}-{number}.part", std::process::id()));
    let beside: PathBuf = path.with_file_name(name);
    let write = || {
        let mut options = File::options();
        let mut file = options.write(true).create_new(true).open(&beside)?;
        file.write_all(header)?;
        file.write_all(body)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    write().map_err(|source| {
        // It may not exist, and if it cannot be removed, the first error still is what matters.
        let _ = std::fs::remove_file(&beside);
        let action = "write";
        SavedError::Io { action, source }
    })
}

#[cfg(test)]
mod tests;
