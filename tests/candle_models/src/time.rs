//! How long a call of a large model takes at full and at half budget.
//!
//! Weights are random and made where they are timed: candle's model is loaded with tensors of one element each, broadcast,
//! and what it asked for is what the file has.

use crate::hold::{Target, declared, line};
use crate::ours::cases::{Case, Loader, large};
use crate::spec::{Called, Way};
use crate::{Fault, theirs, values};
use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::{Init, VarBuilder, var_builder::SimpleBackend};
use candle_trt::{Call, Compiler, Engine, Percent, Request, Weights, device};
use half::bf16;
use serde_json::{Map, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Calls before those that are counted.
const FIRST: usize = 3;
/// Calls whose median is told.
const COUNTED: usize = 11;
/// Values that are drawn; more are these again.
const DRAWN: usize = 1 << 20;

/// The median of one call at one budget.
#[derive(Clone, Debug)]
pub struct Timed {
    /// A share of the weights.
    pub budget: &'static str,
    /// What the call had of each size that varies.
    pub sizes: Vec<usize>,
    /// Host to host: inputs are copied, and results read.
    pub milliseconds: f64,
    /// Bytes that a call streams.
    pub streamed: u64,
    /// Bytes of all weights.
    pub weights: u64,
    /// Launches of a call where all is resident.
    pub launches: usize,
}

/// Names and shapes of the weights that a model asks for.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<BTreeMap<String, Vec<usize>>>>);

impl SimpleBackend for Asked {
    fn get(
        &self,
        s: Shape,
        name: &str,
        _: Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let mut asked = self.0.lock().unwrap_or_else(|e| e.into_inner());
        asked.insert(name.into(), s.dims().to_vec());
        Tensor::zeros((), dtype, device)?.broadcast_as(s)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        candle_core::bail!("no shape is known of '{name}'")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}

/// The large models whose file a text is part of.
pub fn cases(part: &str) -> Vec<Case> {
    let cases = large::all().into_iter();
    cases.filter(|c| c.file.contains(part)).collect()
}

/// Times all calls of a large model on a target; its weights are written to a folder for that long.
///
/// # Errors
///
/// A [`Fault`] if the model does not compile or run, or its weights cannot be written.
pub fn time(case: &Case, target: Target<'_>, folder: &Path) -> Result<Vec<Timed>, Fault> {
    let failed = |e: &dyn std::fmt::Display| Fault::Compile(line(&e));
    let path = folder.join("weights.safetensors");
    let asked = asked(case.file)?;
    write(&path, &asked, target.dtype).map_err(|e| failed(&e))?;
    let timed = || {
        let mut all = Vec::new();
        for way in &case.spec.ways {
            let engine = engine(case, way, &path, target)?;
            for (budget, part) in [("full", 1_000_000), ("50 %", 500_000)] {
                let request = Request::Percent(Percent::from_millionths(part));
                let applied = engine.set_device_budget(request).map_err(|e| failed(&e))?;
                let calls = calls(case, way, (&engine, target.dtype))?;
                let timed = |(sizes, milliseconds)| Timed {
                    budget,
                    sizes,
                    milliseconds,
                    streamed: applied.streamed,
                    weights: applied.total,
                    launches: launches(&engine),
                };
                all.extend(calls.into_iter().map(timed));
            }
        }
        Ok(all)
    };
    let timed = timed();
    // The next model needs the room; a file that stays is only in the way.
    drop(std::fs::remove_file(&path));
    timed
}

fn asked(file: &str) -> Result<BTreeMap<String, Vec<usize>>, Fault> {
    let asked = Asked::default();
    let theirs = theirs::cases::large::all();
    let Some(theirs::cases::Loader::Plain(load)) =
        theirs.iter().find(|c| c.file == file).map(|c| &c.load)
    else {
        return Err(Fault::Oracle(format!("no large model of {file}")));
    };
    let builder = VarBuilder::from_backend(Box::new(asked.clone()), DType::F32, Device::Cpu);
    drop(load(builder, 0).map_err(|e| Fault::Oracle(line(&e)))?);
    let asked = asked.0.lock().unwrap_or_else(|e| e.into_inner());
    Ok(asked.clone())
}

/// Writes weights such that what passes through them stays about as large as it is.
fn write(path: &Path, weights: &BTreeMap<String, Vec<usize>>, dtype: DType) -> std::io::Result<()> {
    let mut header = Map::new();
    let mut end = 0;
    let name = dtype.as_str().to_uppercase();
    for (weight, shape) in weights {
        let start = end;
        end += shape.iter().product::<usize>() * dtype.size_in_bytes();
        let entry = json!({"dtype": name, "shape": shape, "data_offsets": [start, end]});
        header.insert(weight.clone(), entry);
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(64), b' ');
    let mut out = BufWriter::new(File::create(path)?);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    let drawn = values::noise("large", DRAWN);
    for shape in weights.values() {
        let count: usize = shape.iter().product();
        let across = shape.iter().skip(1).product::<usize>().max(1);
        let (centre, scale) = match shape.len() {
            0 | 1 => (0.5, 0.2),
            _ => (0.0, (3.0 / across as f32).sqrt()),
        };
        let bytes: Vec<u8> = drawn[..count.min(DRAWN)]
            .iter()
            .map(|v| centre + scale * v)
            .flat_map(|v| match dtype {
                DType::BF16 => bf16::from_f32(v).to_le_bytes().to_vec(),
                DType::F16 => half::f16::from_f32(v).to_le_bytes().to_vec(),
                _ => v.to_le_bytes().to_vec(),
            })
            .collect();
        let mut left = count * dtype.size_in_bytes();
        while left > 0 {
            let n = left.min(bytes.len());
            out.write_all(&bytes[..n])?;
            left -= n;
        }
    }
    out.into_inner()
        .map_err(std::io::IntoInnerError::into_error)?
        .sync_all()
}

fn engine(case: &Case, way: &Way, path: &Path, target: Target<'_>) -> Result<Engine, Fault> {
    let failed = |e: &dyn std::fmt::Display| Fault::Compile(line(&e));
    let Loader::Plain(load) = &case.load else {
        return Err(Fault::Compile("large models are not of GGUF files".into()));
    };
    Compiler::new(Weights::open(path).map_err(|e| failed(&e))?)
        .shared_device(device::open(target.device).map_err(|e| failed(&e))?)
        .dtype(target.dtype)
        .profile(way.profile().map_err(|e| failed(&e))?)
        .weight_streaming(true)
        .compile(|vb| {
            let mut model = load(vb, 0)?;
            Ok(move |call: &Call<'_>| model(&declared(case, way, call, target.dtype)?))
        })
        .map_err(|e| failed(&e))
}

fn launches(engine: &Engine) -> usize {
    let classes = &engine.report().classes;
    classes.iter().map(|c| c.launches.len()).max().unwrap_or(0)
}

/// The sizes of each call, and the median of its milliseconds.
fn calls(
    case: &Case,
    way: &Way,
    (engine, dtype): (&Engine, DType),
) -> Result<Vec<(Vec<usize>, f64)>, Fault> {
    let failed = |e: &dyn std::fmt::Display| Fault::Run(line(&e));
    let one = |call: &Called| {
        let inputs = values::inputs(&case.spec.inputs, call, dtype).map_err(|e| failed(&e))?;
        let mut session = engine.session().map_err(|e| failed(&e))?;
        let mut seconds = Vec::with_capacity(COUNTED);
        for i in 0..FIRST + COUNTED {
            let start = Instant::now();
            session.run(&inputs).map_err(|e| failed(&e))?;
            if i >= FIRST {
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
        seconds.sort_by(f64::total_cmp);
        let sizes = call.sizes.iter().map(|(_, n)| *n).collect();
        Ok((sizes, 1e3 * seconds[COUNTED / 2]))
    };
    way.sessions().iter().flatten().map(one).collect()
}
