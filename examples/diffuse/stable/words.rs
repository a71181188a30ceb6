//! Tokens as CLIP has them: always as many as it has places, with a start and an end.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::replace::{Replace, ReplacePattern};
use tokenizers::normalizers::{Lowercase, NFC, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{SplitDelimiterBehavior, Tokenizer};

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";
/// Words, numbers digit by digit, and the rest.
const WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+";

/// What a folder says of what is behind the end.
#[derive(serde::Deserialize)]
struct Special {
    pad_token: Option<Pad>,
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Pad {
    Text(String),
    Token { content: String },
}

/// Texts to tokens.
pub struct Words {
    tokenizer: Tokenizer,
    start: u32,
    end: u32,
    pad: u32,
}

impl Words {
    /// By `vocab.json` and `merges.txt` of a folder.
    ///
    /// # Errors
    ///
    /// If they cannot be read, or are not CLIP's.
    pub fn open(folder: &Path) -> Result<Words> {
        let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
        let why = |e| anyhow!("cannot read the tokenizer in {}: {e}", folder.display());
        let bpe = BPE::from_file(&path("vocab.json"), &path("merges.txt"))
            .unk_token(END.into())
            .end_of_word_suffix("</w>".into());
        let mut tokenizer = Tokenizer::new(bpe.build().map_err(why)?);
        let spaces = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ").map_err(why)?;
        let normal = vec![NFC.into(), spaces.into(), Lowercase.into()];
        let normal = Some(Normalizers::new(normal));
        tokenizer.with_normalizer(normal).map_err(why)?;
        let words = SplitPattern::Regex(WORDS.into());
        let split = Split::new(words, SplitDelimiterBehavior::Removed, true).map_err(why)?;
        let bytes = ByteLevel::new(false, true, true);
        tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![split.into(), bytes.into()])));
        let id = |name: &str| {
            let id = tokenizer.token_to_id(name);
            id.with_context(|| format!("the tokenizer in {} has no {name}", folder.display()))
        };
        let text = std::fs::read_to_string(folder.join("special_tokens_map.json"))
            .with_context(|| format!("no special_tokens_map.json in {}", folder.display()))?;
        let special: Special = serde_json::from_str(&text)?;
        let pad = match special.pad_token {
            Some(Pad::Text(name) | Pad::Token { content: name }) => id(&name)?,
            None => id(END)?,
        };
        Ok(Words {
            start: id(START)?,
            end: id(END)?,
            pad,
            tokenizer,
        })
    }

    /// So many tokens; what a text has more is left out.
    ///
    /// # Errors
    ///
    /// If the text cannot be tokenized.
    pub fn tokens(&self, text: &str, places: usize) -> Result<Vec<u32>> {
        let encoded = self.tokenizer.encode(text, false);
        let encoded = encoded.map_err(|e| anyhow!("cannot tokenize {text:?}: {e}"))?;
        let words = encoded.get_ids();
        let words = &words[..words.len().min(places.saturating_sub(2))];
        let mut all = vec![self.start];
        all.extend(words);
        all.push(self.end);
        all.resize(places, self.pad);
        Ok(all)
    }
}
