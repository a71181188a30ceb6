//! Decodes a prompt with a real language model in less memory than its weights take.
//!
//! Without arguments it fetches SmolLM2-135M-Instruct once, compiles it, and answers under a quarter of the weights'
//! bytes. The path is: `get` finds or makes the folder of files, `prompt` finds what to answer, `decode` compiles and
//! counts, `answer` gives tokens and their text, `chat` does so for several turns, `report` tells what it took. The
//! answer goes to standard output as it comes, everything else to standard error.

mod answer;
mod args;
mod chat;
mod decode;
mod prompt;
mod report;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};
use candle_trt::Weights;
use candle_trt::device::{AnonPeak, ProcessMemory};
use candle_trt::models::DecoderConfig;
use trt_text::{ChatTemplate, Conversation, Ends, Message, Sampling, Settings, Tokenizer};

pub use args::RunArgs;

use crate::get::{self, Wanted};
use crate::model;
use crate::precision::Storage;
use crate::progress;
use decode::{Decoder, Wish};
use prompt::Prompt;
use report::{HostPeaks, Report};

/// Answers one prompt, or holds a chat.
pub fn run(args: &RunArgs) -> Result<()> {
    let prompt = prompt::find(args)?;
    let model = Model::open(args)?;
    match prompt {
        Prompt::Text(text) => once(args, &model, &text),
        Prompt::Chat => {
            let template = model.template()?;
            chat::talk(args, &model, &template)
        }
    }
}

/// What is read of a model before it is compiled.
struct Model {
    path: PathBuf,
    weights: Arc<Weights>,
    config: DecoderConfig,
    tokenizer: Tokenizer,
}

impl Model {
    fn open(args: &RunArgs) -> Result<Self> {
        let path = get::obtain(Wanted {
            model: args.model.as_deref(),
            revision: args.revision.as_deref(),
            dtype: args.dtype.precision(),
        })?;
        let weights = Weights::open(&path)?;
        let weights = Arc::new(match args.dtype {
            Storage::Blocks(block) => get::quantised(&weights, block)?,
            Storage::Stored | Storage::Plain(_) => weights,
        });
        let weights = match args.pack {
            true => get::packed(&weights)?,
            false => weights,
        };
        Ok(Model {
            config: model::config(&path, &weights)?,
            tokenizer: match model::beside(&path, "tokenizer.json") {
                Some(_) => Tokenizer::open(&path)?,
                None => Tokenizer::from_gguf(&weights)?,
            },
            path,
            weights,
        })
    }

    /// How it writes a conversation.
    fn template(&self) -> Result<ChatTemplate> {
        Ok(match model::beside(&self.path, "tokenizer.json") {
            Some(_) => ChatTemplate::open(&self.path, &self.tokenizer)?,
            None => ChatTemplate::from_gguf(&self.weights, &self.tokenizer)?,
        })
    }

    fn compile(
        &self,
        args: &RunArgs,
        prompt_tokens: usize,
        max_positions: usize,
    ) -> Result<Decoder> {
        let wish = Wish {
            device: &args.device,
            budget: args.budget,
            limit: args.limit,
            prompt_tokens,
            max_positions,
        };
        let bar = progress::spinner("compiling");
        let decoder = Decoder::open(self.weights.clone(), &self.config, &wish);
        bar.finish_and_clear();
        decoder
    }
}

fn once(args: &RunArgs, model: &Model, text: &str) -> Result<()> {
    let prompt = tokens(args, model, text)?;
    let most = most_tokens(args, prompt.len(), model.config.max_position_embeddings)?;

    // Converting a model may have taken more than running it will.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let anonymous = AnonPeak::start().ok();
    let decoder = model.compile(args, prompt.len(), prompt.len() + most)?;
    let mut context = trt_text::Context::new(decoder);
    let settings = settings(args, Some(most));
    let answer = answer::answer(&mut context, &model.tokenizer, &prompt, &settings, show)?;
    show("\n")?;

    let host = HostPeaks {
        anonymous: anonymous.map(|watch| watch.peak()),
        resident: ProcessMemory::now().ok().map(|memory| memory.resident_peak),
    };
    let report = Report::new(prompt.len(), answer, context.decoder().facts(), host);
    eprint!("\n{report}");
    if args.json {
        writeln!(io::stdout(), "{}", serde_json::to_string(&report)?)?;
    }
    Ok(())
}

fn show(piece: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(piece.as_bytes())?;
    Ok(out.flush()?)
}

/// The prompt's tokens. A chat template writes its own first token; a raw prompt gets the tokenizer's.
fn tokens(args: &RunArgs, model: &Model, text: &str) -> Result<Vec<u32>> {
    let tokenizer = &model.tokenizer;
    let tokens = match args.raw {
        true => tokenizer.encode(text, true)?,
        false => {
            let template = model.template()?;
            let messages: Vec<Message> = system(args).chain([Message::user(text)]).collect();
            tokenizer.encode(&template.render(&Conversation::new(&messages))?, false)?
        }
    };
    if tokens.is_empty() {
        bail!("the prompt has no tokens");
    }
    Ok(tokens)
}

fn system(args: &RunArgs) -> impl Iterator<Item = Message> {
    args.system.as_deref().map(Message::system).into_iter()
}

/// The most tokens of an answer: what was asked for, as far as the model holds it.
fn most_tokens(args: &RunArgs, prompt: usize, positions: usize) -> Result<usize> {
    let room = positions.saturating_sub(prompt);
    if room == 0 {
        bail!(
            "the prompt has {prompt} tokens; the model holds {positions}, and an answer needs room among them"
        );
    }
    let asked = args.max_tokens.unwrap_or(args::TOKENS);
    if asked > room && asked != usize::MAX {
        eprintln!(
            "note: --max-tokens {asked} is more than the model holds: {positions} positions less {prompt} of the \
             prompt leave {room}"
        );
    }
    Ok(asked.min(room))
}

fn settings(args: &RunArgs, max_tokens: Option<usize>) -> Settings {
    let ends = match (args.ignore_eos, args.raw) {
        (true, _) => Ends::Never,
        (false, true) => Ends::Text,
        (false, false) => Ends::Turn,
    };
    Settings {
        max_tokens,
        sampling: Sampling {
            temperature: args.temperature,
            top_k: args.top_k,
            top_p: (args.top_p < 1.0).then_some(args.top_p),
            min_p: args.min_p,
            repetition_penalty: args.repetition_penalty,
            seed: args.seed,
        },
        ends,
        stop: args.stop.clone(),
        ..Settings::default()
    }
}
