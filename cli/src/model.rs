//! A model at a path: its weights, its configuration, and the dtype that it runs in.
//!
//! A path is a folder or a GGUF file. What a folder's own files say counts; where there is none, what the GGUF file says.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::DType;
use candle_trt::models::DecoderConfig;
use candle_trt::stream::read_regular;
use candle_trt::{Weights, device};

/// The largest config.json that is read.
const CONFIG: u64 = 16 << 20;

/// A file that a folder may have beside its weights.
pub fn beside(path: &Path, name: &str) -> Option<PathBuf> {
    let file = path.join(name);
    (path.is_dir() && file.symlink_metadata().is_ok()).then_some(file)
}

/// The text of config.json, or what it would be of a GGUF file.
///
/// # Errors
///
/// If there is neither, or it cannot be read.
pub fn config_json(path: &Path, weights: &Weights) -> Result<String> {
    let nothing = || format!("{} has no config.json", path.display());
    match beside(path, "config.json") {
        Some(file) => {
            let failed = || format!("cannot read {}", file.display());
            let bytes = read_regular(&file, CONFIG).with_context(failed)?;
            String::from_utf8(bytes).with_context(failed)
        }
        None => weights.config_json()?.with_context(nothing),
    }
}

/// The configuration of the model.
///
/// # Errors
///
/// As [`config_json`]; of a model that this program does not know.
pub fn config(path: &Path, weights: &Weights) -> Result<DecoderConfig> {
    match beside(path, "config.json") {
        Some(file) => Ok(DecoderConfig::from_file(file)?),
        None => Ok(DecoderConfig::from_json(&config_json(path, weights)?)?),
    }
}

/// What activations are computed in where most weights are in blocks: f32 on the host, where that is exact and costs
/// nothing beside reading weights; bf16 on a GPU, whose tensor cores take it. Of other weights: their own dtype.
pub fn compute_dtype(weights: &Weights, device: &dyn device::Device) -> Option<DType> {
    let bytes = |blocks: bool| -> usize {
        let of = weights
            .iter()
            .filter(|(_, t)| t.encoding.as_plain().is_none() == blocks);
        of.map(|(_, t)| t.bytes()).sum()
    };
    let gpu = !device.info().name.starts_with("host");
    match (bytes(true) > bytes(false), gpu) {
        (false, _) => None,
        (true, true) => Some(DType::BF16),
        (true, false) => Some(DType::F32),
    }
}

/// The types of the weights with the bytes of each, most first.
pub fn types(weights: &Weights) -> Vec<(&'static str, usize, u64)> {
    let mut found: Vec<(&'static str, usize, u64)> = Vec::new();
    for (_, info) in weights.iter() {
        let (name, bytes) = (info.encoding.name(), info.bytes() as u64);
        match found.iter_mut().find(|(n, ..)| *n == name) {
            Some((_, tensors, sum)) => {
                *tensors += 1;
                *sum += bytes;
            }
            None => found.push((name, 1, bytes)),
        }
    }
    found.sort_by_key(|t| std::cmp::Reverse(t.2));
    found
}
