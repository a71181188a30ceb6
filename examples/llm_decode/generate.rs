//! One prompt's answer: a prefill, then a token at a time, each text piece handed out as it is complete.

use std::time::{Duration, Instant};

use anyhow::Result;
use candle_core::{Device, Tensor};
use candle_transformers::generation::LogitsProcessor;
use serde::Serialize;
use tokenizers::Tokenizer;

use crate::decode::Decoder;
use crate::text::TextStream;

/// When to stop.
#[derive(Debug)]
pub struct Stop {
    /// After this many tokens.
    pub max_tokens: usize,
    /// After one of these, which is not part of the text.
    pub at: Vec<u32>,
}

/// Why it stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// An end-of-text token.
    Eos,
    /// As many tokens as asked for.
    Length,
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
pub fn generate(
    decoder: &mut Decoder,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    stop: &Stop,
    sampler: &mut LogitsProcessor,
    mut show: impl FnMut(&str) -> Result<()>,
) -> Result<Answer> {
    let mut stream = TextStream::new(tokenizer);
    let (mut tokens, mut text, mut finish) = (Vec::new(), String::new(), Finish::Length);
    let mut piece_done = |piece: String| {
        text += &piece;
        show(&piece)
    };

    let start = Instant::now();
    let mut logits = decoder.prefill(prompt)?;
    let prefill = start.elapsed();
    let mut first = None;
    loop {
        let token = sample(sampler, logits)?;
        tokens.push(token);
        let first_at = *first.get_or_insert_with(Instant::now);
        if stop.at.contains(&token) {
            finish = Finish::Eos;
        } else {
            piece_done(stream.push(token)?)?;
        }
        if finish == Finish::Eos || tokens.len() == stop.max_tokens {
            let decode = first_at.elapsed();
            piece_done(stream.finish()?)?;
            let first_token = first_at - start;
            return Ok(Answer {
                tokens,
                text,
                finish,
                prefill,
                first_token,
                decode,
            });
        }
        logits = decoder.decode(token)?;
    }
}

fn sample(sampler: &mut LogitsProcessor, logits: Vec<f32>) -> Result<u32> {
    let count = logits.len();
    Ok(sampler.sample(&Tensor::from_vec(logits, count, &Device::Cpu)?)?)
}
