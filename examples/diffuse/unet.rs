//! The UNet of consistency models, as one writes it for candle: only the `use` lines say over which tensors it runs.
//!
//! Five levels of four residual blocks, with attention from the third on, halve the image and double it again; a last
//! block of a level halves by its mean, and on the way back doubles. Timestep and label shift and scale each block.

use candle_nn::{
    Conv2d, Conv2dConfig, GroupNorm, Linear, Module, VarBuilder, conv2d, group_norm, linear, ops,
};
use candle_trt::candle::{D, IndexOp, Result, Tensor};
use candle_trt::candle_nn;

/// Rows and columns of a picture.
pub const SIDE: usize = 128;
/// Channels of the first level; a block has [`LEVELS`] times as many.
const CHANNELS: usize = 32;
const LEVELS: [usize; 5] = [1, 1, 2, 3, 4];
const BLOCKS: usize = 4;
/// The first level with attention.
const ATTENDING: usize = 2;
const EMBEDDING: usize = 128;
const HEAD: usize = 32;
const GROUPS: usize = 32;

/// The least noise that there is, and how much the data vary by themselves.
const SIGMA_MIN: f64 = 0.002;
const SIGMA_DATA: f64 = 0.5;

#[derive(Clone, Copy, PartialEq)]
enum Resize {
    None,
    Halve,
    Double,
}

impl Resize {
    fn apply(self, x: &Tensor) -> Result<Tensor> {
        let (_, _, h, w) = x.dims4()?;
        match self {
            Resize::None => Ok(x.clone()),
            Resize::Halve => x.avg_pool2d(2),
            Resize::Double => x.upsample_nearest2d(2 * h, 2 * w),
        }
    }
}

struct ResBlock {
    before: GroupNorm,
    first: Conv2d,
    embedding: Linear,
    after: GroupNorm,
    second: Conv2d,
    skip: Option<Conv2d>,
    resize: Resize,
}

impl ResBlock {
    fn new(from: usize, to: usize, resize: Resize, vb: VarBuilder) -> Result<Self> {
        let skip = match from == to {
            true => None,
            false => Some(conv(from, to, 1, vb.pp("skip_connection"))?),
        };
        Ok(ResBlock {
            before: group_norm(GROUPS, from, 1e-5, vb.pp("in_layers.0"))?,
            first: conv(from, to, 3, vb.pp("in_layers.2"))?,
            embedding: linear(EMBEDDING, 2 * to, vb.pp("emb_layers.1"))?,
            after: group_norm(GROUPS, to, 1e-5, vb.pp("out_layers.0"))?,
            second: conv(to, to, 3, vb.pp("out_layers.3"))?,
            skip,
            resize,
        })
    }

    fn forward(&self, x: &Tensor, embedding: &Tensor) -> Result<Tensor> {
        let h = self.resize.apply(&self.before.forward(x)?.silu()?)?;
        let x = self.resize.apply(x)?;
        let h = self.first.forward(&h)?;
        let both = self.embedding.forward(&embedding.silu()?)?;
        let both = both
            .unsqueeze(D::Minus1)?
            .unsqueeze(D::Minus1)?
            .chunk(2, 1)?;
        let h = self.after.forward(&h)?;
        let h = h
            .broadcast_mul(&(&both[0] + 1.0)?)?
            .broadcast_add(&both[1])?;
        let h = self.second.forward(&h.silu()?)?;
        match &self.skip {
            Some(skip) => skip.forward(&x)? + h,
            None => x + h,
        }
    }
}

struct Attention {
    norm: GroupNorm,
    qkv: Conv2d,
    out: Conv2d,
}

impl Attention {
    fn new(channels: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Attention {
            norm: group_norm(GROUPS, channels, 1e-5, vb.pp("norm"))?,
            qkv: conv(channels, 3 * channels, 1, vb.pp("qkv"))?,
            out: conv(channels, channels, 1, vb.pp("proj_out"))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (b, c, h, w) = x.dims4()?;
        let qkv = self.qkv.forward(&self.norm.forward(x)?)?;
        // [batch, q k v, heads, pixels, channels of a head]
        let qkv = qkv
            .reshape((b, 3, c / HEAD, HEAD, h * w))?
            .transpose(3, 4)?;
        let part = |i: usize| qkv.i((.., i))?.contiguous();
        let (q, k, v) = (part(0)?, part(1)?, part(2)?);
        let scores = (q.matmul(&k.t()?)? * (HEAD as f64).powf(-0.5))?;
        let mixed = ops::softmax_last_dim(&scores)?.matmul(&v)?;
        let mixed = mixed.transpose(2, 3)?.reshape((b, c, h, w))?;
        x + self.out.forward(&mixed)?
    }
}

/// A residual block, attention, and a block that doubles, as a place of the UNet has them.
struct Stage {
    block: ResBlock,
    attention: Option<Attention>,
    resize: Option<ResBlock>,
}

impl Stage {
    /// On the way down and up: `attends` and `doubles` say what comes after the block.
    fn new(
        [from, to]: [usize; 2],
        (attends, doubles): (bool, bool),
        vb: VarBuilder,
    ) -> Result<Self> {
        let attention = attends.then(|| Attention::new(to, vb.pp(1)));
        let last = if attends { 2 } else { 1 };
        let resize = doubles.then(|| ResBlock::new(to, to, Resize::Double, vb.pp(last)));
        Ok(Stage {
            block: ResBlock::new(from, to, Resize::None, vb.pp(0))?,
            attention: attention.transpose()?,
            resize: resize.transpose()?,
        })
    }

    fn halving(channels: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Stage {
            block: ResBlock::new(channels, channels, Resize::Halve, vb.pp(0))?,
            attention: None,
            resize: None,
        })
    }

    fn forward(&self, x: &Tensor, embedding: &Tensor) -> Result<Tensor> {
        let mut x = self.block.forward(x, embedding)?;
        if let Some(attention) = &self.attention {
            x = attention.forward(&x)?;
        }
        match &self.resize {
            Some(resize) => resize.forward(&x, embedding),
            None => Ok(x),
        }
    }
}

/// Pictures out of noise in one step.
pub struct UNet {
    time: [Linear; 2],
    label: [Linear; 2],
    first: Conv2d,
    down: Vec<Stage>,
    middle: (ResBlock, Attention, ResBlock),
    up: Vec<Stage>,
    norm: GroupNorm,
    last: Conv2d,
}

impl UNet {
    pub fn new(vb: VarBuilder) -> Result<Self> {
        let vb = vb.pp("network");
        let two = |from: usize, name: &str| -> Result<[Linear; 2]> {
            let vb = vb.pp(name);
            let first = linear(from, EMBEDDING, vb.pp(0))?;
            Ok([first, linear(EMBEDDING, EMBEDDING, vb.pp(2))?])
        };
        let inputs = vb.pp("input_blocks");
        let mut channels = CHANNELS;
        // What each stage on the way back takes beside what it is given, from the last.
        let mut kept = vec![channels];
        let mut down: Vec<Stage> = Vec::new();
        for (level, times) in LEVELS.into_iter().enumerate() {
            let to = times * CHANNELS;
            for _ in 0..BLOCKS {
                let vb = inputs.pp(down.len() + 1);
                down.push(Stage::new([channels, to], (level >= ATTENDING, false), vb)?);
                channels = to;
                kept.push(to);
            }
            if level + 1 < LEVELS.len() {
                down.push(Stage::halving(to, inputs.pp(down.len() + 1))?);
                kept.push(to);
            }
        }
        let middle = vb.pp("middle_block");
        let middle = (
            ResBlock::new(channels, channels, Resize::None, middle.pp(0))?,
            Attention::new(channels, middle.pp(1))?,
            ResBlock::new(channels, channels, Resize::None, middle.pp(2))?,
        );
        let mut up: Vec<Stage> = Vec::new();
        for (level, times) in LEVELS.into_iter().enumerate().rev() {
            let to = times * CHANNELS;
            for block in 0..=BLOCKS {
                let from = channels + kept.pop().unwrap_or(0);
                let double = level > 0 && block == BLOCKS;
                let vb = vb.pp("output_blocks").pp(up.len());
                up.push(Stage::new([from, to], (level >= ATTENDING, double), vb)?);
                channels = to;
            }
        }
        Ok(UNet {
            time: two(CHANNELS, "time_embed")?,
            label: two(1, "label_emb")?,
            first: conv(1, CHANNELS, 3, inputs.pp(0).pp(0))?,
            down,
            middle,
            up,
            norm: group_norm(GROUPS, CHANNELS, 1e-5, vb.pp("out.0"))?,
            last: conv(CHANNELS, 1, 3, vb.pp("out.2"))?,
        })
    }

    /// `noisy` is `[batch, 1, SIDE, SIDE]`, `sigma` says how much noise there is in each (`[batch]`), `label` what is to
    /// be seen, from 0 to 1 (`[batch]`). The result is from -1 to 1.
    pub fn forward(&self, noisy: &Tensor, sigma: &Tensor, label: &Tensor) -> Result<Tensor> {
        let variance = (sigma.sqr()? + SIGMA_DATA * SIGMA_DATA)?;
        let above = (sigma - SIGMA_MIN)?;
        let data = SIGMA_DATA * SIGMA_DATA;
        let kept = ((above.sqr()? + data)?.recip()? * data)?;
        let made = ((&above * SIGMA_DATA)? / variance.sqrt()?)?;
        let pixels = |x: Tensor| x.reshape(((), 1, 1, 1));
        let x = noisy.broadcast_mul(&pixels(variance.sqrt()?.recip()?)?)?;

        let embedding = (embed(&self.time, &waves(&(sigma.log()? * 250.0)?)?)?
            + embed(&self.label, &label.unsqueeze(1)?)?)?;
        let mut x = self.first.forward(&x)?;
        let mut kept_on_the_way = vec![x.clone()];
        for stage in &self.down {
            x = stage.forward(&x, &embedding)?;
            kept_on_the_way.push(x.clone());
        }
        let (first, attention, second) = &self.middle;
        x = first.forward(&x, &embedding)?;
        x = second.forward(&attention.forward(&x)?, &embedding)?;
        for (stage, kept) in self.up.iter().zip(kept_on_the_way.iter().rev()) {
            x = stage.forward(&Tensor::cat(&[&x, kept], 1)?, &embedding)?;
        }
        let x = self.last.forward(&self.norm.forward(&x)?.silu()?)?;
        let denoised = (x.broadcast_mul(&pixels(made)?)? + noisy.broadcast_mul(&pixels(kept)?)?)?;
        denoised.clamp(-1.0, 1.0)
    }
}

fn conv(from: usize, to: usize, kernel: usize, vb: VarBuilder) -> Result<Conv2d> {
    let config = Conv2dConfig {
        padding: kernel / 2,
        ..Default::default()
    };
    conv2d(from, to, kernel, config, vb)
}

fn embed([first, second]: &[Linear; 2], x: &Tensor) -> Result<Tensor> {
    second.forward(&first.forward(x)?.silu()?)
}

/// Cosines and sines of a timestep, from one to a ten thousandth of it.
fn waves(t: &Tensor) -> Result<Tensor> {
    let half = CHANNELS / 2;
    let rates = (0..half).map(|i| (-(10_000f64.ln()) * i as f64 / half as f64).exp() as f32);
    let rates = Tensor::from_vec(rates.collect::<Vec<_>>(), (1, half), t.device())?;
    let angles = t.unsqueeze(1)?.broadcast_mul(&rates)?;
    Tensor::cat(&[angles.cos()?, angles.sin()?], D::Minus1)
}
