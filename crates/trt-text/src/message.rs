//! Turns of a conversation.

use crate::{Error, Json};

/// One message: who says it, what, and whatever else a model's template reads, such as `tool_calls`.
#[derive(Debug, Clone)]
pub struct Message {
    fields: Vec<(String, Json)>,
}

impl Message {
    /// A message of a role such as `user`.
    pub fn new(role: &str, content: &str) -> Self {
        Message {
            fields: vec![
                ("role".into(), role.into()),
                ("content".into(), content.into()),
            ],
        }
    }

    /// What the model is to be.
    pub fn system(content: &str) -> Self {
        Self::new("system", content)
    }

    /// What a user says.
    pub fn user(content: &str) -> Self {
        Self::new("user", content)
    }

    /// What the model said.
    pub fn assistant(content: &str) -> Self {
        Self::new("assistant", content)
    }

    /// With one more field, or another value of one.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Json>) -> Self {
        self.fields.retain(|(n, _)| n != name);
        self.fields.push((name.into(), value.into()));
        self
    }

    /// A message from the text of a JSON object.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] where it is not one.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let fields = Json::parse(text)?.fields();
        let fields =
            fields.ok_or_else(|| Error::malformed("message", "it is not a JSON object"))?;
        Ok(Message { fields })
    }

    /// Its fields, in order.
    pub(crate) fn fields(&self) -> &[(String, Json)] {
        &self.fields
    }
}
