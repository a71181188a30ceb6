//! The decoder of Stable Diffusion's autoencoder, as one writes it for candle.

use super::blocks::{Norm, ResBlock, attend, conv, doubled, picture, rows};
use candle_nn::{Conv2d, GroupNorm, Linear, Module, VarBuilder, linear};
use candle_trt::candle::{DType, Result, Tensor};
use candle_trt::candle_nn;
use serde::Deserialize;

/// What of `vae/config.json` is needed.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    pub latent_channels: usize,
    pub out_channels: usize,
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: usize,
    pub norm_num_groups: usize,
    #[serde(default = "scaling_factor")]
    pub scaling_factor: f64,
}

fn scaling_factor() -> f64 {
    0.18215
}

/// Attention of all places of a picture, by one head.
struct Attention {
    norm: GroupNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
}

impl Attention {
    fn new(channels: usize, norm: Norm, vb: VarBuilder) -> Result<Self> {
        // Older files have other names for the same.
        let names = match vb.contains_tensor("to_q.weight") {
            true => ["to_q", "to_k", "to_v", "to_out.0"],
            false => ["query", "key", "value", "proj_attn"],
        };
        let [query, key, value, out] = names.map(|name| linear(channels, channels, vb.pp(name)));
        Ok(Attention {
            norm: norm.load(channels, vb.pp("group_norm"))?,
            query: query?,
            key: key?,
            value: value?,
            out: out?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let h = rows(&self.norm.forward(x)?)?;
        let [query, key, value] = [&self.query, &self.key, &self.value].map(|l| l.forward(&h));
        let mixed = attend(&query?, &key?, &value?, 1)?;
        x + picture(&self.out.forward(&mixed)?, x)?
    }
}

/// Latents to pictures.
pub struct Decoder {
    post: Conv2d,
    first: Conv2d,
    middle: (ResBlock, Attention, ResBlock),
    up: Vec<(Vec<ResBlock>, Option<Conv2d>)>,
    norm: GroupNorm,
    last: Conv2d,
    scale: f64,
    dtype: DType,
}

impl Decoder {
    pub fn new(config: &Config, vb: VarBuilder) -> Result<Self> {
        let norm = Norm {
            groups: config.norm_num_groups,
            eps: 1e-6,
        };
        let (latents, dtype) = (config.latent_channels, vb.dtype());
        let post = conv([latents, latents], (1, 1), vb.pp("post_quant_conv"))?;
        let vb = vb.pp("decoder");
        let block = |from, to, vb| ResBlock::new([from, to], norm, None, vb);
        let mut channels = config.block_out_channels.last().copied().unwrap_or(0);
        let first = conv([latents, channels], (3, 1), vb.pp("conv_in"))?;
        let middle = vb.pp("mid_block");
        let middle = (
            block(channels, channels, middle.pp("resnets.0"))?,
            Attention::new(channels, norm, middle.pp("attentions.0"))?,
            block(channels, channels, middle.pp("resnets.1"))?,
        );
        let mut up = Vec::new();
        for (i, to) in config.block_out_channels.iter().rev().enumerate() {
            let vb = vb.pp("up_blocks").pp(i);
            let mut blocks = Vec::new();
            for j in 0..=config.layers_per_block {
                blocks.push(block(channels, *to, vb.pp("resnets").pp(j))?);
                channels = *to;
            }
            let doubles = i + 1 < config.block_out_channels.len();
            let double = doubles.then(|| conv([*to, *to], (3, 1), vb.pp("upsamplers.0.conv")));
            up.push((blocks, double.transpose()?));
        }
        Ok(Decoder {
            post,
            first,
            middle,
            up,
            norm: norm.load(channels, vb.pp("conv_norm_out"))?,
            last: conv([channels, config.out_channels], (3, 1), vb.pp("conv_out"))?,
            scale: config.scaling_factor,
            dtype,
        })
    }

    /// `latents` are `[1, latent_channels, h, w]`; the result has `2^(blocks - 1)` times as many rows and columns, from -1 to 1.
    pub fn forward(&self, latents: &Tensor) -> Result<Tensor> {
        let x = (latents.to_dtype(self.dtype)? / self.scale)?;
        let mut x = self.first.forward(&self.post.forward(&x)?)?;
        let (first, attention, second) = &self.middle;
        x = first.forward(&x, None)?;
        x = second.forward(&attention.forward(&x)?, None)?;
        for (blocks, double) in &self.up {
            for block in blocks {
                x = block.forward(&x, None)?;
            }
            if let Some(conv) = double {
                x = doubled(&x, conv)?;
            }
        }
        let x = self.norm.forward(&x)?.silu()?;
        self.last.forward(&x)?.to_dtype(DType::F32)
    }
}
