//! Tracing small models, and running programs one launch after another on plain memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use trt_graph::candle::{Result, Tensor};
use trt_graph::candle_nn::{RowOrder, Stored, VarBuilder, WeightSource};
use trt_graph::program::{BufferId, BufferKind, Program, Source};
use trt_graph::reference::{Array, decode, encode};
use trt_graph::{Call, Error, Graph, Profile};
use trt_kernel::host::{Span, run_on_slices};
use trt_kernel::{Arg, BlockType, DType, Dim, Encoding, Env};

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

/// How a weight of a program lies in memory.
fn stored(weight: &trt_graph::program::Weight) -> Vec<u8> {
    let elements = weight.shape.iter().product();
    match weight.encoding {
        Encoding::Plain(dtype) => encode(&self::weight(&weight.name).unwrap().data, dtype),
        Encoding::Blocks(block) => blocks(&weight.name, block, elements),
    }
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
    let (inputs, states) = (inputs(graph, env), states(graph, env));
    let leaves = trt_graph::reference::Leaves {
        env: *env,
        inputs: &inputs,
        states: &states,
        weight: &weight,
    };
    trt_graph::reference::run(graph, &leaves).unwrap()
}

/// The memory of a program in one call.
struct Memory<'a> {
    program: &'a Program,
    env: Env,
    buffers: Vec<Vec<u8>>,
    /// Which memory a buffer has: its own, or that of one it may replace.
    home: Vec<usize>,
    weights: Vec<Vec<u8>>,
}

/// The flat place of each element of a tensor that is kept in memory of shape `capacity`.
fn strided(shape: &[usize], capacity: &[usize]) -> Vec<usize> {
    let n: usize = shape.iter().product();
    let at = |mut flat: usize| {
        let (mut place, mut stride) = (0, 1);
        for (size, room) in shape.iter().zip(capacity).rev() {
            place += flat % size * stride;
            flat /= size;
            stride *= room;
        }
        place
    };
    (0..n).map(at).collect()
}

impl<'a> Memory<'a> {
    fn new(program: &'a Program, env: Env, inputs: &[Array], states: &[Array]) -> Self {
        let fill = |b: &trt_graph::program::Buffer| match &b.kind {
            BufferKind::Input(i) => encode(&inputs[*i].data, b.dtype),
            BufferKind::Const(l) => l.bytes.to_vec(),
            BufferKind::State(i) => {
                let capacity = &program.states[*i].capacity;
                let size: usize = capacity.iter().product();
                let mut data = vec![f64::NAN; size];
                for (value, at) in states[*i]
                    .data
                    .iter()
                    .zip(strided(&states[*i].shape, capacity))
                {
                    data[at] = *value;
                }
                encode(&data, b.dtype)
            }
            // All bits set is NaN: what is read before it is written shows.
            BufferKind::Output(_) | BufferKind::Temp => {
                vec![0xff; b.len.size(&env) * b.dtype.size()]
            }
        };
        let buffers: Vec<Vec<u8>> = program.buffers.iter().map(fill).collect();
        for (b, bytes) in program.buffers.iter().zip(&buffers) {
            let fits = bytes.len() <= b.max_len * b.dtype.size();
            assert!(
                fits,
                "{b:?} holds {} bytes, more than its bound",
                bytes.len()
            );
        }
        let weights = program.weights.iter().map(stored).collect();
        Memory {
            program,
            env,
            home: (0..buffers.len()).collect(),
            buffers,
            weights,
        }
    }

    /// Takes every in-place hint that lifetimes allow.
    fn reuse(&mut self) {
        let launches = &self.program.launches;
        let uses = |b: BufferId| {
            let used = move |(_, l): &(usize, &trt_graph::program::Launch)| {
                l.args.contains(&Source::Buffer(b))
            };
            let at: Vec<usize> = launches
                .iter()
                .enumerate()
                .filter(used)
                .map(|(i, _)| i)
                .collect();
            at
        };
        for (i, launch) in launches.iter().enumerate() {
            let mut taken = Vec::new();
            for (written, read) in &launch.in_place {
                let last = uses(*read).last() == Some(&i);
                let first = uses(*written).first() == Some(&i);
                if first && last && !taken.contains(written) && !taken.contains(read) {
                    self.home[written.0 as usize] = self.home[read.0 as usize];
                    taken.extend([*written, *read]);
                }
            }
        }
    }

    fn run(&mut self) {
        for launch in &self.program.launches {
            let written = launch.kernel.written();
            let mut spans = Vec::new();
            for (i, source) in launch.args.iter().enumerate() {
                let bytes = match source {
                    Source::Buffer(b) => &mut self.buffers[self.home[b.0 as usize]],
                    Source::Weight(w) => &mut self.weights[w.0 as usize],
                };
                let write = written.contains(&Arg(i as u16));
                // SAFETY: the vectors outlive the launch and are not resized; it is the only user.
                spans.push(unsafe { Span::from_raw(bytes.as_mut_ptr(), bytes.len(), write) });
            }
            if let Err(e) = run_on_slices(&launch.kernel, &self.env, None, &mut spans) {
                panic!("{e} in {} of\n{}", launch.label, self.program);
            }
        }
    }

    fn read(&self, kind: &BufferKind) -> Vec<f64> {
        let at = self
            .program
            .buffers
            .iter()
            .position(|b| b.kind == *kind)
            .unwrap();
        decode(&self.buffers[self.home[at]], self.program.buffers[at].dtype)
    }
}

/// Runs a program; states come back under the shapes that are given.
pub fn execute(
    program: &Program,
    env: &Env,
    inputs: &[Array],
    states: &[Array],
    after: &[Vec<usize>],
    in_place: bool,
) -> (Vec<Array>, Vec<Array>) {
    let mut memory = Memory::new(program, *env, inputs, states);
    if in_place {
        memory.reuse();
    }
    memory.run();
    let shape = |dims: &[Dim]| dims.iter().map(|d| d.size(env)).collect::<Vec<_>>();
    let outputs = program
        .outputs
        .iter()
        .enumerate()
        .map(|(i, (s, _))| Array::new(shape(s), memory.read(&BufferKind::Output(i))).unwrap());
    let states = after.iter().enumerate().map(|(i, s)| {
        let all = memory.read(&BufferKind::State(i));
        let data = strided(s, &program.states[i].capacity)
            .into_iter()
            .map(|at| all[at])
            .collect();
        Array::new(s.clone(), data).unwrap()
    });
    (outputs.collect(), states.collect())
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

/// Compiles a graph and compares its program with the reference, with and without reuse of memory.
pub fn compare(graph: &Graph, ints: &[i64], tolerance: f64) -> std::result::Result<(), String> {
    let (program, _) = trt_graph::compile(graph.clone()).map_err(|e| e.to_string())?;
    compare_program(graph, &program, ints, tolerance)
}

/// Compares a program with the reference of its graph, with and without reuse of memory.
pub fn compare_program(
    graph: &Graph,
    program: &Program,
    ints: &[i64],
    tolerance: f64,
) -> std::result::Result<(), String> {
    let env = graph.env(ints);
    let (outputs, after) = reference(graph, &env);
    let shapes: Vec<Vec<usize>> = after.iter().map(|a| a.shape.clone()).collect();
    for in_place in [false, true] {
        let (found, kept) = execute(
            program,
            &env,
            &inputs(graph, &env),
            &states(graph, &env),
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
