//! Fields of a JSON object, read as people and programs write them.
//!
//! `null` is as good as nothing, whole numbers may have a point (`64.0`), and text may begin with a byte-order mark.
//! Anything else that is no value of a field's kind is an error that names the field and what it says.

use super::{ConfigError, read};
use serde_json::{Map, Value};

/// The JSON object of a configuration.
pub(super) fn parse(text: &str) -> Result<Map<String, Value>, ConfigError> {
    if text.len() > read::MOST {
        return Err(ConfigError::TooLong { most: read::MOST });
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    serde_json::from_str(text).map_err(ConfigError::Parse)
}

/// An object and where it stands, for messages: `""` or a prefix such as `rope_scaling.`.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    pub map: &'a Map<String, Value>,
    pub path: &'a str,
}

impl<'a> Fields<'a> {
    /// What a field says, if it says anything.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// The field's name with where it stands.
    pub fn full(&self, name: &str) -> String {
        format!("{}{name}", self.path)
    }

    fn wrong(&self, name: &str, value: &Value, expected: &'static str) -> ConfigError {
        ConfigError::Wrong {
            field: self.full(name),
            value: short(value),
            expected,
        }
    }

    fn read<T>(
        &self,
        name: &str,
        expected: &'static str,
        of: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        of(value)
            .map(Some)
            .ok_or_else(|| self.wrong(name, value, expected))
    }

    /// A number of things.
    pub fn count(&self, name: &str) -> Result<Option<usize>, ConfigError> {
        self.read(name, "a whole number of 0 or more", |value| {
            usize::try_from(whole(value)?).ok()
        })
    }

    /// A finite number.
    pub fn number(&self, name: &str) -> Result<Option<f64>, ConfigError> {
        self.read(name, "a finite number", |value| {
            value.as_f64().filter(|number| number.is_finite())
        })
    }

    /// `true` or `false`.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, ConfigError> {
        self.read(name, "true or false", Value::as_bool)
    }

    /// A text.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>, ConfigError> {
        self.read(name, "a text", Value::as_str)
    }

    /// Several texts.
    pub fn texts(&self, name: &str) -> Result<Option<Vec<&'a str>>, ConfigError> {
        self.read(name, "a list of texts", |value| {
            value.as_array()?.iter().map(Value::as_str).collect()
        })
    }

    /// An object; an empty one says nothing.
    pub fn object(&self, name: &str) -> Result<Option<&'a Map<String, Value>>, ConfigError> {
        let object = self.read(name, "an object", Value::as_object)?;
        Ok(object.filter(|map| !map.is_empty()))
    }

    /// Token ids: one or several; negative ones stand for none.
    pub fn tokens(&self, name: &str) -> Result<Vec<u32>, ConfigError> {
        let several = |value: &Value| match value {
            Value::Array(list) => list.iter().filter(|v| !v.is_null()).map(token).collect(),
            one => Some(vec![token(one)?]),
        };
        let ids: Option<Vec<Option<u32>>> =
            self.read(name, "a token id or a list of them", several)?;
        Ok(ids.into_iter().flatten().flatten().collect())
    }
}

/// A token id, or that there is none.
fn token(value: &Value) -> Option<Option<u32>> {
    match whole(value)? {
        id if id < 0 => Some(None),
        id => u32::try_from(id).ok().map(Some),
    }
}

/// A whole number, with a point or without.
fn whole(value: &Value) -> Option<i128> {
    let number = value.as_number()?;
    let exact = number
        .as_u64()
        .map(i128::from)
        .or_else(|| number.as_i64().map(i128::from));
    exact.or_else(|| {
        let float = number.as_f64()?;
        (float.fract() == 0.0 && float.abs() < 9.0e15).then_some(float as i128)
    })
}

/// A value for a message, cut where it is long.
pub(super) fn short(value: &Value) -> String {
    const MOST: usize = 80;
    let text = match value {
        // Not written out in full first: it may be the whole file.
        Value::Array(list) if list.len() > MOST => format!("a list of {}", list.len()),
        Value::Object(map) if map.len() > MOST => format!("an object of {} fields", map.len()),
        other => other.to_string(),
    };
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
