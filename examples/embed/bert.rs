//! BERT for sentences, as one writes it for candle: only the `use` lines say over which tensors it runs.

use candle_nn::{
    Embedding, LayerNorm, Linear, Module, VarBuilder, embedding, layer_norm, linear, ops,
};
use candle_trt::candle::{D, DType, Result, Tensor};
use candle_trt::candle_nn;
use serde::Deserialize;

/// What of `config.json` is needed.
#[derive(Debug, Clone, Deserialize)]
pub struct Config {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_attention_heads: usize,
    pub num_hidden_layers: usize,
    pub max_position_embeddings: usize,
    pub type_vocab_size: usize,
    pub layer_norm_eps: f64,
    pub hidden_act: String,
    pub position_embedding_type: Option<String>,
}

impl Config {
    /// Refuses what this file does not compute.
    pub fn check(&self) -> std::result::Result<(), String> {
        let places = self.position_embedding_type.as_deref();
        match (self.hidden_act.as_str(), places.unwrap_or("absolute")) {
            ("gelu", "absolute") => {}
            (act, "absolute") => return Err(format!("hidden_act is {act}, only gelu is there")),
            (_, places) => return Err(format!("position_embedding_type is {places}")),
        }
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
    mixed: Linear,
    mixed_norm: LayerNorm,
    wide: Linear,
    narrow: Linear,
    norm: LayerNorm,
    heads: usize,
}

impl Layer {
    fn new(config: &Config, vb: VarBuilder) -> Result<Self> {
        let (size, wide) = (config.hidden_size, config.intermediate_size);
        let norm = |vb| layer_norm(size, config.layer_norm_eps, vb);
        let (own, out) = (vb.pp("attention.self"), vb.pp("attention.output"));
        Ok(Layer {
            query: linear(size, size, own.pp("query"))?,
            key: linear(size, size, own.pp("key"))?,
            value: linear(size, size, own.pp("value"))?,
            mixed: linear(size, size, out.pp("dense"))?,
            mixed_norm: norm(out.pp("LayerNorm"))?,
            wide: linear(size, wide, vb.pp("intermediate.dense"))?,
            narrow: linear(wide, size, vb.pp("output.dense"))?,
            norm: norm(vb.pp("output.LayerNorm"))?,
            heads: config.num_attention_heads,
        })
    }

    /// `hidden` is `[batch, length, size]`; `hides` is added to scores: `[batch, 1, 1, length]`.
    fn forward(&self, hidden: &Tensor, hides: &Tensor) -> Result<Tensor> {
        let (batch, length, size) = hidden.dims3()?;
        let head = size / self.heads;
        let heads = |x: Tensor| {
            let x = x.reshape((batch, length, self.heads, head))?;
            x.transpose(1, 2)?.contiguous()
        };
        let query = heads(self.query.forward(hidden)?)?;
        let key = heads(self.key.forward(hidden)?)?;
        let value = heads(self.value.forward(hidden)?)?;
        let scores = (query.matmul(&key.t()?)? / (head as f64).sqrt())?;
        let shares = ops::softmax(&scores.broadcast_add(hides)?, D::Minus1)?;
        let mixed = shares.matmul(&value)?.transpose(1, 2)?.contiguous()?;
        let mixed = self.mixed.forward(&mixed.reshape((batch, length, size))?)?;
        let hidden = self.mixed_norm.forward(&(mixed + hidden)?)?;
        let wide = self.wide.forward(&hidden)?.gelu_erf()?;
        self.norm.forward(&(self.narrow.forward(&wide)? + hidden)?)
    }
}

/// Sentences to unit vectors.
pub struct Bert {
    words: Embedding,
    places: Embedding,
    kinds: Tensor,
    norm: LayerNorm,
    layers: Vec<Layer>,
}

impl Bert {
    pub fn new(config: &Config, vb: VarBuilder) -> Result<Self> {
        let (size, all) = (config.hidden_size, vb.pp("embeddings"));
        let table = |count, name: &str| embedding(count, size, all.pp(name));
        let kinds = table(config.type_vocab_size, "token_type_embeddings")?;
        let layers = (0..config.num_hidden_layers)
            .map(|i| Layer::new(config, vb.pp("encoder.layer").pp(i)))
            .collect::<Result<_>>()?;
        Ok(Bert {
            words: table(config.vocab_size, "word_embeddings")?,
            places: table(config.max_position_embeddings, "position_embeddings")?,
            // One sentence is all of the first kind.
            kinds: kinds.embeddings().narrow(0, 0, 1)?,
            norm: layer_norm(size, config.layer_norm_eps, all.pp("LayerNorm"))?,
            layers,
        })
    }

    /// The mean of a sentence's tokens, of length 1: `[batch, size]`. `ids` are `[batch, length]` (u32), and `mask` (f32) is 1
    /// at tokens and 0 behind a sentence's end.
    pub fn forward(&self, ids: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let (_, length) = ids.dims2()?;
        let places = Tensor::arange(0u32, length as u32, ids.device())?;
        let hidden = self.words.forward(ids)?;
        let hidden = hidden.broadcast_add(&self.places.forward(&places)?)?;
        let hidden = hidden.broadcast_add(&self.kinds)?;
        let mut hidden = self.norm.forward(&hidden)?;
        let hides = ((1.0 - mask)? * f64::from(f32::MIN))?;
        let hides = hides.unsqueeze(1)?.unsqueeze(1)?.to_dtype(DType::F32)?;
        for layer in &self.layers {
            hidden = layer.forward(&hidden, &hides)?;
        }
        let own = mask.unsqueeze(2)?;
        let sum = hidden.broadcast_mul(&own)?.sum(1)?;
        let mean = sum.broadcast_div(&own.sum(1)?)?;
        mean.broadcast_div(&mean.sqr()?.sum_keepdim(1)?.sqrt()?)
    }
}
