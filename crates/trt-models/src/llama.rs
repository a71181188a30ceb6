//! The Llama family as one decoder: Llama 2 and 3, SmolLM2, Mistral, Qwen2, Qwen3.
//!
//! Ordinary candle code. What differs between the families is a fact in [`DecoderConfig`], read where the layer
//! is made; the forward pass has no family in it.

use super::backend::{candle, candle_nn};
use super::cache::{KvCache, attention_mask};
use super::checkpoint::{self, Names};
use super::config::DecoderConfig;
use super::rope::{RotaryEmbedding, RotaryRows};
use candle::{DType, Device, IndexOp, Module, Result, Tensor, bail};
use candle_nn::{Embedding, Linear, RmsNorm, VarBuilder, linear, linear_no_bias, rms_norm};

/// Choices that are not the model's but the caller's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Positions that may be used: calls beyond are errors. `None` means [`DecoderConfig::max_positions`]. What a compiled
    /// model takes does not depend on it: rows that no call of the profile reaches are never made.
    pub max_positions: Option<usize>,
}

fn linear_with(bias: bool, input: usize, output: usize, vb: VarBuilder) -> Result<Linear> {
    if bias {
        linear(input, output, vb)
    } else {
        linear_no_bias(input, output, vb)
    }
}

fn masked_fill(on_false: &Tensor, mask: &Tensor, on_true: f32) -> Result<Tensor> {
    let shape = on_false.shape();
    let on_true = Tensor::new(on_true, on_false.device())?.broadcast_as(shape)?;
    mask.broadcast_as(shape)?.where_cond(&on_true, on_false)
}

/// Gives every query head its own copy of the key or value head it shares.
fn repeat_kv(xs: Tensor, copies: usize) -> Result<Tensor> {
    if copies == 1 {
        return Ok(xs);
    }
    let (batch, kv_heads, positions, head_dim) = xs.dims4()?;
    Tensor::cat(&vec![&xs; copies], 2)?.reshape((batch, kv_heads * copies, positions, head_dim))
}

/// The masks of one call, shared by all layers.
struct Masks {
    full: Option<Tensor>,
    windowed: Vec<(usize, Option<Tensor>)>,
}

impl Masks {
    fn new(
        windows: &[Option<usize>],
        seq_len: usize,
        index_pos: usize,
        device: &Device,
    ) -> Result<Self> {
        let mut masks = Masks {
            full: attention_mask(seq_len, index_pos, None, device)?,
            windowed: Vec::new(),
        };
        for window in windows.iter().copied().flatten() {
            if masks.windowed.iter().all(|(w, _)| *w != window) {
                let mask = attention_mask(seq_len, index_pos, Some(window), device)?;
                masks.windowed.push((window, mask));
            }
        }
        Ok(masks)
    }

    fn of(&self, window: Option<usize>) -> Option<&Tensor> {
        match window {
            None => self.full.as_ref(),
            Some(window) => self.windowed.iter().find(|(w, _)| *w == window)?.1.as_ref(),
        }
    }
}

#[derive(Debug, Clone)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    q_norm: Option<RmsNorm>,
    k_norm: Option<RmsNorm>,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    copies: usize,
}

impl Attention {
    fn load(vb: VarBuilder, config: &DecoderConfig) -> Result<Self> {
        let hidden = config.hidden_size;
        let (heads, kv_heads, head_dim) = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        );
        let norm = |name: &str| match config.qk_norm {
            true => rms_norm(head_dim, config.rms_norm_eps, vb.pp(name)).map(Some),
            false => Ok(None),
        };
        Ok(Self {
            q_proj: linear_with(config.qkv_bias, hidden, heads * head_dim, vb.pp("q_proj"))?,
            k_proj: linear_with(
                config.qkv_bias,
                hidden,
                kv_heads * head_dim,
                vb.pp("k_proj"),
            )?,
            v_proj: linear_with(
                config.qkv_bias,
                hidden,
                kv_heads * head_dim,
                vb.pp("v_proj"),
            )?,
            o_proj: linear_with(
                config.output_bias,
                heads * head_dim,
                hidden,
                vb.pp("o_proj"),
            )?,
            q_norm: norm("q_norm")?,
            k_norm: norm("k_norm")?,
            heads,
            kv_heads,
            head_dim,
            copies: config.heads_per_kv_head(),
        })
    }

    /// Projects and splits into heads: `(batch, seq, hidden)` to `(batch, heads, seq, head_dim)`.
    fn split(
        &self,
        x: &Tensor,
        proj: &Linear,
        norm: Option<&RmsNorm>,
        heads: usize,
    ) -> Result<Tensor> {
        let (batch, seq_len, _hidden) = x.dims3()?;
        let x = proj
            .forward(x)?
            .reshape((batch, seq_len, heads, self.head_dim))?;
        let x = match norm {
            Some(norm) => norm.forward(&x)?,
            None => x,
        };
        x.transpose(1, 2)
    }

    fn forward(
        &self,
        x: &Tensor,
        mask: Option<&Tensor>,
        rotary: &RotaryRows,
        cache: &mut KvCache,
    ) -> Result<Tensor> {
        let (batch, seq_len, _hidden) = x.dims3()?;
        let q = self.split(x, &self.q_proj, self.q_norm.as_ref(), self.heads)?;
        let k = self.split(x, &self.k_proj, self.k_norm.as_ref(), self.kv_heads)?;
        let v = self
            .split(x, &self.v_proj, None, self.kv_heads)?
            .contiguous()?;

        let q = rotary.apply(&q)?;
        let k = rotary.apply(&k)?;
        let (k, v) = cache.append(k, v)?;
        let k = repeat_kv(k, self.copies)?;
        let v = repeat_kv(v, self.copies)?;

        // Scores and their softmax are f32 whatever the model runs in.
        let in_dtype = q.dtype();
        let q = q.to_dtype(DType::F32)?;
        let k = k.to_dtype(DType::F32)?;
        let v = v.to_dtype(DType::F32)?;
        let att = (q.matmul(&k.t()?)? / (self.head_dim as f64).sqrt())?;
        let att = match mask {
            Some(mask) => masked_fill(&att, mask, f32::NEG_INFINITY)?,
            None => att,
        };
        let att = candle_nn::ops::softmax_last_dim(&att)?;
        let y = att.matmul(&v)?.to_dtype(in_dtype)?;

        let y = y
            .transpose(1, 2)?
            .reshape((batch, seq_len, self.heads * self.head_dim))?;
        self.o_proj.forward(&y)
    }
}

#[derive(Debug, Clone)]
struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

impl Mlp {
    fn load(vb: VarBuilder, config: &DecoderConfig) -> Result<Self> {
        let (hidden, inner, bias) = (
            config.hidden_size,
            config.intermediate_size,
            config.mlp_bias,
        );
        Ok(Self {
            gate_proj: linear_with(bias, hidden, inner, vb.pp("gate_proj"))?,
            up_proj: linear_with(bias, hidden, inner, vb.pp("up_proj"))?,
            down_proj: linear_with(bias, inner, hidden, vb.pp("down_proj"))?,
        })
    }
}

impl Module for Mlp {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = (candle_nn::ops::silu(&self.gate_proj.forward(x)?)? * self.up_proj.forward(x)?)?;
        self.down_proj.forward(&x)
    }
}

#[derive(Debug, Clone)]
struct Block {
    attention_norm: RmsNorm,
    attention: Attention,
    mlp_norm: RmsNorm,
    mlp: Mlp,
    window: Option<usize>,
}

impl Block {
    fn load(vb: VarBuilder, config: &DecoderConfig, window: Option<usize>) -> Result<Self> {
        let norm = |name: &str| rms_norm(config.hidden_size, config.rms_norm_eps, vb.pp(name));
        Ok(Self {
            attention_norm: norm("input_layernorm")?,
            attention: Attention::load(vb.pp("self_attn"), config)?,
            mlp_norm: norm("post_attention_layernorm")?,
            mlp: Mlp::load(vb.pp("mlp"), config)?,
            window,
        })
    }

    fn forward(
        &self,
        x: &Tensor,
        masks: &Masks,
        rotary: &RotaryRows,
        cache: &mut KvCache,
    ) -> Result<Tensor> {
        let normed = self.attention_norm.forward(x)?;
        let mask = masks.of(self.window);
        let x = (self.attention.forward(&normed, mask, rotary, cache)? + x)?;
        let normed = self.mlp_norm.forward(&x)?;
        self.mlp.forward(&normed)? + x
    }
}

/// A decoder with its keys and values of the positions seen so far.
#[derive(Debug, Clone)]
pub struct Llama {
    embed_tokens: Embedding,
    blocks: Vec<Block>,
    norm: RmsNorm,
    lm_head: Linear,
    rotary: RotaryEmbedding,
    caches: Vec<KvCache>,
    windows: Vec<Option<usize>>,
}

impl Llama {
    /// Makes the model from tensors named as Hugging Face names them, for contexts as long as the model allows.
    ///
    /// The text model inside a model with vision is found by its names. The output head is `lm_head.weight` where there
    /// is one. Where there is none it is the embedding table, unless the configuration says that the two are not tied.
    ///
    /// # Errors
    ///
    /// A configuration that [`DecoderConfig::validate`] refuses, and tensors that are missing or of another shape.
    pub fn load(vb: VarBuilder, config: &DecoderConfig) -> Result<Self> {
        Self::load_with(vb, config, &LoadOptions::default())
    }

    /// As [`Llama::load`], with the caller's choices.
    ///
    /// # Errors
    ///
    /// As [`Llama::load`], and [`LoadOptions::max_positions`] beyond what is supported.
    pub fn load_with(
        vb: VarBuilder,
        config: &DecoderConfig,
        options: &LoadOptions,
    ) -> Result<Self> {
        config.validate().map_err(candle::Error::wrap)?;
        let names = Names::find(&vb);
        let model = vb.pp(names.model);
        let layers = model.pp("layers");
        let (embed_tokens, lm_head) = checkpoint::ends(&vb, names, config)?;
        let blocks = config
            .layer_windows
            .iter()
            .enumerate()
            .map(|(i, window)| Block::load(layers.pp(i), config, *window))
            .collect::<Result<Vec<_>>>()?;
        let positions = options.max_positions.unwrap_or(config.max_positions());
        Ok(Self {
            embed_tokens,
            blocks,
            norm: rms_norm(config.hidden_size, config.rms_norm_eps, model.pp("norm"))?,
            lm_head,
            rotary: RotaryEmbedding::new(config, positions, vb.dtype(), vb.device())?,
            caches: vec![KvCache::default(); config.num_hidden_layers],
            windows: config.layer_windows.clone(),
        })
    }

    /// Runs `(batch, seq)` token ids whose first position is `index_pos` and returns the `(batch, vocab)` f32
    /// logits of the last one. Positions before `index_pos` are those of the calls since the last clear.
    ///
    /// # Errors
    ///
    /// No token, and positions beyond those that the model was made for.
    pub fn forward(&mut self, input_ids: &Tensor, index_pos: usize) -> Result<Tensor> {
        let (_batch, seq_len) = input_ids.dims2()?;
        if seq_len == 0 {
            bail!("a call needs at least one token");
        }
        let rotary = self.rotary.rows(index_pos, seq_len)?;
        let masks = Masks::new(&self.windows, seq_len, index_pos, input_ids.device())?;
        let mut x = self.embed_tokens.forward(input_ids)?;
        for (block, cache) in self.blocks.iter().zip(&mut self.caches) {
            x = block.forward(&x, &masks, &rotary, cache)?;
        }
        let x = x.i((.., seq_len - 1, ..))?.contiguous()?;
        let x = self.norm.forward(&x)?;
        self.lm_head.forward(&x)?.to_dtype(DType::F32)
    }

    /// The length beyond which the frequencies of rope depend on the length of the text, if there is one: see
    /// [`RopeScaling::Dynamic`](crate::RopeScaling::Dynamic).
    pub fn dynamic_beyond(&self) -> Option<usize> {
        self.rotary.dynamic_beyond()
    }

    /// Forgets every position: the next call starts at 0.
    pub fn clear_kv_cache(&mut self) {
        self.caches.iter_mut().for_each(KvCache::clear);
    }
}
