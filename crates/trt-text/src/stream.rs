//! Text from tokens, as they come.
//!
//! A token may hold part of a character, and how it reads may depend on the one before it. So a token's text is what it
//! adds to the text of the tokens since the last clean cut, and nothing is given out while that ends inside a character.
//! The pieces are those of `tokenizers`' own `DecodeStream`, and joined they are the text that all tokens decode to, with
//! one exception: bytes that make characters which are already given out invalid (`DecodeStream` fails there) do not
//! take them back, and are read by themselves.

use crate::{Error, Tokenizer};

/// Tokens that may wait for the end of their character. A character has at most four; what is longer will never be one.
const WAITING: usize = 256;

/// The text so far.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    /// Whether special tokens are part of the text.
    special: bool,
    /// Tokens since the last cut.
    ids: Vec<u32>,
    /// Of those, how many are given out: the text of the next ones may depend on them.
    done: usize,
    /// The text of those.
    known: String,
}

impl<'a> TextStream<'a> {
    /// An empty text. Special tokens, such as those that end a turn, are part of it only with `special`.
    pub fn new(tokenizer: &'a Tokenizer, special: bool) -> Self {
        TextStream {
            tokenizer,
            special,
            ids: Vec::new(),
            done: 0,
            known: String::new(),
        }
    }

    /// What a token adds: whole characters, or nothing yet.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`] where the tokenizer's decoder fails.
    pub fn push(&mut self, id: u32) -> Result<String, Error> {
        if !self.tokenizer.shows(id, self.special) {
            return Ok(String::new());
        }
        self.ids.push(id);
        let all = self.decode(&self.ids)?;
        let waiting = self.ids.len() - self.done;
        if all.ends_with(char::REPLACEMENT_CHARACTER) && waiting < WAITING {
            return Ok(String::new());
        }
        let added = match all.strip_prefix(self.known.as_str()) {
            Some("") if waiting < WAITING => return Ok(String::new()),
            Some(added) => added.to_string(),
            // What was given out reads otherwise now.
            None => self.decode(&self.ids[self.done..])?,
        };
        self.ids.drain(..self.done);
        self.done = self.ids.len();
        self.known = self.decode(&self.ids)?;
        Ok(added)
    }

    /// What is left at the end; a character that never got its last byte shows as a replacement character.
    ///
    /// # Errors
    ///
    /// As for [`push`](Self::push).
    pub fn finish(&mut self) -> Result<String, Error> {
        let all = self.decode(&self.ids)?;
        let added = match all.strip_prefix(self.known.as_str()) {
            Some(added) => added.to_string(),
            None => self.decode(&self.ids[self.done..])?,
        };
        self.ids.clear();
        self.done = 0;
        self.known.clear();
        Ok(added)
    }

    fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        self.tokenizer.decode(ids, self.special)
    }
}
