//! Text from tokens, as they come.
//!
//! A token may hold part of a character, and how a token reads may depend on the one before it. So a token's
//! text is what it adds to the text of its predecessors since the last clean cut, and nothing is given out
//! while that ends inside a character.

use anyhow::{Result, anyhow};
use tokenizers::Tokenizer;

/// The text so far.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<u32>,
    /// Tokens before this are never decoded again.
    cut: usize,
    /// Tokens before this are given out.
    done: usize,
}

impl<'a> TextStream<'a> {
    /// An empty text.
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        Self {
            tokenizer,
            ids: Vec::new(),
            cut: 0,
            done: 0,
        }
    }

    /// What a token adds: whole characters, or nothing yet.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let (known, all) = (self.decode(self.done)?, self.decode(self.ids.len())?);
        if all.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        self.cut = self.done;
        self.done = self.ids.len();
        Ok(added(&known, &all))
    }

    /// What is left at the end; a character that never got its last byte shows as a replacement character.
    pub fn finish(self) -> Result<String> {
        Ok(added(
            &self.decode(self.done)?,
            &self.decode(self.ids.len())?,
        ))
    }

    fn decode(&self, end: usize) -> Result<String> {
        self.tokenizer
            .decode(&self.ids[self.cut..end], true)
            .map_err(|e| anyhow!("cannot decode tokens: {e}"))
    }
}

fn added(known: &str, all: &str) -> String {
    all.get(known.len()..).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::decoders::byte_level::ByteLevel;
    use tokenizers::models::bpe::{BPE, Vocab};

    /// A vocabulary of single bytes: tokens 0..4 are the bytes of 😀, token 4 is a blank, token 5 "a".
    fn bytes() -> Result<Tokenizer> {
        let vocabulary: Vocab = ["ð", "Ł", "ĺ", "Ģ", "Ġ", "a"]
            .map(String::from)
            .into_iter()
            .zip(0..)
            .collect();
        let bpe = BPE::builder()
            .vocab_and_merges(vocabulary, Vec::new())
            .build()
            .map_err(|e| anyhow!("{e}"))?;
        let mut tokenizer = Tokenizer::new(bpe);
        tokenizer.with_decoder(Some(ByteLevel::default()));
        Ok(tokenizer)
    }

    #[test]
    fn a_character_appears_when_its_last_byte_does() -> Result<()> {
        let tokenizer = bytes()?;
        let mut text = TextStream::new(&tokenizer);
        let pieces: Vec<_> = [5, 0, 1, 2, 3, 4, 5]
            .into_iter()
            .map(|id| text.push(id))
            .collect::<Result<_>>()?;
        assert_eq!(pieces, ["a", "", "", "", "😀", " ", "a"]);
        assert_eq!(text.finish()?, "");
        Ok(())
    }

    #[test]
    fn an_unfinished_character_shows_at_the_end() -> Result<()> {
        let tokenizer = bytes()?;
        let mut text = TextStream::new(&tokenizer);
        assert_eq!(text.push(5)? + &text.push(0)?, "a");
        assert_eq!(text.finish()?, "\u{fffd}");
        Ok(())
    }
}
