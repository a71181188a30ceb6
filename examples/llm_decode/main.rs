//! Decodes a prompt with a real language model in less memory than its weights take.
//!
//! Without arguments it fetches SmolLM2-135M-Instruct once, compiles it, and answers under a quarter of the weights'
//! bytes. The path is: `model` finds or makes the folder of files, `chat` writes the prompt as the model reads it,
//! `decode` compiles and steps, `generate` picks tokens, `text` turns them into characters, `report` tells what it
//! took. The answer goes to standard output as it comes, everything else to standard error.
#![allow(missing_docs, reason = "an example has no public interface")]

mod args;
mod chat;
mod convert;
mod decode;
mod generate;
mod gguf;
mod gguf_tokenizer;
mod hub;
mod model;
mod progress;
mod report;
mod text;
mod wheel;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use candle_transformers::generation::LogitsProcessor;
use candle_trt::device::{AnonPeak, ProcessMemory};
use candle_trt::models::Config;
use clap::Parser;
use tokenizers::Tokenizer;

use args::Args;
use decode::{Decoder, Wish};
use generate::Stop;
use report::{HostPeaks, Report};

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let folder = model::obtain(args.model.as_deref(), args.dtype)?;
    let config = Config::from_file(folder.join("config.json"))?;
    let tokenizer = tokenizer(&folder)?;
    let prompt = prompt(args, &folder, &tokenizer)?;
    let max_positions = prompt.len() + args.max_tokens as usize;
    if max_positions > config.max_position_embeddings {
        bail!(
            "{} prompt tokens and {} new ones are more than the model's {} positions",
            prompt.len(),
            args.max_tokens,
            config.max_position_embeddings
        );
    }

    // Converting a model may have taken more than running it will.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let anonymous = AnonPeak::start().ok();
    let wish = Wish {
        device: &args.device,
        budget: args.budget,
        limit: args.limit,
        prompt_tokens: prompt.len(),
        max_positions,
    };
    let bar = progress::spinner("compiling");
    let mut decoder = Decoder::open(&folder, &config, &wish)?;
    bar.finish_and_clear();

    let stop = Stop {
        max_tokens: args.max_tokens as usize,
        at: if args.ignore_eos {
            Vec::new()
        } else {
            ends(args, &folder, &config, &tokenizer)
        },
    };
    let top_p = (args.top_p < 1.0).then_some(args.top_p);
    let mut sampler = LogitsProcessor::new(args.seed, Some(args.temperature), top_p);
    let answer = generate::generate(&mut decoder, &tokenizer, &prompt, &stop, &mut sampler, show)?;
    show("\n")?;

    let host = HostPeaks {
        anonymous: anonymous.map(|watch| watch.peak()),
        resident: ProcessMemory::now().ok().map(|memory| memory.resident_peak),
    };
    let report = Report::new(prompt.len(), answer, decoder.facts(), host);
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

fn tokenizer(folder: &Path) -> Result<Tokenizer> {
    let path = folder.join("tokenizer.json");
    Tokenizer::from_file(&path).map_err(|e| anyhow!("cannot read {}: {e}", path.display()))
}

/// The prompt's tokens. A chat template writes its own first token; a raw prompt gets the tokenizer's.
fn prompt(args: &Args, folder: &Path, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let encoded = match args.raw {
        true => tokenizer.encode(args.prompt.as_str(), true),
        false => {
            let text = chat::Template::of(folder, tokenizer)?.render(&args.prompt)?;
            tokenizer.encode(text, false)
        }
    };
    let tokens = encoded
        .map_err(|e| anyhow!("cannot tokenise the prompt: {e}"))?
        .get_ids()
        .to_vec();
    if tokens.is_empty() {
        bail!("the prompt has no tokens");
    }
    Ok(tokens)
}

/// Tokens that end the text: the configuration's, the generation settings', and in a chat the end of a turn.
fn ends(args: &Args, folder: &Path, config: &Config, tokenizer: &Tokenizer) -> Vec<u32> {
    let mut ends = config.eos_token_ids.clone();
    ends.extend(generation_ends(folder).unwrap_or_default());
    if !args.raw {
        ends.extend(chat::turn_ends(tokenizer));
    }
    ends
}

fn generation_ends(folder: &Path) -> Result<Vec<u32>> {
    let text = std::fs::read(folder.join("generation_config.json"))?;
    let json: serde_json::Value = serde_json::from_slice(&text)?;
    let ids = match &json["eos_token_id"] {
        serde_json::Value::Array(ids) => ids.clone(),
        id => vec![id.clone()],
    };
    let id = |id: &serde_json::Value| {
        u32::try_from(id.as_u64().context("not a token")?).context("not a token")
    };
    ids.iter().map(id).collect()
}
