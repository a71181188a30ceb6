//! The weights of an ONNX file, as safetensors.
//!
//! What an exporter made of a module keeps the names of its parameters where it left them alone. Norms it took apart: a
//! group norm is an instance norm, a product and a sum with constants that have numbers for names. These get
//! theirs back from the convolution that comes next, which each norm of this UNet has.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use candle_core::{Device, Tensor};
use prost::Message;

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    nodes: Vec<Node>,
    #[prost(message, repeated, tag = "5")]
    weights: Vec<Weight>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, repeated, tag = "1")]
    inputs: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    outputs: Vec<String>,
    #[prost(string, tag = "4")]
    op: String,
}

#[derive(Clone, PartialEq, Message)]
struct Weight {
    #[prost(int64, repeated, tag = "1")]
    shape: Vec<i64>,
    #[prost(int32, tag = "2")]
    dtype: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    bytes: Vec<u8>,
}

/// What ONNX calls f32.
const F32: i32 = 1;

/// Writes the f32 weights that have names, and those of norms under the names that they had.
pub fn to_safetensors(onnx: &Path, out: &Path) -> Result<()> {
    let bytes = std::fs::read(onnx).with_context(|| format!("cannot read {}", onnx.display()))?;
    let model = Model::decode(bytes.as_slice())
        .with_context(|| format!("{} is no ONNX file", onnx.display()))?;
    drop(bytes);
    let graph = model.graph.context("the file has no graph")?;
    let mut names = norms(&graph.nodes);
    let mut tensors = HashMap::new();
    for weight in &graph.weights {
        let name = match names.remove(&weight.name) {
            Some(name) => name,
            None if weight.name.contains('.') => weight.name.clone(),
            None => continue,
        };
        tensors.insert(name, tensor(weight)?);
    }
    if let Some(missing) = names.keys().next() {
        bail!("a norm is by {missing}, which is not among the weights");
    }
    candle_core::safetensors::save(&tensors, out)?;
    Ok(())
}

/// What the two constants of each norm are called in the file, and the names that the module had for them.
fn norms(nodes: &[Node]) -> HashMap<String, String> {
    let mut names = HashMap::new();
    // Constants since the last convolution: a norm's weight and its bias.
    let mut constants: Option<[String; 2]> = None;
    let mut after_norm = 0;
    let mut weight = None;
    for node in nodes {
        match (node.op.as_str(), node.inputs.as_slice()) {
            ("InstanceNormalization", _) => after_norm = 1,
            ("Mul", [_, by]) if after_norm == 1 => (weight, after_norm) = (Some(by.clone()), 2),
            ("Add", [_, by]) if after_norm == 2 => {
                constants = weight.take().map(|w| [w, by.clone()]);
                after_norm = 0;
            }
            ("Conv", [_, conv, ..]) => {
                if let (Some([weight, bias]), Some(norm)) = (constants.take(), norm_before(conv)) {
                    names.insert(weight, format!("{norm}.weight"));
                    names.insert(bias, format!("{norm}.bias"));
                }
            }
            _ => {}
        }
    }
    names
}

/// The norm ahead of a convolution, by the name of that one's weight.
fn norm_before(conv: &str) -> Option<String> {
    let pairs = [
        ("in_layers.2.weight", "in_layers.0"),
        ("out_layers.3.weight", "out_layers.0"),
        ("qkv.weight", "norm"),
        ("out.2.weight", "out.0"),
    ];
    let named = |(end, norm): &(&str, &str)| Some(conv.strip_suffix(end)?.to_string() + norm);
    pairs.iter().find_map(named)
}

fn tensor(weight: &Weight) -> Result<Tensor> {
    let name = &weight.name;
    ensure!(
        weight.dtype == F32,
        "{name} has ONNX type {}, not f32",
        weight.dtype
    );
    let mut shape = Vec::new();
    for size in &weight.shape {
        shape.push(usize::try_from(*size).with_context(|| format!("{name} has a size {size}"))?);
    }
    // A norm's are `[channels, 1, 1]` here.
    if let [channels, 1, 1] = shape[..] {
        shape = vec![channels];
    }
    let count = shape
        .iter()
        .try_fold(4usize, |n, size| n.checked_mul(*size));
    ensure!(
        count == Some(weight.bytes.len()),
        "{name} of shape {shape:?} has {} bytes",
        weight.bytes.len()
    );
    let values = weight
        .bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    Ok(Tensor::from_vec(
        values.collect::<Vec<_>>(),
        shape,
        &Device::Cpu,
    )?)
}
