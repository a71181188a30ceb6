//! The flags of `candle-trt run`.
//!
//! Values that may begin with a minus take it, so that `--temperature -1` is told what a temperature can be.

use std::path::PathBuf;

use candle_trt::Request;
use clap::Args;

use crate::precision::Storage;

/// Tokens of an answer where none are asked for.
pub const TOKENS: usize = 64;

/// The flags of `candle-trt run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// A folder with config.json, tokenizer.json and safetensors, a GGUF file, a Hugging Face repository id, or a
    /// GGUF file of one (OWNER/NAME/FILE.gguf). Without it: SmolLM2-135M-Instruct, fetched once.
    #[arg(long, value_name = "DIR|FILE|REPO")]
    pub model: Option<String>,

    /// A branch, a tag or a commit of the repository [default: main]
    #[arg(long, value_name = "NAME")]
    pub revision: Option<String>,

    /// What the weights are stored as: as the files hold them (stored), or made once and kept: bf16, f16, f32, or
    /// matrices in blocks (q8_0, q4_k, ...).
    #[arg(long, value_name = "TYPE", default_value = "stored")]
    pub dtype: Storage,

    /// Pack weights of bf16 and f16 into two thirds of their bytes, without the loss of a bit. The packed copy is made once, beside the
    /// model or in the cache.
    #[arg(long)]
    pub pack: bool,

    /// The text to go on from. Without it and --file: what comes on standard input, and on a terminal a chat.
    #[arg(long, allow_hyphen_values = true)]
    pub prompt: Option<String>,

    /// A file with the text to go on from; - is standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    pub file: Option<PathBuf>,

    /// What the model is told to be, before the prompt.
    #[arg(
        long,
        value_name = "TEXT",
        conflicts_with = "raw",
        allow_hyphen_values = true
    )]
    pub system: Option<String>,

    /// Put the prompt into the model's chat template (the default).
    #[arg(long, conflicts_with = "raw")]
    pub chat: bool,

    /// Give the model the prompt as it is.
    #[arg(long)]
    pub raw: bool,

    /// Bytes of weights on the device, resident plus ring: 64MiB, 1.5G, 25%, auto, full or min [default: 25%]
    #[arg(
        long,
        value_name = "BUDGET",
        conflicts_with = "limit",
        allow_hyphen_values = true
    )]
    pub budget: Option<Request>,

    /// Bytes of everything on the device (weights, ring, activations, KV); the budget is the largest that fits.
    #[arg(long, value_name = "BYTES", value_parser = limit, allow_hyphen_values = true)]
    pub limit: Option<u64>,

    /// Most tokens to produce; -1 is as many as the model holds [default: 64, in a chat -1]
    #[arg(long, value_name = "N", value_parser = tokens, allow_hyphen_values = true)]
    pub max_tokens: Option<usize>,

    /// Go on after an end-of-text token.
    #[arg(long)]
    pub ignore_eos: bool,

    /// End at this text, which is not shown. May be given several times.
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new(),
        allow_hyphen_values = true)]
    pub stop: Vec<String>,

    /// 0 always takes the likeliest token.
    #[arg(long, default_value_t = 0.0, value_parser = temperature, allow_hyphen_values = true)]
    pub temperature: f64,

    /// Sample among this many of the likeliest tokens.
    #[arg(long, value_name = "N", value_parser = top_k, allow_hyphen_values = true)]
    pub top_k: Option<usize>,

    /// Sample among the likeliest tokens that together have this probability.
    #[arg(long, default_value_t = 1.0, value_parser = probability, allow_hyphen_values = true)]
    pub top_p: f64,

    /// Sample among tokens at least this many times as likely as the likeliest.
    #[arg(long, value_name = "P", value_parser = share, allow_hyphen_values = true)]
    pub min_p: Option<f64>,

    /// Tokens that were there before are made less likely by this factor; 1 changes nothing.
    #[arg(long, value_name = "FACTOR", value_parser = penalty, allow_hyphen_values = true)]
    pub repetition_penalty: Option<f64>,

    /// Makes sampling repeatable.
    #[arg(long, default_value_t = 299_792_458, value_parser = seed, allow_hyphen_values = true)]
    pub seed: u64,

    /// auto, host (weights used in place), host-discrete (weights copied as to a GPU) or cuda:N.
    #[arg(long, default_value = "auto")]
    pub device: String,

    /// End with one JSON object on the last line of standard output.
    #[arg(long)]
    pub json: bool,
}

fn limit(text: &str) -> Result<u64, String> {
    match text.parse::<Request>().map_err(|e| e.to_string())? {
        Request::Bytes(bytes) if bytes > 0 => Ok(bytes),
        _ => Err("must be a size above 0, such as 300MiB".into()),
    }
}

/// -1 is a number without end: what the model holds is less.
fn tokens(text: &str) -> Result<usize, String> {
    match text.parse::<i64>() {
        Ok(-1) => Ok(usize::MAX),
        Ok(n) if n > 0 => Ok(usize::try_from(n).unwrap_or(usize::MAX)),
        _ => Err("must be a whole number above 0, or -1 for as many as the model holds".into()),
    }
}

fn number(text: &str, good: impl Fn(f64) -> bool, wanted: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if n.is_finite() && good(n) => Ok(n),
        _ => Err(format!("must be {wanted}")),
    }
}

fn temperature(text: &str) -> Result<f64, String> {
    number(text, |t| t >= 0.0, "a number, 0 or above")
}

fn probability(text: &str) -> Result<f64, String> {
    number(text, |p| p > 0.0 && p <= 1.0, "above 0 and at most 1")
}

fn share(text: &str) -> Result<f64, String> {
    number(text, |p| (0.0..=1.0).contains(&p), "from 0 to 1")
}

fn penalty(text: &str) -> Result<f64, String> {
    number(text, |p| p > 0.0, "a number above 0")
}

fn top_k(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err("must be a whole number above 0".into()),
    }
}

fn seed(text: &str) -> Result<u64, String> {
    let wanted = |_| "must be a whole number from 0 to 2^64 - 1".to_string();
    text.parse().map_err(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: RunArgs,
    }

    fn parse(line: &[&str]) -> Result<RunArgs, String> {
        let line = std::iter::once("run").chain(line.iter().copied());
        let parsed = Line::try_parse_from(line).map_err(|e| e.to_string())?;
        Ok(parsed.args)
    }

    #[test]
    fn a_negative_number_is_told_what_it_can_be() {
        for (flag, wanted) in [
            ("--temperature", "must be a number, 0 or above"),
            ("--top-p", "must be above 0 and at most 1"),
            ("--top-k", "must be a whole number above 0"),
            ("--min-p", "must be from 0 to 1"),
            ("--repetition-penalty", "must be a number above 0"),
            ("--seed", "must be a whole number from 0"),
            ("--budget", "negative"),
            ("--limit", "negative"),
        ] {
            let error = parse(&[flag, "-1"]).unwrap_err();
            assert!(error.contains(wanted), "{flag}: {error}");
        }
    }

    #[test]
    fn sizes_and_counts_are_read_as_people_write_them() {
        let args = parse(&["--limit", "64M", "--max-tokens", "-1"]).unwrap();
        assert_eq!(args.limit, Some(64 << 20));
        assert_eq!(args.max_tokens, Some(usize::MAX));
        let args = parse(&["--budget", "1.5G", "--stop", "a", "--stop", "-b"]).unwrap();
        assert_eq!(args.budget, Some(Request::Bytes(3 << 29)));
        assert_eq!(args.stop, ["a", "-b"]);
        assert!(parse(&["--max-tokens", "0"]).is_err());
        assert!(parse(&["--stop", ""]).is_err());
        assert!(parse(&["--raw", "--system", "a"]).is_err());
    }
}
