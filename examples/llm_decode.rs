//! Text from a language model in less memory than its weights take: the program to copy from.
//!
//! `cargo run --release --example llm_decode -- [--model FOLDER|FILE.gguf] [--budget 25%] [--prompt TEXT]`
//!
//! A folder of files or a GGUF file is all it takes: `Weights` maps them, `Compiler` makes an engine of them, and `trt_text` turns a
//! prompt into tokens and tokens into text. `candle-trt run` does the same with everything around it.
#![allow(missing_docs, reason = "an example has no public interface")]

use std::io::{Write, stdout};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use candle_trt::models::{DecoderConfig, Llama};
use candle_trt::{Compiler, Profile, Request, Weights, device};
use clap::Parser;
use trt_text::{ChatTemplate, Context, Conversation, Message, Sampling, Settings, Tokenizer};

/// The longest piece of a prompt that runs in one call.
const LONGEST_CALL: usize = 512;

#[derive(Debug, Parser)]
struct Args {
    /// A folder with config.json, tokenizer.json and safetensors, or a GGUF file. Without it: SmolLM2-135M-Instruct.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Bytes of weights on the device: 64MiB, 25%, auto, full or min.
    #[arg(long, default_value = "25%")]
    budget: Request,
    /// All that is on the device, in bytes; the budget is then the largest that fits.
    #[arg(long, conflicts_with = "budget")]
    limit: Option<u64>,
    /// Pack the weights: two thirds of the bytes of bf16, the same bits. The packed copy is made once.
    #[arg(long)]
    pack: bool,
    /// What is asked.
    #[arg(
        long,
        default_value = "What is the capital of France, and what is it known for?"
    )]
    prompt: String,
    /// The most tokens of the answer.
    #[arg(long, default_value_t = 64)]
    max_tokens: usize,
    /// 0 always takes the likeliest token.
    #[arg(long, default_value_t = 0.0)]
    temperature: f64,
    /// auto, host, host-discrete or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let path = match args.model {
        Some(path) => path,
        // Fetched once. A program of your own has its folder or file.
        None => candle_trt_cli::obtain(candle_trt_cli::Wanted::default())?,
    };
    // Mapped, and no weight read. A GGUF file also holds what a folder has in files of its own.
    let weights = Arc::new(Weights::open(&path)?);
    let weights = match args.pack {
        true => candle_trt_cli::packed(&weights)?,
        false => weights,
    };
    let gguf = weights.metadata().is_some();

    // The prompt, as the model was trained to read it.
    let tokenizer = match gguf {
        true => Tokenizer::from_gguf(&weights)?,
        false => Tokenizer::open(&path)?,
    };
    let template = match gguf {
        true => ChatTemplate::from_gguf(&weights, &tokenizer)?,
        false => ChatTemplate::open(&path, &tokenizer)?,
    };
    let text = template.render(&Conversation::new(&[Message::user(&args.prompt)]))?;
    let prompt = tokenizer.encode(&text, false)?;

    // The model, compiled for prompts of any length up to so many positions. No weight is read yet.
    let config = match weights.config_json()? {
        Some(json) => DecoderConfig::from_json(&json)?,
        None => DecoderConfig::from_file(path.join("config.json"))?,
    };
    let longest = prompt.len().min(LONGEST_CALL);
    let positions = prompt.len() + args.max_tokens;
    let compiler = Compiler::new(weights)
        .shared_device(device::open(&args.device)?)
        .profile(Profile::decoder(positions, longest)?);
    let compiler = match args.limit {
        Some(bytes) => compiler.device_limit(bytes),
        None => compiler.budget(args.budget),
    };
    let engine = compiler.compile(|vb| Llama::load(vb, &config))?;

    // The answer, a piece of text at a time.
    let settings = Settings {
        max_tokens: Some(args.max_tokens),
        sampling: Sampling {
            temperature: args.temperature,
            ..Sampling::default()
        },
        ..Settings::default()
    };
    let mut context = Context::new(engine.session()?);
    for piece in context.generate(&tokenizer, &prompt, &settings)? {
        print!("{}", piece?.text);
        stdout().flush()?;
    }
    println!();

    let budget = engine.device_budget()?;
    eprintln!(
        "{} of {} bytes of weights on the device, at least {}; {} streamed for a token",
        budget.applied, budget.total, budget.floor, budget.streamed
    );
    Ok(())
}
