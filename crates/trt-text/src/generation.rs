//! One answer: a prompt, then a token at a time.
//!
//! A [`Context`] is a decoder with the tokens that it remembers. Each answer starts by going back to where its prompt
//! leaves what is remembered and runs only the rest, so the next turn of a conversation costs what was added.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Decoder, Error, Sampler, Sampling, StopStrings, TextStream, Tokenizer};

/// Ends generating from another thread; clones are one flag.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Ends the generations that hold this flag, before their next token.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Lets later generations run again.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether it was set.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Tokens that end an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Ends {
    /// Those of the model's files ([`Tokenizer::ends`]) and those that end a turn of a chat
    /// ([`Tokenizer::turn_ends`]).
    #[default]
    Turn,
    /// Those of the model's files.
    Text,
    /// None: an answer is as long as it may be.
    Never,
    /// These.
    Tokens(Vec<u32>),
}

impl Ends {
    fn tokens(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        match self {
            Ends::Turn => [tokenizer.ends(), tokenizer.turn_ends()].concat(),
            Ends::Text => tokenizer.ends().to_vec(),
            Ends::Never => Vec::new(),
            Ends::Tokens(tokens) => tokens.clone(),
        }
    }
}

/// How an answer is made.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The most tokens; without it, as many as the context has room for. More than that is clamped to it
    /// ([`Generation::clamped`]).
    pub max_tokens: Option<usize>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Tokens that end it and are not part of its text.
    pub ends: Ends,
    /// Strings that end it and are not part of its text.
    pub stop: Vec<String>,
    /// Whether special tokens are part of the text.
    pub show_special: bool,
    /// Ends it from another thread.
    pub cancel: Cancel,
}

/// A token and the text that became whole with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The token; none where a cancelled answer had text that was held back.
    pub token: Option<u32>,
    /// Whole characters that follow the text of the pieces before; often none.
    pub text: String,
}

/// Why an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// As many tokens as asked for.
    Length,
    /// This token.
    EndToken(u32),
    /// This string.
    StopString(String),
    /// [`Cancel::cancel`].
    Cancelled,
    /// The model can remember no more, and fewer tokens fit than were asked for.
    ContextFull,
}

/// A decoder with the tokens that it remembers.
#[derive(Debug)]
pub struct Context<D> {
    decoder: D,
    tokens: Vec<u32>,
}

impl<D: Decoder> Context<D> {
    /// A context that begins with nothing: what the decoder remembers is forgotten.
    pub fn new(mut decoder: D) -> Self {
        decoder.truncate(0);
        Context {
            decoder,
            tokens: Vec::new(),
        }
    }

    /// The decoder.
    pub fn decoder(&self) -> &D {
        &self.decoder
    }

    /// The decoder, back.
    pub fn into_decoder(self) -> D {
        self.decoder
    }

    /// The tokens that are remembered.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Begins an answer to `prompt`, all tokens of the conversation so far, and runs those that are not remembered yet.
    ///
    /// # Errors
    ///
    /// [`Error::NoTokens`] and [`Error::PromptTooLong`] for the prompt, [`Error::Sampling`] and [`Error::EmptyStop`] for
    /// the settings, [`Error::Decoder`] where the model fails.
    pub fn generate<'a>(
        &'a mut self,
        tokenizer: &'a Tokenizer,
        prompt: &[u32],
        settings: &Settings,
    ) -> Result<Generation<'a, D>, Error> {
        let sampler = Sampler::new(settings.sampling.clone())?;
        let stop = StopStrings::new(settings.stop.iter().map(String::as_str))?;
        if prompt.is_empty() {
            return Err(Error::NoTokens);
        }
        let room = match self.decoder.max_context() {
            Some(max) if prompt.len() >= max => {
                let tokens = prompt.len();
                return Err(Error::PromptTooLong { tokens, max });
            }
            Some(max) => max - prompt.len(),
            None => usize::MAX,
        };
        let asked = settings.max_tokens;
        let logits = self.extend_to(prompt)?;
        Ok(Generation {
            context: self,
            text: TextStream::new(tokenizer, settings.show_special),
            ends: settings.ends.tokens(tokenizer),
            sampler,
            stop,
            cancel: settings.cancel.clone(),
            asked,
            most: asked.unwrap_or(usize::MAX).min(room),
            logits,
            generated: 0,
            state: Stage::Running,
        })
    }

    /// Remembers exactly `prompt`; the logits that follow it.
    fn extend_to(&mut self, prompt: &[u32]) -> Result<Vec<f32>, Error> {
        // What the decoder forgot or was given by others is not ours.
        let held = self.tokens.len().min(self.decoder.position());
        let same = self.tokens[..held].iter().zip(prompt);
        let common = same.take_while(|(a, b)| a == b).count();
        // The last token runs again where all is remembered: its logits are needed.
        let keep = common.min(prompt.len() - 1);
        self.decoder.truncate(keep);
        self.tokens.truncate(keep);
        self.run(&prompt[keep..])
    }

    fn run(&mut self, tokens: &[u32]) -> Result<Vec<f32>, Error> {
        let logits = self.decoder.prefill(tokens);
        let logits = logits.map_err(|e| Error::Decoder(e.into()))?;
        self.tokens.extend_from_slice(tokens);
        Ok(logits)
    }
}

enum Stage {
    Running,
    /// An error was given out.
    Failed,
    Done(Finish),
}

/// An answer as it is made: an iterator of [`Piece`]s. After an error it gives nothing more.
pub struct Generation<'a, D> {
    context: &'a mut Context<D>,
    text: TextStream<'a>,
    ends: Vec<u32>,
    sampler: Sampler,
    stop: StopStrings,
    cancel: Cancel,
    asked: Option<usize>,
    most: usize,
    logits: Vec<f32>,
    generated: usize,
    state: Stage,
}

impl<D> std::fmt::Debug for Generation<'_, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generation")
            .field("generated", &self.generated)
            .field("most", &self.most)
            .field("finish", &self.finish())
            .finish_non_exhaustive()
    }
}

impl<D> Generation<'_, D> {
    /// Why it ended; none while it runs, and after an error.
    pub fn finish(&self) -> Option<&Finish> {
        match &self.state {
            Stage::Done(finish) => Some(finish),
            Stage::Running | Stage::Failed => None,
        }
    }

    /// The most tokens it can have.
    pub fn max_tokens(&self) -> usize {
        self.most
    }

    /// The tokens that were asked for, where the context has room for fewer ([`max_tokens`](Self::max_tokens)).
    pub fn clamped(&self) -> Option<usize> {
        self.asked.filter(|asked| *asked > self.most)
    }

    /// Tokens so far, one that ended it counted.
    pub fn generated(&self) -> usize {
        self.generated
    }

    /// A flag that ends it.
    pub fn cancel(&self) -> Cancel {
        self.cancel.clone()
    }
}

impl<D: Decoder> Generation<'_, D> {
    /// The whole text that is still to come.
    ///
    /// # Errors
    ///
    /// The first error of a piece.
    pub fn text(&mut self) -> Result<String, Error> {
        self.map(|piece| Ok(piece?.text)).collect()
    }

    fn step(&mut self) -> Result<Option<Piece>, Error> {
        if self.cancel.is_cancelled() {
            return self.end(None, String::new(), Finish::Cancelled);
        }
        if self.generated == self.most {
            let finish = self.full();
            return self.end(None, String::new(), finish);
        }
        let token = self
            .sampler
            .sample(&mut self.logits, &self.context.tokens)?;
        self.generated += 1;
        if self.ends.contains(&token) {
            return self.end(Some(token), String::new(), Finish::EndToken(token));
        }
        let (text, stopped) = self.stop.push(&self.text.push(token)?);
        if let Some(stop) = stopped {
            self.state = Stage::Done(Finish::StopString(stop));
            let token = Some(token);
            return Ok(Some(Piece { token, text }));
        }
        if self.generated == self.most {
            let finish = self.full();
            return self.end(Some(token), text, finish);
        }
        self.logits = self.context.run(&[token])?;
        let token = Some(token);
        Ok(Some(Piece { token, text }))
    }

    fn full(&self) -> Finish {
        match self.asked {
            Some(asked) if asked == self.most => Finish::Length,
            _ => Finish::ContextFull,
        }
    }

    /// The last piece: what was held back is shown, unless a stop string ends in it.
    fn end(
        &mut self,
        token: Option<u32>,
        mut text: String,
        finish: Finish,
    ) -> Result<Option<Piece>, Error> {
        let (more, stopped) = self.stop.push(&self.text.finish()?);
        text += &more;
        self.state = Stage::Done(match stopped {
            Some(stop) => Finish::StopString(stop),
            None => {
                text += &self.stop.finish();
                finish
            }
        });
        Ok((token.is_some() || !text.is_empty()).then_some(Piece { token, text }))
    }
}

impl<D: Decoder> Iterator for Generation<'_, D> {
    type Item = Result<Piece, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.state {
            Stage::Running => {}
            Stage::Failed | Stage::Done(_) => return None,
        }
        let step = self.step();
        if step.is_err() {
            self.state = Stage::Failed;
        }
        step.transpose()
    }
}
