//! The header of a GGUF file: named values, and where its tensors lie.
//!
//! The file is not trusted. Every count and length is held against the bytes that are left before memory is asked for,
//! the header as a whole has a bound, and each tensor lies in the file with as many bytes as its shape and type take.

use std::collections::BTreeMap;
use std::io::Read;

use candle_core::quantized::GgmlDType;

use super::error::GgufError;
use super::input::Input;

/// The most values that have names.
const VALUES: u64 = 1 << 16;
/// The most tensors.
const TENSORS: u64 = 1 << 20;
/// Tensors begin on multiples of this, unless `general.alignment` says otherwise.
const ALIGNMENT: u64 = 32;

/// A value with a name. Lists of what nothing here reads are passed over.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Any width, signed or not.
    Integer(i128),
    /// An f32.
    Float(f32),
    /// A string; bytes that are no UTF-8 are replacement characters.
    Text(String),
    /// A list of strings.
    Texts(Vec<String>),
    /// A list of integers of 32 bits or fewer.
    Integers(Vec<i64>),
    /// Anything else.
    Other,
}

/// Where a tensor lies, and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Rows first, as candle has it.
    pub shape: Vec<usize>,
    /// How its values are stored.
    pub dtype: GgmlDType,
    /// Where its bytes begin in the file.
    pub begin: u64,
    /// How many they are.
    pub bytes: u64,
}

/// What a file says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// Values by name.
    pub values: BTreeMap<String, Value>,
    /// Tensors by name.
    pub tensors: BTreeMap<String, TensorInfo>,
}

impl Header {
    /// Reads the header of a file of `len` bytes from its beginning.
    ///
    /// # Errors
    ///
    /// A [`GgufError`] that says what is wrong with it.
    pub fn read(reader: impl Read, len: u64) -> Result<Self, GgufError> {
        let mut input = Input::new(reader, len);
        let magic = input.array::<4>("the first word")?;
        if &magic != b"GGUF" {
            return Err(GgufError::Magic(
                String::from_utf8_lossy(&magic).into_owned(),
            ));
        }
        let version = input.u32("the version")?;
        if !(2..=3).contains(&version) {
            return Err(GgufError::Version(version));
        }
        let tensors = input.count("tensors", TENSORS)?;
        let values = input.count("values", VALUES)?;
        let values = (0..values)
            .map(|_| input.pair())
            .collect::<Result<BTreeMap<_, _>, _>>()?;
        let raw = (0..tensors)
            .map(|_| input.tensor())
            .collect::<Result<Vec<_>, _>>()?;
        let alignment = match values.get("general.alignment") {
            None => ALIGNMENT,
            Some(Value::Integer(a)) if (1..=1 << 20).contains(a) => *a as u64,
            Some(other) => {
                return Err(GgufError::Value {
                    key: "general.alignment".into(),
                    why: format!("tensors cannot begin on multiples of {other:?}"),
                });
            }
        };
        let data = input.read.next_multiple_of(alignment);
        let mut tensors = BTreeMap::new();
        for raw in raw {
            let info = raw.placed(data, len)?;
            tensors.insert(raw.name, info);
        }
        Ok(Header { values, tensors })
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Result<&Value, GgufError> {
        self.values
            .get(key)
            .ok_or_else(|| GgufError::Missing(key.to_string()))
    }

    /// A number that counts something.
    pub fn number(&self, key: &str) -> Result<usize, GgufError> {
        match self.get(key)? {
            Value::Integer(n) => {
                usize::try_from(*n).map_err(|_| GgufError::value(key, format!("it cannot be {n}")))
            }
            _ => Err(GgufError::value(key, "it is not a whole number")),
        }
    }

    /// As [`number`](Self::number), at least 1.
    pub fn positive(&self, key: &str) -> Result<usize, GgufError> {
        match self.number(key)? {
            0 => Err(GgufError::value(key, "it cannot be 0")),
            n => Ok(n),
        }
    }

    /// A floating-point number.
    pub fn float(&self, key: &str) -> Result<f32, GgufError> {
        match self.get(key)? {
            Value::Float(f) if f.is_finite() => Ok(*f),
            _ => Err(GgufError::value(key, "it is not a finite f32")),
        }
    }

    /// A string.
    pub fn text(&self, key: &str) -> Result<&str, GgufError> {
        match self.get(key)? {
            Value::Text(text) => Ok(text),
            _ => Err(GgufError::value(key, "it is not a string")),
        }
    }

    /// A list of strings.
    pub fn texts(&self, key: &str) -> Result<&[String], GgufError> {
        match self.get(key)? {
            Value::Texts(texts) => Ok(texts),
            _ => Err(GgufError::value(key, "it is not a list of strings")),
        }
    }

    /// A list of integers.
    pub fn integers(&self, key: &str) -> Result<&[i64], GgufError> {
        match self.get(key)? {
            Value::Integers(all) => Ok(all),
            _ => Err(GgufError::value(key, "it is not a list of integers")),
        }
    }
}
