//! What a GGUF file says of its model: values with names.
//!
//! Names and places are found when the file is opened; a value is read when it is asked for, since a vocabulary is
//! megabytes that most who open weights never look at. Nothing says that a value is of the type that its reader expects,
//! so each of the typed readers here fails with the file, the name and what is there.

use super::super::WeightsError;
use super::value::{Array, Kind, Value, read};
use memmap2::Mmap;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// Where a value lies.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub key: String,
    pub kind: Kind,
    pub range: Range<usize>,
}

/// The values with names of a GGUF file.
#[derive(Clone)]
pub struct Metadata {
    path: PathBuf,
    map: Arc<Mmap>,
    /// By rising name, each once.
    fields: Vec<Field>,
}

impl Metadata {
    /// Of fields that were found in this mapping, by rising name.
    pub(crate) fn new(path: PathBuf, map: Arc<Mmap>, fields: Vec<Field>) -> Metadata {
        Metadata { path, map, fields }
    }

    /// The value of a name.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        let at = self.fields.binary_search_by(|f| f.key.as_str().cmp(key));
        self.value(&self.fields[at.ok()?])
    }

    /// All values, by rising name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        self.typed().map(|(key, _, value)| (key, value))
    }

    /// All values with the types that the file has them in, by rising name.
    pub fn typed(&self) -> impl Iterator<Item = (&str, Kind, Value<'_>)> {
        let fields = self.fields.iter();
        fields.filter_map(|f| Some((f.key.as_str(), f.kind, self.value(f)?)))
    }

    fn value(&self, field: &Field) -> Option<Value<'_>> {
        read(field.kind, self.map.get(field.range.clone())?)
    }

    /// A text, if there is a value of this name.
    ///
    /// # Errors
    /// [`WeightsError::BadValue`] for a value that is no text.
    pub fn text(&self, key: &str) -> Result<Option<String>, WeightsError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Text(bytes)) => self.utf8(key, bytes).map(Some),
            Some(other) => Err(self.wrong(key, other, "a text")),
        }
    }

    /// A whole number that is not negative, if there is a value of this name.
    ///
    /// # Errors
    /// [`WeightsError::BadValue`] for any other value.
    pub fn count(&self, key: &str) -> Result<Option<usize>, WeightsError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let count = match value {
            Value::Unsigned(n) => usize::try_from(n).ok(),
            Value::Signed(n) => usize::try_from(n).ok(),
            _ => None,
        };
        match count {
            Some(n) => Ok(Some(n)),
            None => Err(self.wrong(key, value, "a whole number of 0 or more")),
        }
    }

    /// A finite number, if there is a value of this name. One of 32 bits is the nearest that is written with as many
    /// digits as tell it from others: 0.00001, not the 64 bits that are nearest to it.
    ///
    /// # Errors
    /// [`WeightsError::BadValue`] for any other value.
    pub fn number(&self, key: &str) -> Result<Option<f64>, WeightsError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let number = match value {
            Value::Unsigned(n) => Some(n as f64),
            Value::Signed(n) => Some(n as f64),
            Value::F32(n) => n.to_string().parse().ok(),
            Value::F64(n) => Some(n),
            Value::Bool(_) | Value::Text(_) | Value::Array(_) => None,
        };
        match number.filter(|n: &f64| n.is_finite()) {
            Some(n) => Ok(Some(n)),
            None => Err(self.wrong(key, value, "a finite number")),
        }
    }

    /// Yes or no, if there is a value of this name.
    ///
    /// # Errors
    /// [`WeightsError::BadValue`] for any other value.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, WeightsError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(0)) => Ok(Some(false)),
            Some(Value::Bool(1)) => Ok(Some(true)),
            Some(other) => Err(self.wrong(key, other, "true or false")),
        }
    }

    /// A list, if there is a value of this name.
    ///
    /// # Errors
    /// [`WeightsError::BadValue`] for any other value.
    pub fn list(&self, key: &str) -> Result<Option<Array<'_>>, WeightsError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(other) => Err(self.wrong(key, other, "a list")),
        }
    }

    /// A list of texts, if there is a value of this name.
    ///
    /// # Errors
    /// [`WeightsError::BadValue`] for any other value.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<String>>, WeightsError> {
        let text = |value: Value<'_>| match value {
            Value::Text(bytes) => self.utf8(key, bytes),
            other => Err(self.wrong(key, other, "a text")),
        };
        self.all(key, text)
    }

    /// A list of whole numbers, if there is a value of this name.
    ///
    /// # Errors
    /// [`WeightsError::BadValue`] for any other value.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<i64>>, WeightsError> {
        let integer = |value: Value<'_>| {
            let integer = match value {
                Value::Unsigned(n) => i64::try_from(n).ok(),
                Value::Signed(n) => Some(n),
                Value::Bool(b) => Some(b.into()),
                _ => None,
            };
            integer.ok_or_else(|| self.wrong(key, value, "a whole number"))
        };
        self.all(key, integer)
    }

    /// A list of floats, if there is a value of this name.
    ///
    /// # Errors
    /// [`WeightsError::BadValue`] for any other value.
    pub fn floats(&self, key: &str) -> Result<Option<Vec<f32>>, WeightsError> {
        let float = |value: Value<'_>| match value {
            Value::F32(n) => Ok(n),
            other => Err(self.wrong(key, other, "a float of 32 bits")),
        };
        self.all(key, float)
    }

    /// The values of a list. As many bytes as values were there, and no more is reserved than they need.
    fn all<T>(
        &self,
        key: &str,
        read: impl Fn(Value<'_>) -> Result<T, WeightsError>,
    ) -> Result<Option<Vec<T>>, WeightsError> {
        let Some(list) = self.list(key)? else {
            return Ok(None);
        };
        let mut all = Vec::with_capacity(usize::try_from(list.len()).unwrap_or(0));
        for value in list.iter() {
            all.push(read(value)?);
        }
        Ok(Some(all))
    }

    /// The tokens that end a text, a turn or a message, as far as they are named.
    ///
    /// # Errors
    /// [`WeightsError::BadValue`] for a value that is no token.
    pub fn end_tokens(&self) -> Result<Vec<usize>, WeightsError> {
        let mut ends = Vec::new();
        for name in ["eos", "eot", "eom"] {
            let token = self.count(&format!("tokenizer.ggml.{name}_token_id"))?;
            ends.extend(token.filter(|id| !ends.contains(id)));
        }
        Ok(ends)
    }

    /// The error of a value that is not what it should be.
    pub fn bad(&self, key: &str, reason: impl Into<String>) -> WeightsError {
        WeightsError::BadValue {
            file: self.path.clone(),
            key: key.to_string(),
            reason: reason.into(),
        }
    }

    /// The error of a value that should be there.
    pub fn missing(&self, key: &str) -> WeightsError {
        self.bad(key, "there is no such value")
    }

    fn utf8(&self, key: &str, bytes: &[u8]) -> Result<String, WeightsError> {
        // Copied first: what lies in the mapping may become other bytes.
        String::from_utf8(bytes.to_vec()).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            self.bad(key, format!("it is no UTF-8 from byte {at} on"))
        })
    }

    fn wrong(&self, key: &str, found: Value<'_>, expected: &str) -> WeightsError {
        let found = match found {
            Value::Unsigned(n) => n.to_string(),
            Value::Signed(n) => n.to_string(),
            Value::F32(n) => n.to_string(),
            Value::F64(n) => n.to_string(),
            Value::Bool(b) => format!("the byte {b} for true or false"),
            Value::Text(bytes) => format!("a text of {} bytes", bytes.len()),
            Value::Array(list) => format!("a list of {}", list.len()),
        };
        self.bad(key, format!("it is {found}, not {expected}"))
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metadata({} values)", self.fields.len())
    }
}
