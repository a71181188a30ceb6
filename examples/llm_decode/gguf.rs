//! A GGUF file turned into the files a Hugging Face checkpoint has.
//!
//! Only what the default model needs: architecture `llama`, whose q and k rows GGUF stores in the order of
//! interleaved rope. Everything else is refused by name.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, Result, bail};
use candle_core::quantized::gguf_file::{Content, Value};
use candle_core::{Device, Tensor};
use serde_json::json;

use crate::args::Precision;
use crate::convert::{self, Plan};
use crate::gguf_tokenizer;

/// Fills `dir` with `config.json`, `tokenizer.json`, `tokenizer_config.json` and `model.safetensors`.
pub fn convert(file: &Path, dir: &Path, precision: Precision) -> Result<()> {
    let mut reader = BufReader::new(
        File::open(file).with_context(|| format!("cannot open {}", file.display()))?,
    );
    let content = Content::read(&mut reader)
        .with_context(|| format!("{} is not a GGUF file", file.display()))?;
    let meta = Meta(&content);
    if meta.text("general.architecture")? != "llama" {
        bail!(
            "GGUF architecture {} is not supported (supported: llama)",
            meta.text("general.architecture")?
        );
    }
    let write_json =
        |name: &str, json: serde_json::Value| std::fs::write(dir.join(name), format!("{json:#}\n"));
    write_json("config.json", config(&content, precision)?)?;
    write_json("tokenizer_config.json", gguf_tokenizer::settings(&content)?)?;
    gguf_tokenizer::write(&content, &dir.join("tokenizer.json"))?;

    let names = names(meta.number("llama.block_count")?);
    let plan = plan(&content, &names)?;
    let (heads, kv_heads) = (
        meta.number("llama.attention.head_count")?,
        meta.number("llama.attention.head_count_kv")?,
    );
    let message = format!("dequantising the weights to {}", precision.name());
    convert::write(
        &dir.join("model.safetensors"),
        &plan,
        precision,
        &message,
        |name| {
            let (_, stored) = names
                .iter()
                .find(|(hf, _)| hf == name)
                .context("the plan is made of these names")?;
            let tensor = content
                .tensor(&mut reader, stored, &Device::Cpu)?
                .dequantize(&Device::Cpu)?;
            match stored {
                s if s.ends_with("attn_q.weight") => rotate_half_rows(&tensor, heads),
                s if s.ends_with("attn_k.weight") => rotate_half_rows(&tensor, kv_heads),
                _ => Ok(tensor),
            }
        },
    )
}

/// The metadata, by key; what is missing or of another type is named.
pub struct Meta<'a>(pub &'a Content);

impl Meta<'_> {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Result<&Value> {
        self.0
            .metadata
            .get(key)
            .with_context(|| format!("the GGUF file has no {key}"))
    }

    /// A whole number of any width.
    pub fn number(&self, key: &str) -> Result<usize> {
        let value = self.get(key)?;
        let number = value.to_u64().or_else(|_| value.to_u32().map(u64::from));
        Ok(number.with_context(|| format!("GGUF {key} is not a number"))? as usize)
    }

    /// A floating-point number.
    pub fn float(&self, key: &str) -> Result<f32> {
        self.get(key)?
            .to_f32()
            .with_context(|| format!("GGUF {key} is not an f32"))
    }

    /// A string.
    pub fn text(&self, key: &str) -> Result<&str> {
        Ok(self
            .get(key)?
            .to_string()
            .with_context(|| format!("GGUF {key} is not a string"))?)
    }

    /// A list of strings.
    pub fn texts(&self, key: &str) -> Result<Vec<String>> {
        let values = self
            .get(key)?
            .to_vec()
            .with_context(|| format!("GGUF {key} is not a list"))?;
        let texts = values.iter().map(|v| v.to_string().cloned());
        texts
            .collect::<candle_core::Result<_>>()
            .with_context(|| format!("GGUF {key} is not a list of strings"))
    }
}

fn config(content: &Content, precision: Precision) -> Result<serde_json::Value> {
    let meta = Meta(content);
    let embedding = content
        .tensor_infos
        .get("token_embd.weight")
        .context("the GGUF file has no token_embd.weight")?;
    let tied = !content.tensor_infos.contains_key("output.weight");
    let mut config = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": embedding.shape.dims()[0],
        "hidden_size": meta.number("llama.embedding_length")?,
        "intermediate_size": meta.number("llama.feed_forward_length")?,
        "num_hidden_layers": meta.number("llama.block_count")?,
        "num_attention_heads": meta.number("llama.attention.head_count")?,
        "num_key_value_heads": meta.number("llama.attention.head_count_kv")?,
        "max_position_embeddings": meta.number("llama.context_length")?,
        // Through decimal text: 1e-5, not the nearest f32 spelled out as an f64.
        "rms_norm_eps": decimal(meta.float("llama.attention.layer_norm_rms_epsilon")?)?,
        "rope_theta": decimal(meta.float("llama.rope.freq_base").unwrap_or(10_000.0))?,
        "hidden_act": "silu",
        "tie_word_embeddings": tied,
        "bos_token_id": meta.number("tokenizer.ggml.bos_token_id").ok(),
        "eos_token_id": meta.number("tokenizer.ggml.eos_token_id")?,
        "torch_dtype": precision.torch_name(),
    });
    if let Ok(width) = meta.number("llama.attention.key_length") {
        config["head_dim"] = width.into();
    }
    Ok(config)
}

fn decimal(value: f32) -> Result<f64> {
    Ok(value.to_string().parse()?)
}

/// Every tensor's Hugging Face name and GGUF name, in the order a decoder uses them.
fn names(layers: usize) -> Vec<(String, String)> {
    const LAYER: [(&str, &str); 9] = [
        ("input_layernorm", "attn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("post_attention_layernorm", "ffn_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    let pair = |hf: &str, gguf: &str| (format!("{hf}.weight"), format!("{gguf}.weight"));
    let layer = |i| {
        LAYER.map(|(hf, gguf)| {
            pair(
                &format!("model.layers.{i}.{hf}"),
                &format!("blk.{i}.{gguf}"),
            )
        })
    };
    let mut names = vec![pair("model.embed_tokens", "token_embd")];
    names.extend((0..layers).flat_map(layer));
    names.push(pair("model.norm", "output_norm"));
    names.push(pair("lm_head", "output"));
    names
}

/// The names that the file has, with their shapes; a tensor under a name not known here is an error.
fn plan(content: &Content, names: &[(String, String)]) -> Result<Plan> {
    let known = |stored: &String| names.iter().any(|(_, gguf)| gguf == stored);
    if let Some(other) = content.tensor_infos.keys().find(|stored| !known(stored)) {
        bail!("the GGUF file has a tensor {other}, which is not part of a llama decoder");
    }
    let shape = |gguf: &String| Some(content.tensor_infos.get(gguf)?.shape.dims().to_vec());
    let plan: Plan = names
        .iter()
        .filter_map(|(hf, gguf)| Some((hf.clone(), shape(gguf)?)))
        .collect();
    let missing = names
        .iter()
        .find(|(hf, gguf)| hf != "lm_head.weight" && shape(gguf).is_none());
    match missing {
        Some((_, gguf)) => bail!("the GGUF file has no tensor {gguf}"),
        None => Ok(plan),
    }
}

/// Rows of each head from interleaved order (the two of a pair side by side) to half-and-half order (a pair
/// is `head_dim / 2` apart), which is how Hugging Face's rope reads them.
fn rotate_half_rows(weight: &Tensor, heads: usize) -> Result<Tensor> {
    let (rows, columns) = weight.dims2()?;
    if !rows.is_multiple_of(2 * heads) {
        bail!("{rows} rows do not divide into {heads} heads of pairs");
    }
    let pairs = weight.reshape((heads, rows / heads / 2, 2, columns))?;
    Ok(pairs
        .transpose(1, 2)?
        .contiguous()?
        .reshape((rows, columns))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rope_pairs_move_half_a_head_apart() -> Result<()> {
        // Two heads of width 6; a row's value is its number in interleaved order.
        let rows = Tensor::arange(0f32, 12., &Device::Cpu)?.reshape((12, 1))?;
        let got = rotate_half_rows(&rows, 2)?
            .flatten_all()?
            .to_vec1::<f32>()?;
        assert_eq!(got, [0., 2., 4., 1., 3., 5., 6., 8., 10., 7., 9., 11.]);
        Ok(())
    }

    #[test]
    fn names_follow_the_order_of_use() {
        let names = names(11);
        let place = |hf: &str| names.iter().position(|(name, _)| name == hf);
        assert!(
            place("model.layers.2.mlp.down_proj.weight")
                < place("model.layers.10.input_layernorm.weight")
        );
        assert_eq!(names[4].1, "blk.0.attn_v.weight");
    }

    #[test]
    fn decimals_stay_short() -> Result<()> {
        assert_eq!(decimal(1e-5)?, 1e-5);
        Ok(())
    }
}
