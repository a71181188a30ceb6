//! The parts of a GGUF header, read one after another from what is left of the file.
//!
//! Nothing is taken that is not there, and nothing is reserved for a count before the bytes that so many parts need at
//! least are there. What is read comes as it lies in the mapping; numbers are little-endian.

use super::super::WeightsError;
use super::super::shown::Shown;
use super::value::{DEPTH, Kind};
use std::fmt;
use std::ops::Range;
use std::path::Path;

/// What is being read, for messages.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What<'a> {
    /// A part of the header that has no name.
    Header(&'static str),
    /// The value of a key.
    Value(&'a str),
    /// What is said of a tensor.
    Tensor(&'a str, &'static str),
}

impl fmt::Display for What<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Header(part) => f.write_str(part),
            What::Value(key) => write!(f, "the value of '{}'", Shown(key)),
            What::Tensor(name, part) => write!(f, "{part} of tensor '{}'", Shown(name)),
        }
    }
}

/// What is left of a file's header.
pub(crate) struct Input<'a> {
    pub path: &'a Path,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    /// A whole file, from its first byte on.
    pub fn new(path: &'a Path, bytes: &'a [u8]) -> Input<'a> {
        Input { path, bytes, at: 0 }
    }

    /// Bytes that were read.
    pub fn at(&self) -> usize {
        self.at
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// An error unless so many bytes are left.
    pub fn room(&self, what: What<'_>, bytes: u64) -> Result<(), WeightsError> {
        match bytes <= self.left() as u64 {
            true => Ok(()),
            false => Err(WeightsError::Truncated {
                file: self.path.to_path_buf(),
                what: what.to_string(),
                needed: bytes.saturating_add(self.at as u64),
                found: self.bytes.len() as u64,
            }),
        }
    }

    fn take(&mut self, what: What<'_>, bytes: u64) -> Result<&'a [u8], WeightsError> {
        self.room(what, bytes)?;
        let taken = &self.bytes[self.at..][..bytes as usize];
        self.at += bytes as usize;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self, what: What<'_>) -> Result<[u8; N], WeightsError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(what, N as u64)?);
        Ok(array)
    }

    pub fn u32(&mut self, what: What<'_>) -> Result<u32, WeightsError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, what: What<'_>) -> Result<u64, WeightsError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A number of parts that take at least `least` bytes each.
    pub fn count(&mut self, what: What<'_>, least: u64) -> Result<usize, WeightsError> {
        let count = self.u64(what)?;
        self.room(what, count.saturating_mul(least))?;
        // As many bytes are left, so a `usize` holds it.
        Ok(count as usize)
    }

    /// A name: UTF-8, and copied.
    pub fn name(&mut self, what: What<'_>) -> Result<String, WeightsError> {
        let len = self.u64(what)?;
        let bytes = self.take(what, len)?;
        let text = std::str::from_utf8(bytes);
        text.map(str::to_string)
            .map_err(|e| WeightsError::BadHeader {
                file: self.path.to_path_buf(),
                reason: format!("{what} is no UTF-8 from byte {} on", e.valid_up_to()),
            })
    }

    /// The type of a value.
    pub fn kind(&mut self, key: &str) -> Result<Kind, WeightsError> {
        let number = self.u32(What::Value(key))?;
        Kind::of(number).ok_or_else(|| WeightsError::BadValue {
            file: self.path.to_path_buf(),
            key: key.to_string(),
            reason: format!("its type {number} is not known"),
        })
    }

    /// Passes over a value; where it lies.
    pub fn value(&mut self, key: &str, kind: Kind) -> Result<Range<usize>, WeightsError> {
        let begin = self.at;
        self.pass(key, kind, 1, 0)?;
        Ok(begin..self.at)
    }

    /// Passes over values of one type that lie one after another.
    fn pass(&mut self, key: &str, kind: Kind, count: u64, depth: u32) -> Result<(), WeightsError> {
        let what = What::Value(key);
        let bytes = count.saturating_mul(kind.least_bytes());
        self.room(what, bytes)?;
        match kind {
            Kind::Text => {
                for _ in 0..count {
                    let len = self.u64(what)?;
                    self.take(what, len)?;
                }
            }
            Kind::Array if depth == DEPTH => {
                return Err(WeightsError::BadValue {
                    file: self.path.to_path_buf(),
                    key: key.to_string(),
                    reason: format!("lists are nested more than {DEPTH} deep"),
                });
            }
            Kind::Array => {
                for _ in 0..count {
                    let (kind, count) = (self.kind(key)?, self.u64(what)?);
                    self.pass(key, kind, count, depth + 1)?;
                }
            }
            _ => {
                self.take(what, bytes)?;
            }
        }
        Ok(())
    }
}
