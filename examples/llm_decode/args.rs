//! The command line.

use candle_trt::Request;
use clap::{Parser, ValueEnum};

/// Decode text with a language model whose weights do not have to fit the device.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Args {
    /// A folder with config.json, tokenizer.json and safetensors, or a Hugging Face repository id.
    /// Without it: SmolLM2-135M-Instruct, fetched once.
    #[arg(long, value_name = "DIR|REPO")]
    pub model: Option<String>,

    /// What the weights are stored and run as. Without it: bf16 for the default model, and what the files hold
    /// for any other.
    #[arg(long, value_enum)]
    pub dtype: Option<Precision>,

    /// The text to go on from.
    #[arg(
        long,
        default_value = "What is the capital of France, and what is it known for?"
    )]
    pub prompt: String,

    /// Put the prompt into the model's chat template (the default).
    #[arg(long, conflicts_with = "raw")]
    pub chat: bool,

    /// Give the model the prompt as it is.
    #[arg(long)]
    pub raw: bool,

    /// Bytes of weights on the device, resident plus ring: 64MiB, 25%, auto, full or min [default: 25%]
    #[arg(long, value_name = "BUDGET", conflicts_with = "limit")]
    pub budget: Option<Request>,

    /// Bytes of everything on the device (weights, ring, activations, KV); the budget follows from it.
    #[arg(long, value_name = "BYTES", value_parser = limit)]
    pub limit: Option<u64>,

    /// Most tokens to produce.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: u32,

    /// Go on after an end-of-text token.
    #[arg(long)]
    pub ignore_eos: bool,

    /// 0 always takes the likeliest token.
    #[arg(long, default_value_t = 0.0, value_parser = temperature)]
    pub temperature: f64,

    /// Sample among the likeliest tokens that together have this probability.
    #[arg(long, default_value_t = 1.0, value_parser = probability)]
    pub top_p: f64,

    /// Makes sampling repeatable.
    #[arg(long, default_value_t = 299_792_458)]
    pub seed: u64,

    /// auto, host (weights used in place), host-discrete (weights copied as to a GPU) or cuda:N.
    #[arg(long, default_value = "auto")]
    pub device: String,

    /// End with one JSON object on the last line of standard output.
    #[arg(long)]
    pub json: bool,
}

/// A storage dtype.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs, reason = "clap would show the docs as help")]
pub enum Precision {
    Bf16,
    F16,
    F32,
}

impl Precision {
    /// Its name, as in safetensors' folder names and `torch_dtype`.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Bf16 => "bf16",
            Precision::F16 => "f16",
            Precision::F32 => "f32",
        }
    }
}

fn limit(text: &str) -> Result<u64, String> {
    match text.parse::<Request>().map_err(|e| e.to_string())? {
        Request::Bytes(bytes) if bytes > 0 => Ok(bytes),
        _ => Err("must be a size above 0, such as 300MiB".into()),
    }
}

fn temperature(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(t) if t.is_finite() && t >= 0.0 => Ok(t),
        _ => Err("must be a number, 0 or above".into()),
    }
}

fn probability(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(p) if p > 0.0 && p <= 1.0 => Ok(p),
        _ => Err("must be above 0 and at most 1".into()),
    }
}
