//! Whisper, as one writes it for candle: only the `use` lines say over which tensors it runs.
//!
//! One model that hears once and then writes: the keys and values that the decoder has of what was heard, and those of the
//! text so far, are kept from call to call.

use candle_nn::kv_cache::KvCache;
use candle_nn::{
    Conv1d, Conv1dConfig, Embedding, LayerNorm, Linear, Module, VarBuilder, conv1d, embedding,
    layer_norm, linear, linear_no_bias, ops,
};
use candle_trt::candle::{DType, IndexOp, Result, Tensor, bail};
use candle_trt::candle_nn;
use serde::{Deserialize, Serialize};

/// What of `config.json` is needed.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Config {
    pub vocab_size: usize,
    pub num_mel_bins: usize,
    pub d_model: usize,
    pub max_source_positions: usize,
    pub max_target_positions: usize,
    pub encoder_layers: usize,
    pub encoder_attention_heads: usize,
    pub encoder_ffn_dim: usize,
    pub decoder_layers: usize,
    pub decoder_attention_heads: usize,
    pub decoder_ffn_dim: usize,
    pub activation_function: Activation,
    #[serde(default)]
    pub scale_embedding: bool,
}

/// What is between products, and after convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum Activation {
    /// By the error function.
    #[serde(rename = "gelu")]
    Gelu,
    /// By the hyperbolic tangent.
    #[serde(rename = "gelu_new")]
    GeluNew,
}

impl Activation {
    fn forward(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Activation::Gelu => x.gelu_erf(),
            Activation::GeluNew => x.gelu(),
        }
    }
}

impl Config {
    /// Refuses what this file does not compute.
    pub fn check(&self) -> std::result::Result<(), String> {
        if self.scale_embedding {
            return Err("scale_embedding is true, which is not there".into());
        }
        for heads in [self.encoder_attention_heads, self.decoder_attention_heads] {
            if heads == 0 || !self.d_model.is_multiple_of(heads) {
                return Err(format!("{heads} heads of d_model {}", self.d_model));
            }
        }
        Ok(())
    }
}

/// Attention, to oneself or to what was heard.
struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    heads: usize,
}

impl Attention {
    fn new(size: usize, heads: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Attention {
            query: linear(size, size, vb.pp("q_proj"))?,
            key: linear_no_bias(size, size, vb.pp("k_proj"))?,
            value: linear(size, size, vb.pp("v_proj"))?,
            out: linear(size, size, vb.pp("out_proj"))?,
            heads,
        })
    }

    /// `[batch, length, size]` to `[batch, heads, length, size of a head]`.
    fn split(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, length, size) = x.dims3()?;
        let x = x.reshape((batch, length, self.heads, size / self.heads))?;
        x.transpose(1, 2)?.contiguous()
    }

    /// Keys and values of `x`, by heads.
    fn remembered(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let (key, value) = (self.key.forward(x)?, self.value.forward(x)?);
        Ok((self.split(&key)?, self.split(&value)?))
    }

    /// What `x` finds among keys and values; `mask` is added to scores. Scores are f32, whatever the model runs in.
    fn forward(
        &self,
        x: &Tensor,
        (key, value): (&Tensor, &Tensor),
        mask: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (batch, length, size) = x.dims3()?;
        let query = self.split(&self.query.forward(x)?)?;
        let [query, key, value] = [&query, key, value].map(|t| t.to_dtype(DType::F32));
        let scale = ((size / self.heads) as f64).sqrt();
        let scores = (query?.matmul(&key?.t()?)? / scale)?;
        let scores = match mask {
            Some(mask) => scores.broadcast_add(mask)?,
            None => scores,
        };
        let mixed = ops::softmax_last_dim(&scores)?.matmul(&value?)?;
        let mixed = mixed.to_dtype(x.dtype())?.transpose(1, 2)?.contiguous()?;
        self.out.forward(&mixed.reshape((batch, length, size))?)
    }
}

/// What both halves of the model have in each layer.
struct Block {
    own: Attention,
    own_norm: LayerNorm,
    wide: Linear,
    narrow: Linear,
    wide_norm: LayerNorm,
    activation: Activation,
}

impl Block {
    fn new(config: &Config, (heads, wide): (usize, usize), vb: VarBuilder) -> Result<Self> {
        let size = config.d_model;
        Ok(Block {
            own: Attention::new(size, heads, vb.pp("self_attn"))?,
            own_norm: layer_norm(size, 1e-5, vb.pp("self_attn_layer_norm"))?,
            wide: linear(size, wide, vb.pp("fc1"))?,
            narrow: linear(wide, size, vb.pp("fc2"))?,
            wide_norm: layer_norm(size, 1e-5, vb.pp("final_layer_norm"))?,
            activation: config.activation_function,
        })
    }

    fn feed(&self, x: &Tensor) -> Result<Tensor> {
        let wide = self.wide.forward(&self.wide_norm.forward(x)?)?;
        x + self.narrow.forward(&self.activation.forward(&wide)?)?
    }
}

/// Sound to what is said of it.
struct Encoder {
    first: Conv1d,
    second: Conv1d,
    activation: Activation,
    places: Embedding,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

impl Encoder {
    fn new(config: &Config, vb: VarBuilder) -> Result<Self> {
        let size = config.d_model;
        let conv = |from, stride, name: &str| {
            let config = Conv1dConfig {
                padding: 1,
                stride,
                ..Default::default()
            };
            conv1d(from, size, 3, config, vb.pp(name))
        };
        let shape = (config.encoder_attention_heads, config.encoder_ffn_dim);
        let blocks = (0..config.encoder_layers)
            .map(|i| Block::new(config, shape, vb.pp("layers").pp(i)))
            .collect::<Result<_>>()?;
        Ok(Encoder {
            first: conv(config.num_mel_bins, 1, "conv1")?,
            second: conv(size, 2, "conv2")?,
            activation: config.activation_function,
            places: embedding(config.max_source_positions, size, vb.pp("embed_positions"))?,
            blocks,
            norm: layer_norm(size, 1e-5, vb.pp("layer_norm"))?,
        })
    }

    /// `mel` is `[1, bins, 2 * length]`, the result `[1, length, size]`.
    fn forward(&self, mel: &Tensor) -> Result<Tensor> {
        let x = self.activation.forward(&self.first.forward(mel)?)?;
        let x = self.activation.forward(&self.second.forward(&x)?)?;
        let x = x.transpose(1, 2)?;
        let places = Tensor::arange(0u32, x.dim(1)? as u32, x.device())?;
        let mut x = x.broadcast_add(&self.places.forward(&places)?)?;
        for block in &self.blocks {
            let normed = block.own_norm.forward(&x)?;
            let (key, value) = block.own.remembered(&normed)?;
            let mixed = block.own.forward(&normed, (&key, &value), None)?;
            x = block.feed(&(x + mixed)?)?;
        }
        self.norm.forward(&x)
    }
}

/// A layer that writes.
struct Layer {
    block: Block,
    other: Attention,
    other_norm: LayerNorm,
    /// Keys and values of the text so far.
    text: KvCache,
    /// Keys and values of what was heard.
    heard: Option<(Tensor, Tensor)>,
}

impl Layer {
    fn new(config: &Config, vb: VarBuilder) -> Result<Self> {
        let (size, heads) = (config.d_model, config.decoder_attention_heads);
        Ok(Layer {
            block: Block::new(config, (heads, config.decoder_ffn_dim), vb.clone())?,
            other: Attention::new(size, heads, vb.pp("encoder_attn"))?,
            other_norm: layer_norm(size, 1e-5, vb.pp("encoder_attn_layer_norm"))?,
            text: KvCache::new(2, config.max_target_positions),
            heard: None,
        })
    }

    fn forward(&mut self, x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let Some((heard_key, heard_value)) = &self.heard else {
            bail!("nothing was heard yet");
        };
        let normed = self.block.own_norm.forward(x)?;
        let (key, value) = self.block.own.remembered(&normed)?;
        let (key, value) = self.text.append(&key, &value)?;
        let x = (x + self.block.own.forward(&normed, (&key, &value), mask)?)?;
        let normed = self.other_norm.forward(&x)?;
        let heard = (heard_key, heard_value);
        let x = (&x + self.other.forward(&normed, heard, None)?)?;
        self.block.feed(&x)
    }
}

/// Speech to text.
pub struct Whisper {
    encoder: Encoder,
    words: Embedding,
    places: Embedding,
    layers: Vec<Layer>,
    norm: LayerNorm,
    head: Linear,
    dtype: DType,
}

impl Whisper {
    pub fn new(config: &Config, vb: VarBuilder) -> Result<Self> {
        let (size, vb) = (config.d_model, vb.pp("model"));
        let encoder = Encoder::new(config, vb.pp("encoder"))?;
        let vb = vb.pp("decoder");
        let words = embedding(config.vocab_size, size, vb.pp("embed_tokens"))?;
        let layers = (0..config.decoder_layers)
            .map(|i| Layer::new(config, vb.pp("layers").pp(i)))
            .collect::<Result<_>>()?;
        Ok(Whisper {
            encoder,
            head: Linear::new(words.embeddings().clone(), None),
            words,
            places: embedding(config.max_target_positions, size, vb.pp("embed_positions"))?,
            layers,
            norm: layer_norm(size, 1e-5, vb.pp("layer_norm"))?,
            dtype: vb.dtype(),
        })
    }

    /// Hears half a minute, and forgets text and what was heard before. `mel` is `[1, bins, 2 * max_source_positions]`.
    pub fn hear(&mut self, mel: &Tensor) -> Result<()> {
        let heard = self.encoder.forward(&mel.to_dtype(self.dtype)?)?;
        for layer in &mut self.layers {
            layer.heard = Some(layer.other.remembered(&heard)?);
            layer.text.reset();
        }
        Ok(())
    }

    /// The logits after the last of `ids` (`[1, length]`, u32), of which the first is at `past` in the text: `[1, vocab_size]`
    /// in f32.
    pub fn write(&mut self, ids: &Tensor, past: usize) -> Result<Tensor> {
        let (_, length) = ids.dims2()?;
        let places = Tensor::arange(past as u32, (past + length) as u32, ids.device())?;
        let words = self.words.forward(ids)?;
        let mut x = words.broadcast_add(&self.places.forward(&places)?)?;
        let mask = match length {
            1 => None,
            _ => Some(causal(past, length, ids)?),
        };
        for layer in &mut self.layers {
            x = layer.forward(&x, mask.as_ref())?;
        }
        let last = self.norm.forward(&x.i((.., length - 1, ..))?)?;
        self.head.forward(&last)?.to_dtype(DType::F32)
    }
}

/// Hides from each of `length` tokens those that come later: `[length, past + length]`.
fn causal(past: usize, length: usize, like: &Tensor) -> Result<Tensor> {
    let hidden = |(row, column): (usize, usize)| match column > past + row {
        true => f32::NEG_INFINITY,
        false => 0.0,
    };
    let all = (0..length).flat_map(|row| (0..past + length).map(move |column| (row, column)));
    let mask = all.map(hidden).collect::<Vec<_>>();
    Tensor::from_vec(mask, (length, past + length), like.device())
}
