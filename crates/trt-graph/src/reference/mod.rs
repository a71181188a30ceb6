//! The living definition of every op: each evaluated slowly and obviously.
//!
//! Elements are held as `f64`, and rounded to the node's dtype after every node, so a graph in
//! bf16 has bf16's error here as it would op by op. Everything else is tested against this
//! module; the constant folder runs it.

mod ops;
mod values;

pub use ops::{binary, compare, hidden, unary};
pub(crate) use values::element;
pub use values::{Array, decode, encode, round};

use crate::Error;
use crate::graph::{Graph, NodeId, Op};
use ops::{attention, cat_at, matmul, padded_at, reduce, rope, softmax};
use trt_kernel::{DType, Env};

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
pub fn evaluate(
    graph: &Graph,
    id: NodeId,
    values: &[Array],
    leaves: &Leaves<'_>,
) -> Result<Array, Error> {
    let node = graph.node(id);
    let shape: Vec<usize> = node.shape.iter().map(|d| d.size(&leaves.env)).collect();
    let input = |i: usize| &values[node.inputs[i].index()];
    let missing = |what: String| Error::Reference(format!("no value for {what}"));
    let given = |a: &Array, what: String| match a.shape == shape {
        true => Ok(a.clone()),
        false => Err(Error::Reference(format!(
            "{what} has shape {:?}, expected {shape:?}",
            a.shape
        ))),
    };
    let mut out = match &node.op {
        Op::Input(i) => given(
            leaves
                .inputs
                .get(*i as usize)
                .ok_or_else(|| missing(format!("input {i}")))?,
            format!("input {i}"),
        )?,
        Op::State(i) => given(
            leaves
                .states
                .get(*i as usize)
                .ok_or_else(|| missing(format!("state {i}")))?,
            format!("state {i}"),
        )?,
        Op::Weight(name) => given(
            &(leaves.weight)(name).ok_or_else(|| missing(format!("weight {name}")))?,
            format!("weight {name}"),
        )?,
        Op::Const(l) => Array::new(shape, decode(&l.bytes, node.dtype))?,
        Op::Float(v) => Array {
            shape,
            data: vec![f64::from(*v)],
        },
        Op::Int(d) => Array {
            shape,
            data: vec![d.eval(&leaves.env) as f64],
        },
        Op::Arange { start, step } => {
            let start = start.eval(&leaves.env);
            Array::from_fn(&shape, |i| (start + *step * i[0] as i64) as f64)
        }
        Op::Causal { offset, window } => {
            let offset = offset.eval(&leaves.env);
            Array::from_fn(&shape, |i| {
                f64::from(u8::from(hidden(i[0], i[1], offset, *window)))
            })
        }
        Op::Unary(u) => Array::from_fn(&shape, |i| unary(*u, input(0).at(i))),
        Op::Binary(b) => Array::from_fn(&shape, |i| {
            binary(*b, input(0).at(i), input(1).at(i), node.dtype)
        }),
        Op::Compare(c) => Array::from_fn(&shape, |i| {
            f64::from(u8::from(compare(*c, input(0).at(i), input(1).at(i))))
        }),
        Op::Where => Array::from_fn(&shape, |i| match input(0).at(i) != 0.0 {
            true => input(1).at(i),
            false => input(2).at(i),
        }),
        // Floats saturate, which rounding does; integers wrap.
        Op::Cast => {
            let x = input(0);
            let float = graph.node(node.inputs[0]).dtype.is_float();
            let wrapped = |v: &f64| match node.dtype {
                DType::U8 if !float => f64::from(*v as i64 as u8),
                DType::U32 if !float => f64::from(*v as i64 as u32),
                _ => *v,
            };
            Array {
                shape,
                data: x.data.iter().map(wrapped).collect(),
            }
        }
        Op::Reduce(r, axis) => reduce(*r, *axis, input(0), &shape),
        Op::Softmax => softmax(input(0)),
        Op::Matmul => matmul(input(0), input(1), &shape),
        Op::IndexSelect => {
            let (table, ids) = (input(0), input(1));
            if let Some(bad) = ids
                .data
                .iter()
                .find(|v| **v < 0.0 || **v >= table.shape[0] as f64)
            {
                return Err(Error::Reference(format!(
                    "id {bad} outside a table of {}",
                    table.shape[0]
                )));
            }
            Array::from_fn(&shape, |i| table.at(&[ids.data[i[0]] as usize, i[1]]))
        }
        Op::Reshape => Array {
            shape,
            data: input(0).data.clone(),
        },
        Op::Permute(perm) => Array::from_fn(&shape, |i| {
            let mut source = vec![0; i.len()];
            perm.iter().zip(i).for_each(|(p, x)| source[*p] = *x);
            input(0).at(&source)
        }),
        Op::Broadcast => Array::from_fn(&shape, |i| {
            let source: Vec<usize> = i
                .iter()
                .zip(&input(0).shape)
                .map(|(x, n)| if *n == 1 { 0 } else { *x })
                .collect();
            input(0).at(&source)
        }),
        Op::Narrow { axis, start } => {
            let start = start.size(&leaves.env);
            Array::from_fn(&shape, |i| {
                let mut source = i.to_vec();
                source[*axis] += start;
                input(0).at(&source)
            })
        }
        Op::Unfold {
            axis,
            step,
            dilation,
        } => Array::from_fn(&shape, |i| {
            let mut source = i.to_vec();
            let within = source.remove(axis + 1);
            source[*axis] = source[*axis] * step + within * dilation;
            input(0).at(&source)
        }),
        Op::Pad(margins) => Array::from_fn(&shape, |i| padded_at(input(0), margins, i)),
        Op::Cat(axis) | Op::Append(axis) => {
            let parts: Vec<&Array> = node.inputs.iter().map(|i| &values[i.index()]).collect();
            Array::from_fn(&shape, |i| cat_at(&parts, *axis, i))
        }
        Op::Rope => rope(input(0), input(1), input(2)),
        Op::Attention(a) => {
            let bias = a.bias.then(|| input(3));
            attention(a, input(0), input(1), input(2), bias, &leaves.env)
        }
    };
    out.data.iter_mut().for_each(|v| *v = round(*v, node.dtype));
    Ok(out)
}

/// The value of a node that depends on no input, weight or state; `None` for any other.
pub fn constant(graph: &Graph, id: NodeId, env: &Env) -> Option<Array> {
    let mut needed = vec![false; id.index() + 1];
    needed[id.index()] = true;
    for i in (0..=id.index()).rev() {
        if needed[i] {
            let node = graph.node(NodeId(i as u32));
            if matches!(node.op, Op::Input(_) | Op::Weight(_) | Op::State(_)) {
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
