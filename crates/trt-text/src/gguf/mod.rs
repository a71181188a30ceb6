//! The text files of a model that is a GGUF file: what its `tokenizer.json` and the files beside it would say.
//!
//! A GGUF file keeps the vocabulary with a kind for each token, and either merges (`gpt2`) or scores (`llama`,
//! SentencePiece's); what else a tokenizer does it only names. Here that becomes the files of a Hugging Face folder, in
//! their own formats, so that everything that reads and checks those serves both. Tokens keep their numbers: each is
//! where it stands in the file, and what stands in a place that no text can reach has none.

mod pieces;
mod pre;
mod words;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::{Value, json};
use std::collections::HashMap;
use trt_engine::Weights;

use crate::{Error, Files};

/// The name of the model's way to make tokens.
const MODEL: &str = "tokenizer.ggml.model";
const TOKENS: &str = "tokenizer.ggml.tokens";
const KINDS: &str = "tokenizer.ggml.token_type";
const TEMPLATE: &str = "tokenizer.chat_template";

/// Names of special tokens, as Hugging Face's files and GGUF files have them.
const NAMED: [(&str, &str); 6] = [
    ("bos_token", "tokenizer.ggml.bos_token_id"),
    ("eos_token", "tokenizer.ggml.eos_token_id"),
    ("unk_token", "tokenizer.ggml.unknown_token_id"),
    ("sep_token", "tokenizer.ggml.seperator_token_id"),
    ("pad_token", "tokenizer.ggml.padding_token_id"),
    ("mask_token", "tokenizer.ggml.mask_token_id"),
];

/// What the text files of a GGUF model would hold.
#[derive(Debug, Clone)]
pub struct GgufFiles {
    /// `tokenizer.json`.
    pub tokenizer: Vec<u8>,
    /// `tokenizer_config.json`: special tokens, and the chat template where there is one.
    pub tokenizer_config: String,
    /// `generation_config.json`: tokens that end a text.
    pub generation_config: String,
}

impl GgufFiles {
    /// Reads them of the GGUF file that these weights are.
    ///
    /// # Errors
    ///
    /// [`Error::NoGguf`] for weights in other files; [`Error::Gguf`] for a tokenizer of a kind that is not known, and for
    /// a value that is missing or not what it should be.
    pub fn read(weights: &Weights) -> Result<Self, Error> {
        let source = Source::new(weights)?;
        let vocabulary = Vocabulary::read(&source)?;
        let index = vocabulary.index(&source)?;
        let model = source.needed(MODEL)?;
        let made = match model.as_str() {
            "gpt2" => words::made(&source, &index)?,
            "llama" => pieces::made(&source, &vocabulary, &index)?,
            other => {
                let shown: String = other.chars().take(80).collect();
                return Err(source.bad(MODEL, &format!("it is '{shown}'; gpt2 and llama are read")));
            }
        };
        let wrong = |e: serde_json::Error| source.bad(TOKENS, &e.to_string());
        Ok(GgufFiles {
            tokenizer: serde_json::to_vec(&made.file(&vocabulary)).map_err(wrong)?,
            tokenizer_config: source.settings(&vocabulary, made.add_bos)?.to_string(),
            generation_config: json!({"eos_token_id": source.ends(&vocabulary)?}).to_string(),
        })
    }

    /// As what a [`Tokenizer`](crate::Tokenizer) is made from.
    pub fn files(&self) -> Files<'_> {
        Files {
            tokenizer: &self.tokenizer,
            tokenizer_config: Some(&self.tokenizer_config),
            generation_config: Some(&self.generation_config),
            ..Files::default()
        }
    }
}

/// What a tokenizer does beside its vocabulary.
struct Made {
    normalizer: Value,
    pre_tokenizer: Value,
    decoder: Value,
    unknown: Option<String>,
    byte_fallback: bool,
    ignore_merges: bool,
    merges: Vec<(String, String)>,
    /// Whether a text begins with a token, where the file does not say.
    add_bos: bool,
}

impl Made {
    fn file<'a>(&'a self, vocabulary: &'a Vocabulary) -> TokenizerFile<'a> {
        TokenizerFile {
            version: "1.0",
            added_tokens: vocabulary.added().collect(),
            normalizer: &self.normalizer,
            pre_tokenizer: &self.pre_tokenizer,
            decoder: &self.decoder,
            model: Model {
                kind: "BPE",
                unk_token: self.unknown.as_deref(),
                fuse_unk: self.unknown.is_some(),
                byte_fallback: self.byte_fallback,
                ignore_merges: self.ignore_merges,
                vocab: Entries(vocabulary),
                merges: &self.merges,
            },
        }
    }
}

/// A `tokenizer.json`; what is not here is as good as `null`.
#[derive(Serialize)]
struct TokenizerFile<'a> {
    version: &'static str,
    added_tokens: Vec<Added<'a>>,
    normalizer: &'a Value,
    pre_tokenizer: &'a Value,
    decoder: &'a Value,
    model: Model<'a>,
}

#[derive(Serialize)]
struct Added<'a> {
    id: u32,
    content: &'a str,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

#[derive(Serialize)]
struct Model<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    unk_token: Option<&'a str>,
    fuse_unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
    vocab: Entries<'a>,
    merges: &'a [(String, String)],
}

struct Entries<'a>(&'a Vocabulary);

impl Serialize for Entries<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (id, token) in self.0.all() {
            map.serialize_entry(token, &id)?;
        }
        map.end()
    }
}

/// What a token is, by the number that files have for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A piece of text, or one of a kind that is not known.
    Normal,
    /// What stands for text without tokens.
    Unknown,
    /// Written only by templates.
    Control,
    /// A piece of text that is found before all others.
    UserDefined,
    /// A place in the vocabulary without a token.
    Unused,
    /// A byte by its number.
    Byte,
}

impl Kind {
    fn of(number: i64) -> Kind {
        match number {
            2 => Kind::Unknown,
            3 => Kind::Control,
            4 => Kind::UserDefined,
            5 => Kind::Unused,
            6 => Kind::Byte,
            _ => Kind::Normal,
        }
    }
}

/// The numbers of tokens by their text.
type Index<'a> = HashMap<&'a str, u32>;

/// The tokens of a file and their kinds.
struct Vocabulary {
    tokens: Vec<String>,
    kinds: Vec<Kind>,
}

impl Vocabulary {
    fn read(source: &Source<'_>) -> Result<Vocabulary, Error> {
        let tokens = source.read(|m| m.texts(TOKENS))?;
        let tokens = tokens.ok_or_else(|| source.missing(TOKENS))?;
        let kinds = match source.read(|m| m.integers(KINDS))? {
            Some(numbers) => numbers.into_iter().map(Kind::of).collect(),
            None => vec![Kind::Normal; tokens.len()],
        };
        if kinds.len() != tokens.len() {
            let why = format!("it has {} kinds for {} tokens", kinds.len(), tokens.len());
            return Err(source.bad(KINDS, &why));
        }
        Ok(Vocabulary { tokens, kinds })
    }

    /// The numbers of all tokens by their text, which no two have.
    fn index(&self, source: &Source<'_>) -> Result<Index<'_>, Error> {
        let mut index = HashMap::with_capacity(self.tokens.len());
        for (id, token) in self.all() {
            if let Some(first) = index.insert(token, id) {
                let why = format!("tokens {first} and {id} are both {:?}", short(token));
                return Err(source.bad(TOKENS, &why));
            }
        }
        Ok(index)
    }

    fn kind(&self, id: u32) -> Kind {
        let kind = self.kinds.get(id as usize);
        kind.copied().unwrap_or(Kind::Unused)
    }

    /// All that are tokens, with their numbers.
    fn all(&self) -> impl Iterator<Item = (u32, &str)> {
        let tokens = (0..).zip(&self.tokens);
        let used = tokens.filter(|(id, t)| self.kind(*id) != Kind::Unused && !t.is_empty());
        used.map(|(id, token)| (id, token.as_str()))
    }

    fn get(&self, id: usize) -> Option<&str> {
        let id = u32::try_from(id).ok()?;
        let token = self.tokens.get(id as usize)?;
        (self.kind(id) != Kind::Unused && !token.is_empty()).then_some(token)
    }

    /// Those that are looked for before a text is cut.
    fn added(&self) -> impl Iterator<Item = Added<'_>> {
        self.all().filter_map(|(id, content)| {
            let special = match self.kind(id) {
                Kind::Control | Kind::Unknown => true,
                Kind::UserDefined => false,
                Kind::Normal | Kind::Byte | Kind::Unused => return None,
            };
            Some(Added {
                id,
                content,
                single_word: false,
                lstrip: false,
                rstrip: false,
                normalized: false,
                special,
            })
        })
    }
}

/// The GGUF file.
struct Source<'a> {
    metadata: &'a trt_engine::Metadata,
}

impl<'a> Source<'a> {
    fn new(weights: &'a Weights) -> Result<Self, Error> {
        let metadata = weights.metadata().ok_or(Error::NoGguf)?;
        Ok(Source { metadata })
    }

    /// What a reader of values says, its error as one of this crate.
    fn read<T, E: ToString>(
        &self,
        read: impl FnOnce(&'a trt_engine::Metadata) -> Result<T, E>,
    ) -> Result<T, Error> {
        read(self.metadata).map_err(|e| Error::Gguf { why: e.to_string() })
    }

    fn needed(&self, key: &str) -> Result<String, Error> {
        let text = self.read(|m| m.text(key))?;
        text.ok_or_else(|| self.missing(key))
    }

    fn bad(&self, key: &str, why: &str) -> Error {
        Error::Gguf {
            why: self.metadata.bad(key, why).to_string(),
        }
    }

    fn missing(&self, key: &str) -> Error {
        Error::Gguf {
            why: self.metadata.missing(key).to_string(),
        }
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, Error> {
        self.read(|m| m.flag(key))
    }

    /// The number of a token that has a name. One that is not in the vocabulary is as good as none: files say so for want
    /// of a token.
    fn token(&self, key: &str, vocabulary: &Vocabulary) -> Result<Option<usize>, Error> {
        let id = self.read(|m| m.count(key))?;
        let known = id.filter(|id| vocabulary.get(*id).is_some());
        if known.is_none()
            && let Some(id) = id
        {
            let tokens = vocabulary.tokens.len();
            tracing::warn!(key, id, tokens, "not in the vocabulary: it is left aside");
        }
        Ok(known)
    }

    /// What a `tokenizer_config.json` would say.
    fn settings(&self, vocabulary: &Vocabulary, add_bos: bool) -> Result<Value, Error> {
        let mut settings = json!({});
        for (name, key) in NAMED {
            if let Some(token) = self
                .token(key, vocabulary)?
                .and_then(|id| vocabulary.get(id))
            {
                settings[name] = token.into();
            }
        }
        let flag = |name: &str| self.flag(&format!("tokenizer.ggml.{name}"));
        settings["add_bos_token"] = flag("add_bos_token")?.unwrap_or(add_bos).into();
        settings["add_eos_token"] = flag("add_eos_token")?.unwrap_or(false).into();
        match self.templates()? {
            Value::Null => {}
            templates => settings["chat_template"] = templates,
        }
        Ok(settings)
    }

    /// The `chat_template` of a `tokenizer_config.json`: one, a list of several with names, or `null`.
    fn templates(&self) -> Result<Value, Error> {
        let default = self.read(|m| m.text(TEMPLATE))?;
        let names = self.read(|m| m.texts("tokenizer.chat_templates"))?;
        let named = |name: &String| -> Result<Option<Value>, Error> {
            let source = self.read(|m| m.text(&format!("{TEMPLATE}.{name}")))?;
            Ok(source.map(|s| json!({"name": name, "template": s})))
        };
        let others = names.iter().flatten().filter_map(|n| named(n).transpose());
        let mut templates = others.collect::<Result<Vec<_>, _>>()?;
        Ok(match (default, templates.is_empty()) {
            (None, true) => Value::Null,
            (None, false) => templates.into(),
            (Some(source), true) => source.into(),
            (Some(source), false) => {
                templates.insert(0, json!({"name": "default", "template": source}));
                templates.into()
            }
        })
    }

    /// Tokens that end a text, a turn or a message.
    fn ends(&self, vocabulary: &Vocabulary) -> Result<Vec<usize>, Error> {
        let ends = self.read(|m| m.end_tokens())?;
        let known = ends.into_iter().filter(|id| vocabulary.get(*id).is_some());
        Ok(known.collect())
    }
}

/// The chat templates of a GGUF file, as in a `tokenizer_config.json`.
pub(crate) fn chat_template(weights: &Weights) -> Result<Value, Error> {
    Source::new(weights)?.templates()
}

/// A text for a message.
fn short(text: &str) -> String {
    text.chars().take(40).collect()
}
