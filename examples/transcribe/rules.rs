//! What whisper may write next.
//!
//! A text is times and words in turn: it begins with a time, each piece ends with one, and times never go back. Some tokens
//! are never written (sounds, and what only prompts have), some not at first.

use anyhow::{Context, Result};
use serde::Deserialize;
use tokenizers::Tokenizer;

/// Seconds from one time to the next.
pub const STEP: f64 = 0.02;
/// The latest time that a text begins with.
const LATEST_FIRST: u32 = 50;

/// What files say of tokens that are not written.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Hidden {
    suppress_tokens: Option<Vec<u32>>,
    begin_suppress_tokens: Option<Vec<u32>>,
}

/// The tokens that are no words.
#[derive(Debug, Clone)]
pub struct Special {
    /// The start of every text.
    pub start: u32,
    /// Its end; all words are below.
    pub end: u32,
    pub transcribe: u32,
    pub translate: u32,
    /// What the model thinks of where nothing is said.
    pub no_speech: u32,
    no_times: u32,
    /// None where the model knows English only.
    pub languages: std::ops::Range<u32>,
}

impl Special {
    /// Of a model with so many tokens.
    ///
    /// # Errors
    ///
    /// If the tokenizer is not whisper's.
    pub fn new(tokenizer: &Tokenizer, vocab_size: usize) -> Result<Special> {
        let id = |name: &str| {
            let id = tokenizer.token_to_id(name);
            let id = id.filter(|id| (*id as usize) < vocab_size);
            id.with_context(|| format!("the model has no token {name}"))
        };
        let (start, translate) = (id("<|startoftranscript|>")?, id("<|translate|>")?);
        let no_speech = id("<|nospeech|>").or_else(|_| id("<|nocaptions|>"))?;
        // One that knows English only has no token for a task that it can do, but its tokenizer numbers them.
        let english_only = vocab_size < 51_865;
        let languages = if english_only { start + 1 } else { translate };
        Ok(Special {
            start,
            end: id("<|endoftext|>")?,
            transcribe: id("<|transcribe|>")?,
            translate,
            no_speech,
            no_times: id("<|notimestamps|>")?,
            languages: start + 1..languages,
        })
    }

    /// The first time, 0; later ones follow.
    pub fn first_time(&self) -> u32 {
        self.no_times + 1
    }

    pub fn is_time(&self, token: u32) -> bool {
        token >= self.first_time()
    }

    /// Seconds from the start of the half minute.
    pub fn seconds(&self, time: u32) -> f64 {
        f64::from(time - self.first_time()) * STEP
    }
}

/// The rules of a model.
#[derive(Debug, Clone)]
pub struct Rules {
    pub special: Special,
    hidden: Vec<u32>,
    hidden_first: Vec<u32>,
}

impl Rules {
    pub fn new(special: Special, hidden: Hidden) -> Rules {
        let never = [
            special.start,
            special.transcribe,
            special.translate,
            special.no_speech,
            special.no_times,
        ];
        let mut all = hidden.suppress_tokens.unwrap_or_default();
        all.extend(never);
        Rules {
            hidden: all,
            hidden_first: hidden.begin_suppress_tokens.unwrap_or_default(),
            special,
        }
    }

    /// Takes what may not come after `written` out of the logits (one for each token).
    pub fn apply(&self, written: &[u32], logits: &mut [f32]) {
        let special = &self.special;
        let count = logits.len() as u32;
        let (first, end) = (special.first_time(), special.end);
        let mut hide = |tokens: std::ops::Range<u32>| {
            let tokens = tokens.start.min(count)..tokens.end.min(count);
            if let Some(logits) = logits.get_mut(tokens.start as usize..tokens.end as usize) {
                logits.fill(f32::NEG_INFINITY);
            }
        };
        for token in &self.hidden {
            hide(*token..token.saturating_add(1));
        }
        let time = |back: usize| {
            let token = written.len().checked_sub(back).map(|i| written[i]);
            token.filter(|token| special.is_time(*token))
        };
        match (time(1), time(2)) {
            _ if written.is_empty() => {
                for token in &self.hidden_first {
                    hide(*token..token.saturating_add(1));
                }
                hide(0..first);
                hide(first + LATEST_FIRST + 1..count);
            }
            // A piece began: words come.
            (Some(_), Some(_)) => hide(first..count),
            (Some(_), None) if written.len() == 1 => hide(first..count),
            // A piece ended: the next begins, or nothing comes.
            (Some(last), None) => {
                hide(0..end);
                hide(first..last);
            }
            // A piece goes on: it does not end where it began.
            (None, _) => {
                let last = written.iter().rfind(|token| special.is_time(**token));
                hide(first..last.map_or(first, |last| last + 1));
            }
        }
        self.times_before_words(logits);
    }

    /// Where all times together are more likely than any word, one of them comes.
    fn times_before_words(&self, logits: &mut [f32]) {
        let first = (self.special.first_time() as usize).min(logits.len());
        let (words, times) = logits.split_at_mut(first);
        let best = words.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if log_sum(times) > best {
            words.fill(f32::NEG_INFINITY);
        }
    }
}

/// The logarithm of the sum of exponentials, -infinity of none.
pub fn log_sum(logits: &[f32]) -> f32 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if most == f32::NEG_INFINITY {
        return most;
    }
    let sum: f32 = logits.iter().map(|l| (l - most).exp()).sum();
    most + sum.ln()
}
