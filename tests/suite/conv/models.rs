//! Small models with convolutions, as they are written for candle.
#![allow(dead_code, reason = "each test uses some of them, on either side")]

use super::backend::{candle, candle_nn};
use candle::{D, DType, Module, Result, Tensor};
use candle_nn::{Conv1dConfig, Conv2dConfig, VarBuilder};

/// Two convolutions with batch norms and a shortcut.
pub struct Block {
    conv1: candle_nn::Conv2d,
    bn1: candle_nn::BatchNorm,
    conv2: candle_nn::Conv2d,
    bn2: candle_nn::BatchNorm,
    shortcut: Option<(candle_nn::Conv2d, candle_nn::BatchNorm)>,
}

fn conv(
    c_in: usize,
    c_out: usize,
    k: usize,
    stride: usize,
    vb: VarBuilder,
) -> Result<candle_nn::Conv2d> {
    let cfg = Conv2dConfig {
        padding: k / 2,
        stride,
        ..Default::default()
    };
    candle_nn::conv2d_no_bias(c_in, c_out, k, cfg, vb)
}

impl Block {
    fn new(c_in: usize, c_out: usize, stride: usize, vb: VarBuilder) -> Result<Self> {
        let shortcut = match stride == 1 && c_in == c_out {
            true => None,
            false => Some((
                conv(c_in, c_out, 1, stride, vb.pp("downsample.0"))?,
                candle_nn::batch_norm(c_out, 1e-5, vb.pp("downsample.1"))?,
            )),
        };
        Ok(Self {
            conv1: conv(c_in, c_out, 3, stride, vb.pp("conv1"))?,
            bn1: candle_nn::batch_norm(c_out, 1e-5, vb.pp("bn1"))?,
            conv2: conv(c_out, c_out, 3, 1, vb.pp("conv2"))?,
            bn2: candle_nn::batch_norm(c_out, 1e-5, vb.pp("bn2"))?,
            shortcut,
        })
    }
}

impl Module for Block {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = x.apply(&self.conv1)?.apply_t(&self.bn1, false)?.relu()?;
        let y = y.apply(&self.conv2)?.apply_t(&self.bn2, false)?;
        let x = match &self.shortcut {
            None => x.clone(),
            Some((conv, bn)) => x.apply(conv)?.apply_t(bn, false)?,
        };
        (y + x)?.relu()
    }
}

/// A stem, three blocks and a head.
pub struct ResNet {
    conv1: candle_nn::Conv2d,
    bn1: candle_nn::BatchNorm,
    blocks: Vec<Block>,
    fc: candle_nn::Linear,
}

impl ResNet {
    pub fn load(vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            conv1: conv(3, 16, 7, 2, vb.pp("conv1"))?,
            bn1: candle_nn::batch_norm(16, 1e-5, vb.pp("bn1"))?,
            blocks: vec![
                Block::new(16, 16, 1, vb.pp("layer1.0"))?,
                Block::new(16, 256, 2, vb.pp("layer2.0"))?,
                Block::new(256, 256, 1, vb.pp("layer2.1"))?,
            ],
            fc: candle_nn::linear(256, 10, vb.pp("fc"))?,
        })
    }
}

impl Module for ResNet {
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let x = xs.apply(&self.conv1)?.apply_t(&self.bn1, false)?.relu()?;
        let x = x
            .pad_with_zeros(D::Minus1, 1, 1)?
            .pad_with_zeros(D::Minus2, 1, 1)?
            .max_pool2d_with_stride(3, 2)?;
        let mut x = x;
        for block in &self.blocks {
            x = x.apply(block)?;
        }
        x.mean(D::Minus1)?.mean(D::Minus1)?.apply(&self.fc)
    }
}

/// The patch embedding of a vision transformer with a layer on top.
pub struct Patches {
    projection: candle_nn::Conv2d,
    positions: Tensor,
    fc: candle_nn::Linear,
}

impl Patches {
    pub fn load(vb: VarBuilder) -> Result<Self> {
        let cfg = Conv2dConfig {
            stride: 4,
            ..Default::default()
        };
        Ok(Self {
            projection: candle_nn::conv2d(3, 256, 4, cfg, vb.pp("projection"))?,
            positions: vb.get((1, 36, 256), "position_embeddings")?,
            fc: candle_nn::linear(256, 256, vb.pp("fc"))?,
        })
    }
}

impl Module for Patches {
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let x = self
            .projection
            .forward(xs)?
            .flatten_from(2)?
            .transpose(1, 2)?;
        x.broadcast_add(&self.positions)?
            .apply(&self.fc)?
            .gelu_erf()
    }
}

/// A step down and up of a diffusion network, with a depthwise and a grouped convolution.
pub struct Unet {
    conv_in: candle_nn::Conv2d,
    norm: candle_nn::GroupNorm,
    conv1: candle_nn::Conv2d,
    temb: candle_nn::Linear,
    down: candle_nn::Conv2d,
    depthwise: candle_nn::Conv2d,
    grouped: candle_nn::Conv2d,
    up: candle_nn::Conv2d,
    conv_out: candle_nn::ConvTranspose2d,
}

impl Unet {
    pub fn load(vb: VarBuilder) -> Result<Self> {
        let same = Conv2dConfig {
            padding: 1,
            ..Default::default()
        };
        let groups = |groups| Conv2dConfig { groups, ..same };
        let out = candle_nn::ConvTranspose2dConfig {
            padding: 1,
            stride: 2,
            output_padding: 1,
            ..Default::default()
        };
        Ok(Self {
            conv_in: candle_nn::conv2d(4, 64, 3, same, vb.pp("conv_in"))?,
            norm: candle_nn::group_norm(8, 64, 1e-5, vb.pp("norm"))?,
            conv1: candle_nn::conv2d(64, 64, 3, same, vb.pp("conv1"))?,
            temb: candle_nn::linear(16, 64, vb.pp("temb"))?,
            down: candle_nn::conv2d(
                64,
                192,
                3,
                Conv2dConfig { stride: 2, ..same },
                vb.pp("down"),
            )?,
            depthwise: candle_nn::conv2d(192, 192, 3, groups(192), vb.pp("depthwise"))?,
            grouped: candle_nn::conv2d(192, 192, 3, groups(4), vb.pp("grouped"))?,
            up: candle_nn::conv2d(192, 64, 3, same, vb.pp("up"))?,
            conv_out: candle_nn::conv_transpose2d(64, 4, 3, out, vb.pp("conv_out"))?,
        })
    }

    pub fn forward(&self, xs: &Tensor, t: &Tensor) -> Result<Tensor> {
        let x = self.conv_in.forward(xs)?;
        let h = self.norm.forward(&x)?.silu()?.apply(&self.conv1)?;
        let t = t
            .silu()?
            .apply(&self.temb)?
            .unsqueeze(D::Minus1)?
            .unsqueeze(D::Minus1)?;
        let x = (h.broadcast_add(&t)? + x)?;
        let y = x.apply(&self.down)?.silu()?;
        let y = y.apply(&self.depthwise)?.silu()?.apply(&self.grouped)?;
        let (_, _, h, w) = x.dims4()?;
        let y = y.upsample_nearest2d(h, w)?.apply(&self.up)?;
        (y + x)?.apply(&self.conv_out)
    }
}

/// The beginning of a speech encoder.
pub struct Audio {
    conv1: candle_nn::Conv1d,
    conv2: candle_nn::Conv1d,
    ln: candle_nn::LayerNorm,
}

impl Audio {
    pub fn load(vb: VarBuilder) -> Result<Self> {
        let first = Conv1dConfig {
            padding: 1,
            ..Default::default()
        };
        let second = Conv1dConfig { stride: 2, ..first };
        Ok(Self {
            conv1: candle_nn::conv1d(20, 256, 3, first, vb.pp("conv1"))?,
            conv2: candle_nn::conv1d(256, 256, 3, second, vb.pp("conv2"))?,
            ln: candle_nn::layer_norm(256, 1e-5, vb.pp("ln"))?,
        })
    }
}

impl Module for Audio {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.conv1.forward(x)?.gelu()?;
        let x = self.conv2.forward(&x)?.gelu()?;
        x.transpose(1, 2)?.apply(&self.ln)?.to_dtype(DType::F32)
    }
}
