//! CLIP's text encoder, as one writes it for candle: only the `use` lines say over which tensors it runs.

use candle_nn::{
    Embedding, LayerNorm, Linear, Module, VarBuilder, embedding, layer_norm, linear, ops,
};
use candle_trt::candle::{D, DType, Result, Tensor};
use candle_trt::candle_nn;
use serde::Deserialize;

/// What of `text_encoder/config.json` is needed.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub max_position_embeddings: usize,
    pub hidden_act: Activation,
    #[serde(default = "eps")]
    pub layer_norm_eps: f64,
}

fn eps() -> f64 {
    1e-5
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    Gelu,
    QuickGelu,
}

impl Config {
    /// Refuses what this file does not compute.
    pub fn check(&self) -> std::result::Result<(), String> {
        let heads = self.num_attention_heads;
        match heads > 0 && self.hidden_size.is_multiple_of(heads) {
            true => Ok(()),
            false => Err(format!("{heads} heads of hidden_size {}", self.hidden_size)),
        }
    }
}

struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    before: LayerNorm,
    wide: Linear,
    narrow: Linear,
    after: LayerNorm,
    heads: usize,
    activation: Activation,
}

impl Layer {
    fn new(config: &Config, vb: VarBuilder) -> Result<Self> {
        let (size, wide) = (config.hidden_size, config.intermediate_size);
        let (own, mlp) = (vb.pp("self_attn"), vb.pp("mlp"));
        let norm = |name| layer_norm(size, config.layer_norm_eps, vb.pp(name));
        Ok(Layer {
            query: linear(size, size, own.pp("q_proj"))?,
            key: linear(size, size, own.pp("k_proj"))?,
            value: linear(size, size, own.pp("v_proj"))?,
            out: linear(size, size, own.pp("out_proj"))?,
            before: norm("layer_norm1")?,
            wide: linear(size, wide, mlp.pp("fc1"))?,
            narrow: linear(wide, size, mlp.pp("fc2"))?,
            after: norm("layer_norm2")?,
            heads: config.num_attention_heads,
            activation: config.hidden_act,
        })
    }

    /// `x` is `[1, length, size]`; `mask` is added to scores, `[length, length]`.
    fn forward(&self, x: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let (batch, length, size) = x.dims3()?;
        let normed = self.before.forward(x)?;
        let heads = |x: Tensor| {
            let x = x.reshape((batch, length, self.heads, size / self.heads))?;
            x.transpose(1, 2)?.contiguous()?.to_dtype(DType::F32)
        };
        let query = heads(self.query.forward(&normed)?)?;
        let key = heads(self.key.forward(&normed)?)?;
        let value = heads(self.value.forward(&normed)?)?;
        let scores = (query.matmul(&key.t()?)? / ((size / self.heads) as f64).sqrt())?;
        let shares = ops::softmax(&scores.broadcast_add(mask)?, D::Minus1)?;
        let mixed = shares.matmul(&value)?.to_dtype(x.dtype())?;
        let mixed = mixed.transpose(1, 2)?.contiguous()?;
        let x = (x + self.out.forward(&mixed.reshape((batch, length, size))?)?)?;
        let wide = self.wide.forward(&self.after.forward(&x)?)?;
        let wide = match self.activation {
            Activation::Gelu => wide.gelu_erf()?,
            Activation::QuickGelu => (&wide * ops::sigmoid(&(&wide * 1.702)?)?)?,
        };
        &x + self.narrow.forward(&wide)?
    }
}

/// Tokens to what they mean.
pub struct Clip {
    words: Embedding,
    places: Embedding,
    layers: Vec<Layer>,
    norm: LayerNorm,
}

impl Clip {
    pub fn new(config: &Config, vb: VarBuilder) -> Result<Self> {
        let (size, vb) = (config.hidden_size, vb.pp("text_model"));
        let all = vb.pp("embeddings");
        let places = config.max_position_embeddings;
        let layers = (0..config.num_hidden_layers)
            .map(|i| Layer::new(config, vb.pp("encoder.layers").pp(i)))
            .collect::<Result<_>>()?;
        Ok(Clip {
            words: embedding(config.vocab_size, size, all.pp("token_embedding"))?,
            places: embedding(places, size, all.pp("position_embedding"))?,
            layers,
            norm: layer_norm(size, config.layer_norm_eps, vb.pp("final_layer_norm"))?,
        })
    }

    /// `ids` are `[1, length]` (u32), the result `[1, length, hidden_size]` in f32. Nothing sees what comes after it.
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let (_, length) = ids.dims2()?;
        let places = Tensor::arange(0u32, length as u32, ids.device())?;
        let words = self.words.forward(ids)?;
        let mut x = words.broadcast_add(&self.places.forward(&places)?)?;
        let all = (0..length).flat_map(|row| (0..length).map(move |column| (row, column)));
        let hidden = all.map(|(row, column)| match column > row {
            true => f32::NEG_INFINITY,
            false => 0.0,
        });
        let mask = Tensor::from_vec(hidden.collect::<Vec<_>>(), (length, length), ids.device())?;
        for layer in &self.layers {
            x = layer.forward(&x, &mask)?;
        }
        self.norm.forward(&x)?.to_dtype(DType::F32)
    }
}
