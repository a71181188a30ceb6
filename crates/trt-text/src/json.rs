//! JSON as templates see it: objects keep the order of their fields, as in Python.

use std::fmt;

use minijinja::Value;
use minijinja::value::ValueKind;
use serde::Serialize;

use crate::Error;

/// A JSON value that keeps the order of its fields, which templates print.
#[derive(Clone)]
pub struct Json(pub(crate) Value);

impl Json {
    /// Reads a value from its text.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] where it is not JSON.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let value = serde_json::from_str(text).map_err(|e| Error::malformed("JSON", e))?;
        Ok(Json(value))
    }

    /// Any value that can be written as JSON; fields of a struct keep their order.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] where it cannot, such as a map whose keys are no strings.
    pub fn from_serialize(value: &impl Serialize) -> Result<Self, Error> {
        let text = serde_json::to_string(value).map_err(|e| Error::malformed("JSON", e))?;
        Json::parse(&text)
    }

    /// The fields of an object, in order; none where it is something else.
    pub fn fields(&self) -> Option<Vec<(String, Json)>> {
        if self.0.kind() != ValueKind::Map {
            return None;
        }
        let keys = self.0.try_iter().ok()?;
        keys.map(|key| Some((key.to_string(), Json(self.0.get_item(&key).ok()?))))
            .collect()
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Json(Value::from(text))
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
