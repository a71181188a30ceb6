//! From sound to text: half a minute at a time, each heard once and then written token by token.
//!
//! The model is one engine of three classes of calls. `hear` is the first: it takes sound and the token that every text starts
//! with. `prompt` and `token` go on from there with what is kept. So one budget is for all weights, and a text that went wrong is
//! written again from its first token without hearing again.

use std::io::Write;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use candle_trt::graph::{PAST, SEQ};
use candle_trt::{Call, Compiler, Engine, Profile, Session};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use tokenizers::Tokenizer;

use super::mel::{HOP, Mel, RATE};
use super::rules::{Rules, STEP, log_sum};
use super::whisper::{Config, Whisper};

/// Degrees of chance that a text is written with until it is good enough, as whisper's authors have them.
const TEMPERATURES: [f32; 6] = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0];
/// The least mean logarithm of a token's likelihood in a good text.
const LIKELY: f32 = -1.0;
/// How much a text that says the same again and again is compressed.
const REPEATED: f64 = 2.4;
/// How likely it is that nothing is said where a text is not good.
const SILENT: f32 = 0.6;
/// The most tokens of a prompt behind the first.
const PROMPT: usize = 4;

/// Compiles whisper for any sound.
///
/// # Errors
///
/// What the compiler refuses, and a configuration that is not computed.
pub fn compile(compiler: Compiler, config: &Config) -> Result<Engine> {
    config.check().map_err(anyhow::Error::msg)?;
    let most = config.max_target_positions;
    ensure!(most > PROMPT + 2, "max_target_positions is {most}");
    let mut profile = Profile::builder()
        .class("hear")
        .range(PAST, 0..=0)
        .range(SEQ, 1..=1)
        .class("token")
        .range(PAST, 1..=most - 1)
        .range(SEQ, 1..=1)
        .class("prompt")
        .range(PAST, 1..=most - 2)
        .range(SEQ, 2..=PROMPT)
        .build()?;
    for class in &mut profile.classes {
        class.max_context = Some(most as i64);
    }
    let (bands, frames) = (config.num_mel_bins, 2 * config.max_source_positions);
    let engine = compiler.profile(profile).compile(|vb| {
        let mut whisper = Whisper::new(config, vb)?;
        Ok(move |call: &Call| {
            let (past, length) = call.positions()?;
            let ids = call.input("ids", (1, length), DType::U32)?;
            if past == 0 {
                let mel = call.input("mel", (1, bands, frames), DType::F32)?;
                whisper.hear(&mel)?;
            }
            Ok(vec![whisper.write(&ids, past)?])
        })
    })?;
    Ok(engine)
}

/// What is known of a model beside its weights.
pub struct Model {
    pub config: Config,
    pub rules: Rules,
    pub tokenizer: Tokenizer,
}

/// What is said, from a second of the sound to another.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    pub from: f64,
    pub to: f64,
    pub text: String,
    /// The mean logarithm of a token's likelihood in its half minute.
    pub likely: f32,
}

/// What was written of half a minute.
struct Text {
    tokens: Vec<u32>,
    /// The mean logarithm of a token's likelihood.
    likely: f32,
}

/// Listens to a sound with a model.
pub struct Listener<'a> {
    session: Session,
    mel: &'a Mel,
    /// The frame from which was heard last, and the logits after the first token.
    heard: Option<(usize, Vec<f32>)>,
    model: &'a Model,
    /// Bytes of weights that came over so far.
    pub traffic: u64,
    /// Tokens that were written so far.
    pub tokens: usize,
    chance: fastrand::Rng,
}

impl<'a> Listener<'a> {
    /// # Errors
    ///
    /// If there is no memory for what the model keeps.
    pub fn new(engine: &Engine, model: &'a Model, mel: &'a Mel) -> Result<Listener<'a>> {
        Ok(Listener {
            session: engine.session()?,
            mel,
            heard: None,
            model,
            traffic: 0,
            tokens: 0,
            chance: fastrand::Rng::with_seed(0),
        })
    }

    /// The logits after the next tokens.
    fn call(&mut self, ids: &[u32], mel: Option<Tensor>) -> Result<Vec<f32>> {
        let ids = Tensor::from_vec(ids.to_vec(), (1, ids.len()), &Device::Cpu)?;
        let inputs: Vec<Tensor> = [Some(ids), mel].into_iter().flatten().collect();
        let out = self.session.run(&inputs)?;
        self.traffic += self.session.engine().last_traffic().bytes;
        let logits = out.first().context("the model gives nothing")?;
        Ok(logits.flatten_all()?.to_vec1::<f32>()?)
    }

    /// The logits after the first token of the half minute from a frame on, which is heard unless it was just now.
    fn hear(&mut self, from: usize) -> Result<Vec<f32>> {
        if let Some((_, logits)) = self.heard.as_ref().filter(|(at, _)| *at == from) {
            return Ok(logits.clone());
        }
        let frames = 2 * self.model.config.max_source_positions;
        let shape = (1, self.mel.bands, frames);
        let window = Tensor::from_vec(self.mel.window(from, frames), shape, &Device::Cpu)?;
        self.heard = None;
        self.session.reset();
        let logits = self.call(&[self.model.rules.special.start], Some(window))?;
        self.heard = Some((from, logits.clone()));
        Ok(logits)
    }

    /// The language that is spoken at the start, and how likely that is.
    ///
    /// # Errors
    ///
    /// If the device fails, or the model knows one language only.
    pub fn language(&mut self) -> Result<(u32, f32)> {
        let logits = self.hear(0)?;
        let all = self.model.rules.special.languages.clone();
        let some = logits.get(all.start as usize..all.end as usize);
        let some = some.filter(|some| !some.is_empty());
        let some = some.context("the model knows one language only")?;
        let best = largest(some);
        Ok((all.start + best as u32, (some[best] - log_sum(some)).exp()))
    }

    /// Everything that is said, told piece by piece to `tell`, with the second up to which all is written.
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub fn listen(&mut self, prompt: &[u32], tell: &mut dyn FnMut(&[Segment], f64)) -> Result<()> {
        let mut at = 0;
        while at < self.mel.frames {
            let heard = self.hear(at)?;
            let silence =
                (heard[self.model.rules.special.no_speech as usize] - log_sum(&heard)).exp();
            let text = self.text(&heard, prompt, silence)?;
            self.tokens += text.tokens.len();
            let length = (2 * self.model.config.max_source_positions).min(self.mel.frames - at);
            let silent = silence > SILENT && text.likely <= LIKELY;
            let (segments, heard) = match silent {
                true => (Vec::new(), length),
                false => self.segments(&text, at, length)?,
            };
            // What ends where it begins would be heard for ever.
            at += if heard == 0 { length } else { heard };
            tell(&segments, seconds(at));
        }
        Ok(())
    }

    /// The first good text, with as little chance as it takes, else the last.
    fn text(&mut self, heard: &[f32], prompt: &[u32], silence: f32) -> Result<Text> {
        let mut last = self.write(heard, prompt, TEMPERATURES[0])?;
        for temperature in &TEMPERATURES[1..] {
            let silent = silence > SILENT && last.likely < LIKELY;
            let good = last.likely >= LIKELY && self.repeats(&last.tokens)? <= REPEATED;
            if good || silent {
                break;
            }
            last = self.write(heard, prompt, *temperature)?;
        }
        Ok(last)
    }

    fn write(&mut self, heard: &[f32], prompt: &[u32], temperature: f32) -> Result<Text> {
        self.session.truncate(1);
        let mut logits = match prompt.is_empty() {
            true => heard.to_vec(),
            false => self.call(prompt, None)?,
        };
        let room = self.model.config.max_target_positions - 1 - prompt.len();
        let most = room.min(self.model.config.max_target_positions / 2);
        let (mut tokens, mut sum) = (Vec::new(), 0.0);
        loop {
            self.model.rules.apply(&tokens, &mut logits);
            let next = self.pick(&logits, temperature);
            sum += logits[next as usize] - log_sum(&logits);
            if next == self.model.rules.special.end {
                break;
            }
            tokens.push(next);
            if tokens.len() == most {
                break;
            }
            logits = self.call(&[next], None)?;
        }
        let likely = sum / (tokens.len() + 1) as f32;
        Ok(Text { tokens, likely })
    }

    /// The likeliest token at 0, else one by chance.
    fn pick(&mut self, logits: &[f32], temperature: f32) -> u32 {
        if temperature == 0.0 {
            return largest(logits) as u32;
        }
        let warm: Vec<f32> = logits.iter().map(|l| l / temperature).collect();
        let all = log_sum(&warm);
        let mut left = self.chance.f32();
        let found = warm.iter().position(|l| {
            left -= (l - all).exp();
            left < 0.0
        });
        found.unwrap_or_else(|| largest(logits)) as u32
    }

    /// The words among tokens.
    fn words(&self, tokens: &[u32]) -> Result<String> {
        let end = self.model.rules.special.end;
        let words: Vec<u32> = tokens.iter().copied().filter(|t| *t < end).collect();
        let text = self.model.tokenizer.decode(&words, true);
        let text = text.map_err(|e| anyhow::anyhow!("cannot read tokens: {e}"))?;
        Ok(text.trim().to_string())
    }

    /// How many times shorter the text is when it is compressed.
    fn repeats(&self, tokens: &[u32]) -> Result<f64> {
        let text = self.words(tokens)?;
        let mut packed = ZlibEncoder::new(Vec::new(), Compression::default());
        packed.write_all(text.as_bytes())?;
        Ok(text.len() as f64 / packed.finish()?.len() as f64)
    }

    /// The pieces of a text that was written of `length` frames from `at` on, and the frames that they are of.
    fn segments(&self, text: &Text, at: usize, length: usize) -> Result<(Vec<Segment>, usize)> {
        let Text { tokens, likely } = text;
        let special = &self.model.rules.special;
        let is_time = |i: usize| special.is_time(tokens[i]);
        // Where a piece has ended and another begins.
        let mut ends: Vec<usize> = (1..tokens.len())
            .filter(|i| is_time(i - 1) && is_time(*i))
            .collect();
        // The last piece has an end and none comes after it: nothing else is said.
        let whole = match tokens.len() {
            0 | 1 => false,
            n => !is_time(n - 2) && is_time(n - 1),
        };
        let mut segments = Vec::new();
        let mut add = |tokens: &[u32], from: f64, to: f64| {
            let text = self.words(tokens)?;
            if !text.is_empty() {
                let [from, to] = [from, to].map(|s| seconds(at) + s);
                let likely = *likely;
                segments.push(Segment {
                    from,
                    to,
                    text,
                    likely,
                });
            }
            Ok::<_, anyhow::Error>(())
        };
        if ends.is_empty() {
            let last = tokens.iter().rfind(|t| **t > special.first_time());
            let to = last.map_or(seconds(length), |time| special.seconds(*time));
            add(tokens, 0.0, to)?;
            return Ok((segments, length));
        }
        if whole {
            ends.push(tokens.len());
        }
        let (mut start, mut heard) = (0, length);
        for end in ends {
            let piece = &tokens[start..end];
            let time = |token: Option<&u32>| {
                let time = token.copied().filter(|t| special.is_time(*t));
                time.map_or(0.0, |t| special.seconds(t))
            };
            let (from, to) = (time(piece.first()), time(piece.last()));
            add(piece, from, to)?;
            heard = ((to / STEP).round() as usize * 2).min(length);
            start = end;
        }
        Ok((segments, if whole { length } else { heard }))
    }
}

/// The place of the largest, the first of several.
fn largest(values: &[f32]) -> usize {
    let mut best = 0;
    for (i, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = i;
        }
    }
    best
}

/// Seconds of so many frames.
fn seconds(frames: usize) -> f64 {
    (frames * HOP) as f64 / RATE as f64
}
