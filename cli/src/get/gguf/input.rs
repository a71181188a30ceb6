//! The parts of a GGUF header, read one after another from what is left of it.

use std::io::Read;

use candle_core::quantized::GgmlDType;

use super::error::GgufError;
use super::header::{TensorInfo, Value};

/// The most bytes of a header; those of the largest vocabularies have some 20 MB.
const HEADER: u64 = 128 << 20;
/// The most axes of a tensor.
const AXES: u32 = 4;
/// Lists in lists, the most.
const DEPTH: u32 = 4;

/// A tensor before it is known where the data begins.
pub struct Raw {
    pub name: String,
    /// Columns first, as the file has it.
    dims: Vec<u64>,
    kind: u32,
    offset: u64,
}

impl Raw {
    /// Where it lies in a file of `len` bytes whose data begins at `data`.
    pub fn placed(&self, data: u64, len: u64) -> Result<TensorInfo, GgufError> {
        let wrong = |why: String| GgufError::Tensor {
            name: self.name.clone(),
            why,
        };
        let dtype =
            dtype(self.kind).ok_or_else(|| wrong(format!("type {} is not known", self.kind)))?;
        let (block, block_bytes) = (dtype.block_size() as u64, dtype.type_size() as u64);
        let columns = self.dims.first().copied().unwrap_or(1);
        if self.dims.contains(&0) {
            return Err(wrong(format!("{:?} holds no value", self.dims)));
        }
        if !columns.is_multiple_of(block) {
            return Err(wrong(format!(
                "{columns} columns are not whole blocks of {block}"
            )));
        }
        let elements = self
            .dims
            .iter()
            .try_fold(1u64, |all, d| all.checked_mul(*d));
        let bytes = elements.and_then(|n| (n / block).checked_mul(block_bytes));
        let begin = data.checked_add(self.offset);
        let end = begin
            .zip(bytes)
            .and_then(|(begin, bytes)| begin.checked_add(bytes));
        match (begin, bytes, end) {
            (Some(begin), Some(bytes), Some(end)) if end <= len => Ok(TensorInfo {
                shape: self.dims.iter().rev().map(|d| *d as usize).collect(),
                dtype,
                begin,
                bytes,
            }),
            _ => Err(wrong(format!(
                "{:?} from byte {data} + {} on does not lie in a file of {len} bytes",
                self.dims, self.offset
            ))),
        }
    }
}

/// The types that candle can read.
fn dtype(kind: u32) -> Option<GgmlDType> {
    Some(match kind {
        0 => GgmlDType::F32,
        1 => GgmlDType::F16,
        2 => GgmlDType::Q4_0,
        3 => GgmlDType::Q4_1,
        6 => GgmlDType::Q5_0,
        7 => GgmlDType::Q5_1,
        8 => GgmlDType::Q8_0,
        10 => GgmlDType::Q2K,
        11 => GgmlDType::Q3K,
        12 => GgmlDType::Q4K,
        13 => GgmlDType::Q5K,
        14 => GgmlDType::Q6K,
        30 => GgmlDType::BF16,
        _ => return None,
    })
}

/// What is left of a file's header.
pub struct Input<R> {
    reader: R,
    left: u64,
    /// Bytes so far.
    pub read: u64,
}

impl<R: Read> Input<R> {
    /// What is read of a file of `len` bytes.
    pub fn new(reader: R, len: u64) -> Self {
        Input {
            reader,
            left: len.min(HEADER),
            read: 0,
        }
    }

    fn take(&mut self, what: &str, bytes: u64) -> Result<Vec<u8>, GgufError> {
        if bytes > self.left {
            return Err(GgufError::Short {
                what: what.to_string(),
                needed: bytes,
                left: self.left,
            });
        }
        let mut taken = vec![0; bytes as usize];
        self.reader.read_exact(&mut taken).map_err(GgufError::Io)?;
        self.left -= bytes;
        self.read += bytes;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        let mut array = [0; N];
        array.copy_from_slice(&self.take(what, N as u64)?);
        Ok(array)
    }

    pub fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        self.array(what).map(u64::from_le_bytes)
    }

    pub fn count(&mut self, what: &'static str, most: u64) -> Result<u64, GgufError> {
        let count = self.u64(what)?;
        match count > most {
            true => Err(GgufError::TooMany { what, count, most }),
            false => Ok(count),
        }
    }

    fn text(&mut self, what: &str) -> Result<String, GgufError> {
        let len = self.u64(what)?;
        let bytes = self.take(what, len)?;
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    }

    pub fn pair(&mut self) -> Result<(String, Value), GgufError> {
        let key = self.text("a name")?;
        let kind = self.u32(&key)?;
        let value = self.value(&key, kind)?;
        Ok((key, value))
    }

    fn value(&mut self, key: &str, kind: u32) -> Result<Value, GgufError> {
        Ok(match kind {
            6 => Value::Float(f32::from_le_bytes(self.array(key)?)),
            7 | 12 => {
                self.take(key, width(key, kind)?)?;
                Value::Other
            }
            8 => Value::Text(self.text(key)?),
            9 => self.list(key)?,
            _ => Value::Integer(self.integer(key, kind)?),
        })
    }

    fn integer(&mut self, key: &str, kind: u32) -> Result<i128, GgufError> {
        Ok(match kind {
            0 => u8::from_le_bytes(self.array(key)?).into(),
            1 => i8::from_le_bytes(self.array(key)?).into(),
            2 => u16::from_le_bytes(self.array(key)?).into(),
            3 => i16::from_le_bytes(self.array(key)?).into(),
            4 => u32::from_le_bytes(self.array(key)?).into(),
            5 => i32::from_le_bytes(self.array(key)?).into(),
            10 => u64::from_le_bytes(self.array(key)?).into(),
            11 => i64::from_le_bytes(self.array(key)?).into(),
            _ => return Err(GgufError::value(key, format!("type {kind} is not known"))),
        })
    }

    fn list(&mut self, key: &str) -> Result<Value, GgufError> {
        let kind = self.u32(key)?;
        let count = self.u64(key)?;
        self.room(key, kind, count)?;
        Ok(match kind {
            8 => Value::Texts(
                (0..count)
                    .map(|_| self.text(key))
                    .collect::<Result<_, _>>()?,
            ),
            4 | 5 => {
                let bytes = self.take(key, count * 4)?;
                let words = bytes.as_chunks::<4>().0.iter();
                Value::Integers(match kind {
                    4 => words.map(|w| u32::from_le_bytes(*w).into()).collect(),
                    _ => words.map(|w| i32::from_le_bytes(*w).into()).collect(),
                })
            }
            _ => {
                self.pass(key, kind, count, 1)?;
                Value::Other
            }
        })
    }

    /// An error unless so many values of a type can be in what is left.
    fn room(&self, key: &str, kind: u32, count: u64) -> Result<(), GgufError> {
        let needed = count.saturating_mul(width(key, kind)?);
        match needed > self.left {
            true => Err(GgufError::Short {
                what: key.to_string(),
                needed,
                left: self.left,
            }),
            false => Ok(()),
        }
    }

    /// Passes over a list's values.
    fn pass(&mut self, key: &str, kind: u32, count: u64, depth: u32) -> Result<(), GgufError> {
        self.room(key, kind, count)?;
        match kind {
            8 => (0..count).try_for_each(|_| self.text(key).map(drop)),
            9 if depth == DEPTH => Err(GgufError::value(
                key,
                format!("lists are nested more than {DEPTH} deep"),
            )),
            9 => (0..count).try_for_each(|_| {
                let (kind, count) = (self.u32(key)?, self.u64(key)?);
                self.pass(key, kind, count, depth + 1)
            }),
            _ => self.take(key, count * width(key, kind)?).map(drop),
        }
    }

    pub fn tensor(&mut self) -> Result<Raw, GgufError> {
        let name = self.text("a tensor's name")?;
        let axes = self.u32(&name)?;
        if axes > AXES {
            return Err(GgufError::Tensor {
                why: format!("{axes} axes are more than {AXES}"),
                name,
            });
        }
        let dims = (0..axes)
            .map(|_| self.u64(&name))
            .collect::<Result<_, _>>()?;
        let (kind, offset) = (self.u32(&name)?, self.u64(&name)?);
        Ok(Raw {
            name,
            dims,
            kind,
            offset,
        })
    }
}

/// The fewest bytes of a value of a type.
fn width(key: &str, kind: u32) -> Result<u64, GgufError> {
    Ok(match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        8 | 10..=12 => 8,
        9 => 12,
        _ => return Err(GgufError::value(key, format!("type {kind} is not known"))),
    })
}
