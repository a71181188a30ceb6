//! The header of one safetensors file, parsed and checked.
//!
//! After [`parse`] every tensor's byte range lies inside the file, overlaps no other, and is as
//! long as its shape and dtype say. Nothing after the header is read.

use super::{WeightsError, foreign};
use safetensors::Dtype;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use std::fmt;
use std::ops::Range;
use std::path::Path;
use trt_kernel::{DType, Encoding};

/// Bytes before the header: its length, little-endian.
pub(crate) const PREFIX: u64 = 8;
/// The most bytes of a tensor, as many as can be addressed.
pub(crate) const MOST: u128 = isize::MAX as u128;
/// What the format allows a header to take.
const LIMIT: u64 = 100_000_000;

/// How a tensor's values are stored.
#[derive(Clone, Debug)]
pub(crate) enum Stored {
    /// In a way that kernels read.
    As(Encoding),
    /// In another.
    Otherwise(Other),
}

/// A way of storing values that kernels do not read.
#[derive(Clone, Debug)]
pub(crate) enum Other {
    /// By the name that the file has for it.
    Named(Box<str>),
    /// Of GGUF files, by the name of its number.
    Known(&'static str),
    /// Of GGUF files, by its number.
    Number(u32),
}

impl fmt::Display for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Other::Named(name) => f.write_str(name),
            Other::Known(name) => f.write_str(name),
            Other::Number(number) => write!(f, "of GGUF type {number}"),
        }
    }
}

impl Stored {
    /// What a safetensors file calls a dtype.
    pub fn of(dtype: String) -> Stored {
        match dtype.as_str() {
            "F32" => Stored::As(DType::F32.into()),
            "F16" => Stored::As(DType::F16.into()),
            "BF16" => Stored::As(DType::BF16.into()),
            _ => Stored::Otherwise(Other::Named(dtype.into())),
        }
    }
}

/// A tensor as a header describes it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub name: String,
    pub stored: Stored,
    pub shape: Vec<usize>,
    /// Bytes in the file.
    pub range: Range<usize>,
}

#[derive(Deserialize)]
struct RawTensor {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// The header's object in file order, with repeated names kept so that they can be reported.
struct RawHeader(Vec<(String, RawTensor)>);

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        entries.push((name, map.next_value()?));
                    }
                }
                Ok(RawHeader(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Parses and checks the header of a mapped file; tensors come back in file order. A file without
/// one is said to be what it is, where that can be told.
pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<Entry>, WeightsError> {
    let read = header_bytes(path, bytes).and_then(|json| {
        let raw = serde_json::from_slice(json).map_err(|e| bad_header(path, e.to_string()))?;
        Ok((PREFIX + json.len() as u64, raw))
    });
    let (data, raw): (u64, RawHeader) = read.map_err(|error| match foreign::kind(bytes) {
        Some(kind) => WeightsError::Foreign {
            file: path.to_path_buf(),
            kind,
        },
        None => error,
    })?;
    let mut entries = Vec::with_capacity(raw.0.len());
    for (name, tensor) in raw.0 {
        entries.push(place(path, name, tensor, data, bytes.len() as u64)?);
    }
    entries.sort_by_key(|e| (e.range.start, e.range.end));
    check_apart(path, &entries, data)?;
    Ok(entries)
}

fn bad_header(path: &Path, reason: String) -> WeightsError {
    WeightsError::BadHeader {
        file: path.to_path_buf(),
        reason,
    }
}

fn header_bytes<'a>(path: &Path, bytes: &'a [u8]) -> Result<&'a [u8], WeightsError> {
    let truncated = |what: &str, needed: u64| WeightsError::Truncated {
        file: path.to_path_buf(),
        what: what.into(),
        needed,
        found: bytes.len() as u64,
    };
    let (prefix, rest) = bytes
        .split_first_chunk::<8>()
        .ok_or_else(|| truncated("the header's length", PREFIX))?;
    let len = u64::from_le_bytes(*prefix);
    if len > LIMIT {
        return Err(bad_header(
            path,
            format!("its length {len} is above the format's limit of {LIMIT} bytes"),
        ));
    }
    // `len <= LIMIT` fits in usize on every supported machine.
    rest.get(..len as usize)
        .ok_or_else(|| truncated("the header", PREFIX + len))
}

/// Checks one tensor by itself and turns its offsets into a byte range of the file.
fn place(
    path: &Path,
    name: String,
    tensor: RawTensor,
    data: u64,
    file_len: u64,
) -> Result<Entry, WeightsError> {
    let (begin, end) = tensor.data_offsets;
    let file = || path.to_path_buf();
    let offsets = |reason: String| WeightsError::BadOffsets {
        file: file(),
        tensor: name.clone(),
        begin,
        end,
        reason,
    };
    if begin > end {
        return Err(offsets("the end is before the begin".into()));
    }
    let last = end
        .checked_add(data)
        .ok_or_else(|| offsets("they overflow".into()))?;
    if last > file_len {
        return Err(WeightsError::Truncated {
            file: file(),
            what: format!("tensor '{name}'"),
            needed: last,
            found: file_len,
        });
    }
    if let Some(expected) = byte_length(&tensor.dtype, &tensor.shape)
        && expected != end - begin
    {
        return Err(WeightsError::WrongLength {
            file: file(),
            tensor: name,
            found: end - begin,
            dtype: tensor.dtype,
            shape: tensor.shape,
            expected,
        });
    }
    Ok(Entry {
        name,
        stored: Stored::of(tensor.dtype),
        shape: tensor.shape,
        // `last <= file_len`, which is the length of a slice.
        range: (begin + data) as usize..last as usize,
    })
}

/// Bytes of a tensor, `None` for a dtype this version does not know; a product too large for
/// any file saturates.
fn byte_length(dtype: &str, shape: &[usize]) -> Option<u64> {
    let dtype: Dtype = serde_json::from_value(serde_json::Value::from(dtype)).ok()?;
    // Sizes beside a 0 are multiplied elsewhere too, so they must fit as if it was not there.
    let bits = |sizes: &mut dyn Iterator<Item = usize>| {
        let elements = sizes.fold(1u128, |n, d| n.saturating_mul(d as u128));
        elements.saturating_mul(dtype.bitsize() as u128)
    };
    let most = bits(&mut shape.iter().map(|&d| d.max(1))).div_ceil(8);
    match most <= MOST {
        true => u64::try_from(bits(&mut shape.iter().copied()).div_ceil(8)).ok(),
        false => Some(u64::MAX),
    }
}

/// Checks that no two tensors share a name or a byte.
pub(crate) fn check_apart(path: &Path, sorted: &[Entry], data: u64) -> Result<(), WeightsError> {
    let mut last: Option<&Entry> = None;
    for entry in sorted.iter().filter(|e| !e.range.is_empty()) {
        if let Some(before) = last.filter(|b| b.range.end > entry.range.start) {
            let relative = |r: &Range<usize>| (r.start as u64 - data, r.end as u64 - data);
            return Err(WeightsError::Overlap {
                file: path.to_path_buf(),
                first: before.name.clone(),
                first_offsets: relative(&before.range),
                second: entry.name.clone(),
                second_offsets: relative(&entry.range),
            });
        }
        last = Some(entry);
    }
    let mut names: Vec<&str> = sorted.iter().map(|e| e.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|w| w[0] == w[1]) {
        Some(twice) => Err(WeightsError::Duplicate {
            tensor: twice[0].to_string(),
            first: path.to_path_buf(),
            second: path.to_path_buf(),
        }),
        None => Ok(()),
    }
}
