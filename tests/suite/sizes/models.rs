//! Small models whose sizes come from their inputs, as they are written for candle.
#![allow(dead_code, reason = "each side uses what it needs")]

use super::backend::{candle, candle_nn};
use candle::{D, DType, Module, Result, Tensor};
use candle_nn::{Conv1dConfig, Conv2dConfig, VarBuilder};

const HIDDEN: usize = 32;
const HEADS: usize = 4;

/// A layer of an encoder: attention under an additive mask, then two products.
struct Layer {
    qkv: [candle_nn::Linear; 3],
    out: candle_nn::Linear,
    up: candle_nn::Linear,
    down: candle_nn::Linear,
    norms: [candle_nn::LayerNorm; 2],
}

impl Layer {
    fn load(vb: &VarBuilder) -> Result<Self> {
        let square = |name: &str| candle_nn::linear(HIDDEN, HIDDEN, vb.pp(name));
        let norm = |name: &str| candle_nn::layer_norm(HIDDEN, 1e-5, vb.pp(name));
        Ok(Self {
            qkv: [square("query")?, square("key")?, square("value")?],
            out: square("out")?,
            up: candle_nn::linear(HIDDEN, 4 * HIDDEN, vb.pp("up"))?,
            down: candle_nn::linear(4 * HIDDEN, HIDDEN, vb.pp("down"))?,
            norms: [norm("norm1")?, norm("norm2")?],
        })
    }

    fn forward(&self, x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let heads = |layer: &candle_nn::Linear| {
            let (b, l, _) = x.dims3()?;
            let split = layer.forward(x)?.reshape((b, l, HEADS, HIDDEN / HEADS))?;
            split.transpose(1, 2)?.contiguous()
        };
        let (q, k, v) = (
            heads(&self.qkv[0])?,
            heads(&self.qkv[1])?,
            heads(&self.qkv[2])?,
        );
        let scores = (q.matmul(&k.t()?)? / ((HIDDEN / HEADS) as f64).sqrt())?;
        let scores = match mask {
            Some(mask) => scores.broadcast_add(mask)?,
            None => scores,
        };
        let context = candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&v)?;
        let context = context.transpose(1, 2)?.contiguous()?;
        let context = context.flatten_from(D::Minus2)?;
        let x = self.norms[0].forward(&(self.out.forward(&context)? + x)?)?;
        let up = self.up.forward(&x)?.gelu_erf()?;
        self.norms[1].forward(&(self.down.forward(&up)? + x)?)
    }
}

/// Sentences with padding, as BERT takes them.
pub struct Encoder {
    words: candle_nn::Embedding,
    places: candle_nn::Embedding,
    layers: Vec<Layer>,
}

impl Encoder {
    pub fn load(vb: VarBuilder) -> Result<Self> {
        let layers = (0..2).map(|i| Layer::load(&vb.pp(format!("layer.{i}"))));
        Ok(Self {
            words: candle_nn::embedding(64, HIDDEN, vb.pp("words"))?,
            places: candle_nn::embedding(128, HIDDEN, vb.pp("places"))?,
            layers: layers.collect::<Result<_>>()?,
        })
    }

    /// `ids` and `mask` (1 where there is a word) are `[batch, length]`; the result is the mean of the
    /// words of each sentence, `[batch, hidden]`.
    pub fn forward(&self, ids: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let (_, l) = ids.dims2()?;
        let places: Vec<u32> = (0..l as u32).collect();
        let places = Tensor::new(&places[..], ids.device())?;
        let x = self.words.forward(ids)?;
        let mut x = x.broadcast_add(&self.places.forward(&places)?)?;
        let hidden = mask.unsqueeze(1)?.unsqueeze(2)?;
        let hidden = ((hidden.ones_like()? - hidden)? * -1e4)?;
        for layer in &self.layers {
            x = layer.forward(&x, Some(&hidden))?;
        }
        let words = x.broadcast_mul(&mask.unsqueeze(2)?)?.sum(1)?;
        words.broadcast_div(&mask.sum_keepdim(1)?)
    }
}

fn conv(
    from: usize,
    to: usize,
    k: usize,
    stride: usize,
    vb: VarBuilder,
) -> Result<candle_nn::Conv2d> {
    let config = Conv2dConfig {
        padding: k / 2,
        stride,
        ..Default::default()
    };
    candle_nn::conv2d(from, to, k, config, vb)
}

/// Two convolutions with a shortcut, which halve the sides.
struct Block {
    convs: [candle_nn::Conv2d; 2],
    shortcut: candle_nn::Conv2d,
}

impl Block {
    fn load(from: usize, to: usize, vb: VarBuilder) -> Result<Self> {
        let first = conv(from, to, 3, 2, vb.pp("conv1"))?;
        Ok(Self {
            convs: [first, conv(to, to, 3, 1, vb.pp("conv2"))?],
            shortcut: conv(from, to, 1, 2, vb.pp("shortcut"))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.convs[1].forward(&self.convs[0].forward(x)?.relu()?)?;
        (self.shortcut.forward(x)? + y)?.relu()
    }
}

/// A residual network of five halvings.
pub struct Network {
    stem: candle_nn::Conv2d,
    blocks: Vec<Block>,
    head: candle_nn::Linear,
}

impl Network {
    pub fn load(vb: VarBuilder) -> Result<Self> {
        let sizes = [(8, 12), (12, 16), (16, 32)];
        let block = |(i, (from, to)): (usize, &(usize, usize))| {
            Block::load(*from, *to, vb.pp(format!("block.{i}")))
        };
        Ok(Self {
            stem: conv(3, 8, 7, 2, vb.pp("stem"))?,
            blocks: sizes.iter().enumerate().map(block).collect::<Result<_>>()?,
            head: candle_nn::linear(HIDDEN, 10, vb.pp("head"))?,
        })
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.stem.forward(x)?.relu()?;
        let x = x.pad_with_zeros(2, 1, 1)?.pad_with_zeros(3, 1, 1)?;
        let mut x = x.max_pool2d_with_stride(3, 2)?;
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        self.head.forward(&x.mean(D::Minus1)?.mean(D::Minus1)?)
    }
}

/// Audio of any length, as whisper's encoder takes it.
pub struct Speech {
    convs: [candle_nn::Conv1d; 2],
    places: Tensor,
    layer: Layer,
}

impl Speech {
    pub fn load(vb: VarBuilder) -> Result<Self> {
        let once = Conv1dConfig {
            padding: 1,
            ..Default::default()
        };
        let halved = Conv1dConfig { stride: 2, ..once };
        let conv =
            |from, config, name: &str| candle_nn::conv1d(from, HIDDEN, 3, config, vb.pp(name));
        Ok(Self {
            convs: [conv(20, once, "conv1")?, conv(HIDDEN, halved, "conv2")?],
            places: vb.get((150, HIDDEN), "places")?,
            layer: Layer::load(&vb.pp("layer"))?,
        })
    }

    /// `[batch, 20, frames]` to `[batch, ceil(frames / 2), hidden]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.convs[0].forward(x)?.gelu()?;
        let x = self.convs[1].forward(&x)?.gelu()?.transpose(1, 2)?;
        let (_, length, _) = x.dims3()?;
        let x = x.broadcast_add(&self.places.narrow(0, 0, length)?)?;
        self.layer
            .forward(&x.contiguous()?, None)?
            .to_dtype(DType::F32)
    }
}
