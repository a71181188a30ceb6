//! One prompt's answer, each piece of its text handed out as it is complete.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;
use trt_text::{Context, Settings, Tokenizer};

use super::decode::Decoder;

/// Why it stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// An end-of-text token.
    Eos,
    /// As many tokens as asked for, or as the model holds.
    Length,
    /// A stop string.
    Stop,
    /// It was told to.
    Cancelled,
}

/// An answer and what it took.
#[derive(Debug)]
pub struct Answer {
    pub tokens: Vec<u32>,
    pub text: String,
    pub finish: Finish,
    /// The prompt's pass.
    pub prefill: Duration,
    /// From the prompt to the first token chosen.
    pub first_token: Duration,
    /// All steps after the first token.
    pub decode: Duration,
}

/// Goes on from `prompt`, giving each piece of text to `show`.
pub fn answer(
    context: &mut Context<Decoder>,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    settings: &Settings,
    mut show: impl FnMut(&str) -> Result<()>,
) -> Result<Answer> {
    let mut generation = context.generate(tokenizer, prompt, settings)?;
    let (mut tokens, mut text) = (Vec::new(), String::new());
    for piece in &mut generation {
        let piece = piece?;
        tokens.extend(piece.token);
        text += &piece.text;
        show(&piece.text)?;
    }
    let finish = match generation.finish() {
        Some(trt_text::Finish::EndToken(_)) => Finish::Eos,
        Some(trt_text::Finish::StopString(_)) => Finish::Stop,
        Some(trt_text::Finish::Cancelled) => Finish::Cancelled,
        Some(trt_text::Finish::Length | trt_text::Finish::ContextFull) | None => Finish::Length,
    };
    let decoder = context.decoder();
    let (first_token, decode) = decoder.times(Instant::now());
    Ok(Answer {
        tokens,
        text,
        finish,
        prefill: decoder.prefill(),
        first_token,
        decode,
    })
}
