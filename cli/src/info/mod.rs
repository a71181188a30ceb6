//! What a model is and what of it fits here: sizes and types from its files, floors and budgets from compiling it for
//! each device at its least budget. Nothing is computed and no weight is read.

mod fits;
mod show;

use std::path::Path;

use anyhow::Result;
use candle_trt::Weights;
use clap::Args;
use serde::Serialize;

use crate::get::{self, Wanted};
use crate::model;
use fits::Fit;

/// The flags of `candle-trt info`.
#[derive(Debug, Args)]
pub struct InfoArgs {
    /// A folder with config.json and safetensors, a GGUF file, or a Hugging Face repository id. Without it:
    /// SmolLM2-135M-Instruct.
    model: Option<String>,
    /// A branch, a tag or a commit of the repository [default: main]
    #[arg(long, value_name = "NAME")]
    revision: Option<String>,
    /// all, or one of host, host-discrete and cuda:N.
    #[arg(long, default_value = "all")]
    device: String,
    /// Tokens that a session is to hold, at most those of the model.
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(6..))]
    context: u32,
    /// Tell what fits if the weights are packed as `run --pack` does. The packed copy is made unless it is there.
    #[arg(long)]
    pack: bool,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// All that is known; the JSON object of `--json`. Sizes are bytes.
#[derive(Debug, Serialize)]
struct Info {
    model: String,
    /// `model_type` of config.json.
    family: Option<String>,
    /// Why this program cannot run it; `null` if it can.
    unsupported: Option<String>,
    shape: Option<Shape>,
    tensors: usize,
    weight_bytes: u64,
    types: Vec<Type>,
    /// Tokens of the sessions that `devices` are about.
    context: Option<usize>,
    devices: Vec<Fit>,
}

/// The numbers that say how large a model is.
#[derive(Debug, Serialize)]
struct Shape {
    layers: usize,
    hidden: usize,
    intermediate: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    vocabulary: usize,
    positions: usize,
}

/// The weights of one type.
#[derive(Debug, Serialize)]
struct Type {
    dtype: &'static str,
    tensors: usize,
    bytes: u64,
}

/// Prints what is known.
pub fn run(args: &InfoArgs) -> Result<()> {
    let folder = get::obtain(Wanted {
        model: args.model.as_deref(),
        revision: args.revision.as_deref(),
        dtype: None,
    })?;
    let info = look(args, &folder)?;
    match args.json {
        true => println!("{}", serde_json::to_string(&info)?),
        false => print!("{info}"),
    }
    Ok(())
}

fn look(args: &InfoArgs, folder: &Path) -> Result<Info> {
    let weights = std::sync::Arc::new(Weights::open(folder)?);
    let weights = match args.pack {
        true => get::packed(&weights)?,
        false => weights,
    };
    let json = model::config_json(folder, &weights)?;
    let config = model::config(folder, &weights);
    let context = config
        .as_ref()
        .ok()
        .map(|c| c.max_position_embeddings.min(args.context as usize));
    let (devices, unsupported) = match (&config, context) {
        (Ok(config), Some(context)) => fits::all(&args.device, &weights, config, context)?,
        (Err(why), _) => (Vec::new(), Some(why.to_string())),
        (Ok(_), None) => (Vec::new(), None),
    };
    Ok(Info {
        model: args
            .model
            .clone()
            .unwrap_or_else(|| folder.display().to_string()),
        family: family(&json),
        unsupported,
        shape: config.ok().map(|c| Shape {
            layers: c.num_hidden_layers,
            hidden: c.hidden_size,
            intermediate: c.intermediate_size,
            heads: c.num_attention_heads,
            kv_heads: c.num_key_value_heads,
            head_dim: c.head_dim,
            vocabulary: c.vocab_size,
            positions: c.max_position_embeddings,
        }),
        tensors: weights.len(),
        weight_bytes: weights.total_bytes(),
        types: types(&weights),
        context,
        devices,
    })
}

fn family(json: &str) -> Option<String> {
    let json: serde_json::Value = serde_json::from_str(json).ok()?;
    Some(json["model_type"].as_str()?.to_string())
}

/// The weights' types, that of the most bytes first.
fn types(weights: &Weights) -> Vec<Type> {
    let types = model::types(weights).into_iter();
    types
        .map(|(dtype, tensors, bytes)| Type {
            dtype,
            tensors,
            bytes,
        })
        .collect()
}
