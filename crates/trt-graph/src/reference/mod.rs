//! The living definition of every op: each evaluated slowly and obviously.
//!
//! Elements are held as `f64`, and rounded to the node's dtype after every node, so a graph in
//! bf16 has bf16's error here as it would op by op. Everything else is tested against this
//! module; the constant folder runs it.

mod layouts;
mod ops;
mod picks;
mod values;

pub use ops::hidden;
pub(crate) use values::element;
pub use values::{Array, decode, encode, round};

use crate::Error;
use crate::graph::{Graph, NodeId, Op};
use layouts::{cat_at, in_window, padded_at, permuted, repeated, shifted};
use ops::{attention, cast, matmul, reduce, rope, softmax};
use picks::index_select;
use trt_kernel::Env;

/// The values that a graph's leaves take in one call.
pub struct Leaves<'a> {
    /// The runtime integers.
    pub env: Env,
    /// Inputs, in the graph's order.
    pub inputs: &'a [Array],
    /// States before the call, in the graph's order.
    pub states: &'a [Array],
    /// Weights by name.
    pub weight: &'a dyn Fn(&str) -> Option<Array>,
}

/// The outputs of a call, and the states after it.
///
/// # Errors
///
/// What [`evaluate`] returns for the first node that has no value.
pub fn run(graph: &Graph, leaves: &Leaves<'_>) -> Result<(Vec<Array>, Vec<Array>), Error> {
    let mut values: Vec<Array> = Vec::with_capacity(graph.nodes.len());
    for id in graph.ids() {
        let value = evaluate(graph, id, &values, leaves)?;
        values.push(value);
    }
    let get = |id: &NodeId| values[id.index()].clone();
    let states = graph.states.iter().map(|s| get(&s.update)).collect();
    Ok((graph.outputs.iter().map(get).collect(), states))
}

/// One node from the values of its inputs (indexed by node).
///
/// # Errors
///
/// [`Error::Reference`] for a leaf that is not given or has another shape, and for an id outside of a
/// table.
pub fn evaluate(
    graph: &Graph,
    id: NodeId,
    values: &[Array],
    leaves: &Leaves<'_>,
) -> Result<Array, Error> {
    let node = graph.node(id);
    let shape: Vec<usize> = node.shape.iter().map(|d| d.size(&leaves.env)).collect();
    let x = |i: usize| &values[node.inputs[i].index()];
    let flag = |b: bool| f64::from(u8::from(b));
    let mut out = match &node.op {
        Op::Input(_) | Op::State(_) | Op::Weight(..) => leaves.of(&node.op, &shape)?,
        Op::Const(l) => Array::new(shape, decode(&l.bytes, node.dtype))?,
        Op::Float(v) => Array::from_fn(&shape, |_| f64::from(*v)),
        Op::Int(d) => Array::from_fn(&shape, |_| d.eval(&leaves.env) as f64),
        Op::Arange { start, step } => {
            let start = start.eval(&leaves.env);
            Array::from_fn(&shape, |i| (start + *step * i[0] as i64) as f64)
        }
        Op::Causal { offset, window } => {
            let offset = offset.eval(&leaves.env);
            Array::from_fn(&shape, |i| flag(hidden(i[0], i[1], offset, *window)))
        }
        Op::Unary(f) => Array::from_fn(&shape, |i| f.defined(x(0).at(i))),
        Op::Binary(f) => Array::from_fn(&shape, |i| {
            f.defined(x(0).at(i), x(1).at(i), node.dtype.is_float())
        }),
        Op::Compare(f) => Array::from_fn(&shape, |i| flag(f.defined(x(0).at(i), x(1).at(i)))),
        Op::Where => Array::from_fn(&shape, |i| match x(0).at(i) != 0.0 {
            true => x(1).at(i),
            false => x(2).at(i),
        }),
        Op::Cast => cast(x(0), graph.node(node.inputs[0]).dtype, node.dtype),
        Op::Reduce(r, axis) => reduce(*r, *axis, x(0), &shape),
        Op::Softmax => softmax(x(0)),
        Op::Matmul => matmul(x(0), x(1), &shape),
        Op::IndexSelect => index_select(x(0), x(1), &shape)?,
        Op::Gather(axis) => picks::gather(x(0), x(1), *axis)?,
        Op::Within(size) => picks::within(x(0), size.eval(&leaves.env))?,
        Op::Experts => {
            let matrices = node.inputs[2..].iter().map(|i| &values[i.index()]);
            picks::experts(x(0), x(1), &matrices.collect::<Vec<_>>(), &shape)
        }
        Op::ArgSort { asc } => picks::arg_sort(x(0), *asc),
        Op::Reshape => Array {
            data: x(0).data.clone(),
            shape,
        },
        Op::Permute(perm) => Array::from_fn(&shape, |i| x(0).at(&permuted(perm, i))),
        Op::Broadcast => Array::from_fn(&shape, |i| x(0).at(&repeated(&x(0).shape, i))),
        Op::Narrow { axis, start } => {
            let start = start.size(&leaves.env);
            Array::from_fn(&shape, |i| x(0).at(&shifted(i, *axis, start)))
        }
        Op::Unfold {
            axis,
            step,
            dilation,
        } => Array::from_fn(&shape, |i| x(0).at(&in_window(i, *axis, *step, *dilation))),
        Op::Pad(margins) => Array::from_fn(&shape, |i| padded_at(x(0), margins, i)),
        Op::Cat(axis) | Op::Append(axis) => {
            let parts: Vec<&Array> = node.inputs.iter().map(|i| &values[i.index()]).collect();
            Array::from_fn(&shape, |i| cat_at(&parts, *axis, i))
        }
        Op::Rope => rope(x(0), x(1), x(2)),
        Op::Attention(a) => {
            let bias = a.bias.then(|| x(3));
            attention(a, [x(0), x(1), x(2)], bias, &leaves.env)
        }
    };
    out.data.iter_mut().for_each(|v| *v = round(*v, node.dtype));
    Ok(out)
}

impl Leaves<'_> {
    /// What was given for an input, a state or a weight.
    fn of(&self, op: &Op, shape: &[usize]) -> Result<Array, Error> {
        let found = match op {
            Op::Input(i) => self.inputs.get(*i as usize).cloned(),
            Op::State(i) => self.states.get(*i as usize).cloned(),
            Op::Weight(name, _) => (self.weight)(name),
            _ => None,
        };
        let what = match op {
            Op::Input(i) => format!("input {i}"),
            Op::State(i) => format!("state {i}"),
            Op::Weight(name, _) => format!("weight {name}"),
            _ => op.name(),
        };
        let given = found.ok_or_else(|| Error::Reference(format!("no value for {what}")))?;
        match given.shape == shape {
            true => Ok(given),
            false => Err(Error::Reference(format!(
                "{what} has shape {:?}, expected {shape:?}",
                given.shape
            ))),
        }
    }
}

/// The value of a node that depends on no input, weight or state; `None` for any other.
pub fn constant(graph: &Graph, id: NodeId, env: &Env) -> Option<Array> {
    let mut needed = vec![false; id.index() + 1];
    needed[id.index()] = true;
    for i in (0..=id.index()).rev() {
        if needed[i] {
            let node = graph.node(NodeId(i as u32));
            if matches!(node.op, Op::Input(_) | Op::Weight(..) | Op::State(_)) {
                return None;
            }
            node.inputs.iter().for_each(|x| needed[x.index()] = true);
        }
    }
    let leaves = Leaves {
        env: *env,
        inputs: &[],
        states: &[],
        weight: &|_| None,
    };
    let mut values = vec![Array::default(); id.index() + 1];
    for i in (0..=id.index()).filter(|i| needed[*i]) {
        values[i] = evaluate(graph, NodeId(i as u32), &values, &leaves).ok()?;
    }
    values.pop()
}
