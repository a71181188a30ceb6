//! The tokenizer of a model, set up from the files of its folder.
//!
//! `tokenizer.json` says how text becomes tokens. Three things in it are not obeyed: truncation, padding and dropout are for
//! training. The tokens that a prompt begins and ends with are those of its post-processor, read off once with a token that
//! stands for any text, unless `tokenizer_config.json` decides with `add_bos_token` or `add_eos_token`. The file is not
//! trusted: `bounds` looks at what could grow without end before `tokenizers` sees it, and a panic in there is an error.

use std::path::Path;

use tokenizers::models::ModelWrapper;
use tokenizers::{AddedToken, Encoding, PostProcessor, Token};

use crate::contained::contained;
use crate::gguf::GgufFiles;
use crate::special::{Files, Special};
use crate::{Error, bounds, files};

/// Tokens that end a turn of a chat in one form or another, where the vocabulary has them.
const TURN_ENDS: [&str; 9] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|eot|>",
    "<|end_of_turn|>",
    "<end_of_turn>",
    "<|end|>",
    "<|return|>",
    "<|endofturn|>",
];

/// Stands for any text where the post-processor is looked at.
const ANY: u32 = u32::MAX;

/// Text to tokens and back, as one model was trained to read and write them.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    first: Vec<u32>,
    last: Vec<u32>,
    named: Vec<(String, String)>,
    ends: Vec<u32>,
    turn_ends: Vec<u32>,
}

impl Tokenizer {
    /// The tokenizer of the model in `folder`: `tokenizer.json`, and what `tokenizer_config.json`,
    /// `special_tokens_map.json`, `generation_config.json` and `config.json` say of special tokens, where they are there.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] without a `tokenizer.json`; for each file [`Error::Read`], [`Error::NotAFile`],
    /// [`Error::TooLarge`] and [`Error::Malformed`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, Error> {
        let folder = folder.as_ref();
        let tokenizer = files::read(&folder.join("tokenizer.json"), files::TOKENIZER)?;
        let Some(tokenizer) = tokenizer else {
            return Err(Error::Missing {
                folder: folder.to_path_buf(),
                name: "tokenizer.json",
            });
        };
        let text = |name: &str| files::text(&folder.join(name), files::SETTINGS);
        Self::from_files(&Files {
            tokenizer: &tokenizer,
            tokenizer_config: text("tokenizer_config.json")?.as_deref(),
            special_tokens_map: text("special_tokens_map.json")?.as_deref(),
            generation_config: text("generation_config.json")?.as_deref(),
            config: text("config.json")?.as_deref(),
        })
    }

    /// The tokenizer that a GGUF file describes.
    ///
    /// # Errors
    ///
    /// As [`GgufFiles::read`], and [`Error::Malformed`] for what `tokenizers` refuses.
    pub fn from_gguf(weights: &trt_engine::Weights) -> Result<Self, Error> {
        Self::from_files(&GgufFiles::read(weights)?.files())
    }

    /// As [`open`](Self::open), from what the files hold.
    ///
    /// # Errors
    ///
    /// [`Error::Malformed`] names the file and the field.
    pub fn from_files(files: &Files<'_>) -> Result<Self, Error> {
        let special = Special::read(files)?;
        bounds::check(files.tokenizer)?;
        contained(|| Self::set_up(files.tokenizer, special))
            .unwrap_or_else(|why| Err(Error::malformed(JSON, why)))
    }

    fn set_up(json: &[u8], special: Special) -> Result<Self, Error> {
        let wrong = |e: tokenizers::Error| Error::malformed(JSON, e);
        let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(wrong)?;
        without_training(&mut inner).map_err(wrong)?;
        add_tokens(&mut inner, &special)?;
        let (mut first, mut last) = around(&mut inner)?;
        let id = |name: &str| inner.token_to_id(special.text(name)?);
        put(&mut first, id("bos_token"), special.add_bos, 0);
        let end = last.len();
        put(&mut last, id("eos_token"), special.add_eos, end);
        for token in first.iter().chain(&last) {
            if inner.id_to_token(*token).is_none() {
                let why =
                    format!("its post_processor adds token {token}, which its vocabulary lacks");
                return Err(Error::malformed(JSON, why));
            }
        }
        let mut ends = special.ends.clone();
        ends.extend(id("eos_token").filter(|id| !special.ends.contains(id)));
        let turns = TURN_ENDS.iter().filter_map(|t| inner.token_to_id(t));
        Ok(Tokenizer {
            turn_ends: turns.filter(|t| !ends.contains(t)).collect(),
            named: special
                .named
                .into_iter()
                .map(|(n, t)| (n, t.content))
                .collect(),
            first,
            last,
            ends,
            inner,
        })
    }

    /// The tokens of a text. With `special`, the tokens that every text begins and ends with are put around it; a chat
    /// template writes its own.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] where the tokenizer refuses the text.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, Error> {
        let encoding = guarded("encode a text", || self.inner.encode_fast(text, false))?;
        Ok(match special {
            true => [&self.first[..], encoding.get_ids(), &self.last].concat(),
            false => encoding.get_ids().to_vec(),
        })
    }

    /// The text of tokens. Special tokens are part of it only with `special`; numbers that are no tokens never are.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] where the decoder fails.
    pub fn decode(&self, ids: &[u32], special: bool) -> Result<String, Error> {
        guarded("decode tokens", || self.inner.decode(ids, !special))
    }

    /// Whether a token can be seen in decoded text.
    pub(crate) fn shows(&self, id: u32, special: bool) -> bool {
        let hidden = |t: &String| self.inner.get_added_vocabulary().is_special_token(t);
        self.inner
            .id_to_token(id)
            .is_some_and(|t| special || !hidden(&t))
    }

    /// Tokens that end a text, by `generation_config.json`, `config.json` and the tokenizer's end token.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// Tokens that end a turn of a chat in a known form, beyond [`ends`](Self::ends).
    pub fn turn_ends(&self) -> &[u32] {
        &self.turn_ends
    }

    /// The text of a special token by its name in the files, such as `bos_token`.
    pub fn special_token(&self, name: &str) -> Option<&str> {
        let found = self.special_tokens().find(|(n, _)| *n == name);
        found.map(|(_, text)| text)
    }

    /// All special tokens with a name.
    pub fn special_tokens(&self) -> impl Iterator<Item = (&str, &str)> {
        self.named.iter().map(|(n, t)| (n.as_str(), t.as_str()))
    }

    /// The number of a token.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of a number.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }
}

const JSON: &str = "tokenizer.json";

/// Runs the tokenizer; what it fails with, a panic too, is an error.
fn guarded<R>(
    what: &'static str,
    work: impl FnOnce() -> tokenizers::Result<R>,
) -> Result<R, Error> {
    let failed = |why: String| Error::Tokenizer { what, why };
    contained(work)
        .map_err(failed)?
        .map_err(|e| failed(e.to_string()))
}

/// Switches off what is for training.
fn without_training(inner: &mut tokenizers::Tokenizer) -> tokenizers::Result<()> {
    inner.with_truncation(None)?;
    inner.with_padding(None);
    let model = match inner.get_model() {
        ModelWrapper::BPE(bpe) if bpe.dropout.is_some() => {
            let mut bpe = bpe.clone();
            bpe.dropout = None;
            Some(ModelWrapper::BPE(bpe))
        }
        ModelWrapper::Unigram(unigram) if unigram.alpha.is_some() => {
            let mut unigram = unigram.clone();
            (unigram.alpha, unigram.nbest_size) = (None, None);
            Some(ModelWrapper::Unigram(unigram))
        }
        _ => None,
    };
    if let Some(model) = model {
        inner.with_model(model);
    }
    Ok(())
}

/// Tokens that only the other files know. A special token that is nowhere in the vocabulary stays a word of templates:
/// giving it a number would make one that the model has no row for.
fn add_tokens(inner: &mut tokenizers::Tokenizer, special: &Special) -> Result<(), Error> {
    let file = "tokenizer_config.json";
    let wrong = |e: tokenizers::Error| Error::malformed(file, e);
    for (id, token) in &special.added {
        let content = token.content.clone();
        let known = inner.token_to_id(&content);
        inner.add_tokens([token.clone()]).map_err(wrong)?;
        let got = inner.token_to_id(&content);
        if known.is_none() && got != Some(*id) {
            let why = format!(
                "added_tokens_decoder.{id} is {content:?}, which {JSON} does not know; \
                 as the next token it would be {got:?}"
            );
            return Err(Error::malformed(file, why));
        }
    }
    let known = inner.get_added_tokens_decoder();
    let is_known = |token: &AddedToken| known.values().any(|k| k.content == token.content);
    let named = special.named.iter().map(|(_, token)| token);
    let new = named
        .chain(&special.extra)
        .filter(|t| !is_known(t) && inner.token_to_id(&t.content).is_some());
    let new: Vec<AddedToken> = new.cloned().collect();
    inner.add_special_tokens(new).map_err(wrong)?;
    Ok(())
}

/// Takes the post-processor out; the tokens that it puts before and after a text.
fn around(inner: &mut tokenizers::Tokenizer) -> Result<(Vec<u32>, Vec<u32>), Error> {
    let wrong = |why: &str| Error::malformed(JSON, why);
    let Some(post) = inner.get_post_processor().cloned() else {
        return Ok((Vec::new(), Vec::new()));
    };
    let text = Encoding::from_tokens(vec![Token::new(ANY, "a".into(), (0, 1))], 0);
    let ids = post
        .process(text, None, true)
        .map_err(|e| wrong(&format!("post_processor: {e}")))?;
    let mut parts = ids.get_ids().split(|id| *id == ANY);
    let (Some(first), Some(last), None) = (parts.next(), parts.next(), parts.next()) else {
        return Err(wrong(
            "its post_processor does not put tokens around one text",
        ));
    };
    let parts = (first.to_vec(), last.to_vec());
    inner.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
    Ok(parts)
}

/// Adds or takes away a token, where the files decide.
fn put(tokens: &mut Vec<u32>, token: Option<u32>, wanted: Option<bool>, at: usize) {
    let Some(token) = token else { return };
    match wanted {
        Some(true) if !tokens.contains(&token) => tokens.insert(at, token),
        Some(false) => tokens.retain(|t| *t != token),
        _ => {}
    }
}
