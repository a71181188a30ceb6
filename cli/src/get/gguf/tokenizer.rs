//! The tokenizer a GGUF file describes, as `tokenizer.json`.
//!
//! GGUF keeps vocabulary, merges and token kinds, and names the text splitting rule (`pre`). The rule of
//! SmolLM2 is: every digit alone, then GPT-2's byte-level split.

use std::path::Path;

use anyhow::{Result, anyhow, bail};
use serde_json::json;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{AddedToken, Tokenizer};

use super::header::Header;

/// `token_type` of tokens that are written in text only by a template.
const CONTROL: i64 = 3;

/// Writes `tokenizer.json`.
pub fn write(header: &Header, path: &Path) -> Result<()> {
    build(header)?
        .save(path, false)
        .map_err(|e| anyhow!("cannot write {}: {e}", path.display()))
}

/// The tokenizer.
pub fn build(header: &Header) -> Result<Tokenizer> {
    let (model, pre) = (
        header.text("tokenizer.ggml.model")?,
        header.text("tokenizer.ggml.pre")?,
    );
    if (model, pre) != ("gpt2", "smollm") {
        bail!("GGUF tokenizer {model}/{pre} is not supported (supported: gpt2/smollm)");
    }
    let tokens = header.texts("tokenizer.ggml.tokens")?;
    let merges = header.texts("tokenizer.ggml.merges")?;
    let mut tokenizer = assemble(tokens, merges)?;

    let kinds = header.integers("tokenizer.ggml.token_type")?;
    let control = tokens
        .iter()
        .zip(kinds)
        .filter(|(_, kind)| **kind == CONTROL);
    let special: Vec<_> = control
        .map(|(token, _)| AddedToken::from(token.clone(), true))
        .collect();
    tokenizer
        .add_special_tokens(special)
        .map_err(|e| anyhow!("special tokens: {e}"))?;
    Ok(tokenizer)
}

fn assemble(tokens: &[String], merges: &[String]) -> Result<Tokenizer> {
    let vocabulary = tokens
        .iter()
        .cloned()
        .zip(0u32..)
        .collect::<std::collections::HashMap<_, _>>();
    let merges = merges.iter().map(|merge| match merge.split_once(' ') {
        Some((left, right)) => Ok((left.to_string(), right.to_string())),
        None => Err(anyhow!("GGUF merge {merge:?} is not two tokens")),
    });
    let bpe = BPE::builder()
        .vocab_and_merges(
            vocabulary
                .into_iter()
                .collect::<tokenizers::models::bpe::Vocab>(),
            merges.collect::<Result<_>>()?,
        )
        .build()
        .map_err(|e| anyhow!("vocabulary and merges do not fit: {e}"))?;
    let mut tokenizer = Tokenizer::new(bpe);
    // No blank is put before the text, and words are split by GPT-2's expression.
    let bytes = ByteLevel::new(false, true, true);
    tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![
        Digits::new(true).into(),
        bytes.into(),
    ])));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    Ok(tokenizer)
}

/// The `tokenizer_config.json`: the chat template and the tokens it may name.
pub fn settings(header: &Header) -> Result<serde_json::Value> {
    let tokens = header.texts("tokenizer.ggml.tokens")?;
    let token = |key: &str| tokens.get(header.number(key).ok()?).cloned();
    Ok(json!({
        "bos_token": token("tokenizer.ggml.bos_token_id"),
        "eos_token": token("tokenizer.ggml.eos_token_id"),
        "chat_template": header.text("tokenizer.chat_template").ok(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_stand_alone_and_blanks_belong_to_the_next_word() -> Result<()> {
        let tokens = ["a", "Ġ", "1", "2", "Ġa", "12"].map(String::from);
        let tokenizer = assemble(&tokens, &["Ġ a".into(), "1 2".into()])?;
        let got = tokenizer
            .encode("a a12", false)
            .map_err(|e| anyhow!("{e}"))?;
        assert_eq!(got.get_tokens(), ["a", "Ġa", "1", "2"]);
        assert_eq!(
            tokenizer
                .decode(got.get_ids(), false)
                .map_err(|e| anyhow!("{e}"))?,
            "a a12"
        );
        Ok(())
    }
}
