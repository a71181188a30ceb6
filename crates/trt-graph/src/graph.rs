//! The graph: what a model computes, as plain data.
//!
//! Nodes are kept in topological order: a node's inputs have smaller ids. Shapes are symbolic
//! ([`Dim`]); a freshly traced graph simply has constant ones. The op set is closed and small:
//! candle's richer methods are spelled in these ops when they are traced.

use crate::ints::{Floor, IntVar, Integers};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use trt_kernel::{Binary, Compare, DType, Dim, Encoding, Env, Interval, Reduce, Unary};

/// A node of a [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

impl NodeId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// Constant data: little-endian elements in row-major order; shape and dtype are the node's.
#[derive(Clone, PartialEq, Eq)]
pub struct Literal {
    /// The bytes.
    pub bytes: Arc<[u8]>,
}

/// What a node computes from its inputs.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// An input of the call, by its index in [`Graph::inputs`].
    Input(u32),
    /// A weight, by name, and how its files write it down.
    Weight(Arc<str>, Encoding),
    /// The value of a state before this call, by its index in [`Graph::states`].
    State(u32),
    /// Constant data.
    Const(Literal),
    /// One float, shape `[]`.
    Float(f32),
    /// One integer, shape `[]`; it may depend on the runtime integers.
    Int(Dim),
    /// `start, start + step, …`, shape `[n]`.
    Arange {
        /// First element.
        start: Dim,
        /// Difference of neighbours.
        step: i64,
    },
    /// `[queries, keys]` of u8: 1 where key `j` is hidden from query `i`, that is where
    /// `j > i + offset`, or with a window `w` also where `j <= i + offset - w`.
    Causal {
        /// How far the queries are behind the start of the keys.
        offset: Dim,
        /// Keys a query can see, itself included.
        window: Option<usize>,
    },
    /// A function of each element.
    Unary(Unary),
    /// A function of each pair of elements of two tensors of one shape.
    Binary(Binary),
    /// A comparison of each pair of elements; u8 of 0 or 1.
    Compare(Compare),
    /// `cond != 0 ? a : b`, three tensors of one shape.
    Where,
    /// Conversion to the node's dtype.
    Cast,
    /// A fold along an axis, which keeps size 1.
    Reduce(Reduce, usize),
    /// Softmax along the last axis.
    Softmax,
    /// `[.., m, k] x [.., k, n]` with equal leading axes, or a second operand of rank 2 that
    /// serves all leading axes.
    Matmul,
    /// Rows of the first input (`[entries, cols]`) picked by the ids in the second (`[n]`).
    IndexSelect,
    /// Elements of the first input picked along an axis by the integers in the second: element
    /// `[i.., j, k..]` is `x[i.., ids[i.., j, k..], k..]`. An id outside of the axis is an error of the
    /// call. Along other axes ids may be fewer.
    Gather(usize),
    /// The same integers, each of which is at least 0 and below a size; any other is an error of the
    /// call.
    Within(Dim),
    /// For each row along the last axis the indices of its elements in order, as u32: the smallest
    /// first, or the largest. Equal elements stay in their order, and NaN comes last.
    ArgSort {
        /// Whether the smallest comes first.
        asc: bool,
    },
    /// Each row of the first input (`[m, k]`) times the matrix that is its own: the second input
    /// (`[m]`, an [`Op::Within`]) says which. The matrices follow, each `[n, k]`, or all of them are the
    /// third input, `[experts, n, k]`. The result is `[m, n]`.
    Experts,
    /// The same elements in row-major order under the node's shape.
    Reshape,
    /// Axes reordered: output axis `i` is input axis `perm[i]`.
    Permute(Vec<usize>),
    /// Axes of size 1 repeated to the node's shape (ranks are equal).
    Broadcast,
    /// A range of an axis; its length is the node's shape there.
    Narrow {
        /// The axis.
        axis: usize,
        /// First index.
        start: Dim,
    },
    /// Windows of an axis: it becomes two, where element `[i, j]` is element
    /// `i * step + j * dilation` of the operand. Windows may overlap.
    Unfold {
        /// The axis; its windows are the axis after it.
        axis: usize,
        /// Distance of neighbouring windows.
        step: usize,
        /// Distance of neighbours in a window.
        dilation: usize,
    },
    /// Zeros around and between the elements, a [`Margin`] for each axis.
    Pad(Vec<Margin>),
    /// Tensors joined along an axis.
    Cat(usize),
    /// `cat(state, new)` along an axis, done in place in the state's memory.
    Append(usize),
    /// Rotary embedding of `x [b, h, s, d]` with `cos`, `sin` `[s, d/2]`, halves rotated:
    /// `[x1 cos - x2 sin, x2 cos + x1 sin]`.
    Rope,
    /// Attention: inputs `q [b, h, s, d]`, `k [b, g, t, d]`, `v [b, g, t, e]` and, if `bias`, a
    /// tensor `[b, h, s, t]` that is added to the scores.
    Attention(AttentionOp),
}

impl Op {
    /// Whether it only rearranges elements.
    pub(crate) fn is_view(&self) -> bool {
        matches!(
            self,
            Op::Reshape | Op::Permute(_) | Op::Broadcast | Op::Narrow { .. } | Op::Unfold { .. }
        )
    }

    /// Whether it can be computed element by element inside another kernel.
    pub(crate) fn is_scalar(&self) -> bool {
        matches!(
            self,
            Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Where | Op::Cast | Op::Within(_)
        )
    }

    /// Whether it is computed element by element inside of whatever kernel uses it: a scalar op, or a
    /// pick from what is stored.
    pub(crate) fn is_inlined(&self) -> bool {
        self.is_scalar() || matches!(self, Op::Gather(_))
    }

    /// Whether kernels generate the value from indices alone.
    pub(crate) fn is_generated(&self) -> bool {
        matches!(
            self,
            Op::Float(_) | Op::Int(_) | Op::Arange { .. } | Op::Causal { .. }
        )
    }
}

/// The zeros of an axis in [`Op::Pad`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Margin {
    /// Before the first element.
    pub before: usize,
    /// Between two neighbours.
    pub between: usize,
    /// After the last element.
    pub after: usize,
}

impl Margin {
    /// The size of an axis of `size` elements with its zeros.
    pub fn around(&self, size: &Dim) -> Dim {
        let gaps = &(size - &Dim::from(1)) * &Dim::from(self.between);
        &(size + &gaps) + &Dim::from(self.before + self.after)
    }
}

/// The parameters of [`Op::Attention`]: `softmax(cap(q·k * scale) + bias, hidden keys out) v`.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionOp {
    /// Factor of the dot products.
    pub scale: f32,
    /// Soft cap `c`: scores become `c * tanh(score / c)`.
    pub soft_cap: Option<f32>,
    /// Causal mask as in [`Op::Causal`].
    pub causal: Option<(Dim, Option<usize>)>,
    /// Whether there is a fourth input.
    pub bias: bool,
}

/// One operation with its result's shape and dtype.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What it computes.
    pub op: Op,
    /// Its operands.
    pub inputs: Vec<NodeId>,
    /// The result's shape.
    pub shape: Vec<Dim>,
    /// The result's dtype.
    pub dtype: DType,
}

/// An input of the call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputDecl {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<Dim>,
    /// Its dtype.
    pub dtype: DType,
}

/// A value that one call leaves for the next.
#[derive(Clone, Debug, PartialEq)]
pub struct StateDecl {
    /// Shape before the call.
    pub shape: Vec<Dim>,
    /// Its dtype.
    pub dtype: DType,
    /// The node that holds the value after the call.
    pub update: NodeId,
    /// What a session begins with, repeated over the state's memory; none where nothing is read
    /// before it is written.
    pub initial: Option<Literal>,
    /// Sizes that its memory has at least, for calls of other classes; none are 0.
    pub least: Vec<usize>,
}

/// A model's computation for one class of calls.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Graph {
    /// Nodes in topological order.
    pub nodes: Vec<Node>,
    /// The runtime integers of a call.
    pub ints: Vec<IntVar>,
    /// Those that are computed of them: `Var(ints.len() + i)` is `floors[i]`.
    pub floors: Vec<Floor>,
    /// The inputs of a call.
    pub inputs: Vec<InputDecl>,
    /// What is kept between calls.
    pub states: Vec<StateDecl>,
    /// The results of a call.
    pub outputs: Vec<NodeId>,
    /// `past + seq` never exceeds this, if both are runtime integers.
    pub max_context: Option<i64>,
}

impl Graph {
    /// The node behind an id.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// Ids in topological order.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.nodes.len() as u32).map(NodeId)
    }

    /// Appends a node and returns its id.
    pub fn push(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        NodeId(self.nodes.len() as u32 - 1)
    }

    /// The nodes that must be computed: outputs, then state updates.
    pub fn roots(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.outputs
            .iter()
            .copied()
            .chain(self.states.iter().map(|s| s.update))
    }

    /// For each node, the nodes that use it (roots are not listed), without repeats.
    pub fn users(&self) -> Vec<Vec<NodeId>> {
        let mut users = vec![Vec::new(); self.nodes.len()];
        for id in self.ids() {
            for input in &self.node(id).inputs {
                let list: &mut Vec<NodeId> = &mut users[input.index()];
                if list.last() != Some(&id) {
                    list.push(id);
                }
            }
        }
        users
    }

    pub(crate) fn integers(&self) -> Integers<'_> {
        Integers {
            ints: &self.ints,
            floors: &self.floors,
            max_context: self.max_context,
        }
    }

    /// The ranges of the runtime integers, in order, those included that are computed.
    pub fn ranges(&self) -> Vec<Interval> {
        self.integers().ranges()
    }

    /// The shape of a state's memory: room for what is in it before and after any call.
    pub fn capacity(&self, state: &StateDecl) -> Vec<usize> {
        let size = |d: &Dim| usize::try_from(self.bound(d)).unwrap_or(0);
        let after = self.node(state.update).shape.iter().map(size);
        let least = state.least.iter().copied().chain(std::iter::repeat(0));
        after.zip(least).map(|(a, b)| a.max(b)).collect()
    }

    /// The largest value of a dim in any call.
    pub fn bound(&self, dim: &Dim) -> i64 {
        self.integers().bound(dim)
    }

    /// All runtime integers in a call with these values of its own ones.
    pub fn env(&self, values: &[i64]) -> Env {
        self.integers().env(values)
    }

    /// The runtime integers at the top of their ranges.
    pub fn max_env(&self) -> Env {
        self.env(&self.ints.iter().map(|i| i.range.max).collect::<Vec<_>>())
    }
}

impl Literal {
    /// Wraps bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Literal {
            bytes: bytes.into(),
        }
    }

    /// A short stable name of the content.
    pub fn hash(&self) -> u64 {
        // FNV-1a: stable across runs and platforms, which printed graphs need.
        self.bytes.iter().fold(0xcbf29ce484222325, |h, b| {
            (h ^ u64::from(*b)).wrapping_mul(0x100000001b3)
        })
    }
}

impl fmt::Debug for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Literal({} bytes, {:016x})",
            self.bytes.len(),
            self.hash()
        )
    }
}

impl Serialize for Literal {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.bytes)
    }
}

impl<'de> Deserialize<'de> for Literal {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl serde::de::Visitor<'_> for Bytes {
            type Value = Literal;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Literal, E> {
                let bytes = bytes.into();
                Ok(Literal { bytes })
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}
