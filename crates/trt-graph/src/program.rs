//! The compiled form: kernels over buffers and weights, as plain data.
//!
//! A step launches one kernel on arguments that are buffers or weights. Sizes are symbolic; a
//! call fixes the runtime integers. Buffers say what they are for, so that someone who knows
//! memory can place them: this crate does not.

pub(crate) mod check;
mod packed;

pub use packed::{PackedForm, PackedParams};

use crate::graph::{InputDecl, Literal};
use crate::ints::{Floor, IntVar, Integers};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use trt_kernel::{DType, Dim, Encoding, Env, Interval, Kernel, Roles};

/// A buffer of a [`Program`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BufferId(pub u32);

/// A weight of a [`Program`]: a parameter of the model, by its place in [`Program::weights`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ParamId(pub u32);

/// What a buffer holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum BufferKind {
    /// An input of the call, by index.
    Input(usize),
    /// An output of the call, by index.
    Output(usize),
    /// A state, by index; its size is the state's capacity.
    State(usize),
    /// Constant data.
    Const(Literal),
    /// An intermediate result.
    Temp,
}

/// A range of device memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Buffer {
    /// What it holds.
    pub kind: BufferKind,
    /// Element type.
    pub dtype: DType,
    /// Number of elements in a call.
    pub len: Dim,
    /// Number of elements in the largest call.
    pub max_len: usize,
}

/// A weight and how it is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Weight {
    /// Its name in the files.
    pub name: Arc<str>,
    /// How its files write it down.
    pub encoding: Encoding,
    /// Its shape.
    pub shape: Vec<usize>,
    /// What the launches read it as.
    pub roles: Roles,
}

/// An argument of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// A buffer.
    Buffer(BufferId),
    /// A weight.
    Weight(ParamId),
}

/// One launch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// What it computes, from the ops that were fused, e.g. `matmul+silu+mul`.
    pub label: String,
    /// The kernel.
    pub kernel: Kernel,
    /// Its arguments.
    pub args: Vec<Source>,
    /// Pairs (written, read) of buffers where the written one may take the read one's memory.
    pub in_place: Vec<(BufferId, BufferId)>,
}

/// A state: where it lives and how it grows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Shape before a call.
    pub shape: Vec<Dim>,
    /// Shape of its memory.
    pub capacity: Vec<usize>,
    /// Its dtype.
    pub dtype: DType,
    /// What a session begins with, repeated over the memory; none where nothing is read before it
    /// is written.
    pub initial: Option<Literal>,
    /// Whether a call leaves what was in it before, so that a session can go back to an earlier position.
    pub rewinds: bool,
}

/// A model's computation for one class of calls.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
pub struct Program {
    /// The runtime integers of a call.
    pub ints: Vec<IntVar>,
    /// Those that are computed of them: `Var(ints.len() + i)` is `floors[i]`.
    pub floors: Vec<Floor>,
    /// `past + seq` never exceeds this.
    pub max_context: Option<i64>,
    /// The inputs of a call.
    pub inputs: Vec<InputDecl>,
    /// Shape and dtype of the outputs.
    pub outputs: Vec<(Vec<Dim>, DType)>,
    /// The states.
    pub states: Vec<State>,
    /// The buffers.
    pub buffers: Vec<Buffer>,
    /// The weights.
    pub weights: Vec<Weight>,
    /// The launches in order.
    pub launches: Vec<Launch>,
}

impl Program {
    pub(crate) fn integers(&self) -> Integers<'_> {
        Integers {
            ints: &self.ints,
            floors: &self.floors,
            max_context: self.max_context,
        }
    }

    /// All runtime integers in a call with these values of its own ones.
    pub fn env(&self, values: &[i64]) -> Env {
        self.integers().env(values)
    }

    /// The ranges of all runtime integers, in order.
    pub fn ranges(&self) -> Vec<Interval> {
        self.integers().ranges()
    }

    /// What all runtime integers are called in messages: `side`, `floor((side + 1)/2)`.
    pub fn integer_names(&self) -> Vec<String> {
        self.integers().names()
    }

    /// The buffer behind an id.
    pub fn buffer(&self, id: BufferId) -> &Buffer {
        &self.buffers[id.0 as usize]
    }

    /// The weight behind an id.
    pub fn weight(&self, id: ParamId) -> &Weight {
        &self.weights[id.0 as usize]
    }

    /// The weights that are read by ranged products, in launch order, with repeats.
    pub fn ranged_uses(&self) -> impl Iterator<Item = ParamId> + '_ {
        self.launches.iter().flat_map(Launch::ranged_weights)
    }
}

impl Launch {
    /// The weights that this launch may read by row ranges, in the order of
    /// [`Kernel::streamed`].
    pub fn ranged_weights(&self) -> Vec<ParamId> {
        let streamed = self.kernel.streamed();
        let weights = streamed.iter().map(|a| self.args[a.0 as usize]);
        weights
            .filter_map(|source| match source {
                Source::Weight(w) => Some(w),
                Source::Buffer(_) => None,
            })
            .collect()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Buffer(b) => write!(f, "b{}", b.0),
            Source::Weight(w) => write!(f, "w{}", w.0),
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (v, int) in self.ints.iter().enumerate() {
            writeln!(
                f,
                "int v{v} {} {}..={}",
                int.name, int.range.min, int.range.max
            )?;
        }
        for (i, floor) in self.floors.iter().enumerate() {
            writeln!(f, "int v{} {}", self.ints.len() + i, floor.named(&[]))?;
        }
        for (i, b) in self.buffers.iter().enumerate() {
            let kind = match &b.kind {
                BufferKind::Input(i) => format!("input {i}"),
                BufferKind::Output(i) => format!("output {i}"),
                BufferKind::State(i) => format!("state {i}"),
                BufferKind::Const(l) => format!("const @{:016x}", l.hash()),
                BufferKind::Temp => "temp".into(),
            };
            writeln!(
                f,
                "b{i} = {kind} {} x ({}) <= {}",
                b.dtype, b.len, b.max_len
            )?;
        }
        for (i, w) in self.weights.iter().enumerate() {
            writeln!(
                f,
                "w{i} = weight {} {}{:?} {}",
                w.name, w.encoding, w.shape, w.roles
            )?;
        }
        self.launches.iter().try_for_each(|l| l.fmt(f))
    }
}

impl fmt::Display for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let args: Vec<String> = self.args.iter().map(Source::to_string).collect();
        write!(f, "launch {} ({})", self.label, args.join(", "))?;
        for (out, read) in &self.in_place {
            write!(f, " b{} over b{}", out.0, read.0)?;
        }
        write!(f, "\n  {}", self.kernel)
    }
}
