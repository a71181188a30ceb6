//! Stable Diffusion out of a folder as diffusers lays it out: what a text says, as a picture.
//!
//! Text encoder, UNet and decoder are used one after the other, so each is an engine that is gone before the next is
//! made, and the budget is that of each. The UNet is compiled once for all steps.

mod blocks;
pub mod clip;
pub mod steps;
pub mod unet;
pub mod vae;
mod words;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use candle_core::{DType, Device, Tensor};
use candle_trt::device::Device as Place;
use candle_trt::{Call, Compiler, Engine, Profile, Request, Weights};
use serde::de::DeserializeOwned;
use steps::Steps;
use words::Words;

use super::noise;

/// The files that a folder has.
pub const FILES: [&str; 10] = [
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
];

/// What is to be drawn.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub prompt: String,
    /// What is not to be seen; it counts if there is guidance.
    pub negative: String,
    pub steps: usize,
    /// How much more the text counts than it does by itself; at 1 and below it is not compared with the negative one.
    pub guidance: f64,
    pub seed: u64,
}

/// Colours from -1 to 1: all reds, all greens, all blues, each row by row.
#[derive(Debug, Clone)]
pub struct Picture {
    pub width: usize,
    pub height: usize,
    pub values: Vec<f32>,
}

/// Draws with the models of a folder.
pub struct Artist<'a> {
    pub folder: &'a Path,
    pub device: Arc<dyn Place>,
    pub budget: Request,
}

impl Artist<'_> {
    /// A picture; `tell` is given each engine when it is made, with its name, and the part of the steps that is done.
    ///
    /// # Errors
    ///
    /// If files are missing or of another model, and what the compiler and the device fail with.
    pub fn draw(
        &self,
        wanted: &Wanted,
        tell: &mut dyn FnMut(&str, &Engine, f64),
    ) -> Result<Picture> {
        let mut texts = vec![wanted.prompt.as_str()];
        if wanted.guidance > 1.0 {
            texts.push(&wanted.negative);
        }
        let texts = self.read(&texts, tell)?;
        let latents = self.denoise(&texts, wanted, tell)?;
        self.decode(latents, tell)
    }

    fn config<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let path = self.folder.join(name);
        let shown = || format!("cannot read {}", path.display());
        let text = std::fs::read_to_string(&path).with_context(shown)?;
        serde_json::from_str(&text).with_context(shown)
    }

    fn compiler(&self, name: &str) -> Result<Compiler> {
        Ok(Compiler::new(Weights::open(self.folder.join(name))?)
            .shared_device(self.device.clone())
            .profile(Profile::single(&[])?)
            .budget(self.budget))
    }

    /// What texts mean.
    fn read(
        &self,
        texts: &[&str],
        tell: &mut dyn FnMut(&str, &Engine, f64),
    ) -> Result<Vec<Tensor>> {
        let config: clip::Config = self.config("text_encoder/config.json")?;
        config.check().map_err(anyhow::Error::msg)?;
        let words = Words::open(&self.folder.join("tokenizer"))?;
        let places = config.max_position_embeddings;
        let engine = self.compiler("text_encoder")?.compile(|vb| {
            let clip = clip::Clip::new(&config, vb)?;
            Ok(move |call: &Call| {
                let ids = call.input("ids", (1, places), DType::U32)?;
                Ok(vec![clip.forward(&ids)?])
            })
        })?;
        tell("text encoder", &engine, 0.0);
        let mut session = engine.session()?;
        let mut meant = Vec::new();
        for text in texts {
            let ids = Tensor::from_vec(words.tokens(text, places)?, (1, places), &Device::Cpu)?;
            meant.push(one(session.run(&[ids])?)?);
        }
        Ok(meant)
    }

    /// Latents without noise.
    fn denoise(
        &self,
        texts: &[Tensor],
        wanted: &Wanted,
        tell: &mut dyn FnMut(&str, &Engine, f64),
    ) -> Result<Tensor> {
        let config: unet::Config = self.config("unet/config.json")?;
        config.check().map_err(anyhow::Error::msg)?;
        let steps = Steps::new(
            &self.config("scheduler/scheduler_config.json")?,
            wanted.steps,
        )?;
        let shape = (
            1,
            config.in_channels,
            config.sample_size,
            config.sample_size,
        );
        let text = texts.first().context("no text")?.dims3()?;
        ensure!(
            text.2 == config.cross_attention_dim,
            "the text encoder gives {text:?}, the UNet takes {}",
            config.cross_attention_dim
        );
        let engine = self.compiler("unet")?.compile(|vb| {
            let unet = unet::UNet::new(&config, vb)?;
            Ok(move |call: &Call| {
                let noisy = call.input("noisy", shape, DType::F32)?;
                let time = call.input("time", 1, DType::F32)?;
                let text = call.input("text", text, DType::F32)?;
                Ok(vec![unet.forward(&noisy, &time, &text)?])
            })
        })?;
        tell("UNet", &engine, 0.0);
        let mut session = engine.session()?;
        let (_, channels, h, w) = shape;
        let noise = noise::normal(wanted.seed, channels * h * w);
        let mut x = (Tensor::from_vec(noise, shape, &Device::Cpu)? * steps.start)?;
        for (i, time) in steps.times.iter().enumerate() {
            let shown = (&x * steps.shown(i))?;
            let time = Tensor::from_vec(vec![*time as f32], 1, &Device::Cpu)?;
            let mut given = Vec::new();
            for text in texts {
                given.push(one(session.run(&[
                    shown.clone(),
                    time.clone(),
                    text.clone(),
                ])?)?);
            }
            let noise = match given.as_slice() {
                [text, other] => (other + ((text - other)? * wanted.guidance)?)?,
                _ => given.swap_remove(0),
            };
            let [kept, added] = steps.next(i);
            x = ((x * kept)? + (noise * added)?)?;
            tell("UNet", &engine, (i + 1) as f64 / steps.times.len() as f64);
        }
        Ok(x)
    }

    fn decode(&self, latents: Tensor, tell: &mut dyn FnMut(&str, &Engine, f64)) -> Result<Picture> {
        let config: vae::Config = self.config("vae/config.json")?;
        let shape = latents.dims4()?;
        ensure!(
            shape.1 == config.latent_channels && config.out_channels == 3,
            "latents of {} channels and pictures of {} where 3 are colours, to a decoder of {}",
            shape.1,
            config.out_channels,
            config.latent_channels
        );
        let engine = self.compiler("vae")?.compile(|vb| {
            let decoder = vae::Decoder::new(&config, vb)?;
            Ok(move |call: &Call| {
                let latents = call.input("latents", shape, DType::F32)?;
                Ok(vec![decoder.forward(&latents)?])
            })
        })?;
        tell("decoder", &engine, 0.0);
        let picture = one(engine.session()?.run(&[latents])?)?;
        let (_, _, height, width) = picture.dims4()?;
        Ok(Picture {
            width,
            height,
            values: picture.flatten_all()?.to_vec1()?,
        })
    }
}

/// The one result of a call.
fn one(results: Vec<Tensor>) -> Result<Tensor> {
    results.into_iter().next().context("a model gives nothing")
}
