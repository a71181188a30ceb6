//! Stable Diffusion's UNet, as one writes it for candle: only the `use` lines say over which tensors it runs.
//!
//! The time is an input, so one compiled network serves every step.

use super::blocks::{Norm, ResBlock, attend, conv, doubled, picture, rows};
use candle_nn::{
    Conv2d, GroupNorm, LayerNorm, Linear, Module, VarBuilder, layer_norm, linear, linear_no_bias,
};
use candle_trt::candle::{D, DType, Result, Tensor, bail};
use candle_trt::candle_nn;
use serde::Deserialize;

/// What of `unet/config.json` is needed.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    pub in_channels: usize,
    pub out_channels: usize,
    pub sample_size: usize,
    pub block_out_channels: Vec<usize>,
    pub down_block_types: Vec<String>,
    pub up_block_types: Vec<String>,
    pub layers_per_block: usize,
    /// How many heads attention has, whatever the name says.
    pub attention_head_dim: Heads,
    pub cross_attention_dim: usize,
    pub norm_num_groups: usize,
    pub norm_eps: f64,
    #[serde(default)]
    pub use_linear_projection: bool,
    pub flip_sin_to_cos: bool,
    pub freq_shift: f64,
    /// No file has this: candle's own UNet takes the tangent's GELU, others the error function's.
    #[serde(default)]
    pub tanh_gelu: bool,
}

/// The same for all blocks, or one for each.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Heads {
    All(usize),
    Each(Vec<usize>),
}

impl Config {
    /// Refuses what this file does not compute.
    pub fn check(&self) -> std::result::Result<(), String> {
        let blocks = self.block_out_channels.len();
        let known = |types: &[String], plain: &str, cross: &str| match types {
            types if types.len() != blocks => {
                Err(format!("{} types of {blocks} blocks", types.len()))
            }
            types => match types.iter().find(|t| **t != plain && **t != cross) {
                Some(other) => Err(format!("blocks of type {other}, which are not there")),
                None => Ok(()),
            },
        };
        known(
            &self.down_block_types,
            "DownBlock2D",
            "CrossAttnDownBlock2D",
        )?;
        known(&self.up_block_types, "UpBlock2D", "CrossAttnUpBlock2D")?;
        if !self.flip_sin_to_cos || self.freq_shift != 0.0 {
            return Err("sines before cosines, or shifted, are not there".into());
        }
        for (i, channels) in self.block_out_channels.iter().enumerate() {
            let (heads, groups) = (self.heads(i), self.norm_num_groups);
            if [heads, groups].iter().any(|n| *n == 0 || channels % n != 0) {
                return Err(format!(
                    "{heads} heads and {groups} groups of {channels} channels"
                ));
            }
        }
        match self.block_out_channels.is_empty() {
            true => Err("there are no blocks".into()),
            false => Ok(()),
        }
    }

    fn heads(&self, block: usize) -> usize {
        match &self.attention_head_dim {
            Heads::All(heads) => *heads,
            Heads::Each(heads) => heads.get(block).copied().unwrap_or(0),
        }
    }

    fn norm(&self) -> Norm {
        Norm {
            groups: self.norm_num_groups,
            eps: self.norm_eps,
        }
    }

    /// The size of what tells the time.
    fn time(&self) -> usize {
        4 * self.block_out_channels[0]
    }
}

/// Attention without biases, to oneself or to the text.
struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    heads: usize,
}

impl Attention {
    fn new(size: usize, other: usize, heads: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Attention {
            query: linear_no_bias(size, size, vb.pp("to_q"))?,
            key: linear_no_bias(other, size, vb.pp("to_k"))?,
            value: linear_no_bias(other, size, vb.pp("to_v"))?,
            out: linear(size, size, vb.pp("to_out.0"))?,
            heads,
        })
    }

    fn forward(&self, x: &Tensor, other: &Tensor) -> Result<Tensor> {
        let (query, key) = (self.query.forward(x)?, self.key.forward(other)?);
        let mixed = attend(&query, &key, &self.value.forward(other)?, self.heads)?;
        self.out.forward(&mixed)
    }
}

/// A transformer's block over the places of a picture, which sees the text.
struct Transformer {
    norm: GroupNorm,
    enter: Enter,
    own: (LayerNorm, Attention),
    text: (LayerNorm, Attention),
    wide: (LayerNorm, Linear, Linear),
    tanh_gelu: bool,
}

/// How channels become rows and rows channels: the same numbers as a product or as a convolution.
enum Enter {
    Linear(Linear, Linear),
    Conv(Conv2d, Conv2d),
}

impl Transformer {
    fn new(config: &Config, channels: usize, heads: usize, vb: VarBuilder) -> Result<Self> {
        let norm = Norm {
            eps: 1e-6,
            ..config.norm()
        };
        let (to, from) = (vb.pp("proj_in"), vb.pp("proj_out"));
        let both = [channels, channels];
        let enter = match config.use_linear_projection {
            true => Enter::Linear(
                linear(channels, channels, to)?,
                linear(channels, channels, from)?,
            ),
            false => Enter::Conv(conv(both, (1, 1), to)?, conv(both, (1, 1), from)?),
        };
        let outer = norm.load(channels, vb.pp("norm"))?;
        let vb = vb.pp("transformer_blocks.0");
        let norm = |name| layer_norm(channels, 1e-5, vb.pp(name));
        let attention = |other, name| Attention::new(channels, other, heads, vb.pp(name));
        Ok(Transformer {
            norm: outer,
            enter,
            own: (norm("norm1")?, attention(channels, "attn1")?),
            text: (
                norm("norm2")?,
                attention(config.cross_attention_dim, "attn2")?,
            ),
            wide: (
                norm("norm3")?,
                linear(channels, 8 * channels, vb.pp("ff.net.0.proj"))?,
                linear(4 * channels, channels, vb.pp("ff.net.2"))?,
            ),
            tanh_gelu: config.tanh_gelu,
        })
    }

    fn forward(&self, x: &Tensor, text: &Tensor) -> Result<Tensor> {
        let normed = self.norm.forward(x)?;
        let mut h = match &self.enter {
            Enter::Linear(enter, _) => enter.forward(&rows(&normed)?)?,
            Enter::Conv(enter, _) => rows(&enter.forward(&normed)?)?,
        };
        let normed = self.own.0.forward(&h)?;
        h = (&h + self.own.1.forward(&normed, &normed)?)?;
        h = (&h + self.text.1.forward(&self.text.0.forward(&h)?, text)?)?;
        let (norm, wide, narrow) = &self.wide;
        let both = wide.forward(&norm.forward(&h)?)?.chunk(2, D::Minus1)?;
        let gate = match self.tanh_gelu {
            true => both[1].gelu()?,
            false => both[1].gelu_erf()?,
        };
        h = (&h + narrow.forward(&(&both[0] * gate)?)?)?;
        let h = match &self.enter {
            Enter::Linear(_, leave) => picture(&leave.forward(&h)?, x)?,
            Enter::Conv(_, leave) => leave.forward(&picture(&h, x)?)?,
        };
        x + h
    }
}

/// The blocks of a size, and the convolution that leads to the next.
struct Stage {
    blocks: Vec<(ResBlock, Option<Transformer>)>,
    resize: Option<Conv2d>,
}

/// Noise out of noisy latents.
pub struct UNet {
    time: [Linear; 2],
    first: Conv2d,
    down: Vec<Stage>,
    middle: (ResBlock, Transformer, ResBlock),
    up: Vec<Stage>,
    norm: GroupNorm,
    last: Conv2d,
    /// Channels of the first block.
    channels: usize,
    dtype: DType,
}

impl UNet {
    pub fn new(config: &Config, vb: VarBuilder) -> Result<Self> {
        let sizes = &config.block_out_channels;
        let (Some(&least), Some(&most)) = (sizes.first(), sizes.last()) else {
            bail!("there are no blocks");
        };
        let (norm, time) = (config.norm(), Some(config.time()));
        let embedding = vb.pp("time_embedding");
        let (mut channels, mut kept) = (least, vec![least]);
        let mut down = Vec::new();
        for (i, to) in sizes.iter().copied().enumerate() {
            let vb = vb.pp("down_blocks").pp(i);
            let attends = config.down_block_types[i].starts_with("CrossAttn");
            let mut blocks = Vec::new();
            for j in 0..config.layers_per_block {
                blocks.push(pair(config, [channels, to], (i, j, attends), &vb)?);
                channels = to;
                kept.push(to);
            }
            let halves = i + 1 < sizes.len();
            let halve = halves.then(|| conv([to, to], (3, 2), vb.pp("downsamplers.0.conv")));
            if halves {
                kept.push(to);
            }
            down.push(Stage {
                blocks,
                resize: halve.transpose()?,
            });
        }
        let mid = vb.pp("mid_block");
        let heads = config.heads(sizes.len() - 1);
        let middle = (
            ResBlock::new([most, most], norm, time, mid.pp("resnets.0"))?,
            Transformer::new(config, most, heads, mid.pp("attentions.0"))?,
            ResBlock::new([most, most], norm, time, mid.pp("resnets.1"))?,
        );
        let mut up = Vec::new();
        for (i, to) in sizes.iter().copied().rev().enumerate() {
            let vb = vb.pp("up_blocks").pp(i);
            let attends = config.up_block_types[i].starts_with("CrossAttn");
            let mut blocks = Vec::new();
            for j in 0..=config.layers_per_block {
                let from = channels + kept.pop().unwrap_or(0);
                let of = (sizes.len() - 1 - i, j, attends);
                blocks.push(pair(config, [from, to], of, &vb)?);
                channels = to;
            }
            let doubles = i + 1 < sizes.len();
            let double = doubles.then(|| conv([to, to], (3, 1), vb.pp("upsamplers.0.conv")));
            up.push(Stage {
                blocks,
                resize: double.transpose()?,
            });
        }
        Ok(UNet {
            time: [
                linear(least, config.time(), embedding.pp("linear_1"))?,
                linear(config.time(), config.time(), embedding.pp("linear_2"))?,
            ],
            first: conv([config.in_channels, least], (3, 1), vb.pp("conv_in"))?,
            down,
            middle,
            up,
            norm: norm.load(least, vb.pp("conv_norm_out"))?,
            last: conv([least, config.out_channels], (3, 1), vb.pp("conv_out"))?,
            channels: least,
            dtype: vb.dtype(),
        })
    }

    /// `noisy` is `[1, in_channels, h, w]`, `time` the step that it is of (`[1]`), `text` `[1, length, cross_attention_dim]`;
    /// all and the result are f32.
    pub fn forward(&self, noisy: &Tensor, time: &Tensor, text: &Tensor) -> Result<Tensor> {
        let text = &text.to_dtype(self.dtype)?;
        let waves = waves(time, self.channels)?.to_dtype(self.dtype)?;
        let [first, second] = &self.time;
        let time = &second.forward(&first.forward(&waves)?.silu()?)?;
        let mut x = self.first.forward(&noisy.to_dtype(self.dtype)?)?;
        let mut kept = vec![x.clone()];
        for stage in &self.down {
            for (block, transformer) in &stage.blocks {
                x = block.forward(&x, Some(time))?;
                if let Some(transformer) = transformer {
                    x = transformer.forward(&x, text)?;
                }
                kept.push(x.clone());
            }
            if let Some(halve) = &stage.resize {
                x = halve.forward(&x)?;
                kept.push(x.clone());
            }
        }
        let (first, transformer, second) = &self.middle;
        x = transformer.forward(&first.forward(&x, Some(time))?, text)?;
        x = second.forward(&x, Some(time))?;
        for stage in &self.up {
            for (block, transformer) in &stage.blocks {
                let Some(other) = kept.pop() else {
                    bail!("more blocks up than down");
                };
                x = block.forward(&Tensor::cat(&[&x, &other], 1)?, Some(time))?;
                if let Some(transformer) = transformer {
                    x = transformer.forward(&x, text)?;
                }
            }
            if let Some(conv) = &stage.resize {
                x = doubled(&x, conv)?;
            }
        }
        let x = self.norm.forward(&x)?.silu()?;
        self.last.forward(&x)?.to_dtype(DType::F32)
    }
}

/// A residual block, and the transformer behind it where block `i` attends.
fn pair(
    config: &Config,
    [from, to]: [usize; 2],
    (i, j, attends): (usize, usize, bool),
    vb: &VarBuilder,
) -> Result<(ResBlock, Option<Transformer>)> {
    let resnet = vb.pp("resnets").pp(j);
    let block = ResBlock::new([from, to], config.norm(), Some(config.time()), resnet)?;
    let attention = || Transformer::new(config, to, config.heads(i), vb.pp("attentions").pp(j));
    Ok((block, attends.then(attention).transpose()?))
}

/// Cosines and sines of a time, from one to a ten thousandth of it.
fn waves(time: &Tensor, channels: usize) -> Result<Tensor> {
    let half = channels / 2;
    let rates = (0..half).map(|i| (-(10_000f64.ln()) * i as f64 / half as f64).exp() as f32);
    let rates = Tensor::from_vec(rates.collect::<Vec<_>>(), (1, half), time.device())?;
    let angles = time.unsqueeze(1)?.broadcast_mul(&rates)?;
    Tensor::cat(&[angles.cos()?, angles.sin()?], D::Minus1)
}
