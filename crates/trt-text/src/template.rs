//! Prompts as the model was trained to read them.
//!
//! The model's own template (Jinja, from `chat_template.jinja` or `tokenizer_config.json`) is rendered as transformers
//! renders it. Where there is none the tokens of the vocabulary say which of the common forms the model knows.

use std::path::Path;

use minijinja::Value;
use serde_json::Value as JsonValue;

use crate::{Error, Files, Json, Message, Tokenizer, files, gguf, jinja};

/// A form of conversation: the token that gives it away, and its template. The line ends at the end of a template are
/// inside a Jinja string, because Jinja drops the last one of a template's own.
const COMMON: [(&str, &str); 3] = [
    (
        "<|im_start|>",
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
         {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    ),
    (
        "<|start_header_id|>",
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n\
         {{ m.content }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}\
         {{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    ),
    (
        "[INST]",
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}{{ eos_token }}\
         {% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}",
    ),
];

/// A conversation and what else its template may be told.
#[derive(Debug, Clone)]
pub struct Conversation<'a> {
    /// The turns so far.
    pub messages: &'a [Message],
    /// A list of tools, as JSON schemas.
    pub tools: Option<&'a Json>,
    /// A list of documents.
    pub documents: Option<&'a Json>,
    /// Whether the prompt ends where the assistant begins to answer.
    pub add_generation_prompt: bool,
    /// Other variables, such as `enable_thinking`.
    pub variables: &'a [(String, Json)],
}

impl<'a> Conversation<'a> {
    /// These messages, up to where the assistant begins.
    pub fn new(messages: &'a [Message]) -> Self {
        Conversation {
            messages,
            tools: None,
            documents: None,
            add_generation_prompt: true,
            variables: &[],
        }
    }
}

/// A model's way to write a conversation.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    sources: Vec<(String, String)>,
    tokens: Vec<(String, String)>,
}

const DEFAULT: &str = "default";

impl ChatTemplate {
    /// The template of the model in `folder`: `chat_template.jinja` and those in `additional_chat_templates`, else
    /// `chat_template.json`, else the `chat_template` of `tokenizer_config.json`, else the common form that the
    /// vocabulary gives away.
    ///
    /// # Errors
    ///
    /// [`Error::NoTemplate`] where there is none of these; [`Error::Read`] and its like for the files.
    pub fn open(folder: impl AsRef<Path>, tokenizer: &Tokenizer) -> Result<Self, Error> {
        Self::of(sources(folder.as_ref())?, tokenizer)
    }

    /// The template that a GGUF file holds, else the common form that the vocabulary gives away.
    ///
    /// # Errors
    ///
    /// [`Error::NoTemplate`] where there is neither; [`Error::NoGguf`] and [`Error::Gguf`].
    pub fn from_gguf(weights: &trt_engine::Weights, tokenizer: &Tokenizer) -> Result<Self, Error> {
        let templates = gguf::chat_template(weights)?;
        Self::of(templates_in(&templates, "the GGUF file")?, tokenizer)
    }

    /// The template in the `tokenizer_config.json` of these files, else the common form that the vocabulary gives away.
    ///
    /// # Errors
    ///
    /// [`Error::NoTemplate`] where there is neither; [`Error::Malformed`].
    pub fn from_files(files: &Files<'_>, tokenizer: &Tokenizer) -> Result<Self, Error> {
        let file = "tokenizer_config.json";
        let settings = match files.tokenizer_config {
            Some(text) => files::object(text, file)?,
            None => JsonValue::Null,
        };
        Self::of(templates_in(&settings["chat_template"], file)?, tokenizer)
    }

    /// These, or a common form where there are none.
    fn of(sources: Vec<(String, String)>, tokenizer: &Tokenizer) -> Result<Self, Error> {
        let sources = match sources.is_empty() {
            false => sources,
            true => {
                let has = |(token, _): &&(&str, &str)| tokenizer.token_to_id(token).is_some();
                let (_, source) = COMMON.iter().find(has).ok_or(Error::NoTemplate)?;
                vec![(DEFAULT.to_string(), source.to_string())]
            }
        };
        Ok(ChatTemplate {
            sources,
            tokens: tokens(tokenizer),
        })
    }

    /// A template from its source.
    pub fn new(source: &str, tokenizer: &Tokenizer) -> Self {
        ChatTemplate {
            sources: vec![(DEFAULT.to_string(), source.to_string())],
            tokens: tokens(tokenizer),
        }
    }

    /// The prompt of a conversation. With tools the template named `tool_use` is taken where there is one.
    ///
    /// # Errors
    ///
    /// [`Error::Template`] for a fault of the template or a conversation that it refuses, [`Error::TemplateLimit`] where
    /// it asks for too much, [`Error::NoNamedTemplate`] where there are several and no default.
    pub fn render(&self, conversation: &Conversation<'_>) -> Result<String, Error> {
        let source = self.source(conversation.tools.is_some())?;
        jinja::render(source, &self.variables(conversation))
    }

    /// The default template with exactly these variables: no messages, tokens or anything else beside them.
    ///
    /// # Errors
    ///
    /// As for [`render`](Self::render).
    pub fn render_variables(&self, variables: &[(String, Json)]) -> Result<String, Error> {
        let variables = variables.iter().map(|(n, j)| (n.clone(), j.0.clone()));
        jinja::render(self.source(false)?, &variables.collect::<Vec<_>>())
    }

    fn source(&self, tools: bool) -> Result<&str, Error> {
        let named = |name: &str| self.sources.iter().find(|(n, _)| n == name);
        let with_tools = tools.then(|| named("tool_use")).flatten();
        let Some((_, source)) = with_tools.or_else(|| named(DEFAULT)) else {
            return Err(Error::NoNamedTemplate {
                wanted: DEFAULT.to_string(),
                names: self.sources.iter().map(|(n, _)| n.clone()).collect(),
            });
        };
        Ok(source)
    }

    fn variables(&self, conversation: &Conversation<'_>) -> Vec<(String, Value)> {
        let optional = |json: Option<&Json>| json.map_or(Value::from(()), |j| j.0.clone());
        let messages = conversation.messages.iter().map(plain);
        let mut variables = vec![
            ("messages".into(), messages.collect::<Value>()),
            ("tools".into(), optional(conversation.tools)),
            ("documents".into(), optional(conversation.documents)),
            (
                "add_generation_prompt".into(),
                Value::from(conversation.add_generation_prompt),
            ),
        ];
        let tokens = self.tokens.iter();
        variables.extend(tokens.map(|(n, t)| (n.clone(), Value::from(t.as_str()))));
        let others = conversation.variables.iter();
        variables.extend(others.map(|(n, j)| (n.clone(), j.0.clone())));
        variables
    }
}

/// A message as templates see it: fields that are null are left out, and what a model thought is there under all of the
/// names that templates read.
fn plain(message: &Message) -> Value {
    let some = message.fields().iter().filter(|(_, v)| !v.0.is_none());
    let mut fields: Vec<(&str, Value)> = some.map(|(n, v)| (n.as_str(), v.0.clone())).collect();
    let thought = ["reasoning_content", "thinking", "reasoning"];
    let thought = thought.iter().find_map(|name| {
        let found = fields.iter().find(|(n, _)| n == name)?;
        Some(found.1.clone())
    });
    if let Some(thought) = thought {
        if !fields.iter().any(|(n, _)| *n == "thinking") {
            fields.insert(0, ("thinking", thought.clone()));
        }
        match fields.iter_mut().find(|(n, _)| *n == "reasoning_content") {
            Some((_, value)) => *value = thought,
            None => fields.push(("reasoning_content", thought)),
        }
    }
    Value::from_pairs(fields)
}

fn tokens(tokenizer: &Tokenizer) -> Vec<(String, String)> {
    let named = tokenizer.special_tokens();
    named.map(|(n, t)| (n.to_string(), t.to_string())).collect()
}

/// The templates of a folder, by name.
fn sources(folder: &Path) -> Result<Vec<(String, String)>, Error> {
    let mut sources = Vec::new();
    if let Some(text) = files::text(&folder.join("chat_template.jinja"), files::TEMPLATE)? {
        sources.push((DEFAULT.to_string(), text));
    }
    for name in ["tool_use", "rag"] {
        let path = folder
            .join("additional_chat_templates")
            .join(format!("{name}.jinja"));
        if let Some(text) = files::text(&path, files::TEMPLATE)? {
            sources.push((name.to_string(), text));
        }
    }
    for file in ["chat_template.json", "tokenizer_config.json"] {
        if sources.is_empty() {
            let settings = files::settings(&folder.join(file))?;
            sources = templates_in(&settings["chat_template"], file)?;
        }
    }
    Ok(sources)
}

/// `chat_template` is one template, or a list of named ones.
fn templates_in(setting: &JsonValue, file: &str) -> Result<Vec<(String, String)>, Error> {
    let wrong = || {
        Error::malformed(
            file,
            "chat_template is not a string or a list of objects with `name` and `template`",
        )
    };
    let named = |t: &JsonValue| {
        let (name, template) = (t["name"].as_str()?, t["template"].as_str()?);
        Some((name.to_string(), template.to_string()))
    };
    match setting {
        JsonValue::Null => Ok(Vec::new()),
        JsonValue::String(source) => Ok(vec![(DEFAULT.to_string(), source.clone())]),
        JsonValue::Array(list) => list.iter().map(|t| named(t).ok_or_else(wrong)).collect(),
        _ => Err(wrong()),
    }
}
