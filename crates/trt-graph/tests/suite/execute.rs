//! Running programs one launch after another on plain memory.

use crate::support::{Made, as_stored};
use trt_graph::program::{BufferId, BufferKind, Program, Source, Weight};
use trt_graph::reference::{Array, decode, encode};
use trt_kernel::host::{Span, run_on_slices};
use trt_kernel::{Arg, Dim, Env};

/// How a weight of a program lies in memory.
fn stored(read: &Weight, made: &Made) -> Vec<u8> {
    if let (Some(array), Some(dtype)) = (made.get(&read.name), read.encoding.as_plain()) {
        assert_eq!(array.shape, read.shape);
        return encode(&array.data, dtype);
    }
    as_stored(&read.name, &read.shape, read.encoding)
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
    fn new(
        program: &'a Program,
        made: &Made,
        env: Env,
        inputs: &[Array],
        states: &[Array],
    ) -> Self {
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
        let weights = program.weights.iter().map(|w| stored(w, made)).collect();
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
    made: &Made,
    env: &Env,
    [inputs, states]: [&[Array]; 2],
    after: &[Vec<usize>],
    in_place: bool,
) -> (Vec<Array>, Vec<Array>) {
    let mut memory = Memory::new(program, made, *env, inputs, states);
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
