//! Writing weights as safetensors of one dtype, a tensor at a time.
//!
//! The header is known before any value is, so values are written as they are made and memory never holds more
//! than one tensor. Tensors lie in the order given, which should be the order of use.

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use candle_core::{DType, Device, Tensor};
use candle_trt::Weights;
use candle_trt::stream::{FileError, TensorInfo, read_regular};

use crate::precision::Precision;
use crate::progress;

/// The file of weights of what is converted.
pub const WEIGHTS: &str = "model.safetensors";

/// The most that is copied of a file beside the weights.
const SMALL: u64 = 256 << 20;

/// What a file will hold: names and shapes, in order.
pub type Plan = Vec<(String, Vec<usize>)>;

/// Bytes of one write. The page cache keeps large writes in large pages, which stream several times
/// as fast as small ones.
const WRITE: usize = 16 << 20;

/// Writes `path` with the planned tensors, asking `make` for each in turn.
pub fn write(
    path: &Path,
    plan: &Plan,
    precision: Precision,
    message: &str,
    mut make: impl FnMut(&str) -> Result<Tensor>,
) -> Result<()> {
    let (header, total) = header(plan, precision)?;
    let bar = progress::bytes(total, message);
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut out = BufWriter::with_capacity(WRITE, file);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for (name, shape) in plan {
        let tensor = make(name)?;
        if tensor.dims() != shape.as_slice() {
            bail!("{name} has shape {:?}, expected {shape:?}", tensor.dims());
        }
        let written = write_values(&mut out, &tensor.to_dtype(precision.dtype())?)?;
        bar.inc(written);
    }
    out.into_inner().map_err(|e| e.into_error())?.sync_all()?;
    bar.finish_and_clear();
    Ok(())
}

/// The JSON header, padded so that values begin on a 64-byte line, and the number of value bytes.
fn header(plan: &Plan, precision: Precision) -> Result<(Vec<u8>, u64)> {
    let mut entries = serde_json::Map::new();
    let mut end = 0u64;
    for (name, shape) in plan {
        let begin = end;
        let elements = shape
            .iter()
            .try_fold(precision.dtype().size_in_bytes(), |n, d| n.checked_mul(*d));
        end +=
            elements.with_context(|| format!("{name}: a shape of {shape:?} is too large"))? as u64;
        let entry = serde_json::json!({
            "dtype": precision.safetensors_name(), "shape": shape, "data_offsets": [begin, end],
        });
        entries.insert(name.clone(), entry);
    }
    let mut header = serde_json::Value::Object(entries).to_string().into_bytes();
    let padded = (8 + header.len()).next_multiple_of(64) - 8;
    header.resize(padded, b' ');
    Ok((header, end))
}

fn write_values(out: &mut impl Write, tensor: &Tensor) -> Result<u64> {
    let tensor = tensor.flatten_all()?;
    match tensor.dtype() {
        DType::BF16 => write_each(out, &tensor.to_vec1::<half::bf16>()?, |v| v.to_le_bytes()),
        DType::F16 => write_each(out, &tensor.to_vec1::<half::f16>()?, |v| v.to_le_bytes()),
        DType::F32 => write_each(out, &tensor.to_vec1::<f32>()?, |v| v.to_le_bytes()),
        other => bail!("weights of dtype {other:?} are not supported"),
    }
}

fn write_each<T: Copy, const N: usize>(
    out: &mut impl Write,
    values: &[T],
    le: fn(T) -> [u8; N],
) -> Result<u64> {
    for value in values {
        out.write_all(&le(*value))?;
    }
    Ok((values.len() * N) as u64)
}

/// Whether every tensor is stored as `precision` already.
pub fn is_all(weights: &Weights, precision: Precision) -> bool {
    weights
        .iter()
        .all(|(_, info)| info.encoding.name() == precision.name())
}

/// Writes a checkpoint again into `into`, with every tensor stored as `precision` and the small files as they are.
pub fn restore(weights: &Weights, folder: &Path, into: &Path, precision: Precision) -> Result<()> {
    let shape = |(_, info): (_, &TensorInfo)| (info.name.clone(), info.shape.clone());
    let plan: Plan = weights.iter().map(shape).collect();
    let message = format!("storing the weights as {}", precision.name());
    write(&into.join(WEIGHTS), &plan, precision, &message, |name| {
        let id = weights.find(name)?;
        let missing = || anyhow!("weight {name} is gone");
        let info = weights.get(id).ok_or_else(missing)?;
        let bytes = weights.bytes(id).ok_or_else(missing)?;
        let stored = info.encoding.name().parse::<DType>()?;
        let tensor = Tensor::from_raw_buffer(bytes, stored, &info.shape, &Device::Cpu)?;
        Ok(tensor)
    })?;
    for name in [super::CONFIG, super::TOKENIZER]
        .into_iter()
        .chain(super::OPTIONAL)
    {
        let file = folder.join(name);
        match read_regular(&file, SMALL) {
            Ok(bytes) => std::fs::write(into.join(name), bytes)
                .with_context(|| format!("cannot copy {name}"))?,
            Err(FileError::Io(e)) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => bail!("cannot read {}: {e}", file.display()),
        }
    }
    Ok(())
}
