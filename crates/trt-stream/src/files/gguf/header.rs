//! The header of one GGUF file, parsed and checked.
//!
//! After [`parse`] each name is there once, each tensor of a type that is read lies in the file with as many bytes as its
//! shape and type take, and no two share a byte. Of a tensor of another type only its name is kept: nobody knows here how
//! long it is.

use super::super::WeightsError;
use super::super::header::{Entry, MOST, Stored, check_apart};
use super::input::{Input, What};
use super::kinds;
use super::metadata::Field;
use super::value::{Value, read};
use std::path::Path;
use trt_kernel::Encoding;

/// What a GGUF file begins with.
pub(crate) const MAGIC: &[u8; 4] = b"GGUF";
/// The most axes of a tensor.
const AXES: u32 = 4;
/// Tensors begin on multiples of this, unless the file says otherwise.
const ALIGNMENT: usize = 32;
/// The name of what it says otherwise with.
const ALIGNMENT_KEY: &str = "general.alignment";
/// The fewest bytes of a named value: the length of the name, a type, a byte.
const LEAST_FIELD: u64 = 8 + 4 + 1;
/// The fewest bytes of what is said of a tensor: the length of its name, a number of axes, a type, an offset.
const LEAST_TENSOR: u64 = 8 + 4 + 4 + 8;

/// What a file says.
pub(crate) struct Header {
    /// By rising name.
    pub fields: Vec<Field>,
    /// By rising place.
    pub tensors: Vec<Entry>,
}

/// A tensor before it is known where the data begins.
struct Raw {
    name: String,
    /// Rows first.
    shape: Vec<usize>,
    kind: u32,
    offset: u64,
}

/// Parses and checks the header of a mapped file.
pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Header, WeightsError> {
    let mut input = Input::new(path, bytes);
    let magic = input.array::<4>(What::Header("the first word"))?;
    let version = input.u32(What::Header("the version"))?;
    let bad = |reason: String| WeightsError::BadHeader {
        file: path.to_path_buf(),
        reason,
    };
    if &magic != MAGIC {
        return Err(bad(format!("it begins with {magic:?}, not with \"GGUF\"")));
    }
    match version {
        2 | 3 => {}
        _ if matches!(version.swap_bytes(), 1..=3) => {
            let version = version.swap_bytes();
            return Err(bad(format!(
                "it is a GGUF file of version {version} with numbers in big-endian order; little-endian is read"
            )));
        }
        _ => {
            return Err(bad(format!(
                "it is a GGUF file of version {version}; 2 and 3 are read"
            )));
        }
    }
    let tensors = input.count(What::Header("the list of tensors"), LEAST_TENSOR)?;
    let values = input.count(What::Header("the list of named values"), LEAST_FIELD)?;
    let fields = fields(&mut input, values)?;
    // The values took what the tensors need.
    let least = (tensors as u64).saturating_mul(LEAST_TENSOR);
    input.room(What::Header("the list of tensors"), least)?;
    let mut raw = Vec::with_capacity(tensors);
    for _ in 0..tensors {
        raw.push(tensor(&mut input)?);
    }
    let alignment = alignment(path, bytes, &fields)?;
    let data = input.at().checked_next_multiple_of(alignment);
    // In a file of nothing but a header nobody asks where the data is.
    let data = data.unwrap_or(usize::MAX) as u64;
    let mut tensors = Vec::with_capacity(raw.len());
    for raw in raw {
        tensors.push(place(path, raw, data, alignment, bytes.len() as u64)?);
    }
    tensors.sort_by_key(|e: &Entry| (e.range.start, e.range.end));
    check_apart(path, &tensors, data)?;
    Ok(Header { fields, tensors })
}

/// The named values, by rising name.
fn fields(input: &mut Input<'_>, count: usize) -> Result<Vec<Field>, WeightsError> {
    let mut fields: Vec<Field> = Vec::with_capacity(count);
    for _ in 0..count {
        let key = input.name(What::Header("the name of a value"))?;
        let kind = input.kind(&key)?;
        let range = input.value(&key, kind)?;
        fields.push(Field { key, kind, range });
    }
    fields.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    match fields.windows(2).find(|w| w[0].key == w[1].key) {
        None => Ok(fields),
        Some(twice) => Err(WeightsError::BadValue {
            file: input.path.to_path_buf(),
            key: twice[0].key.clone(),
            reason: "it is there twice".into(),
        }),
    }
}

/// What the places of tensors are multiples of.
fn alignment(path: &Path, bytes: &[u8], fields: &[Field]) -> Result<usize, WeightsError> {
    let found = fields.binary_search_by(|f| f.key.as_str().cmp(ALIGNMENT_KEY));
    let Ok(at) = found else {
        return Ok(ALIGNMENT);
    };
    let value = bytes.get(fields[at].range.clone());
    let value = value.and_then(|bytes| read(fields[at].kind, bytes));
    let number = match value {
        Some(Value::Unsigned(n)) => usize::try_from(n).ok(),
        Some(Value::Signed(n)) => usize::try_from(n).ok(),
        _ => None,
    };
    let reason = match number {
        Some(n) if n.is_power_of_two() => return Ok(n),
        Some(n) => format!("{n} is no power of two"),
        None => "it is no whole number".to_string(),
    };
    Err(WeightsError::BadValue {
        file: path.to_path_buf(),
        key: ALIGNMENT_KEY.into(),
        reason,
    })
}

fn tensor(input: &mut Input<'_>) -> Result<Raw, WeightsError> {
    let name = input.name(What::Header("the name of a tensor"))?;
    let what = |part| What::Tensor(&name, part);
    let axes = input.u32(what("the number of axes"))?;
    if axes > AXES {
        return Err(bad_tensor(
            input.path,
            &name,
            format!("it has {axes} axes; {AXES} are the most"),
        ));
    }
    let mut shape = Vec::with_capacity(axes as usize);
    for _ in 0..axes {
        let size = input.u64(what("the shape"))?;
        let size = usize::try_from(size);
        shape.push(size.unwrap_or(usize::MAX));
    }
    // Files have columns first.
    shape.reverse();
    let kind = input.u32(what("the type"))?;
    let offset = input.u64(what("the offset"))?;
    Ok(Raw {
        name,
        shape,
        kind,
        offset,
    })
}

/// Checks one tensor by itself and turns its offset into a byte range of the file.
fn place(
    path: &Path,
    raw: Raw,
    data: u64,
    alignment: usize,
    file_len: u64,
) -> Result<Entry, WeightsError> {
    let bad = |reason: String| bad_tensor(path, &raw.name, reason);
    let stored = kinds::stored(raw.kind);
    let bytes = match &stored {
        Stored::As(encoding) => byte_length(*encoding, &raw.shape).map_err(bad)?,
        Stored::Otherwise(_) => 0,
    };
    if !raw.offset.is_multiple_of(alignment as u64) {
        let offset = raw.offset;
        return Err(bad(format!(
            "its offset {offset} is no multiple of {alignment}"
        )));
    }
    let begin = data.saturating_add(raw.offset);
    let end = begin.saturating_add(bytes);
    if end > file_len {
        return Err(WeightsError::Truncated {
            file: path.to_path_buf(),
            what: What::Tensor(&raw.name, "the bytes").to_string(),
            needed: end,
            found: file_len,
        });
    }
    Ok(Entry {
        name: raw.name,
        stored,
        shape: raw.shape,
        // `end <= file_len`, which is the length of a slice.
        range: begin as usize..end as usize,
    })
}

/// Bytes of a tensor, or why there is no such tensor.
fn byte_length(encoding: Encoding, shape: &[usize]) -> Result<u64, String> {
    let columns = shape.last().copied().unwrap_or(1);
    if shape.contains(&0) {
        return Err(format!("its shape {shape:?} holds no value"));
    }
    let Some(row) = encoding.row_bytes(columns) else {
        let (values, name) = (encoding.values(), encoding.name());
        return Err(match columns.is_multiple_of(values) {
            false => format!("its rows of {columns} are no whole blocks of {values} ({name})"),
            true => format!("its shape {shape:?} is more than can be addressed"),
        });
    };
    let rows = shape.iter().rev().skip(1);
    let bytes = rows.fold(row as u128, |n, d| n.saturating_mul(*d as u128));
    // Kernels count elements, of which there may be more than bytes.
    let elements = shape.iter().map(|d| *d as u128);
    let elements = elements.fold(1, u128::saturating_mul);
    match bytes.max(elements) <= MOST {
        true => Ok(bytes as u64),
        false => Err(format!("its shape {shape:?} is more than can be addressed")),
    }
}

fn bad_tensor(path: &Path, name: &str, reason: String) -> WeightsError {
    WeightsError::BadTensor {
        file: path.to_path_buf(),
        tensor: name.to_string(),
        reason,
    }
}
