//! A GGUF file turned into the files a Hugging Face checkpoint has.
//!
//! Only what the default model needs: architecture `llama`, whose q and k rows GGUF stores in the order of
//! interleaved rope. Everything else is refused by name.

mod error;
mod header;
mod input;
mod tokenizer;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, bail};
use candle_core::quantized::ggml_file::qtensor_from_ggml;
use candle_core::{Device, Tensor};
use serde_json::json;

use crate::precision::Precision;

use super::convert::{self, Plan};
use header::Header;

/// Fills `dir` with `config.json`, `tokenizer.json`, `tokenizer_config.json` and `model.safetensors`.
pub fn convert(path: &Path, dir: &Path, precision: Precision) -> Result<()> {
    let opened = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let len = opened.metadata()?.len();
    let mut reader = BufReader::new(opened);
    let unusable = || format!("{} cannot be used", path.display());
    let header = Header::read(&mut reader, len).with_context(unusable)?;
    let (config, names) = model(&header, precision).with_context(unusable)?;
    let plan = plan(&header, &names).with_context(unusable)?;
    let write_json =
        |name: &str, json: serde_json::Value| fs::write(dir.join(name), format!("{json:#}\n"));
    write_json("config.json", config)?;
    write_json("tokenizer_config.json", tokenizer::settings(&header)?)?;
    tokenizer::write(&header, &dir.join("tokenizer.json")).with_context(unusable)?;

    let gguf_names: HashMap<&str, &str> = names
        .iter()
        .map(|(hf, gguf)| (hf.as_str(), gguf.as_str()))
        .collect();
    let message = format!("dequantising the weights to {}", precision.name());
    let file = dir.join(convert::WEIGHTS);
    convert::write(&file, &plan, precision, &message, |name| {
        let stored = gguf_names
            .get(name)
            .context("the plan is made of these names")?;
        weight(&header, &mut reader, stored)
    })
}

/// Everything that converting reads of a GGUF file of these bytes, without writing any of it.
///
/// # Errors
///
/// What converting would fail with.
pub fn check(bytes: &[u8]) -> Result<()> {
    let header = Header::read(bytes, bytes.len() as u64)?;
    let (_, names) = model(&header, Precision::F32)?;
    plan(&header, &names)?;
    tokenizer::settings(&header)?;
    tokenizer::build(&header)?;
    let mut reader = std::io::Cursor::new(bytes);
    for (_, stored) in &names {
        if header.tensors.contains_key(stored) {
            weight(&header, &mut reader, stored)?;
        }
    }
    Ok(())
}

/// The `config.json`, and every tensor's Hugging Face name and GGUF name.
fn model(
    header: &Header,
    precision: Precision,
) -> Result<(serde_json::Value, Vec<(String, String)>)> {
    let architecture = header.text("general.architecture")?;
    if architecture != "llama" {
        bail!("GGUF architecture {architecture:?} is not supported (supported: llama)");
    }
    let layers = header.positive("llama.block_count")?;
    if layers > header.tensors.len() {
        bail!(
            "llama.block_count is {layers}, and the file has {} tensors",
            header.tensors.len()
        );
    }
    Ok((config(header, precision)?, names(layers)))
}

/// A tensor's values, rows of q and k in the order that Hugging Face's rope reads.
fn weight(header: &Header, reader: &mut (impl Read + Seek), stored: &str) -> Result<Tensor> {
    let info = header
        .tensors
        .get(stored)
        .with_context(|| format!("there is no tensor {stored}"))?;
    reader.seek(SeekFrom::Start(info.begin))?;
    // In words, since candle reads blocks where they lie and they must be aligned.
    let len = usize::try_from(info.bytes)?;
    let mut words = vec![0u64; len.div_ceil(8)];
    let bytes = &mut bytemuck::cast_slice_mut(&mut words)[..len];
    reader
        .read_exact(bytes)
        .with_context(|| format!("cannot read tensor {stored}"))?;
    let shape = info.shape.clone();
    let tensor =
        qtensor_from_ggml(info.dtype, bytes, shape, &Device::Cpu)?.dequantize(&Device::Cpu)?;
    let heads = match stored {
        s if s.ends_with("attn_q.weight") => "llama.attention.head_count",
        s if s.ends_with("attn_k.weight") => "llama.attention.head_count_kv",
        _ => return Ok(tensor),
    };
    rotate_half_rows(&tensor, header.positive(heads)?).with_context(|| format!("tensor {stored}"))
}

fn config(header: &Header, precision: Precision) -> Result<serde_json::Value> {
    let embedding = header
        .tensors
        .get("token_embd.weight")
        .context("there is no tensor token_embd.weight")?;
    let vocabulary = embedding
        .shape
        .first()
        .context("token_embd.weight has no rows")?;
    let tied = !header.tensors.contains_key("output.weight");
    let mut config = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": header.positive("llama.embedding_length")?,
        "intermediate_size": header.positive("llama.feed_forward_length")?,
        "num_hidden_layers": header.positive("llama.block_count")?,
        "num_attention_heads": header.positive("llama.attention.head_count")?,
        "num_key_value_heads": header.positive("llama.attention.head_count_kv")?,
        "max_position_embeddings": header.positive("llama.context_length")?,
        // Through decimal text: 1e-5, not the nearest f32 spelled out as an f64.
        "rms_norm_eps": decimal(header.float("llama.attention.layer_norm_rms_epsilon")?)?,
        "rope_theta": decimal(header.float("llama.rope.freq_base").unwrap_or(10_000.0))?,
        "hidden_act": "silu",
        "tie_word_embeddings": tied,
        "bos_token_id": header.number("tokenizer.ggml.bos_token_id").ok(),
        "eos_token_id": header.number("tokenizer.ggml.eos_token_id")?,
        "torch_dtype": precision.torch_name(),
    });
    if let Ok(width) = header.number("llama.attention.key_length") {
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
fn plan(header: &Header, names: &[(String, String)]) -> Result<Plan> {
    let known: HashSet<&str> = names.iter().map(|(_, gguf)| gguf.as_str()).collect();
    if let Some(other) = header
        .tensors
        .keys()
        .find(|stored| !known.contains(stored.as_str()))
    {
        bail!("it has a tensor {other:?}, which is not part of a llama decoder");
    }
    let mut plan = Plan::new();
    for (hf, gguf) in names {
        match header.tensors.get(gguf) {
            Some(info) => plan.push((hf.clone(), info.shape.clone())),
            None if hf == "lm_head.weight" => {}
            None => bail!("it has no tensor {gguf}"),
        }
    }
    Ok(plan)
}

/// Rows of each head from interleaved order (the two of a pair side by side) to half-and-half order (a pair
/// is `head_dim / 2` apart), which is how Hugging Face's rope reads them.
fn rotate_half_rows(weight: &Tensor, heads: usize) -> Result<Tensor> {
    let (rows, columns) = weight.dims2()?;
    if rows == 0 || heads == 0 || !rows.is_multiple_of(heads.saturating_mul(2)) {
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
