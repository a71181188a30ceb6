//! What a model's files say about special tokens beside `tokenizer.json`.
//!
//! Names and precedence are transformers': the tokens of `tokenizer_config.json`; where that has no
//! `added_tokens_decoder`, `special_tokens_map.json` overrides them. A token is a string or an object with `content`.
//! Ids that end a text come from `generation_config.json`, from `config.json` (of the text model, where there are several)
//! and from the tokenizer's own end token, together.

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use crate::Error;
use crate::files;

/// A model's text files, as far as they are there. What `open` reads from a folder.
#[derive(Debug, Clone, Copy, Default)]
pub struct Files<'a> {
    /// `tokenizer.json`.
    pub tokenizer: &'a [u8],
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<&'a str>,
    /// `special_tokens_map.json`.
    pub special_tokens_map: Option<&'a str>,
    /// `generation_config.json`.
    pub generation_config: Option<&'a str>,
    /// `config.json`.
    pub config: Option<&'a str>,
}

/// What the files say.
#[derive(Debug, Default)]
pub(crate) struct Special {
    /// `bos_token` and the like, by name, in the order of the files.
    pub named: Vec<(String, AddedToken)>,
    /// Tokens without a name, all special.
    pub extra: Vec<AddedToken>,
    /// `added_tokens_decoder`, by rising id.
    pub added: Vec<(u32, AddedToken)>,
    /// `add_bos_token`, where it is said.
    pub add_bos: Option<bool>,
    /// `add_eos_token`, where it is said.
    pub add_eos: Option<bool>,
    /// Ids that end a text.
    pub ends: Vec<u32>,
}

const CONFIG: &str = "tokenizer_config.json";
const MAP: &str = "special_tokens_map.json";

impl Special {
    pub fn read(files: &Files<'_>) -> Result<Special, Error> {
        let object = |text: Option<&str>, name: &str| match text {
            Some(text) => files::object(text, name),
            None => Ok(Value::Object(Map::new())),
        };
        let config = object(files.tokenizer_config, CONFIG)?;
        let mut special = Special::default();
        special.tokens(&config, CONFIG)?;
        special.add_bos = flag(&config, "add_bos_token")?;
        special.add_eos = flag(&config, "add_eos_token")?;
        match &config["added_tokens_decoder"] {
            Value::Null => special.tokens(&object(files.special_tokens_map, MAP)?, MAP)?,
            Value::Object(added) => special.added = added_tokens(added)?,
            _ => return Err(bad(CONFIG, "added_tokens_decoder", "an object")),
        }
        for (text, name) in [
            (files.generation_config, "generation_config.json"),
            (files.config, "config.json"),
        ] {
            let settings = object(text, name)?;
            ids(&settings["eos_token_id"], name, &mut special.ends)?;
            let inner = &settings["text_config"];
            ids(&inner["eos_token_id"], name, &mut special.ends)?;
        }
        Ok(special)
    }

    /// Takes the tokens with names and the extra ones of one file.
    fn tokens(&mut self, object: &Value, file: &str) -> Result<(), Error> {
        let fields = object.as_object().into_iter().flatten();
        for (key, value) in fields {
            match key.as_str() {
                "additional_special_tokens" | "extra_special_tokens" => {
                    self.extras(key, value, file)?;
                }
                name if name.ends_with("_token") && !value.is_boolean() => {
                    self.named.retain(|(n, _)| n != name);
                    if let Some(token) = token(value, file, key)? {
                        self.named.push((key.clone(), token));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn extras(&mut self, key: &str, value: &Value, file: &str) -> Result<(), Error> {
        match value {
            Value::Null => {}
            Value::Array(list) => {
                for value in list {
                    self.extra.extend(token(value, file, key)?);
                }
            }
            Value::Object(named) => {
                for (name, value) in named {
                    if let Some(token) = token(value, file, key)? {
                        self.named.push((name.clone(), token));
                    }
                }
            }
            _ => return Err(bad(file, key, "a list or an object")),
        }
        Ok(())
    }

    /// The text of a token with a name.
    pub fn text(&self, name: &str) -> Option<&str> {
        let token = self.named.iter().find(|(n, _)| n == name)?;
        Some(token.1.content.as_str())
    }
}

fn bad(file: &str, key: &str, wanted: &str) -> Error {
    Error::malformed(file, format!("{key} is not {wanted}"))
}

fn flag(object: &Value, key: &str) -> Result<Option<bool>, Error> {
    match &object[key] {
        Value::Null => Ok(None),
        Value::Bool(value) => Ok(Some(*value)),
        _ => Err(bad(CONFIG, key, "true or false")),
    }
}

/// A string, an object with `content`, or nothing.
fn token(value: &Value, file: &str, key: &str) -> Result<Option<AddedToken>, Error> {
    let text = match value {
        Value::Null => return Ok(None),
        Value::String(text) => return Ok(Some(AddedToken::from(text.clone(), true))),
        Value::Object(_) => value["content"].as_str(),
        _ => None,
    };
    let Some(text) = text else {
        return Err(bad(
            file,
            key,
            "a string or an object with a string `content`",
        ));
    };
    let is = |name: &str| value[name].as_bool();
    Ok(Some(
        AddedToken::from(text, true)
            .single_word(is("single_word").unwrap_or(false))
            .lstrip(is("lstrip").unwrap_or(false))
            .rstrip(is("rstrip").unwrap_or(false))
            .normalized(is("normalized").unwrap_or(false)),
    ))
}

fn added_tokens(added: &Map<String, Value>) -> Result<Vec<(u32, AddedToken)>, Error> {
    let mut tokens = Vec::new();
    for (id, value) in added {
        let key = format!("added_tokens_decoder.{id}");
        let number = id.parse::<u32>();
        let number = number.map_err(|_| bad(CONFIG, &key, "under a token's id"))?;
        let Some(token) = token(value, CONFIG, &key)? else {
            return Err(bad(CONFIG, &key, "an object"));
        };
        let special = value["special"].as_bool().unwrap_or(false);
        let normalized = value["normalized"].as_bool().unwrap_or(!special);
        tokens.push((number, token.special(special).normalized(normalized)));
    }
    tokens.sort_by_key(|(id, _)| *id);
    Ok(tokens)
}

/// One id or a list of them. Numbers such as `2.0` are ids; negative ones mean that there is none.
fn ids(value: &Value, file: &str, to: &mut Vec<u32>) -> Result<(), Error> {
    match value {
        Value::Null => Ok(()),
        Value::Array(list) => list.iter().try_for_each(|id| ids_of_one(id, file, to)),
        one => ids_of_one(one, file, to),
    }
}

fn ids_of_one(value: &Value, file: &str, to: &mut Vec<u32>) -> Result<(), Error> {
    let wrong = || {
        Error::malformed(
            file,
            format!("eos_token_id {value} is not the number of a token"),
        )
    };
    let number = value.as_f64().ok_or_else(wrong)?;
    if number < 0.0 {
        return Ok(());
    }
    if number.fract() != 0.0 || number > f64::from(u32::MAX) {
        return Err(wrong());
    }
    let id = number as u32;
    if !to.contains(&id) {
        to.push(id);
    }
    Ok(())
}
