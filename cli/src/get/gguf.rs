//! A GGUF file turned into the files a Hugging Face checkpoint has.
//!
//! What the file means is told by those who read it as it is: names, rows and configuration by `Weights`, the tokenizer by
//! `trt_text`. Here blocks become values, and rows and values what Hugging Face's files hold under the name.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Tensor};
use candle_trt::Weights;
use candle_trt::kernel::{BlockType, Encoding};
use candle_trt::stream::{RowOrder, TensorInfo};
use trt_text::{GgufFiles, Tokenizer};

use crate::precision::Precision;

use super::convert::{self, Plan};

/// Divisors of rope's frequencies, which are in the configuration.
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Fills `dir` with `config.json`, `tokenizer.json`, `tokenizer_config.json`, `generation_config.json` and
/// `model.safetensors`.
pub fn convert(path: &Path, dir: &Path, precision: Precision) -> Result<()> {
    let weights = Weights::open(path)?;
    let unusable = || format!("{} cannot be used", path.display());
    let plan = plan(&weights).with_context(unusable)?;
    fs::write(dir.join(super::CONFIG), config(&weights, precision)?)?;
    let text = GgufFiles::read(&weights)?;
    Tokenizer::from_files(&text.files()).with_context(unusable)?;
    fs::write(dir.join(super::TOKENIZER), &text.tokenizer)?;
    fs::write(dir.join("tokenizer_config.json"), &text.tokenizer_config)?;
    fs::write(dir.join("generation_config.json"), &text.generation_config)?;
    let message = format!("dequantising the weights to {}", precision.name());
    let file = dir.join(convert::WEIGHTS);
    convert::write(&file, &plan, precision, &message, |name| {
        weight(&weights, name)
    })
}

/// Everything that converting reads of a GGUF file, without writing any of it.
///
/// # Errors
///
/// What converting would fail with.
pub fn check(path: &Path) -> Result<()> {
    let weights = Weights::open(path)?;
    let plan = plan(&weights)?;
    config(&weights, Precision::F32)?;
    Tokenizer::from_gguf(&weights)?;
    for (name, _) in &plan {
        weight(&weights, name)?;
    }
    Ok(())
}

/// The text of `config.json`.
fn config(weights: &Weights, precision: Precision) -> Result<String> {
    let text = weights.config_json()?;
    let text = text.context("it is no GGUF file")?;
    let mut config: serde_json::Value = serde_json::from_str(&text)?;
    config["torch_dtype"] = precision.torch_name().into();
    Ok(format!("{config:#}\n"))
}

/// The tensors by their Hugging Face names, with their shapes; a tensor that has none is an error.
fn plan(weights: &Weights) -> Result<Plan> {
    let named = weights.hugging_face()?;
    let known: std::collections::HashSet<_> = named.iter().map(|(_, id)| *id).collect();
    let mut others = weights.iter().filter(|(id, _)| !known.contains(id));
    if let Some((_, other)) = others.find(|(_, info)| info.name != ROPE_FACTORS) {
        bail!(
            "it has a tensor {:?}, which is not part of a known decoder",
            other.name
        );
    }
    let shape = |id| weights.get(id).map(|info| info.shape.clone());
    let plan = named.into_iter();
    Ok(plan
        .filter_map(|(name, id)| Some((name, shape(id)?)))
        .collect())
}

/// A tensor's values, as Hugging Face's files hold them under this name.
fn weight(weights: &Weights, name: &str) -> Result<Tensor> {
    let view = weights.view(name)?;
    let missing = || format!("there is no tensor {name}");
    let info = weights.get(view.id).with_context(missing)?;
    let bytes = weights.bytes(view.id).with_context(missing)?;
    let tensor = values(info, bytes).with_context(|| format!("tensor {name}"))?;
    let tensor = match view.rows {
        RowOrder::AsStored => tensor,
        RowOrder::Interleaved { heads } => rows_of_halves(&tensor, heads)?,
    };
    match view.added == 0.0 {
        true => Ok(tensor),
        false => Ok((tensor - f64::from(view.added))?),
    }
}

fn values(info: &TensorInfo, bytes: &[u8]) -> Result<Tensor> {
    let shape = info.shape.as_slice();
    match info.encoding {
        Encoding::Plain(dtype) => {
            let dtype: DType = dtype.name().parse()?;
            Ok(Tensor::from_raw_buffer(bytes, dtype, shape, &Device::Cpu)?)
        }
        Encoding::Blocks(block) => Ok(Tensor::from_vec(
            decoded(block, bytes),
            shape,
            &Device::Cpu,
        )?),
        encoding @ (Encoding::Packed(_) | Encoding::Code) => {
            bail!("tensor '{}' is {encoding}", info.name)
        }
    }
}

fn decoded(block: BlockType, bytes: &[u8]) -> Vec<f32> {
    let blocks = bytes.chunks_exact(block.bytes());
    let mut values = vec![0.0; blocks.len() * block.values()];
    for (bytes, values) in blocks.zip(values.chunks_exact_mut(block.values())) {
        block.decode(bytes, values);
    }
    values
}

/// Rows of each head from pairs (the two of a pair side by side) to halves (a pair is `head_dim / 2` apart), which is how
/// Hugging Face's rope reads them. A bias is rows of one value.
fn rows_of_halves(tensor: &Tensor, heads: usize) -> Result<Tensor> {
    let rows = tensor.dim(0)?;
    if heads == 0 || !rows.is_multiple_of(heads.saturating_mul(2)) {
        bail!("{rows} rows do not divide into {heads} heads of pairs");
    }
    let pairs = tensor.reshape((heads, rows / heads / 2, 2, tensor.elem_count() / rows))?;
    let halves = pairs.transpose(1, 2)?.contiguous()?;
    Ok(halves.reshape(tensor.dims())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rope_pairs_move_half_a_head_apart() -> Result<()> {
        // Two heads of width 6; a row's value is its number in the order of pairs.
        for shape in [vec![12], vec![12, 1]] {
            let rows = Tensor::arange(0f32, 12., &Device::Cpu)?.reshape(shape.as_slice())?;
            let got = rows_of_halves(&rows, 2)?;
            assert_eq!(got.dims(), shape);
            let got = got.flatten_all()?.to_vec1::<f32>()?;
            assert_eq!(got, [0., 2., 4., 1., 3., 5., 6., 8., 10., 7., 9., 11.]);
        }
        Ok(())
    }
}
