//! Tracing small models, their weights and calls, and programs held against the reference.

use crate::execute::execute;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use trt_graph::candle::{Result, Tensor};
use trt_graph::candle_nn::{RowOrder, Stored, VarBuilder, WeightSource};
use trt_graph::passes::{self, Derived};
use trt_graph::program::Program;
use trt_graph::reference::{Array, encode};
use trt_graph::{Call, Error, Graph, Profile};
use trt_kernel::{BlockType, DType, Encoding, Env};

/// Where golden files are.
pub fn golden_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Whether golden files are to be written.
pub fn updates_golden() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

/// The runtime integers in the middle of their ranges.
pub fn middle(graph: &Graph) -> Vec<i64> {
    let ranges = graph.ints.iter().map(|i| i.range);
    ranges.map(|r| (r.min + r.max) / 2).collect()
}

/// Weights whose name says their shape: `w5x4` is `[5, 4]` in f32, `h5x4` the same in bf16, `b5x64`
/// is in blocks ([`BlockType::Q8_0`]); `i8x4` and `j8x64` are as `w` and `b`, with rows that lie interleaved in
/// two heads.
struct Named;

fn named(name: &str) -> Option<Stored> {
    let leaf = name.rsplit('.').next()?;
    let encoding = match leaf.get(..1)? {
        "w" | "i" => DType::F32.into(),
        "h" => DType::BF16.into(),
        "b" | "j" => Encoding::Blocks(BlockType::Q8_0),
        _ => return None,
    };
    let shape: std::result::Result<Vec<usize>, _> = leaf[1..].split('x').map(str::parse).collect();
    let rows = match &leaf[..1] {
        "i" | "j" => RowOrder::Interleaved { heads: 2 },
        _ => RowOrder::Same,
    };
    Some(Stored {
        rows,
        ..Stored::new(name, shape.ok()?, encoding)
    })
}

impl WeightSource for Named {
    fn find(&self, name: &str) -> Option<Stored> {
        named(name)
    }
    fn similar(&self, _: &str) -> Vec<String> {
        vec![]
    }
    fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let of = named(name)?;
        Some(as_stored(name, &of.shape, of.encoding))
    }
}

/// How such a weight lies in memory.
pub fn as_stored(name: &str, shape: &[usize], encoding: Encoding) -> Vec<u8> {
    match encoding {
        Encoding::Plain(dtype) => encode(&weight(name).unwrap().data, dtype),
        Encoding::Blocks(block) => blocks(name, block, shape.iter().product()),
        Encoding::Packed(_) | Encoding::Code => unreachable!("no weight is given so"),
    }
}

/// A builder of weights that are named by their shape.
pub fn weights() -> VarBuilder<'static> {
    VarBuilder::new(Arc::new(Named), trt_graph::candle::DType::F32)
}

/// The values of such a weight, as they lie.
pub fn weight(name: &str) -> Option<Array> {
    let Stored {
        shape, encoding, ..
    } = named(name)?;
    let n = shape.iter().product();
    let data = match encoding {
        Encoding::Plain(dtype) => noise(name, n, dtype),
        Encoding::Packed(_) | Encoding::Code => unreachable!("no weight is given so"),
        Encoding::Blocks(block) => {
            let mut values = vec![0.0; n];
            let bytes = blocks(name, block, n);
            let (places, each) = (values.chunks_mut(block.values()), block.bytes());
            bytes
                .chunks(each)
                .zip(places)
                .for_each(|(b, v)| block.decode(b, v));
            values.into_iter().map(f64::from).collect()
        }
    };
    Array::new(shape, data).ok()
}

/// Blocks of [`BlockType::Q8_0`] with scales about 2^-7.
fn blocks(name: &str, block: BlockType, values: usize) -> Vec<u8> {
    let noise = noise(name, values / block.values() * block.bytes(), DType::F32);
    let mut bytes: Vec<u8> = noise.iter().map(|x| (x * 127.0) as i8 as u8).collect();
    for block in bytes.chunks_mut(block.bytes()) {
        block[1] = 0x20;
    }
    bytes
}

/// Derived weights by name.
pub type Made = std::collections::BTreeMap<Arc<str>, Array>;

/// What derived weights are.
pub fn made(derived: &[Derived]) -> Made {
    let leaves = trt_graph::reference::Leaves {
        env: Env::default(),
        inputs: &[],
        states: &[],
        weight: &weight,
    };
    let one = |d: &Derived| {
        let mut result = trt_graph::reference::run(d.graph(), &leaves).unwrap().0;
        (d.name().clone(), result.remove(0))
    };
    derived.iter().map(one).collect()
}

/// Numbers in -1..1 that depend on a name and an index only, exact in a float dtype.
pub fn noise(name: &str, n: usize, dtype: DType) -> Vec<f64> {
    let seed = name
        .bytes()
        .fold(7u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
    let hash = |i: u64| {
        let x = (seed ^ i.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (x ^ (x >> 31)).wrapping_mul(0x94D0_49BB_1331_11EB)
    };
    let value = |i| (hash(i) >> 40) as f64 / (1u64 << 23) as f64 - 1.0;
    (0..n as u64)
        .map(|i| trt_graph::reference::round(value(i), dtype))
        .collect()
}

/// Traces a model made of weights and a step, in the first class of a profile.
pub fn trace_in<S>(
    profile: &Profile,
    mut load: impl FnMut(VarBuilder<'static>) -> Result<S>,
) -> std::result::Result<Graph, Error>
where
    S: FnMut(&Call<'_>) -> Result<Vec<Tensor>>,
{
    trt_graph::trace(&mut load, &weights(), &profile.classes[0])
}

/// Traces one step over runtime integers without a cache.
pub fn trace_step(
    ints: &[(&str, i64, i64)],
    step: impl Fn(&Call<'_>, &VarBuilder) -> Result<Vec<Tensor>>,
) -> std::result::Result<Graph, Error> {
    let step = &step;
    trace_in(&Profile::single(ints)?, |vb| {
        Ok(move |call: &Call<'_>| step(call, &vb))
    })
}

/// Noise for every input of a graph; integer inputs get ids below 4.
pub fn inputs(graph: &Graph, env: &Env) -> Vec<Array> {
    let make = |d: &trt_graph::InputDecl| {
        let shape: Vec<usize> = d.shape.iter().map(|s| s.size(env)).collect();
        let n = shape.iter().product();
        let data = match d.dtype.is_float() {
            true => noise(&d.name, n, d.dtype),
            false => (0..n).map(|i| ((i * 7 + 3) % 4) as f64).collect(),
        };
        Array::new(shape, data).unwrap()
    };
    graph.inputs.iter().map(make).collect()
}

/// Noise for every state of a graph.
pub fn states(graph: &Graph, env: &Env) -> Vec<Array> {
    let make = |(i, s): (usize, &trt_graph::StateDecl)| {
        let shape: Vec<usize> = s.shape.iter().map(|d| d.size(env)).collect();
        let n = shape.iter().product();
        Array::new(shape, noise(&format!("state{i}"), n, s.dtype)).unwrap()
    };
    graph.states.iter().enumerate().map(make).collect()
}

/// The reference's outputs and states.
pub fn reference(graph: &Graph, env: &Env) -> (Vec<Array>, Vec<Array>) {
    reference_made(graph, &Made::new(), env)
}

/// The same of a graph that reads derived weights.
pub fn reference_made(graph: &Graph, made: &Made, env: &Env) -> (Vec<Array>, Vec<Array>) {
    let (inputs, states) = (inputs(graph, env), states(graph, env));
    let weight = |name: &str| made.get(name).cloned().or_else(|| weight(name));
    let leaves = trt_graph::reference::Leaves {
        env: *env,
        inputs: &inputs,
        states: &states,
        weight: &weight,
    };
    trt_graph::reference::run(graph, &leaves).unwrap()
}

/// The first element in which two arrays differ by more than a tolerance relative to 1 or more.
pub fn difference(found: &Array, expected: &Array, tolerance: f64) -> Option<String> {
    if found.shape != expected.shape {
        return Some(format!(
            "shape {:?}, expected {:?}",
            found.shape, expected.shape
        ));
    }
    let far = |(a, b): (&f64, &f64)| {
        let same =
            a == b || (a - b).abs() <= tolerance * b.abs().max(1.0) || (a.is_nan() && b.is_nan());
        !same
    };
    let at = found.data.iter().zip(&expected.data).position(far)?;
    Some(format!(
        "element {at} of {:?} is {}, expected {}",
        found.shape, found.data[at], expected.data[at]
    ))
}

/// Compiles a graph and compares its program with the reference, with and without reuse of memory and with and
/// without derived weights.
pub fn compare(graph: &Graph, ints: &[i64], tolerance: f64) -> std::result::Result<(), String> {
    let (program, _) = trt_graph::compile(graph.clone()).map_err(|e| e.to_string())?;
    compare_program(graph, &program, ints, tolerance)?;
    let (lowered, derived) = derived(graph)?;
    match derived.is_empty() {
        true => Ok(()),
        false => compare_made(graph, (&lowered, &made(&derived)), ints, tolerance),
    }
}

/// A program that reads derived weights, and these.
pub fn derived(graph: &Graph) -> std::result::Result<(Program, Vec<Derived>), String> {
    let (optimised, _) = passes::optimise(graph.clone()).map_err(|e| e.to_string())?;
    let (rest, derived) = passes::derive(optimised).map_err(|e| e.to_string())?;
    let (program, _) = trt_graph::lower(&rest).map_err(|e| e.to_string())?;
    Ok((program, derived))
}

/// Compares a program with the reference of its graph, with and without reuse of memory.
pub fn compare_program(
    graph: &Graph,
    program: &Program,
    ints: &[i64],
    tolerance: f64,
) -> std::result::Result<(), String> {
    compare_made(graph, (program, &Made::new()), ints, tolerance)
}

/// The same of one that reads derived weights.
pub fn compare_made(
    graph: &Graph,
    (program, made): (&Program, &Made),
    ints: &[i64],
    tolerance: f64,
) -> std::result::Result<(), String> {
    let env = graph.env(ints);
    let (outputs, after) = reference(graph, &env);
    let shapes: Vec<Vec<usize>> = after.iter().map(|a| a.shape.clone()).collect();
    for in_place in [false, true] {
        let (found, kept) = execute(
            program,
            made,
            &env,
            [&inputs(graph, &env), &states(graph, &env)],
            &shapes,
            in_place,
        );
        for (what, a, b) in [("output", &found, &outputs), ("state", &kept, &after)] {
            for (i, (x, y)) in a.iter().zip(b).enumerate() {
                if let Some(d) = difference(x, y, tolerance) {
                    return Err(format!(
                        "{what} {i} (in place: {in_place}) at {ints:?}: {d}\n{graph}\n{program}"
                    ));
                }
            }
        }
    }
    Ok(())
}
